"""The service in this process, asked as ASGI, or in one of its own: what its tests share."""

import asyncio
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("fastapi", reason="pip install 'mammolens[serve]'")
pytest.importorskip("httpx", reason="pip install 'mammolens[dev]'")

import httpx
from fastapi import FastAPI

from mammolens.hosting import ThisMachine
from mammolens.serve.admission import Rule
from mammolens.serve.line import Line
from mammolens.serve.service import service
from mammolens.serving.predictor import Predictor

SLOW = 120  # seconds that anything may take on a busy machine

Sent = list[tuple[str, tuple[str, bytes]]]


class Service:
    """A service in this process.

    Attributes:
        line: of its requests.
        app: it, as ASGI.
        bundle: whose model answers.
    """

    def __init__(
        self, model: str | Path, rule: Rule | None = None, *, dicomweb: Sequence[str] = (), **line: Any
    ) -> None:
        predictor = Predictor.load(model)
        self.bundle = predictor.bundle.folder
        self.line = Line(**({"places": 2, "most": 4, "seconds": SLOW} | line))
        self.app: FastAPI = service(predictor, self.line, rule or ThisMachine("localhost"), dicomweb)

    @contextmanager
    def open(self) -> Iterator["Service"]:
        try:
            yield self
        finally:
            self.line.end()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost", timeout=SLOW)

    def ask(self, path: str, files: Sent | None = None, method: str = "POST", **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, files=files, **options)

        return asyncio.run(asked())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask(path, method="GET", headers=headers)


def files(*paths: Path, below: Path | None = None) -> Sent:
    """What a client sends of files, by their names, or by their paths below a folder."""
    named = [(path.name if below is None else path.relative_to(below).as_posix(), path) for path in paths]
    return [("files", (name, path.read_bytes())) for name, path in named]


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


@contextmanager
def served(
    log: Path, *options: str | Path, start: tuple[str, ...] = ("-m", "mammolens")
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Serve in a process of its own, as a user does; all that it prints goes to `log`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    with log.open("wb") as stream:
        command = [sys.executable, *start, "serve", "--port", str(port), *options]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        _wait_for(url, process)
        yield url, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=SLOW)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SLOW
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/health")
        except httpx.ConnectError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the service did not start (exit code {process.poll()})")
