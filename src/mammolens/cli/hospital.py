"""Verbs beside a PACS: listen."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from mammolens.cli.options import screen, tell
from mammolens.cli.serving import introduce
from mammolens.errors import DataError, require
from mammolens.files import check_writable


def listen(
    settings: Annotated[Path, typer.Argument(help="TOML: see docs/hospital.md.", metavar="SETTINGS")],
    check: Annotated[
        bool, typer.Option("--check", help="Look at settings and model, ask the peer whether it is there, and end.")
    ] = False,
) -> None:
    """Take mammograms from a PACS, answer for each study that has settled, and send results as DICOM. Ends with Ctrl-C.

    Each study once, through restarts, and nothing is lost while the PACS is down. What happens goes to standard error;
    studies have numbers there, and nobody is named.
    """
    require("highdicom", "pynetdicom", "dicomweb_client", extra="pacs")
    from threading import Event

    from mammolens.pacs.listening import listen as run
    from mammolens.pacs.sender import peer_of
    from mammolens.pacs.settings import read_settings
    from mammolens.serving.predictor import Predictor

    chosen = read_settings(settings)
    predictor = Predictor.load(chosen.model, chosen.point)
    introduce(predictor)
    if check:
        check_writable(chosen.folder)
        if chosen.receive.tls is not None:
            chosen.receive.tls.context(server=True)
        try:
            peer_of(chosen).echo()
        except ConnectionError as error:
            raise DataError(f"{settings}: the peer {error}.") from error
        screen.print("The settings will do, and the peer answers.")
        return
    end = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    run(chosen, predictor, end, tell)
