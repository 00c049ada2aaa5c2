"""Starts the page: Streamlit in this process, on one port, without telemetry."""

import logging
import socket
import warnings
from pathlib import Path

from rich.console import Console
from streamlit.web import bootstrap

from mammolens.app.uploads import MAX_FILE
from mammolens.errors import MammolensError

PAGE = Path(__file__).with_name("page.py")

_OPTIONS = {
    "server.headless": True,
    "server.maxUploadSize": MAX_FILE // 2**20,
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": False,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "type",
    "logger.hideWelcomeMessage": True,  # it would ask the internet for this machine's address
    "runner.magicEnabled": False,
    "theme.light.primaryColor": "#256a8f",
    "theme.dark.primaryColor": "#5fb0d6",
}


def serve(model: str | None, port: int, address: str) -> int:
    """Serve the page until Ctrl-C and return the exit code.

    Args:
        model: as `Predictor.load` takes it.
        port: of the page.
        address: who may connect; ``0.0.0.0`` lets other machines in.

    Raises:
        MammolensError: the port is taken, or the address is not one of this machine.
    """
    _check_free(port, address)
    # A library's remark on a file may quote what is in it, and the screen is a log.
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    options = _OPTIONS | {"server.port": port, "server.address": address}
    shown = "localhost" if address in {"0.0.0.0", "::"} else address  # noqa: S104 - no binding
    screen = Console(soft_wrap=True)
    screen.print(f"mammolens is at http://{shown}:{port}", highlight=False)
    screen.print("Nothing that is dropped there is stored. End with Ctrl-C.", highlight=False)
    bootstrap.load_config_options(options)
    bootstrap.run(str(PAGE), False, [] if model is None else [model], options)
    return 0


def _check_free(port: int, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise MammolensError(
                f"{address}:{port}: the page cannot be served here ({error.strerror}). "
                "Choose another --port, or end the program that has it."
            ) from error
