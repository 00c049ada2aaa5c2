"""Folders and archives of mammograms → a folder of copies that name nobody, under new names."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mammolens.data.csv_table import write_row
from mammolens.data.identity import rest_of, side_and_view
from mammolens.data.meanings import label_named, split_named
from mammolens.deidentification.pictures import Copied, copy_bare
from mammolens.deidentification.pseudonyms import Pseudonyms
from mammolens.errors import DataError, ImageError, reason
from mammolens.files import check_new_folder, written_whole
from mammolens.images.archives import Input, find_inputs, on_disk
from mammolens.parallel import map_in_order

_COLUMNS = ("file", "copy", "patient_id", "pseudonym")


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        name: what it was called.
        copied: its copy, or why there is none, as a sentence that names it.
    """

    name: Path
    copied: Copied | str


@dataclass(frozen=True)
class _Task:
    file: Input
    target: Path


def copies(source: Path, out: Path, names: Pseudonyms, *, blacken: bool = False) -> tuple[int, Iterator[Outcome]]:
    """Copy every picture below `source`; return how many there are, and what becomes of each, as it is made.

    Folders stay apart under new names, but those that are called after a class or a split keep theirs.

    Args:
        source: a file, folder or ZIP archive.
        out: a new folder.
        names: of patients, identifiers, folders and files.
        blacken: whether all beside the breast becomes black where there seems to be text.

    Raises:
        DataError: `out` holds something already, or cannot be written.
    """
    check_new_folder(out)
    files = find_inputs([source])
    tasks = [_Task(file, target) for file, target in zip(files, _targets(files, source, out, names), strict=True)]
    return len(tasks), map_in_order(partial(_outcome, names=names, blacken=blacken), tasks)


def _targets(files: Sequence[Input], source: Path, out: Path, names: Pseudonyms) -> list[Path]:
    """Return where the copy of each file will be, without a suffix; no two are alike."""
    times: Counter[Path] = Counter()
    targets = []
    for file in files:
        relative = file.name.relative_to(source) if file.name != source else Path(source.name)
        target = out / _new_name(relative, names)
        times[target] += 1
        again = f"-{times[target]}" if times[target] > 1 else ""
        targets.append(target.with_name(target.name + again))
    return targets


def _new_name(relative: Path, names: Pseudonyms) -> Path:
    """Return a name that says side and view as the old one does; who differed in these alone still does."""
    folders = [part if _is_plain(part) else names.name("folder", part) for part in relative.parent.parts]
    rest = rest_of(relative.name)
    stem = names.name("file", str(relative)) if rest is None else names.name("views", f"{relative.parent}/{rest}")
    return Path(*folders, "_".join([stem, *filter(None, side_and_view(relative))]))


def _is_plain(part: str) -> bool:
    return label_named(part) is not None or split_named(part) is not None


def _outcome(task: _Task, names: Pseudonyms, *, blacken: bool) -> Outcome:
    try:
        with on_disk(task.file) as path:
            return Outcome(task.file.name, copy_bare(path, task.target, names, blacken=blacken))
    except ImageError as error:
        return Outcome(task.file.name, reason(error))


def write_table(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write which copy is whose, for the eyes of its owner alone.

    Raises:
        DataError: the file cannot be written.
    """
    made = [(one.name, one.copied) for one in outcomes if isinstance(one.copied, Copied)]
    with (
        written_whole(path, mode=0o600) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        write_row(file, _COLUMNS)
        for name, copied in made:
            write_row(file, (str(name), str(copied.path), *(copied.patient or ("", ""))))


def check_outside(path: Path | None, out: Path) -> None:
    """Refuse a key or table within the folder of copies, with which it would travel.

    Raises:
        DataError: it is so.
    """
    if path is not None and path.absolute().resolve().is_relative_to(out.absolute().resolve()):
        raise DataError(f"{path}: lies among the copies, and would tell whose they are. Name a place elsewhere.")
