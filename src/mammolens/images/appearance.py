"""What a picture looks like, in numbers: outline, background, tissue, texture. Knows no verdict.

All is measured on a thumbnail, upright, stretched to a square with the chest wall on the left: a negative has the
same numbers, a mirror image or one of another ratio of height to width nearly the same.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.images.breast import Anatomy, Mask, Pixels, dilated, eroded, local_variance

STATISTICS = 74
"""How many numbers `statistics` returns."""

WHOLE_STATISTICS = 21
"""How many numbers `whole_statistics` returns."""

_SIDE = 96  # pixels: a square, for public sets often come stretched to one
_WHOLE_SIDE = 128  # the same, of the whole picture
_BLURS = (1, 2, 4)  # pixels: deviations of the Gaussians
_ENOUGH = 50  # pixels that a level or a deviation is judged on, where there are as many
_FLAT = 0.02  # local standard deviation of a background without texture
_BRIGHT = 0.15  # above the background: a marker, a label, a film border
_DARK = 0.2  # of the contrast above the background: dark for tissue
_DARK_EDGE = 0.1  # of the grey scale: background where the picture ends
_LEAST = 0.05  # contrast between tissue and background that is divided by
_STEPS = 32  # grey levels that the entropy is counted on
_RINGS = (2, 2, 4, 8)  # pixels: how deep one ring after another lies below the outline
_SHADES = (2, 10, 25, 50, 75, 90, 98)  # percentiles of tissue
_MARGIN = 16  # of the breast's height or width is background about it


@dataclass(frozen=True, eq=False)
class _Scene:
    """A picture as a square: black background, chest wall on the left."""

    grey: Pixels
    breast: Mask
    inside: Mask
    """The breast without its rim; the whole breast where nothing else would be left."""
    outside: Mask
    fog: float
    """What was taken off all grey levels because the darkest ones had it."""
    level: float
    """The background's median."""
    contrast: float
    """By how much the median of the tissue is brighter."""

    @property
    def side(self) -> int:
        """Height and width, in pixels."""
        return len(self.grey)

    @cached_property
    def relative(self) -> Pixels:
        """Grey above the background, in contrasts: about 1 in tissue."""
        return np.asarray(np.clip((self.grey - self.level) / self.contrast, -1, 4), dtype=np.float32)

    @cached_property
    def blurred(self) -> list[Pixels]:
        """The picture as it is, and ever more blurred."""
        blurs = _blurs(self.side)
        return [self.grey, *(blurs @ self.grey @ blurs.transpose(0, 2, 1))]

    @cached_property
    def variance(self) -> Pixels:
        """The variance about each pixel."""
        return local_variance(self.grey)

    @cached_property
    def slopes(self) -> tuple[Pixels, Pixels]:
        """By how much the picture, little blurred, brightens from row to row and from column to column."""
        down, across = np.gradient(self.blurred[1])
        return np.asarray(down), np.asarray(across)


def statistics(seen: Anatomy) -> NDArray[np.float32]:
    """Describe what is seen by `STATISTICS` finite numbers, float32. Colour is not looked at.

    All but the first eight are of the breast's box alone, so that margins and padding make no difference.
    """
    view = _clear(seen)
    measures = (_outline, _background, _tissue, _texture, _sides, _depth, _profile, _pieces, _shades, _detail)
    scene = _scene(*_boxed(*view[:2]), view[2], _SIDE)
    numbers = [_around(*view), *(measure(scene) for measure in measures)]
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in numbers])


def whole_statistics(seen: Anatomy) -> NDArray[np.float32]:
    """Describe what is seen by `WHOLE_STATISTICS` finite numbers, float32, of the whole picture with its margins."""
    scene = _scene(*_clear(seen), _WHOLE_SIDE)
    measures = (_outline, _background, _tissue, _texture)
    return np.concatenate([np.asarray(measure(scene), dtype=np.float32) for measure in measures])


@cache
def _blurs(side: int) -> NDArray[np.float32]:
    """Return Gaussians that blur along one direction, mirrored at the ends, as a matrix a size.

    A third of the time of filters, one after the other; scipy.ndimage.gaussian_filter1d of a unit matrix.
    """
    blurs, rows = np.zeros((len(_BLURS), side, side)), np.arange(side)[:, None]
    for blur, size in zip(blurs, _BLURS, strict=True):
        steps = np.arange(-4 * size, 4 * size + 1)
        weights = np.exp(-(steps**2) / (2 * size**2))
        places = rows + steps
        places = np.where(places < 0, -1 - places, np.minimum(places, 2 * side - 1 - places))
        np.add.at(blur, (rows, places), weights / weights.sum())
    return blurs.astype(np.float32)


def _clear(seen: Anatomy) -> tuple[Pixels, Mask, float]:
    """Return picture and breast, the chest wall on the left, and the fog that was taken off."""
    clear, found = seen.clear
    turned = slice(None, None, -1 if found.chest_wall_right else 1)
    return clear[:, turned], found.mask[:, turned], seen.fog


def _boxed(clear: Pixels, mask: Mask) -> tuple[Pixels, Mask]:
    """Cut to the breast and a little background, none at the chest wall; all of it where no breast is found."""
    if not mask.any():
        return clear, mask
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = (1 + rows[-1] - rows[0]) // _MARGIN, (1 + columns[-1] - columns[0]) // _MARGIN
    box = slice(max(rows[0] - margin[0], 0), rows[-1] + 1 + margin[0]), slice(columns[0], columns[-1] + 1 + margin[1])
    return clear[box], mask[box]


def _around(clear: Pixels, mask: Mask, fog: float) -> tuple[float, ...]:
    """Describe the whole picture: how large the breast is in it, how dark and flat the rest, what there stands out.

    At half the size, which is enough for all that lies outside.
    """
    clear, mask = np.asarray(Pillow.fromarray(np.ascontiguousarray(clear)).reduce(2)), mask[::2, ::2]
    edge = np.concatenate([clear[0], clear[-1], clear[:, 0], clear[:, -1]])
    large = (float(mask.any(axis=1).mean()), float(mask.any(axis=0).mean()), float((edge < _DARK_EDGE).mean()))
    around = ~dilated(mask, 3)
    if around.sum() < _ENOUGH:
        return (*large, 0.0, math.log10(fog + 0.05), 0.0, 0.0, 0.0)
    grey = clear[around]
    level = float(np.median(grey))
    flat = float((local_variance(clear) < _FLAT**2)[around].mean())
    return (
        *large,
        float(around.mean()),
        math.log10(level * (1 - fog) + fog + 0.05),
        math.log10(float((grey > level + _BRIGHT).mean()) + 0.03),
        math.log10(1.05 - flat),
        math.log10(float((grey > level + _BRIGHT).sum()) / max(float(mask.sum()), 1) + 0.03),
    )


def _scene(clear: Pixels, mask: Mask, fog: float, side: int) -> _Scene:
    grey, breast = _square(clear, side), _square(mask, side) > 0.5  # noqa: PLR2004 - half
    if not breast.any():
        breast[side // 2, side // 2] = True  # as good as nothing, yet it can be measured
    inside = eroded(breast, 4)
    inside = inside if inside.sum() >= _ENOUGH else breast
    outside = ~dilated(breast, 5)
    if outside.sum() < _ENOUGH:
        outside = ~breast if (~breast).sum() >= _ENOUGH else np.ones_like(breast)
    level = float(np.median(grey[outside]))
    contrast = max(float(np.median(grey[inside])) - level, _LEAST)
    return _Scene(grey, breast, inside, outside, fog, level, contrast)


def _square(picture: Pixels | Mask, side: int) -> Pixels:
    whole = Pillow.fromarray(np.asarray(picture, dtype=np.float32))
    return np.array(whole.resize((side, side), Pillow.Resampling.BOX))


def _outline(scene: _Scene) -> tuple[float, ...]:
    breast = scene.breast
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    box = breast[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = box.shape
    strip = max(1, width // 10)
    skin = breast & ~eroded(breast, 1)
    return (
        height / scene.side,
        width / scene.side,
        math.log10(columns[0] / scene.side + 0.1),
        float(box.mean()),
        math.log10(1.1 - float(box[:, :strip].mean())),
        float(box[:, -strip:].mean()),
        float(breast[-1].mean()),
        math.log10(float(skin.sum()) / math.sqrt(float(breast.sum())) + 0.01),
    )


def _background(scene: _Scene) -> tuple[float, ...]:
    around = scene.grey[scene.outside]
    flat = float((scene.variance[scene.outside] < _FLAT**2).mean())
    return (
        math.log10(scene.level * (1 - scene.fog) + scene.fog + 0.05),
        math.log10(float((around > scene.level + _BRIGHT).mean()) + 0.03),
        math.log10(1.05 - flat),
    )


def _tissue(scene: _Scene) -> tuple[float, ...]:
    tissue = scene.grey[scene.inside]
    dark = float((tissue < scene.level + _DARK * scene.contrast).mean())
    return (
        math.log10(dark + 0.02),
        math.log10(float(tissue.std()) / scene.contrast + 0.1),
        _entropy(tissue, _STEPS),
    )


def _entropy(grey: Pixels, steps: int) -> float:
    counts = np.bincount((grey * (steps - 0.01)).astype(np.intp).ravel(), minlength=steps)
    shares = counts[counts > 0] / grey.size
    return float(-(shares * np.log2(shares)).sum())


def _texture(scene: _Scene) -> tuple[float, ...]:
    """Describe detail of three sizes, whether it has preferred directions, and the skin line."""
    fine, middle, coarse = (
        math.log10(float((sharp - blunt)[scene.inside].std()) + 0.003)
        for sharp, blunt in itertools.pairwise(scene.blurred)
    )
    down, across = scene.slopes
    steepness = np.hypot(down, across)
    direction = (across + 1j * down)[scene.inside] / np.maximum(steepness[scene.inside], 1e-9)
    twice = direction * direction
    steep = steepness[scene.inside]
    grown = dilated(scene.breast, 2)
    edge = steepness[grown & ~eroded(scene.breast, 1)]
    edge = edge if edge.size else np.zeros(1, dtype=np.float32)
    total = float(steep.sum()) + 1e-4
    return (
        coarse,
        middle - fine,
        coarse - middle,
        *(  # 1 where all slopes run along one line, or two crossed ones
            math.log10(abs(complex((steep * folded).sum())) / total + 0.05) for folded in (twice, twice * twice)
        ),
        math.log10(float(edge.mean()) / scene.contrast + 0.02),
        float(edge.std()) / (float(edge.mean()) + 0.002),
    )


def _sides(scene: _Scene) -> tuple[float, ...]:
    """Tell how much of the picture and of its sides is breast, and how symmetric it is."""
    breast, grey = scene.breast, scene.grey
    return (
        float(breast.mean()),
        float(breast[0].mean()),
        float(breast[:, 0].mean()),
        float(breast[:, -1].mean()),
        _correlation(grey, grey[:, ::-1]),
        _correlation(grey, grey[::-1]),
    )


def _correlation(one: Pixels, other: Pixels) -> float:
    """Return Pearson's correlation, 1 where either does not vary."""
    if not one.size:
        return 1.0
    one, other = one - one.mean(), other - other.mean()
    spread = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return float((one * other).sum()) / spread if spread > 1e-6 else 1.0  # noqa: PLR2004


def _depth(scene: _Scene) -> tuple[float, ...]:
    """Follow the brightness from the outline inwards: a breast is thin at its skin and thick in its middle."""
    levels, rest = [0.0], scene.breast
    for steps in _RINGS:
        inner = eroded(rest, steps)
        ring = rest & ~inner
        levels.append(float(scene.relative[ring].mean()) if ring.any() else levels[-1])
        rest = inner
    return (*levels[1:], float(scene.relative[rest].mean()) if rest.any() else levels[-1])


def _profile(scene: _Scene) -> tuple[float, ...]:
    """Describe the skin line, as the last column of the breast in each row, by a parabola and what it leaves."""
    rows = scene.breast[scene.breast.any(axis=1)]
    last = scene.side - np.argmax(rows[:, ::-1], axis=1).astype(np.float64)
    if len(last) < 6:  # noqa: PLR2004 - too few for a parabola
        return 0.0, 0.0, -2.3, -1.0, -1.7, 0.5
    place = np.linspace(-1, 1, len(last))
    bend = place * place - float((place * place).mean())  # orthogonal to 1 and to place, for these are even and odd
    tilt, curvature = (float(one @ last) / float(one @ one) for one in (place, bend))
    rest = last - last.mean() - tilt * place - curvature * bend
    top, steps = int(last.argmax()), np.diff(last)
    back = int((steps[:top] < 0).sum() + (steps[top:] > 0).sum())
    return (
        curvature / scene.side,
        abs(tilt) / scene.side,
        math.log10(float(rest.std()) / scene.side + 0.005),
        math.log10(float(np.abs(np.diff(steps)).mean()) + 0.1),
        math.log10(back / len(last) + 0.02),
        abs(top / len(last) - 0.5),
    )


def _pieces(scene: _Scene) -> tuple[float, ...]:
    """Tell whether it is one piece without gaps, or many limbs."""
    rows = scene.breast[scene.breast.any(axis=1)]
    first, last = np.argmax(rows, axis=1), scene.side - np.argmax(rows[:, ::-1], axis=1)
    bright = (scene.relative > 0.4).astype(np.int8)  # noqa: PLR2004 - tissue, wherever it lies
    return (
        *(math.log10(1.02 - rows.sum() / float((last - start).sum())) for start in (first, first.min())),
        *(float((np.diff(bright, axis=axis) == 1).sum()) / scene.side for axis in (1, 0)),
        math.log10(float((scene.relative[scene.outside] > 0.3).mean()) + 0.01),  # noqa: PLR2004
    )


def _shades(scene: _Scene) -> tuple[float, ...]:
    """Describe how grey levels are spread: in tissue, in all of the picture, in the background."""
    tissue = scene.relative[scene.inside]
    shades = np.percentile(tissue, _SHADES)
    middle = len(_SHADES) // 2
    counts = np.sort(np.bincount((scene.grey * 63.99).astype(np.intp).ravel(), minlength=64))
    return (
        *(float(shade - shades[middle]) for at, shade in enumerate(shades) if at != middle),
        *_moments(tissue, 0.01),
        math.log10(float((scene.grey[scene.inside] > 0.98).mean()) + 0.005),  # noqa: PLR2004 - saturated
        _entropy(scene.grey, 64),
        math.log10(1.02 - float(counts[-3:].sum()) / scene.grey.size),
        math.log10(float(scene.grey[scene.outside].std()) + 0.003),
    )


def _moments(values: Pixels, least: float) -> tuple[float, float]:
    """Return skewness, and the logarithm of kurtosis plus 1; `least` is the smallest deviation that is divided by."""
    standard = (values - values.mean()) / max(float(values.std()), least)
    squares = standard * standard
    return float((squares * standard).mean()), math.log10(float((squares * squares).mean()) + 1)


def _detail(scene: _Scene) -> tuple[float, ...]:
    """Describe how rough tissue is in its smooth and in its rough places, and along rows and columns."""
    inside, grey = scene.inside, scene.grey
    rough = np.sqrt(np.maximum(scene.variance[inside], 0)) / scene.contrast
    bands = (scene.blurred[1] - scene.blurred[2])[inside]
    down, across = scene.slopes
    pairs = (
        (grey[:, 4:], grey[:, :-4], inside[:, 4:] & inside[:, :-4]),
        (grey[4:], grey[:-4], inside[4:] & inside[:-4]),
    )
    return (
        math.log10(float((rough < 0.004).mean()) + 0.01),  # noqa: PLR2004 - flat as no tissue is
        *(math.log10(float(value) + 0.003) for value in np.percentile(rough, (10, 50, 90, 99))),
        *_moments(bands, 1e-4),
        float(across[inside].mean()) / scene.contrast,
        abs(float(down[inside].mean())) / scene.contrast,
        *(_correlation(one[both], other[both]) for one, other, both in pairs),
    )
