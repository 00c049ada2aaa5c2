"""`Preprocess`: from an image to the pixels a network sees. The same object travels with the model.

Pure functions of arrays; reads no files. Pixels come out rounded to 16 bits, so that what a
training cache stored and what serving computes are the same to the last bit.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mammolens.images.breast import (
    THUMBNAIL,
    UNCERTAIN,
    Anatomy,
    Breast,
    Mask,
    Pixels,
    anatomy,
    dilated,
    eroded,
    find_breast,
)
from mammolens.records import Box, ImageWarning, Warned, warnings_that_hold

VERSION = 1
"""Raised whenever the same settings would give other pixels: it is part of every cache key.

Not raised for what mends polarity and strips on films unlike those that were learnt from, where all
4,491 images at hand keep their pixels to the bit (docs/experiments.md, 33). Clear the cache for
such films.
"""

_LEVELS = 65535
_MARGIN = 0.02  # breathing space around the breast's box, as a share of the picture
_RIM = 5  # thumbnail pixels inside the mask that contrast is not judged on
_BLOCK = 2**15  # pixels that are worked on at a time
_SKIN = 2  # thumbnail pixels kept outside the mask, for skin and nipple

Percent = Annotated[float, Field(ge=0, le=100)]
Side = Annotated[int, Field(ge=8, le=4096)]


@dataclass(frozen=True)
class Geometry:
    """Where the pixels came from: maps places in the image to places on the canvas, and back.

    Attributes:
        image: (height, width) of the image.
        canvas: (height, width) of the canvas.
        crop: (left, top, right, bottom) in pixels of the image.
        flipped: whether the crop was mirrored left to right.
        content: (left, top, right, bottom) of the crop on the canvas, in canvas pixels.
    """

    image: tuple[int, int]
    canvas: tuple[int, int]
    crop: tuple[int, int, int, int]
    flipped: bool
    content: tuple[int, int, int, int]

    def to_canvas(self, box: Box) -> tuple[float, float, float, float]:
        """Return `box` of the image as (left, top, right, bottom) on the canvas, not clipped."""
        left, top, right, bottom = self.crop
        x0, x1 = (box.x - left) / (right - left), (box.x + box.width - left) / (right - left)
        if self.flipped:
            x0, x1 = 1 - x1, 1 - x0
        y0, y1 = (box.y - top) / (bottom - top), (box.y + box.height - top) / (bottom - top)
        c_left, c_top, c_right, c_bottom = self.content
        width, height = c_right - c_left, c_bottom - c_top
        return (c_left + x0 * width, c_top + y0 * height, c_left + x1 * width, c_top + y1 * height)

    def to_image(self, score_map: Pixels) -> Pixels:
        """Return a map of the whole canvas as one of the whole image, 0 outside the crop.

        Args:
            score_map: float32 (rows, columns) in [0, 1], as coarse as it may be.

        Returns:
            Float32 in [0, 1], in the image's shape but with at most `THUMBNAIL` pixels on its longer side.
        """
        height, width = self.image
        scale = min(1.0, THUMBNAIL / max(height, width))
        whole = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), np.float32)
        left, top, right, bottom = self.content
        (rows, columns), (tall, wide) = score_map.shape, self.canvas
        box = (left * columns / wide, top * rows / tall, right * columns / wide, bottom * rows / tall)
        x0, y0, x1, y1 = (round(edge * scale) for edge in self.crop)
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        picture = Pillow.fromarray(np.ascontiguousarray(score_map, dtype=np.float32))
        placed = np.asarray(picture.resize((x1 - x0, y1 - y0), Pillow.Resampling.BILINEAR, box=box))
        part = whole[y0:y1, x0:x1]
        part[:] = (placed[:, ::-1] if self.flipped else placed)[: part.shape[0], : part.shape[1]]
        return np.clip(whole, 0, 1)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the network sees, and what was done to get there.

    Attributes:
        pixels: uint16 of shape (height, width); divide by 65535 for [0, 1] (`as_float`).
        geometry: where the pixels came from.
        warnings: what a user should know before trusting an answer.
    """

    pixels: NDArray[np.uint16]
    geometry: Geometry
    warnings: tuple[Warned, ...] = ()


class Preprocess(BaseModel):
    """Settings that turn any image into (height, width) pixels.

    Take one of the presets, `plain` or `breast`, and change single fields with `model_copy`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: Side = 64
    width: Side = 64
    mend_polarity: bool = False
    crop: bool = False
    orient: bool = False
    percentiles: tuple[Percent, Percent] | None = None
    fit: Literal["stretch", "letterbox"] = "stretch"

    @model_validator(mode="after")
    def _percentiles_ascend(self) -> Self:
        if self.percentiles is not None and self.percentiles[0] >= self.percentiles[1]:
            raise ValueError("percentiles must ascend, such as [1, 99.7]")
        return self

    @classmethod
    def plain(cls) -> "Preprocess":
        """Return what the original project does: the whole picture at 64 × 64, divided by 255."""
        return cls()

    @classmethod
    def breast(cls, height: int = 384, width: int = 256) -> "Preprocess":
        """Return the breast alone: polarity mended, cropped, chest wall left, contrast its own.

        The box is stretched to the canvas: public sets often come stretched to a square, which
        leaves no aspect ratio to keep. Set ``fit="letterbox"`` where the ratio is true.
        """
        return cls(
            height=height,
            width=width,
            mend_polarity=True,
            crop=True,
            orient=True,
            percentiles=(1.0, 99.7),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the canvas."""
        return self.height, self.width

    def __call__(self, pixels: Pixels, seen: Anatomy | None = None) -> Prepared:
        """Prepare an image's pixels, float32 of shape (height, width) in [0, 1].

        Args:
            pixels: as read.
            seen: their `anatomy`, where it is known already.
        """
        if not (self.mend_polarity or self.crop or self.orient or self.percentiles):
            height, width = pixels.shape
            canvas, content = self._place(pixels)
            geometry = Geometry((height, width), self.shape, (0, 0, width, height), False, content)
            return Prepared(_to_levels(canvas), geometry)
        return self._prepare_breast(pixels, anatomy(pixels) if seen is None else seen)

    def _prepare_breast(self, pixels: Pixels, seen: Anatomy) -> Prepared:
        inverted = self.mend_polarity and seen.polarity.inverted
        if inverted:
            pixels = 1 - pixels
        breast = seen.breast if self.mend_polarity else find_breast(seen.small)
        warnings = warnings_that_hold(
            {
                ImageWarning.INVERTED: inverted,
                ImageWarning.POLARITY: seen.polarity.margin < UNCERTAIN,
                ImageWarning.NO_BREAST: not breast.is_found,
            }
        )
        breast = breast.or_everything()
        shape = height, width = pixels.shape
        crop = _crop_box(breast, shape) if self.crop else (0, 0, width, height)
        left, top, right, bottom = crop
        cropped = pixels[top:bottom, left:right]
        rows, columns = (_places(*sides) for sides in zip(breast.mask.shape, shape, strict=True))
        rows, columns = rows[top:bottom], columns[left:right]
        limits = _limits(cropped, _interior(breast.mask), rows, columns, self.percentiles) if self.percentiles else None
        around = ~dilated(breast.mask, _SKIN)[:, columns] if self.crop else None
        flipped = self.orient and breast.chest_wall_right
        cropped = _cleaned(cropped, limits, None if around is None else (around, rows), flipped=flipped)
        canvas, content = self._place(cropped)
        geometry = Geometry(shape, self.shape, crop, flipped, content)
        return Prepared(_to_levels(canvas), geometry, warnings)

    def _place(self, pixels: Pixels) -> tuple[Pixels, tuple[int, int, int, int]]:
        """Resize onto the canvas; a letterbox keeps the chest wall (left) at the canvas's left."""
        if self.fit == "stretch":
            return _resize(pixels, self.height, self.width), (0, 0, self.width, self.height)
        scale = min(self.height / pixels.shape[0], self.width / pixels.shape[1])
        height = max(1, round(pixels.shape[0] * scale))
        width = max(1, round(pixels.shape[1] * scale))
        top = (self.height - height) // 2
        canvas = np.zeros(self.shape, dtype=np.float32)
        canvas[top : top + height, :width] = _resize(pixels, height, width)
        return canvas, (0, top, width, top + height)


def as_float(levels: NDArray[np.uint16]) -> Pixels:
    """Return 16-bit levels of any shape as float32 in [0, 1]."""
    return levels.astype(np.float32) / np.float32(_LEVELS)


def _to_levels(pixels: Pixels) -> NDArray[np.uint16]:
    levels = np.rint(np.clip(pixels, 0, 1) * np.float32(_LEVELS))
    return np.asarray(levels, dtype=np.uint16)


def _resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize with a triangle filter whose support grows with the shrinking (no aliasing)."""
    picture = Pillow.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((width, height), Pillow.Resampling.BILINEAR))


def _crop_box(breast: Breast, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    height, width = shape
    left, top, right, bottom = breast.box
    return (
        max(0, math.floor((left - _MARGIN) * width)),
        max(0, math.floor((top - _MARGIN) * height)),
        min(width, math.ceil((right + _MARGIN) * width)),
        min(height, math.ceil((bottom + _MARGIN) * height)),
    )


def _interior(mask: Mask) -> Mask:
    """Leave out the rim, where the breast thins towards the skin: it says nothing of contrast."""
    inner = eroded(mask, _RIM)
    return inner if inner.any() else mask


def full_size(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """Return a thumbnail's mask for a picture of `shape`, (height, width)."""
    rows, columns = (_places(*sides) for sides in zip(mask.shape, shape, strict=True))
    return mask[:, columns][rows]


def _places(side: int, count: int) -> NDArray[np.int32]:
    """Return which of a thumbnail's `side` pixels each of a picture's `count` lies in, along one direction."""
    line = Pillow.fromarray(np.arange(side, dtype=np.int32)[np.newaxis])
    places: NDArray[np.int32] = np.asarray(line.resize((count, 1), Pillow.Resampling.NEAREST))[0]
    return places


def _limits(
    pixels: Pixels,
    inside: Mask,
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    percentiles: tuple[float, float],
) -> tuple[float, float]:
    """Return what becomes black and white; a quarter million pixels tell as well as thirty million."""
    step = max(1, int(np.sqrt(pixels.size / 250_000)))
    sample = pixels[::step, ::step][inside[np.ix_(rows[::step], columns[::step])]]
    low, high = np.percentile(sample if sample.size else pixels, percentiles)
    return low, high


def _cleaned(
    pixels: Pixels,
    limits: tuple[float, float] | None,
    around: tuple[Mask, NDArray[np.int32]] | None,
    *,
    flipped: bool,
) -> Pixels:
    """Stretch contrast, blacken what lies around the breast, and mirror: a few rows at a time, as caches hold them.

    Args:
        pixels: (height, width).
        limits: what becomes black and white, or None.
        around: what lies around, (rows of a thumbnail, width), and which of these each row is in; or None.
        flipped: whether left and right change places.
    """
    cleaned = np.empty(pixels.shape, dtype=np.float32)
    turned = cleaned[:, ::-1] if flipped else cleaned
    height = max(1, _BLOCK // pixels.shape[1])
    for top in range(0, len(pixels), height):
        block = pixels[top : top + height]
        if limits is not None:
            block = (block - limits[0]) / max(float(limits[1] - limits[0]), 1e-6)
        if around is not None:
            block = np.where(around[0][around[1][top : top + height]], np.float32(0), block)
        turned[top : top + height] = block
    return cleaned
