"""What is counted of requests (Prometheus), what is logged of them, and what becomes of errors that nobody foresaw.

Neither counts nor log name a file, a header, an address or what was asked for.
"""

import logging
import time
import traceback
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from mammolens.records import Prediction
from mammolens.serve.admission import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mammolens.serve.line import Line

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double what is told

log = logging.getLogger("mammolens.serve")

PREDICT, DICOM = "/v1/predict", "/v1/dicom"

ANSWERING = (PREDICT, DICOM)
"""Paths that answer for pictures."""

_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)


class Counts:
    """Counts of one service, in a registry of its own."""

    def __init__(self, line: "Line") -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "mammolens_requests", "Requests, by path and status.", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "mammolens_request_seconds",
            "Seconds from a request for an answer to its end.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._pictures = Counter(
            "mammolens_pictures", "Pictures, by what became of them.", ["outcome"], registry=self._registry
        )
        waiting = Gauge("mammolens_requests_under_way", "Requests answered or waiting.", registry=self._registry)
        waiting.set_function(lambda: line.under_way)
        ProcessCollector(registry=self._registry)

    def count(self, answer: Prediction) -> None:
        """Count the answer for a picture."""
        outcome = "failed" if answer.error is not None else "answered" if answer.admitted else "not admitted"
        self._pictures.labels(outcome).inc()

    def text(self) -> bytes:
        """Return all counts in the text format of Prometheus."""
        return generate_latest(self._registry)


class Watch:
    """Counts and logs each request, and answers those whose answer failed. Plain ASGI, around everything."""

    def __init__(self, app: "ASGIApp", counts: Counts, paths: frozenset[str]) -> None:
        self._app = app
        self._counts = counts
        self._paths = paths

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request as ASGI does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noted(message: "Message") -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # noqa: BLE001 - what it says may quote a file; where it was does not
            log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))  # noqa: TRY400
            if not status:
                await problem("something went wrong in the service: its log says where", 500)(scope, receive, noted)
        finally:
            seconds = time.monotonic() - began
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._counts.requests.labels(path, status).inc()
            if path in ANSWERING:
                self._counts.seconds.observe(seconds)
            log.info("%s %s %s in %.2f s", scope["method"] if path != "other" else "-", path, status, seconds)
