"""One picture → what the network sees of it, and what an answer tells. Knows no network; workers load no more."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammolens.errors import ImageError, reason
from mammolens.images.archives import Input, Named, image_in, on_disk
from mammolens.images.breast import anatomy
from mammolens.images.image import MAX_PIXELS, MIN_SIDE, Header, Image
from mammolens.images.preprocess import Geometry, Preprocess
from mammolens.images.reading import read_image
from mammolens.model.gate import Gate, Likeness, likeness
from mammolens.records import ImageWarning, Warned
from mammolens.workers.crew import apart


@dataclass(frozen=True, eq=False)
class Seen:
    """What is made of one picture: all that the network and the answer need, no more."""

    levels: NDArray[np.uint16]
    geometry: Geometry
    admitted: bool
    header: Header
    warnings: tuple[Warned, ...]


def seen_or_reason(given: Named, preprocess: Preprocess, gate: Gate | None) -> Seen | str:
    """Read and prepare one picture, or say why not: one bad file never stops a batch.

    A file is read by a process that may do little; what a program has in memory, here.
    """
    try:
        if not isinstance(given.picture, str | os.PathLike | Input):
            return _seen(image_in(given.picture, given.name), preprocess, gate)
        with on_disk(given.picture) as path:
            found = apart(seen, path, preprocess=preprocess, gate=gate)
        broken = f"{given.name}: decoding broke off (no picture of the size asked for). Export it anew."
        return found if _is_possible(found, preprocess) else broken
    except ImageError as error:
        return reason(error)


def _is_possible(found: Seen, preprocess: Preprocess) -> bool:
    """Tell whether this may be of a picture: a process that a file has taken over may say anything."""
    place = found.geometry
    sizes_fit = found.levels.shape == place.canvas == (preprocess.height, preprocess.width)
    furthest = max(MAX_PIXELS // MIN_SIDE, *place.canvas)
    return sizes_fit and all(abs(edge) <= furthest for edge in (*place.image, *place.crop, *place.content))


def seen(path: Path, preprocess: Preprocess, gate: Gate | None) -> Seen:
    """Read and prepare one file.

    Raises:
        ImageError: it cannot be read.
    """
    return _seen(read_image(path), preprocess, gate)


def _seen(image: Image, preprocess: Preprocess, gate: Gate | None) -> Seen:
    shown = None if gate is None else anatomy(image.pixels)
    prepared = preprocess(image.pixels, shown)
    height, width = image.pixels.shape
    kind = likeness(image, gate, shown)
    said: list[Warned] = [ImageWarning.NOT_LIKE_TRAINING] if kind is Likeness.UNLIKE_TRAINING else []
    said += [*image.warnings, *prepared.warnings]
    if height < preprocess.height or width < preprocess.width:
        said.append(ImageWarning.SMALL.about(width, height))
    admitted = kind is not Likeness.NO_MAMMOGRAM
    return Seen(prepared.pixels, prepared.geometry, admitted, image.header or Header(), tuple(said))
