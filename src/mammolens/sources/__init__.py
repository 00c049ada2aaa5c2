"""Data sets: each file here turns one layout on disk into a `Manifest`; `SOURCES` names all."""

from collections.abc import Callable
from pathlib import Path

from mammolens.errors import DataError
from mammolens.manifest import Manifest
from mammolens.sources import class_folders, phantom, table

Source = Callable[[str, str | None], Manifest]
"""Takes what the user named and the class that means tumor (None: 0 and 1 are the classes)."""

SOURCES: dict[str, Source] = {
    "class_folders": class_folders.read,
    "table": table.read,
    "phantom": phantom.read,
}


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
        return "class_folders"
    if path.is_file():
        return "table"
    if phantom.is_request(data):
        return "phantom"
    raise DataError(
        f"{data}: no such folder or file. Expected a folder of class folders, a CSV with path and "
        "label, or 'phantom:200' for 200 generated patients."
    )
