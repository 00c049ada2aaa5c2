"""The command line: one function a verb. Each parses, makes one library call and prints.

Heavy libraries are imported by the verb that needs them, so that `--help` answers at once.
"""

import io
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from mammolens import __version__
from mammolens.cli import data, learning, serving
from mammolens.cli.options import screen, warn
from mammolens.errors import MammolensError

app = typer.Typer(
    help="Detect breast tumors in mammograms, and say honestly how well. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

VERBS: dict[str, Callable[..., None]] = {
    "phantom": data.phantom,
    "download": data.download,
    "manifest": data.manifest,
    "doctor": data.doctor,
    "preview": data.preview,
    "train": learning.train,
    "crossvalidate": learning.crossvalidate,
    "evaluate": learning.evaluate,
    "compare": learning.compare,
    "export": learning.export,
    "predict": serving.predict,
    "show": serving.show,
    "app": serving.page,
    "demo": learning.demo,
}
for _name, _verb in VERBS.items():  # the order in which --help lists them
    app.command(_name)(_verb)


def main() -> NoReturn:
    """Run the command line: a `MammolensError` becomes one line and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no valid UTF-8
    try:
        app()
    except MammolensError as error:
        warn(str(error), "error")
    sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        screen.print(__version__)
        raise typer.Exit
