"""Starts the page: Streamlit in this process, on one port, without telemetry."""

import sys
import warnings
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from starlette.middleware import Middleware
from streamlit.starlette import App

from mammolens.app.admission import Admission, Password, ProxyHeader, Rule
from mammolens.app.capacity import UploadLimit
from mammolens.files import sweep_scratch
from mammolens.hosting import MAX_FILE, ThisMachine, check_free, url_at

PAGE = Path(__file__).with_name("page.py")

_OPTIONS = {
    "server.headless": True,
    "server.maxUploadSize": MAX_FILE // 2**20,
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": False,
    "server.enableCORS": True,  # whatever the user's own settings say
    "server.enableXsrfProtection": True,
    "server.enableAgentApi": False,
    "server.enableStaticServing": False,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "type",
    "logger.hideWelcomeMessage": True,  # it would ask the internet for this machine's address
    "runner.magicEnabled": False,
    "theme.light.primaryColor": "#256a8f",
    "theme.dark.primaryColor": "#5fb0d6",
}


def serve(model: str | None, port: int, address: str, rule: Rule = None) -> int:
    """Serve the page until Ctrl-C and return the exit code.

    Args:
        model: as `Predictor.load` takes it.
        port: of the page.
        address: where it listens; ``0.0.0.0`` is all addresses of this machine.
        rule: who is let in.

    Raises:
        MammolensError: the port is taken, or the address is not one of this machine.
    """
    check_free(port, address, "the page")
    sweep_scratch()
    # A library's remark on a file may quote what is in it, and the screen is a log.
    warnings.simplefilter("ignore")
    options = _OPTIONS | {"server.port": port, "server.address": address}
    screen = Console(soft_wrap=True)
    for line in (f"mammolens is at {url_at(address, port)}", *_said_of(rule)):
        screen.print(line, highlight=False, markup=False)
    screen.print("Nothing that is dropped there is stored. End with Ctrl-C.", highlight=False)
    sys.argv = [str(PAGE), *([] if model is None else [model])]
    with suppress(KeyboardInterrupt):
        App(PAGE, middleware=[Middleware(Admission, rule=rule), Middleware(UploadLimit)]).run(config=options)
    return 0


def _said_of(rule: Rule) -> list[str]:
    """Return what to know of who is let in."""
    if isinstance(rule, Password):
        return [
            "It asks for the password. Without HTTPS before it, password and pictures cross the network unencrypted."
        ]
    if isinstance(rule, ProxyHeader):
        return [
            f"Requests without the header {rule.name} are turned away.",
            "The proxy must take it out of what comes from outside; whoever else reaches this port can set it.",
        ]
    if isinstance(rule, ThisMachine):
        return []
    return [
        "There is no login: whoever reaches this address can use the page, and pictures cross the network unencrypted."
    ]
