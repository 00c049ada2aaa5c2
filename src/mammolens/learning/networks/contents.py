"""What lies in a `.h5` or `.keras` file, all of it read once: its layers as text, and its weights counted.

HDF5 can hang, crash or fill the memory over a damaged file, and can have its weights elsewhere: so it is looked
through here, without Keras and by a worker, before Keras opens it.
"""

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from mammolens.errors import BundleError, reason

_MEMBERS = frozenset({"config.json", "metadata.json", "model.weights.h5"})
_EXPANSION, _ROOM = 16, 2**20  # what a file says it holds, as a multiple of its bytes, and what it may have beyond
_NUMBERS = "biuf"  # kinds of arrays


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
        version: of the Keras that wrote it; empty where it is not told, as by the oldest.
        config: its layers, as JSON.
        weights: how many numbers it has.
    """

    version: str
    config: str
    weights: int


def contents(path: Path) -> Contents:
    """Read a file once, from end to end.

    Raises:
        BundleError: it is no such file, is damaged, has no layers, reaches for other files, or says that it is larger
            than it is.
    """
    try:
        return _read(path)
    except Exception as error:  # zipfile and h5py raise whatever they trip over
        raise BundleError(f"{path}: cannot be opened as a Keras model ({reason(error)}).") from error


def _read(path: Path) -> Contents:
    if zipfile.is_zipfile(path):
        return _of_archive(path)
    if h5py.is_hdf5(path):
        return _of_hdf5(path)
    raise ValueError("it is neither HDF5 nor a .keras archive")


def _of_archive(path: Path) -> Contents:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename not in _MEMBERS:
                raise ValueError(f"it holds {member.filename!r}, which no network of plain layers has")
            _check_expansion(member.filename, member.file_size, size)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its {member.filename} is packed by a method other than deflate")
        version = json.loads(archive.read("metadata.json"))["keras_version"]
        config = archive.read("config.json").decode()
        with h5py.File(BytesIO(archive.read("model.weights.h5"))) as file:
            return Contents(str(version), config, _weights(file, size))


def _of_hdf5(path: Path) -> Contents:
    with h5py.File(path) as file:
        version, config = _text(file.attrs.get("keras_version")), file.attrs.get("model_config")
        if config is None:
            todo = "build the network, load them into it, and model.save('x.keras')"
            raise ValueError(f"it holds weights and no layers: {todo}")
        return Contents(version, _text(config), _weights(file, path.stat().st_size))


def _text(value: Any) -> str:  # noqa: ANN401 - whatever an attribute holds
    return value.decode() if isinstance(value, bytes) else str("" if value is None else value)


def _weights(file: h5py.File, size: int) -> int:
    """Return how many numbers a file has, all of them its own.

    Raises:
        ValueError: some lie in other files (CVE-2026-1669), or there are more than it has bytes for (CVE-2026-0897).
    """
    if link := file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name):
        raise ValueError(f"its {link} is a link: weights may not lie elsewhere")
    items: list[h5py.Group | h5py.Dataset] = [file]
    file.visititems(lambda _, item: items.append(item))
    arrays = [item for item in items if isinstance(item, h5py.Dataset)]
    for array in arrays:
        if array.external or array.is_virtual or array.dtype.kind not in _NUMBERS:
            raise ValueError(f"its {array.name} lies in another file, or is not numbers")
    _check_expansion("weights", sum(array.size * array.dtype.itemsize for array in arrays), size)
    for item in items:
        dict(item.attrs)
    for array in arrays:
        array[()]
    return sum(array.size for array in arrays)


def _check_expansion(name: str, said: int, size: int) -> None:
    if said > _EXPANSION * size + _ROOM:
        raise ValueError(f"its {name} would take {said:,} bytes, where the file has {size:,}")
