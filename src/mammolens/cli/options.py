"""What the verbs share: options that mean the same everywhere, and how they speak."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from mammolens.errors import MammolensError, RunError, on_one_line, visible
from mammolens.files import system_reason
from mammolens.locks import folder_held_alone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.segment import Segment

    from mammolens.cluster.connection import Cluster
    from mammolens.data.manifest import Manifest

Data = Annotated[str, typer.Argument(help="Folder of class folders, CSV, or phantom:PATIENTS.", metavar="DATA")]
Positive = Annotated[str | None, typer.Option(help="Class that means tumor, if classes are not 0 and 1.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe field: key=value. Repeat for more.")]
RecipeName = Annotated[str, typer.Option(help="Recipe that ships, or a TOML file.")]
MODELS = "Run, bundle, or a model that ships."
Model = Annotated[str | None, typer.Option(help=f"{MODELS}  [default: accurate]")]
Point = Annotated[
    str | None, typer.Option(help="Operating point (threshold): balanced, sensitivity-90 or specificity-90.")
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Spread the work over a Ray cluster: HOST:PORT of its head, or local for this machine's cores alone.",
        metavar="ADDRESS",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]


def place(text: str) -> Path:
    """Return where something is to be written; an empty name would be the current folder.

    Raises:
        BadParameter: the name is empty.
    """
    if not text:
        raise typer.BadParameter("'' is no name of a file or folder.")
    return Path(text)


def folder_option(told: str) -> Any:  # noqa: ANN401 - Typer's own
    """Return an option that names a folder to write."""
    return typer.Option(parser=place, metavar="FOLDER", help=told)


@contextmanager
def joined(address: str | None) -> Iterator["Cluster | None"]:
    """Yield the cluster that an option names; None where it names none.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterError: no cluster answers there.
    """
    if address is None:
        yield None
        return
    from mammolens.cluster.connection import connect

    with connect(address) as cluster:
        yield cluster


MOST_LEFT_OUT = 20
"""Files left out that are named on the screen; the others are counted."""


class Plain(Console):
    """A console that no text can steer."""

    def render(self, renderable: Any, options: Any = None) -> Iterator["Segment"]:  # noqa: ANN401 - Rich's own
        """Render as Rich does."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


class Screen(Plain):
    """Standard output: results."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - Rich's own
        """Print as Rich does.

        Raises:
            MammolensError: standard output does not take it.
        """
        try:
            super().print(*objects, **options)
        except OSError as error:
            self._buffer.clear()  # which would come out with what is printed next
            raise MammolensError(f"standard output: cannot be written ({system_reason(error)}).") from error


screen = Screen(soft_wrap=True)


def command_line() -> str:
    """Return what was typed."""
    return typed(*sys.argv[1:])


def typed(*words: object) -> str:
    """Return a command as one would type it, whatever names hold."""
    return shlex.join(["mammolens", *map(str, words)])


def tell(text: str) -> None:
    """Print on standard error what is not a result."""
    Plain(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)


def say(*words: object) -> None:
    """Print a command as it would be typed."""
    screen.print(f"\n[bold]$ {escape(typed(*words))}[/]", highlight=False)


def warn(text: str, kind: str = "warning") -> None:
    """Print a warning or error on standard error."""
    console = Plain(stderr=True, soft_wrap=True)
    console.print(f"[bold red]{kind}:[/]", escape(text), highlight=False)


def tell_left_out(listed: "Manifest") -> int:
    """Name on standard error what a data set was found with and does not hold; return how many."""
    return _name_some("left out", listed.left_out)


def listed_from(*data: str) -> "tuple[list[Manifest], int]":
    """Return the data sets that are named, and how many files were left out of them."""
    from mammolens.data.sources import read_source

    listed = [read_source(one) for one in data]
    return listed, sum(map(tell_left_out, listed))


@contextmanager
def to_be_continued(verb: str, folder: Path) -> Iterator[None]:
    """Have no other process train into a folder meanwhile, and Ctrl-C say how it goes on.

    Raises:
        RunError: another one does.
    """
    busy = f"{folder}: another process writes here. Wait until it has ended, or choose another --out."
    try:
        with folder_held_alone(folder, RunError(busy)):
            yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"The same mammolens {verb}, with --out {shlex.quote(str(folder))}, goes on.")
        raise


def tell_missing(listed: "Manifest") -> int:
    """Name on standard error the files of a table that are not there; return how many."""
    missing = [path for path in listed.paths if not os.path.isfile(path)]  # noqa: PTH113 - no error
    return _name_some("missing", [f"{path}: no such file; its row stays." for path in missing])


def _name_some(kind: str, files: "Sequence[object]") -> int:
    for file in files[:MOST_LEFT_OUT]:
        warn(on_one_line(str(file)), kind)
    if len(files) > MOST_LEFT_OUT:
        warn(f"{len(files) - MOST_LEFT_OUT} more files, {len(files)} in all", kind)
    return len(files)


def fail_if(left_out: int) -> None:
    """End with exit code 1 where images were left out, though all else was done."""
    if left_out:
        warn(f"{left_out} images or files that may hold some were left out or are missing; all else was done")
        raise typer.Exit(1)


def print_splits(listed: "Manifest", origin: str) -> None:
    """Print what each split holds, and warn where patients cross."""
    from mammolens.reports.terminal import leakage_warnings, splits_table

    screen.print(splits_table(listed, origin))
    for warning in leakage_warnings(listed):
        warn(warning)
