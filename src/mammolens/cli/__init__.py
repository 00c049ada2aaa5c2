"""The command line: one function a verb. Each parses, makes one library call and prints.

Heavy libraries are imported by the verb that needs them, so that `--help` answers at once.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from mammolens import __version__
from mammolens.cli import data, hospital, learning, serving, tuning
from mammolens.cli.options import screen, tell, warn
from mammolens.errors import MammolensError, reason
from mammolens.files import system_reason
from mammolens.privacy import write_no_core

app = typer.Typer(
    help="Detect breast tumors in mammograms, and say honestly how well. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

VERBS: tuple[Callable[..., None], ...] = (
    *(data.phantom, data.download, data.manifest, data.doctor, data.preview, data.deidentify),
    *(learning.train, learning.reproduce, learning.crossvalidate, tuning.tune),
    *(learning.evaluate, learning.compare, learning.export),
    *(serving.predict, serving.show, serving.app, serving.serve, hospital.listen, learning.demo),
)
"""In the order in which --help lists them, each by its name."""


def interruptible(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb that Ctrl-C ends with one line, which says what was not written, and code 130.

    130 is what shells say of a program that SIGINT (2) ended: 128 and the signal's number. Another
    signal's number comes with the interrupt.
    """

    @wraps(verb)
    def run(*arguments: object, **options: object) -> None:
        said: list[str] = []
        try:
            return verb(*arguments, **options)
        except BaseException as error:
            interrupt = interrupt_behind(error)
            if interrupt is None:
                raise
            said += getattr(interrupt, "__notes__", [])
        Console(stderr=True).show_cursor()  # a progress bar may have hidden it
        tell(" ".join(["Interrupted.", *said]))
        raise typer.Exit(128 + (interrupt.args or (signal.SIGINT,))[0])

    return run


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that led to an error: libraries that are loading make others of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


for _verb in VERBS:
    app.command(_verb.__name__)(interruptible(_verb))


def main() -> NoReturn:
    """Run the command line: what a user can mend becomes one line and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no valid UTF-8
    write_no_core()
    code: int | str | None = 1
    complaint = ""
    try:
        app()
    except SystemExit as end:
        if (interrupt := interrupt_behind(end)) is not None:  # while options were read: Typer says nothing of it
            raise interrupt from None
        code = end.code
    except MammolensError as error:
        complaint = reason(error)
    except OSError as error:
        complaint = system_complaint(error)
    if lost := lost_output():
        code, complaint = code or 1, complaint or lost
    if complaint:
        with suppress(OSError):  # where standard error is full as well, the exit code says it
            warn(complaint, "error")
    sys.exit(code)


def system_complaint(error: OSError) -> str:
    """Return what the system refused (a full disk, a locked folder) as one line.

    Raises:
        OSError: `error`, where no system gave it: that is a bug, and shows itself.
    """
    if error.errno is None:
        raise error
    if error.errno == errno.ENOENT and not error.filename:  # nothing else has no name
        return "the folder that you are in is not there any more. Change to another."
    return f"{error.filename or 'a file or stream'}: {system_reason(error)}."


def lost_output() -> str:
    """Say that standard output did not take all results; nothing where it did."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Python would try once more when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # `| head` has read enough: nothing is lost
            return f"standard output: cannot be written ({system_reason(error)})."
    return ""


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        screen.print(__version__)
        raise typer.Exit
