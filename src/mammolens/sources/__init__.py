"""Data sets: each file here turns one layout on disk into a `Manifest`; `SOURCES` names all."""

from collections.abc import Callable
from pathlib import Path

from mammolens.errors import DataError
from mammolens.manifest import Manifest
from mammolens.sources import (
    cbis_ddsm,
    class_folders,
    inbreast,
    mini_mias,
    phantom,
    rsna,
    table,
    vindr_mammo,
)

Source = Callable[[str, str | None], Manifest]
"""Takes what the user named and the class that means tumor (None: 0 and 1 are the classes)."""

SOURCES: dict[str, Source] = {
    "class_folders": class_folders.read,
    "table": table.read,
    "phantom": phantom.read,
    "cbis_ddsm": cbis_ddsm.read,
    "mini_mias": mini_mias.read,
    "inbreast": inbreast.read,
    "rsna": rsna.read,
    "vindr_mammo": vindr_mammo.read,
}

_TELL_TALES = (
    # what is all there, a column that the first of these must have, the source
    (("breast-level_annotations.csv",), "", "vindr_mammo"),
    (("INbreast.csv",), "", "inbreast"),
    ((cbis_ddsm.TABLES,), "", "cbis_ddsm"),
    (("labels.csv",), "malignant", "cbis_ddsm"),
    (("Info.txt", "**/mdb*.pgm"), "", "mini_mias"),
    (("train.csv", "train_images"), "", "rsna"),
    (("train.csv",), "cancer", "rsna"),
)


def read_source(data: str, *, source: str | None = None, positive: str | None = None) -> Manifest:
    """List the images of `data`.

    Args:
        data: a folder, a CSV, or ``phantom`` / ``phantom:200`` for generated images.
        source: a name from `SOURCES`; found out from `data` where None.
        positive: the class that means tumor, where classes are not called 0 and 1.

    Raises:
        DataError: there is nothing there, or it is not laid out as the source expects.
    """
    name = source or _recognise(data)
    if name not in SOURCES:
        raise DataError(f"no source is called '{name}'; known are {', '.join(SOURCES)}.")
    return SOURCES[name](data, positive)


def _recognise(data: str) -> str:
    path = Path(data)
    if path.is_dir():
        return _recognise_folder(path)
    if path.is_file():
        return "table"
    if phantom.is_request(data):
        return "phantom"
    raise DataError(
        f"{data}: no such folder or file. Expected a folder of class folders, a CSV with path and "
        "label, or 'phantom:200' for 200 generated patients."
    )


def _recognise_folder(folder: Path) -> str:
    for names, column, source in _TELL_TALES:
        if all(any(folder.glob(name)) for name in names) and _has_column(folder / names[0], column):
            return source
    return "class_folders"


def _has_column(table: Path, column: str) -> bool:
    if not column:
        return True
    with table.open(encoding="utf-8-sig", errors="replace") as stream:
        return column in stream.readline().strip().split(",")
