"""Data sets: each file here turns one layout on disk into a `Manifest`; `SOURCES` names all."""

import os
from pathlib import Path
from typing import Protocol

from mammolens.data.csv_table import read_header
from mammolens.data.manifest import Manifest
from mammolens.data.sources import cbis_ddsm, class_folders, inbreast, mini_mias, phantom, rsna, table, vindr_mammo
from mammolens.errors import DataError
from mammolens.files import why_not_opened


class Source(Protocol):
    """Lists the images of a data set."""

    def __call__(self, data: str, positive: str | None = None, *, files: bool = True) -> Manifest:
        """List the images of `data`.

        Args:
            data: what the user named.
            positive: the class that means tumor; None: the one whose name says so.
            files: whether the images themselves are needed, or what is known of them will do.
        """


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


def read_source(data: str, *, source: str | None = None, positive: str | None = None, files: bool = True) -> Manifest:
    """List the images of `data`; what was found and is not in the list is in its `left_out`.

    Args:
        data: a folder, a CSV, or ``phantom`` / ``phantom:200`` for generated images.
        source: a name from `SOURCES`; found out from `data` where None.
        positive: the class that means tumor, where names do not say so.
        files: whether the images themselves are needed. Without, the table of a published data
            set will do, too.

    Raises:
        DataError: there is nothing there, or it is not laid out as the source expects.
    """
    if source is None:
        data, source = _recognised(data, files=files)
    if source not in SOURCES:
        raise DataError(f"no source is called '{source}'; known are {', '.join(SOURCES)}.")
    return SOURCES[source](data, positive, files=files)


def _recognised(data: str, *, files: bool) -> tuple[str, str]:
    """Return what to read and the name of its source."""
    path = Path(data)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where one may not look
        return data, _of_folder(path)
    if phantom.is_request(data) and not os.path.lexists(path):
        return data, "phantom"
    try:
        path.stat()
    except (OSError, ValueError) as error:
        why = why_not_opened(path, error).replace("no such file", "no such folder or file")
        raise DataError(
            f"{data}: {why} Expected a folder of class folders, a CSV with path and label, or "
            "'phantom:200' for 200 generated patients."
        ) from error
    published = None if files else _of_table(path)
    return (str(path.parent), published) if published else (data, "table")


def _of_folder(folder: Path) -> str:
    for names, column, source in _TELL_TALES:
        if all(any(folder.glob(name)) for name in names) and _has_column(folder / names[0], column):
            return source
    return "class_folders"


def _of_table(table: Path) -> str | None:
    """Return the source whose published table this is, unless it lists path and label itself."""
    if _has_column(table, "path") and _has_column(table, "label"):
        return None
    for names, column, source in _TELL_TALES:
        if table.match(names[0]) and len(names) == 1 and _has_column(table, column):
            return source
    return None


def _has_column(table: Path, column: str) -> bool:
    try:
        return not column or column in read_header(table)
    except DataError:  # whoever needs the table says what is wrong with it
        return False
