"""What people have in hand → pictures, one by one, each with the name that its answer goes by."""

import os
from collections.abc import Iterable, Sequence
from io import IOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydicom import Dataset

from mammolens.errors import ImageError
from mammolens.images.archives import Input, find_inputs
from mammolens.images.image import Image
from mammolens.images.reading import image_of, read_image

Picture = str | os.PathLike[str] | Input | NDArray[np.generic] | Pillow.Image | Dataset
"""A file, one in an archive, or what `images.reading.image_of` takes: an array, a Pillow image, a pydicom data set."""

_KINDS = {np.ndarray: "array", Pillow.Image: "image", Dataset: "data set"}
_ONE = (str, os.PathLike, Input, bytes, IOBase, *_KINDS)  # these can be iterated over, and are one item


def pictures_in(items: Picture | Iterable[Picture]) -> list[Picture]:
    """Return the pictures in whatever holds some, in order; what holds none is in the list, and fails."""
    several: Iterable[Any] = items if isinstance(items, Iterable) and not isinstance(items, _ONE) else [items]
    pictures: list[Picture] = []
    for item in several:
        pictures += find_inputs([Path(item)]) if isinstance(item, str | os.PathLike) else [item]
    return pictures


class Named(NamedTuple):
    """A picture, and the name that its answer goes by."""

    name: Path
    picture: Picture


def named(pictures: Sequence[Picture]) -> list[Named]:
    """Name each picture after its file, or by its kind and its row, counted from 0."""
    return [Named(_name(picture, row), picture) for row, picture in enumerate(pictures)]


def _name(picture: Picture, row: int) -> Path:
    if isinstance(picture, Input):
        return picture.name
    file = picture if isinstance(picture, str | os.PathLike) else getattr(picture, "filename", None)
    if file and isinstance(file, str | os.PathLike):
        return Path(file)
    kinds = [word for kind, word in _KINDS.items() if isinstance(picture, kind)]
    return Path(f"{kinds[0] if kinds else 'item'} {row}")


def image_in(picture: Picture, name: Path) -> Image:
    """Read one picture, which errors call by its name.

    Raises:
        ImageError: it cannot be read, or is none.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(Path(picture))
    if not isinstance(picture, Input):
        return image_of(picture, name)
    with picture.on_disk() as path:
        try:
            return read_image(path)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), str(picture.name))) from error
