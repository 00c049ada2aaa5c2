"""Starts the service: uvicorn in this process, on one port; ends it with requests answered or refused."""

import asyncio
import logging
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import uvicorn
from rich.console import Console

from mammolens.files import sweep_scratch
from mammolens.hosting import url_at
from mammolens.parallel import cores
from mammolens.serve.admission import Rule, Tokens
from mammolens.serve.line import GRACE, Line
from mammolens.serve.service import service
from mammolens.serve.watch import log
from mammolens.serving.predictor import Predictor


class _Server(uvicorn.Server):
    """Lets nobody in any more as soon as it is asked to end."""

    def __init__(self, config: uvicorn.Config, line: Line) -> None:
        super().__init__(config)
        self._line = line

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; see `uvicorn.Server`."""
        with suppress(RuntimeError):  # before it has begun, or after its end
            asyncio.get_running_loop().call_soon_threadsafe(self._line.close)
        super().handle_exit(sig, frame)


def serve(
    predictor: Predictor, port: int, address: str, rule: Rule, dicomweb: Sequence[str], *, most: int, seconds: float
) -> None:
    """Serve answers until Ctrl-C or SIGTERM.

    Args:
        predictor: that answers.
        port: of the service.
        address: where it listens; ``0.0.0.0`` is all addresses of this machine.
        rule: who may ask.
        dicomweb: servers from which it may be told to fetch.
        most: requests that are answered or wait; others are told to come back.
        seconds: that a request may take, its upload and its waiting included.
    """
    sweep_scratch()
    # A library's remark on a file may quote what is in it, and the screen is a log.
    warnings.simplefilter("ignore")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    line = Line(cores(), most, seconds)
    config = uvicorn.Config(
        service(predictor, line, rule, dicomweb),
        host=address,
        port=port,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(GRACE) + 10,
    )
    screen = Console(soft_wrap=True)
    screen.print(f"mammolens answers at {url_at(address, port)}/v1/predict", highlight=False, markup=False)
    if isinstance(rule, Tokens):
        screen.print("Without HTTPS before it, tokens and pictures cross the network unencrypted.", highlight=False)
    screen.print("Nothing that is sent there is kept. End with Ctrl-C.", highlight=False)
    try:
        with suppress(KeyboardInterrupt):
            _Server(config, line).run()
    finally:
        line.end()
