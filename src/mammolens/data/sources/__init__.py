"""Data sets: each file here turns one layout on disk into a `Manifest`; `read_source` tells which it is."""

import os
from pathlib import Path
from typing import Protocol

from mammolens.data.csv_table import read_header
from mammolens.data.manifest import Manifest
from mammolens.data.sources import cbis_ddsm, class_folders, inbreast, mini_mias, phantom, rsna, vindr_mammo
from mammolens.errors import DataError
from mammolens.files import why_not_opened


class Published(Protocol):
    """Lists the images of a published data set, which itself says which of them show a tumor."""

    def __call__(self, root: Path, *, files: bool = True) -> Manifest:
        """List the images below the folder `root`; without `files`, what is known of them will do."""


PUBLISHED: dict[str, Published] = {
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


def read_source(data: str, *, positive: str | None = None, files: bool = True) -> Manifest:
    """List the images of `data`; what lies beside them and is not in the list is in its `left_out`.

    Args:
        data: a folder, a CSV, or ``phantom`` / ``phantom:200`` for generated images.
        positive: the class that means tumor, where names do not say so.
        files: whether the images themselves are needed. Without, the table of a published data
            set will do, too.

    Raises:
        DataError: there is nothing there, it is not laid out as expected, or `positive` is given
            where the data set itself says which images show a tumor.
    """
    path = Path(data)
    folder = os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where one may not look
    drawn = not folder and phantom.is_request(data) and not os.path.lexists(path)
    published = _of_folder(path) if folder else None if files or drawn else _of_table(path)
    if positive is not None and (published or drawn):
        raise DataError(f"{data}: this data set defines which images show a tumor; leave out --positive {positive}.")
    if drawn:
        return phantom.read(data)
    if published:
        return PUBLISHED[published](path if folder else path.parent, files=files)
    if folder:
        return class_folders.read(path, positive)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        why = why_not_opened(path, error).replace("no such file", "no such folder or file")
        raise DataError(
            f"{data}: {why} Expected a folder of class folders, a CSV with path and label, or "
            "'phantom:200' for 200 generated patients."
        ) from error
    return Manifest.load(path, positive, files=files)


def _of_folder(folder: Path) -> str | None:
    for names, column, source in _TELL_TALES:
        if all(any(folder.glob(name)) for name in names) and _has_column(folder / names[0], column):
            return source
    return None


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
