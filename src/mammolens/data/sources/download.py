"""Data sets fetched by name into a new folder; kagglehub is asked for only here."""

import importlib
import shutil
from pathlib import Path
from types import ModuleType

from mammolens.errors import DataError, MissingExtra, reason
from mammolens.files import folder_written_whole

KAGGLE_HANDLES = {"kaggle-breast": "hayder17/breast-cancer-detection"}
"""Names for `download` and the Kaggle data sets behind them."""


def download(name: str, out: Path) -> Path:
    """Fetch the data set `name` into the new or empty folder `out`, whole or not at all.

    Returns:
        The folder, to be read with `mammolens.data.sources.read_source`.

    Raises:
        MissingExtra: kagglehub is not installed.
        DataError: the name is unknown, `out` is in the way or cannot be written, or Kaggle did
            not give the files.
    """
    if name not in KAGGLE_HANDLES:
        raise DataError(f"no download is called '{name}'; known are {', '.join(KAGGLE_HANDLES)}.")
    handle = KAGGLE_HANDLES[name]
    with folder_written_whole(out) as temporary:
        shutil.copytree(_fetch(handle, _kagglehub(handle, out), out), temporary)
    return out


def _kagglehub(handle: str, out: Path) -> ModuleType:
    try:
        return importlib.import_module("kagglehub")
    except ImportError as error:
        raise MissingExtra(
            f"kagglehub is needed to download {handle} and is not installed. Install it with "
            f"'pip install kagglehub', or {_by_hand(handle, out)}."
        ) from error


def _fetch(handle: str, kagglehub: ModuleType, out: Path) -> Path:
    """Return kagglehub's own copy of the data set."""
    try:
        folder = Path(kagglehub.dataset_download(handle))
    except Exception as error:  # its own errors, those of requests, and ValueError on bad tokens
        raise DataError(
            f"{handle}: Kaggle did not give the files ({reason(error)}). If the network is there, "
            "create an API token in your Kaggle account settings and put it in "
            "~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY; "
            f"or {_by_hand(handle, out)}."
        ) from error
    if not folder.is_dir() or not any(folder.iterdir()):
        raise DataError(
            f"{folder}: kagglehub left no files there. Delete it and try again, or {_by_hand(handle, out)}."
        )
    return folder


def _by_hand(handle: str, out: Path) -> str:
    return f"download https://www.kaggle.com/datasets/{handle} by hand and unzip it into {out}"
