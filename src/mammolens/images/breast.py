"""Where the breast is in a picture, and which way round it is. Pure functions of arrays.

All of it is judged on a thumbnail whose longer side has `THUMBNAIL` pixels: the breast's outline
is a coarse thing, and a 12-megapixel mammogram then costs no more than a small one.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

THUMBNAIL = 256
"""Longer side, in pixels, of the picture that anatomy is judged on."""

UNCERTAIN = 0.06
"""Polarity margin under which 1 of 4,491 real images lies, judged rightly (docs/experiments.md)."""

LEAST_AREA = 0.02
"""Share of a mammogram that a breast covers at least; where less is found, there is none."""

_FLAT = 0.012  # local standard deviation of a background without texture
_DARK, _BRIGHT = 0.2, 0.8  # where background lies, after stretching to the picture's own range
_BAND = 0.97  # of the pixels of a row that are dark or bright where it is no breast's, but a band's
_EDGE = 2  # pixels that a band's own edge may blur
_CORNER = (1 / 3, 1 / 10)  # polarity is read in corners: their lengths and depths, as shares
_LEVELS = 128  # grey levels that the threshold is looked for among
_BORDER = 0.08  # film borders are looked for in this share of each side
_STRIP = 0.14  # and in this one, where they have no gap
_SATURATED = 0.97
_FOG = 0.05  # of a mammogram, its darkest, is background
_OPENING = 1 / 64  # markers and lines thinner than this share of the side are not breast


@dataclass(frozen=True)
class Polarity:
    """Whether grey levels are inverted.

    Attributes:
        inverted: True where the background is white.
        margin: how much of the corners looks like background of the winning polarity, less that
            of the other, in [0, 1]: below `UNCERTAIN` it is a guess.
    """

    inverted: bool
    margin: float


@dataclass(frozen=True, eq=False)
class Breast:
    """What a thumbnail shows.

    Attributes:
        mask: bool (thumbnail height, thumbnail width), True in the breast; empty if none is found.
        box: (left, top, right, bottom) of the mask as shares of width and height, in [0, 1].
        chest_wall_right: True where the chest wall is on the right of the picture.
    """

    mask: Mask
    box: tuple[float, float, float, float]
    chest_wall_right: bool

    @property
    def area(self) -> float:
        """Share of the picture that the breast covers, in [0, 1]."""
        return float(self.mask.mean())

    @property
    def is_found(self) -> bool:
        """Whether there is a breast: what covers less than `LEAST_AREA` is none."""
        return self.area >= LEAST_AREA

    def or_everything(self) -> "Breast":
        """Return the breast, or the whole picture where none was found."""
        if self.is_found:
            return self
        return Breast(np.ones_like(self.mask), (0.0, 0.0, 1.0, 1.0), chest_wall_right=False)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What a picture shows, in either polarity.

    Attributes:
        small: its thumbnail, as it is.
        polarity: whether grey levels are inverted.
    """

    small: Pixels
    polarity: Polarity

    @cached_property
    def upright(self) -> Pixels:
        """The thumbnail with black background."""
        return 1 - self.small if self.polarity.inverted else self.small

    @cached_property
    def breast(self) -> Breast:
        """The breast, as it is found on the upright thumbnail."""
        return find_breast(self.upright)

    @cached_property
    def fog(self) -> float:
        """The grey level that the background has at least, in [0, 1]: film lifts it."""
        if np.count_nonzero(self.upright == 0) > _FOG * self.upright.size + 1:
            return 0.0
        return float(np.quantile(self.upright, _FOG))

    @cached_property
    def clear(self) -> tuple[Pixels, Breast]:
        """The upright thumbnail without fog, and the breast in it."""
        if self.fog == 0:
            return self.upright, self.breast
        clear = np.clip((self.upright - self.fog) / max(1 - self.fog, 1e-6), 0, 1).astype(np.float32)
        return clear, find_breast(clear)


def anatomy(pixels: Pixels) -> Anatomy:
    """Tell black from white in a picture, float32 (height, width), and find the breast."""
    small = thumbnail(pixels)
    return Anatomy(small, polarity(small))


def thumbnail(pixels: Pixels, longest: int = THUMBNAIL) -> Pixels:
    """Shrink (height, width) by area averaging until its longer side is `longest`, in [0, 1].

    The range is stretched to the picture's own, so that 12 bits in a 16-bit file look the same.
    """
    height, width = pixels.shape
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BOX))
    low, high = float(small.min()), float(small.max())
    return np.asarray((small - low) / max(high - low, 1e-6), dtype=np.float32)


def polarity(small: Pixels) -> Polarity:
    """Tell from the corners of a thumbnail whether the background is black or white.

    Bands along the whole length of a side are no evidence, whatever their colour, if they are no
    deeper than the strips that film scanners leave: where the breast fills the film, these outweigh
    its background. Of what is left, background is what lies in the corners, without texture, at
    one end of the grey scale: a breast is round.
    """
    kept = _without_bands(small)
    flat = (local_variance(small) < _FLAT**2)[kept]
    grey = small[kept]
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
    corners = flat & _corners(grey.shape)
    dark = np.clip(1 - grey / _DARK, 0, 1)[corners].sum()
    bright = np.clip(1 - (1 - grey) / (1 - _BRIGHT), 0, 1)[corners].sum()
    share = float(bright - dark) / float(_corners(grey.shape).sum())
    return Polarity(inverted=share > 0, margin=abs(share))


def _without_bands(small: Pixels) -> tuple[slice, slice]:
    """Return what is left when rows and columns without tissue are taken off all four sides."""
    extreme = (small < _DARK) | (small > _BRIGHT)
    top, bottom, left, right = 0, small.shape[0], 0, small.shape[1]
    before = None
    while before != (before := (top, bottom, left, right)):
        rows = extreme[:, left:right].mean(axis=1) <= _BAND
        top, bottom = _between_bands(rows, top, bottom)
        columns = extreme[top:bottom].mean(axis=0) <= _BAND
        left, right = _between_bands(columns, left, right)
    return _inside(top, bottom), _inside(left, right)


def _inside(first: int, end: int) -> slice:
    edge = min(_EDGE, (end - first - 1) // 2)
    return slice(first + edge, end - edge)


def _between_bands(tissue: Mask, first: int, end: int) -> tuple[int, int]:
    """Narrow [first, end) to where there is tissue, by no more at an end than a strip is deep."""
    deepest = round(_STRIP * len(tissue))
    while first < deepest and not tissue[first]:
        first += 1
    while end > len(tissue) - deepest and not tissue[end - 1]:
        end -= 1
    return first, end


def _corners(shape: tuple[int, ...]) -> Mask:
    """Return True along the edges, near the four corners."""
    length, depth = _CORNER
    down, across = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in shape)
    near = (down < length * shape[0])[:, None] & (across < length * shape[1])
    deep = max(round(min(shape) * depth), 4)
    return near & ((down < deep)[:, None] | (across < deep))


def local_variance(small: Pixels) -> Pixels:
    """Return the variance of the 3 x 3 pixels around each; the outermost repeat themselves."""
    mean = _mean_of_nine(small)
    return np.asarray(_mean_of_nine(small * small) - mean * mean)


def _mean_of_nine(small: Pixels) -> Pixels:
    # Three times as fast as ndimage.uniform_filter(small, 3), which gives the same.
    padded = np.pad(small, 1, mode="edge")
    columns = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]) / np.float32(9))


def find_breast(small: Pixels) -> Breast:
    """Separate the breast from background, markers and borders on an upright-polarity thumbnail."""
    cleaned = _without_film_borders(small)
    mask = _largest_piece(_opened(cleaned > _threshold(cleaned)))
    if not mask.any():
        return Breast(mask, (0.0, 0.0, 1.0, 1.0), chest_wall_right=False)
    return Breast(mask, _bounding_box(mask), _touches_more_on_right(mask))


def _threshold(small: Pixels) -> float:
    """Grey level that separates breast from background (Otsu 1979, on square roots).

    The square root spreads the dark levels, where skin and background meet. Infinite where all are alike.
    """
    spread = np.sqrt(small)
    levels = np.minimum((spread * _LEVELS).astype(np.intp), _LEVELS - 1)
    if levels.min() == levels.max():
        return math.inf
    counts = np.bincount(levels.ravel(), minlength=_LEVELS)
    centres = (np.arange(_LEVELS) + 0.5) / _LEVELS
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    level = float(centres[int(np.nanargmax(separation))])
    # The skin line is darker than the middle between background and breast.
    background = float(np.median(spread[spread <= level]))
    return (background + 0.6 * (level - background)) ** 2


def _without_film_borders(small: Pixels) -> Pixels:
    """Blacken the saturated strips that film scanners leave along the sides.

    What is saturated over its whole length may be an eighth of the picture deep; over half of its
    length, less.
    """
    cleaned = small.copy()
    for turns in range(4):
        turned = np.rot90(cleaned, turns)
        share = (turned > _SATURATED).mean(axis=1)
        half = np.flatnonzero(share[: round(len(share) * _BORDER)] > 0.5)  # noqa: PLR2004
        whole = np.argmin(share > _BAND)
        if half.size or 0 < whole <= _STRIP * len(share):
            turned[: max(half[-1] + 1 if half.size else 0, whole) + 1] = 0
    return cleaned


def eroded(mask: Mask, steps: int) -> Mask:
    """Take off the rim, `steps` pixels of the city-block metric, but not where the picture ends."""
    for _ in range(steps):
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        mask = inner
    return mask


def dilated(mask: Mask, steps: int) -> Mask:
    """Add a rim of `steps` pixels of the city-block metric."""
    return ~eroded(~mask, steps)


def _opened(mask: Mask) -> Mask:
    radius = max(1, round(max(mask.shape) * _OPENING))
    # Padding by the edge keeps the opening from eating the breast where the picture cuts it.
    padded = np.pad(np.pad(mask, radius, mode="edge"), 1)
    opened = dilated(eroded(padded, radius), radius)
    inner = slice(radius + 1, -radius - 1)
    return opened[inner, inner]


def _largest_piece(mask: Mask) -> Mask:
    pieces = _pieces(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return _filled(pieces == int(sizes.argmax())) if mask.any() else mask


def _filled(piece: Mask) -> Mask:
    """Fill holes: background that does not reach the side of the picture."""
    pieces = _pieces(~piece)
    open_ended = np.zeros(int(pieces.max()) + 1, dtype=bool)
    for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        open_ended[side] = True
    open_ended[0] = False
    return np.asarray(~open_ended[pieces], dtype=bool)


def _pieces(mask: Mask) -> NDArray[np.intp]:
    """Number what hangs together by the sides of its pixels, from 1, in the order in which rows meet it; 0 elsewhere.

    Runs of pixels along rows are joined with those above (Rosenfeld and Pfaltz 1966). It is scipy.ndimage.label, which
    takes a quarter of a second to load in every process that decodes.
    """
    width = mask.shape[1]
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps > 0)
    ends = np.nonzero(steps < 0)[1]
    above = (rows - 1) * width
    first = np.searchsorted(rows * width + ends, above + starts, side="right").tolist()
    behind = np.searchsorted(rows * width + starts, above + ends).tolist()
    joined: list[int] = []  # each run with an earlier one of its piece, or with itself

    def earliest(run: int) -> int:
        while joined[run] != run:
            run = joined[run]
        return run

    for run, touching in enumerate(map(range, first, behind)):
        met = {earliest(one) for one in touching}
        joined.append(min(met, default=run))
        for one in met:
            joined[one] = joined[run]
    _, numbers = np.unique(list(map(earliest, range(len(rows)))), return_inverse=True)
    pieces = np.zeros(mask.shape, dtype=np.intp)
    pieces[mask] = np.repeat(numbers + 1, ends - starts)
    return pieces


def _bounding_box(mask: Mask) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def _touches_more_on_right(mask: Mask) -> bool:
    """Compare the two sides of the breast's own box: the chest wall is its straight, full side."""
    columns = np.flatnonzero(mask.any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    strip = max(1, (right - left) // 10)
    on_left = int(mask[:, left : left + strip].sum())
    on_right = int(mask[:, right - strip : right].sum())
    return on_right > on_left
