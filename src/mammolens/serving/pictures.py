"""What people have in hand → pictures, one by one, each with the name that its answer goes by."""

import os
import pickle
import sys
from collections.abc import Iterable, Sequence
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.errors import ImageError, reason
from mammolens.images.archives import Input, find_inputs
from mammolens.images.image import Image
from mammolens.images.reading import image_of, read_image

if TYPE_CHECKING:
    from pydicom import Dataset

Picture: TypeAlias = "str | os.PathLike[str] | Input | NDArray[np.generic] | Pillow.Image | Dataset"
"""A file, one in an archive, or what `images.reading.image_of` takes: an array, a Pillow image, a pydicom data set."""


def pictures_in(items: "Picture | Iterable[Picture]") -> list[Picture]:
    """Return the pictures in whatever holds some, in order; what holds none is in the list, and fails."""
    one = isinstance(items, str | os.PathLike | Input | bytes | IOBase) or _kind(items) is not None
    several: Iterable[Any] = items if isinstance(items, Iterable) and not one else [items]
    pictures: list[Picture] = []
    for item in several:
        pictures += find_inputs([Path(item)]) if isinstance(item, str | os.PathLike) else [item]
    return pictures


class Named(NamedTuple):
    """A picture, and the name that its answer goes by."""

    name: Path
    picture: Picture

    def __reduce__(self) -> "tuple[type[Named], tuple[Path, Picture]]":
        """Travel to another process; what cannot, such as an open file, goes as why not: it stops no batch."""
        picture = self.picture
        try:
            pickle.dumps(picture)
        except Exception as error:  # noqa: BLE001 - whatever an odd object, or a file that is read only now, trips over
            picture = Input(self.name, self.name, problem=f"cannot be read ({reason(error)}).")
        return Named, (self.name, picture)


def named(pictures: Sequence[Picture]) -> list[Named]:
    """Name each picture after its file, or by its kind and its row, counted from 0."""
    return [Named(_name(picture, row), picture) for row, picture in enumerate(pictures)]


def _name(picture: Picture, row: int) -> Path:
    if isinstance(picture, Input):
        return picture.name
    file = picture if isinstance(picture, str | os.PathLike) else getattr(picture, "filename", None)
    if file and isinstance(file, str | os.PathLike):
        return Path(file)
    return Path(f"{_kind(picture) or 'item'} {row}")


def _kind(item: object) -> str | None:
    """Return in a word what holds one picture in memory; None of all else."""
    dataset = getattr(sys.modules.get("pydicom"), "Dataset", ())  # where it is not loaded, nobody has one
    kinds = {"array": np.ndarray, "image": Pillow.Image, "data set": dataset}
    return next((word for word, kind in kinds.items() if isinstance(item, kind)), None)


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
