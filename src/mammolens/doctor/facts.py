"""What one look at each image tells: everything that the checks need, in a few kilobytes an image.

Files are decoded once, by several processes, and forgotten; memory stays bounded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy import ndimage

from mammolens.data.manifest import Manifest
from mammolens.errors import DataError, ImageError, reason
from mammolens.files import content_hash
from mammolens.images.breast import Breast, Mask, Pixels, anatomy, dilated
from mammolens.images.image import Image
from mammolens.images.reading import read_image
from mammolens.parallel import Each, map_in_order, tracked
from mammolens.records import Mammogram
from mammolens.workers.crew import apart

_SIDE = 64  # pixels: height and width of what near duplicates are recognised by
_FINE = 3  # pixels: the descriptor keeps structures finer than this, for all breasts look alike
_STEEP = 0.15  # contrast at which the descriptor saturates, so that edges do not rule it
_FULL = 254 / 255
_ROWS = 32  # of a picture that are looked at together


@dataclass(frozen=True, eq=False)
class Facts:
    """What was learnt of one readable image.

    Attributes:
        digest: SHA-256 of the file.
        size: (height, width) in pixels.
        bit_depth: as stored.
        levels: distinct grey levels in use.
        quantizer: mean step of a JPEG's luminance table (29 at quality 75, 58 at 50), else 0.
        colour: whether channels really differ.
        spread: 99th less 1st percentile of the grey levels, in [0, 1].
        inverted: whether the background is white.
        margin: how sure that is; see `breast.Polarity`.
        breast_area: share of the picture that the breast covers.
        cut_off: whether the breast runs into the side opposite to the chest wall.
        clipped: share of the breast at the white end of the range.
        marker: whether there is something bright outside the breast: text, a label, a strip.
        descriptor: int8 of (64 · 64,), of unit length after scaling by its norm.
        tiny: float32 of (64,): the picture at 8 × 8.
        background: float32 of (40,): ring and background levels, no breast.
    """

    digest: str
    size: tuple[int, int]
    bit_depth: int
    levels: int
    quantizer: float
    colour: bool
    spread: float
    inverted: bool
    margin: float
    breast_area: float
    cut_off: bool
    clipped: float
    marker: bool
    descriptor: NDArray[np.int8]
    tiny: NDArray[np.float32]
    background: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ExaminedSet:
    """A manifest with the facts of each image, or why it cannot be read."""

    manifest: Manifest
    facts: tuple[Facts | str, ...]

    def pairs(self) -> Iterator[tuple[Mammogram, Facts]]:
        """Yield the readable images."""
        for mammogram, facts in zip(self.manifest, self.facts, strict=True):
            if not isinstance(facts, str):
                yield mammogram, facts

    def paths(self, holds: Callable[[Facts], bool]) -> list[Path]:
        """Return the readable images for which `holds`."""
        return [mammogram.path for mammogram, facts in self.pairs() if holds(facts)]


def collect_facts(manifest: Manifest, *, each: Each = map_in_order, progress: bool = False) -> ExaminedSet:
    """Read every image once.

    Args:
        manifest: which.
        each: how the work is spread.
        progress: show a bar on standard error.

    Raises:
        DataError: there is no image.
    """
    if not len(manifest):
        raise DataError("the data set is empty: there is nothing to examine.")
    work = each(_facts_or_reason, manifest.paths)
    return ExaminedSet(manifest, tuple(tracked(work, "Examining images", len(manifest), visible=progress)))


def _facts_or_reason(path: Path) -> Facts | str:
    try:
        return apart(_facts, path)
    except ImageError as error:
        return reason(error)


def _facts(path: Path) -> Facts:
    image = read_image(path)
    seen = anatomy(image.pixels)
    sides, breast = seen.polarity, seen.breast
    low, high = np.percentile(image.pixels[::4, ::4], [1, 99])
    return Facts(
        digest=content_hash(path),
        size=(image.pixels.shape[0], image.pixels.shape[1]),
        bit_depth=image.bit_depth,
        levels=_levels(image),
        quantizer=_quantizer(path) if image.format == "JPEG" else 0.0,
        colour=image.colour,
        spread=float(high - low),
        inverted=sides.inverted,
        margin=sides.margin,
        breast_area=breast.area,
        cut_off=_cut_off(breast),
        clipped=_clipped(image.pixels, breast, inverted=sides.inverted),
        marker=_has_marker(seen.upright, breast.mask),
        descriptor=_descriptor(seen.upright, breast),
        tiny=_resized(seen.small, 8).ravel(),
        background=_background(seen.small, breast.mask),
    )


def _levels(image: Image) -> int:
    steps = 2**image.bit_depth - 1
    used = np.zeros(steps + 1, dtype=bool)
    for begin in range(0, len(image.pixels), _ROWS):  # numbers that index take twice the memory of pixels
        used[np.rint(image.pixels[begin : begin + _ROWS] * steps).astype(np.intp)] = True
    return int(used.sum())


def _quantizer(path: Path) -> float:
    with Pillow.open(path) as picture:
        tables = getattr(picture, "quantization", None)
    return float(np.mean(tables[0])) if tables else 0.0


def _cut_off(breast: Breast) -> bool:
    """Tell whether the breast meets the picture's far side over a tenth of its height."""
    far = breast.mask[:, 0] if breast.chest_wall_right else breast.mask[:, -1]
    return bool(far.mean() > 0.1)  # noqa: PLR2004


def _clipped(pixels: Pixels, breast: Breast, *, inverted: bool) -> float:
    """Return the share of the breast that has lost its detail at the bright end."""
    step = max(1, min(pixels.shape) // 256)
    sample = pixels[::step, ::step]
    mask = np.asarray(
        Pillow.fromarray(breast.mask).resize(sample.shape[::-1], Pillow.Resampling.NEAREST),
        dtype=bool,
    )
    if not mask.any():
        return 0.0
    lost = sample[mask] <= 1 - _FULL if inverted else sample[mask] >= _FULL
    return float(lost.mean())


def _has_marker(upright: Pixels, mask: Mask) -> bool:
    around = dilated(mask, 8)
    return bool((upright[~around] > 0.5).sum() >= 4)  # noqa: PLR2004 - four bright pixels of 65,536


def _descriptor(upright: Pixels, breast: Breast) -> NDArray[np.int8]:
    """Describe the fine structure, chest wall left: equal for a copy, a mirror, a negative."""
    turned = upright[:, ::-1] if breast.chest_wall_right else upright
    small = _resized(turned, _SIDE)
    fine = np.clip(small - ndimage.gaussian_filter(small, _FINE), -_STEEP, _STEEP)
    levels = np.rint((fine - fine.mean()) * (127 / (2 * _STEEP)))
    return np.asarray(levels, dtype=np.int8).ravel()


def _background(small: Pixels, mask: Mask) -> NDArray[np.float32]:
    """Describe the picture without its breast: levels along the sides, and of all outside."""
    square = _resized(small, 64)
    hidden = _resized(dilated(mask, 4).astype(np.float32), 64) > 0
    seen = np.where(hidden, np.nan, square)
    sides = [seen[:3], seen[-3:], seen[:, :3].T, seen[:, -3:].T]
    blocks = np.concatenate([np.stack(np.split(side, 8, axis=1)).reshape(8, -1) for side in sides])
    outside = square[~hidden]
    levels = np.quantile(outside, np.linspace(0, 1, 8)) if outside.size else np.zeros(8)
    known = np.isfinite(blocks).any(axis=1)
    along = np.full(len(blocks), np.nan, dtype=np.float32)
    along[known] = np.nanmean(blocks[known], axis=1)
    # Where the breast meets a side there is nothing to see: the middle background level stands in.
    filled = np.where(np.isfinite(along), along, np.median(levels))
    return np.concatenate([filled, levels]).astype(np.float32)


def _resized(pixels: Pixels, side: int) -> Pixels:
    picture = Pillow.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    return np.asarray(picture.resize((side, side), Pillow.Resampling.BOX))
