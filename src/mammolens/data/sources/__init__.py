"""Data sets: each file here turns one layout on disk into a `Manifest`; `read_source` tells which it is.

Some are fetched by name into a new folder; kagglehub is asked for only here.
"""

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mammolens.data.csv_table import read_header
from mammolens.data.manifest import Manifest
from mammolens.data.sources import cbis_ddsm, cdd_cesm, class_folders, phantom
from mammolens.data.sources.cdd_cesm import CDD_CESM
from mammolens.data.sources.inbreast import INBREAST
from mammolens.data.sources.mini_mias import MINI_MIAS
from mammolens.data.sources.rsna import RSNA
from mammolens.data.sources.vindr_mammo import VINDR_MAMMO
from mammolens.errors import DataError, MissingExtra, reason
from mammolens.files import folder_written_whole, why_not_opened

_Read = Callable[..., Manifest]
"""Lists the images of a published data set, below a folder; it says itself which of them show a tumor."""

_TELL_TALES: tuple[tuple[tuple[str, ...], tuple[str, ...], _Read], ...] = (
    # what is all there, columns that the first of these must have, what reads it
    ((VINDR_MAMMO.table,), (), VINDR_MAMMO.read),
    ((INBREAST.table,), (), INBREAST.read),
    ((cbis_ddsm.TABLES,), (), cbis_ddsm.read),
    (("labels.csv",), ("boxes_xywh_512",), cdd_cesm.read_prepared),
    (("labels.csv",), ("malignant", "findings"), cdd_cesm.read_prepared),
    (("labels.csv",), ("malignant",), cbis_ddsm.read),
    ((CDD_CESM.table,), (), CDD_CESM.read),
    ((cdd_cesm.WORKBOOK,), (), CDD_CESM.read),
    ((MINI_MIAS.table, "**/mdb*.pgm"), (), MINI_MIAS.read),
    ((RSNA.table, "train_images"), (), RSNA.read),
    ((RSNA.table,), ("cancer",), RSNA.read),
)

_KAGGLE_HANDLES = {"kaggle-breast": "hayder17/breast-cancer-detection"}
"""Names for `download` and the Kaggle data sets behind them."""


def read_source(data: str, *, positive: str | None = None, files: bool = True, labels: bool = True) -> Manifest:
    """List the images of `data`; what lies beside them and is not in the list is in its `left_out`.

    Args:
        data: a folder, a CSV, or ``phantom`` / ``phantom:200`` for generated images.
        positive: the class that means tumor, where names do not say so.
        files: whether the images themselves are needed. Without, the table of a published data
            set will do, too.
        labels: whether labels are needed. Without, a table of paths needs no column of them.

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
        return published(path if folder else path.parent, files=files)
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
    return Manifest.load(path, positive, files=files, labels=labels)


def _of_folder(folder: Path) -> _Read | None:
    for names, columns, read in _TELL_TALES:
        if all(any(folder.glob(name)) for name in names) and _has_columns(folder / names[0], columns):
            return read
    return None


def _of_table(table: Path) -> _Read | None:
    """Return what reads this published table, unless it lists path and label itself."""
    if _has_columns(table, ("path", "label")):
        return None
    for names, columns, read in _TELL_TALES:
        if table.match(names[0]) and len(names) == 1 and _has_columns(table, columns):
            return read
    return None


def _has_columns(table: Path, columns: tuple[str, ...]) -> bool:
    try:
        return not columns or set(columns) <= set(read_header(table))
    except DataError:  # whoever needs the table says what is wrong with it
        return False


def download(name: str, out: Path) -> Path:
    """Fetch the data set `name` into the new or empty folder `out`, whole or not at all.

    Returns:
        The folder, to be read with `read_source`.

    Raises:
        MissingExtra: kagglehub is not installed.
        DataError: the name is unknown, `out` is in the way or cannot be written, or Kaggle did
            not give the files.
    """
    if name not in _KAGGLE_HANDLES:
        raise DataError(f"no download is called '{name}'; known are {', '.join(_KAGGLE_HANDLES)}.")
    handle = _KAGGLE_HANDLES[name]
    by_hand = f"download https://www.kaggle.com/datasets/{handle} by hand and unzip it into {out}"
    with folder_written_whole(out) as temporary:
        shutil.copytree(_fetched(handle, by_hand), temporary)
    return out


def _fetched(handle: str, by_hand: str) -> Path:
    """Return kagglehub's own copy of the data set."""
    try:
        kagglehub = importlib.import_module("kagglehub")
    except ImportError as error:
        raise MissingExtra(
            f"kagglehub is needed to download {handle} and is not installed. Install it with "
            f"'pip install kagglehub', or {by_hand}."
        ) from error
    try:
        folder = Path(kagglehub.dataset_download(handle))
    except Exception as error:  # its own errors, those of requests, and ValueError on bad tokens
        raise DataError(
            f"{handle}: Kaggle did not give the files ({reason(error)}). If the network is there, "
            "create an API token in your Kaggle account settings and put it in "
            "~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY; "
            f"or {by_hand}."
        ) from error
    if not folder.is_dir() or not any(folder.iterdir()):
        raise DataError(f"{folder}: kagglehub left no files there. Delete it and try again, or {by_hand}.")
    return folder
