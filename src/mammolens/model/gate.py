"""The gate: is this picture a mammogram at all, by what a thumbnail shows? Knows no network.

Twenty-one statistics of outline, background and tissue are held against those of mammograms, by
one Mahalanobis distance. Most of what it is held against is a reference that is the same for all
networks, of digital, film and synthetic images: a gate of one vendor's images alone turned half
of another's away.
"""

import itertools
import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict, model_validator
from scipy import ndimage

from mammolens.errors import DataError
from mammolens.images.breast import (
    Mask,
    Pixels,
    anatomy,
    dilated,
    eroded,
    find_breast,
    local_variance,
)
from mammolens.images.image import Image

Vector = NDArray[np.float64]

MIN_IMAGES = 8
"""Fewest images that a gate is fitted on; the reference does not need them, their mean does."""

_SIDE = 128  # pixels: a square, for public sets often come stretched to one
_FOG = 5  # percent: this darkest share of a mammogram is background, however film lifts it
_ENOUGH = 50  # pixels that a level or a deviation is judged on, where there are as many
_FLAT = 0.02  # local standard deviation of a background without texture
_BRIGHT = 0.15  # above the background: a marker, a label, a film border
_DARK = 0.2  # of the contrast above the background: dark for tissue
_LEAST = 0.05  # contrast between tissue and background that is divided by
_STEPS = 32  # grey levels that the entropy is counted on
_CLIP = 5.0  # deviations beyond which a statistic is no odder, so that no single one rules
_OWN = 0.1  # weight of the images fitted on; the reference has the rest
_RIDGE = 0.1  # shrinkage of correlations towards none (target D of Schäfer and Strimmer 2005)
_LIMIT = 1.7  # least threshold: 9 of 2,149 digital images and 3 of 1,247 films lie beyond it
_REJECTED = 0.005  # share of images like those fitted on that may be turned away
_MARGIN = 1.1  # unseen images lie a little further out than those fitted on
_JUNK = 2.0  # medians that no threshold exceeds: a few blank files must not open the gate

_REFERENCE = tomllib.loads(resources.files("mammolens.model").joinpath("gate.toml").read_text(encoding="utf-8"))

STATISTICS = len(_REFERENCE["statistics"])
"""How many numbers `statistics` returns."""


class Gate(BaseModel):
    """What a picture is held against. Travels in a bundle's `bundle.json`.

    Attributes:
        version: of the statistics it was fitted on; another version's mean something else.
        images: how many images it was fitted on.
        centre: mean of each statistic, in units of the reference's deviations.
        precision: inverse covariance in these units, (STATISTICS, STATISTICS), symmetric.
        threshold: largest distance that is admitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    images: int
    centre: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    threshold: float

    @model_validator(mode="after")
    def _one_number_a_statistic(self) -> Self:
        lengths = {len(self.centre), len(self.precision), *map(len, self.precision)}
        if lengths != {STATISTICS}:
            raise ValueError(f"a gate has {STATISTICS} numbers in each direction, not {lengths}")
        return self

    def distance(self, statistics: NDArray[np.float32]) -> float:
        """Return how unlike a mammogram an image is: about 1 for a typical one, at least 0.

        The Mahalanobis distance (1936) of its `statistics`, (STATISTICS,), divided by the square
        root of their number.
        """
        offset = _standardised(statistics) - np.asarray(self.centre)
        return math.sqrt(float(offset @ np.asarray(self.precision) @ offset) / STATISTICS)

    def admits(self, statistics: NDArray[np.float32]) -> bool:
        """Tell whether an image with these `statistics`, (STATISTICS,), passes."""
        return self.distance(statistics) <= self.threshold


def fit_gate(statistics: NDArray[np.float32]) -> Gate:
    """Fit a gate on the statistics of training images, (images, STATISTICS), all finite.

    The reference of digital, film and synthetic mammograms has nine tenths of the weight: what
    one training set does not show, such as film, is no reason to turn an image away. The threshold
    is never below what admits the reference.

    Raises:
        DataError: there are fewer than `MIN_IMAGES` images.
    """
    if len(statistics) < MIN_IMAGES:
        raise DataError(f"A gate needs at least {MIN_IMAGES} training images; received {len(statistics)}.")
    own = _standardised(statistics)
    centre = _OWN * own.mean(axis=0)
    covariance = (1 - _OWN) * (_reference_correlation() + np.outer(centre, centre))
    covariance += _OWN * (own - centre).T @ (own - centre) / len(own)
    covariance += _RIDGE * (np.diag(np.diag(covariance)) - covariance)
    precision = tuple(map(tuple, np.linalg.inv(covariance).tolist()))
    gate = Gate(images=len(own), centre=tuple(centre.tolist()), precision=precision, threshold=_LIMIT)
    distances = [gate.distance(row) for row in statistics]
    wanted = _MARGIN * float(np.quantile(distances, 1 - _REJECTED))
    bounded = min(wanted, _JUNK * float(np.median(distances)))
    return gate.model_copy(update={"threshold": max(_LIMIT, bounded)})


def is_admitted(image: Image, gate: Gate | None) -> bool:
    """Tell whether an image as read looks like a mammogram: it is grey, and passes the gate.

    Mammograms have no colour, whatever a network learnt from: without a gate, that alone counts.
    """
    return not image.colour and (gate is None or gate.admits(statistics(image.pixels)))


def statistics(pixels: Pixels) -> NDArray[np.float32]:
    """Describe an image as read, float32 (height, width) in [0, 1], by STATISTICS finite numbers.

    A negative has the same ones; a mirror image, or one stretched to another ratio of height to
    width, has nearly the same. Colour is not looked at: `is_admitted` does.
    """
    scene = _scene(pixels)
    return np.asarray(
        [*_outline(scene.breast), *_background(scene), *_tissue(scene), *_texture(scene)],
        dtype=np.float32,
    )


@dataclass(frozen=True, eq=False)
class _Scene:
    """A picture as a square of `_SIDE` pixels: black background, chest wall on the left."""

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


def _scene(pixels: Pixels) -> _Scene:
    upright = anatomy(pixels).upright
    fog = float(np.percentile(upright, _FOG))
    clear = np.clip((upright - fog) / max(1 - fog, 1e-6), 0, 1).astype(np.float32)
    found = find_breast(clear)
    grey, breast = _square(clear), _square(found.mask) > 0.5  # noqa: PLR2004 - half
    if found.chest_wall_right:
        grey, breast = grey[:, ::-1], breast[:, ::-1]
    if not breast.any():
        breast[_SIDE // 2, _SIDE // 2] = True  # as good as nothing, yet it can be measured
    inside = eroded(breast, 4)
    inside = inside if inside.sum() >= _ENOUGH else breast
    outside = ~dilated(breast, 5)
    if outside.sum() < _ENOUGH:
        outside = ~breast if (~breast).sum() >= _ENOUGH else np.ones_like(breast)
    level = float(np.median(grey[outside]))
    contrast = max(float(np.median(grey[inside])) - level, _LEAST)
    return _Scene(grey, breast, inside, outside, fog, level, contrast)


def _square(picture: Pixels | Mask) -> Pixels:
    whole = Pillow.fromarray(np.asarray(picture, dtype=np.float32))
    return np.array(whole.resize((_SIDE, _SIDE), Pillow.Resampling.BOX))


def _outline(breast: Mask) -> tuple[float, ...]:
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    box = breast[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = box.shape
    strip = max(1, width // 10)
    skin = breast & ~eroded(breast, 1)
    return (
        height / _SIDE,
        width / _SIDE,
        math.log10(columns[0] / _SIDE + 0.1),
        float(box.mean()),
        math.log10(1.1 - float(box[:, :strip].mean())),
        float(box[:, -strip:].mean()),
        float(breast[-1].mean()),
        math.log10(float(skin.sum()) / math.sqrt(float(breast.sum())) + 0.01),
    )


def _background(scene: _Scene) -> tuple[float, ...]:
    around = scene.grey[scene.outside]
    flat = float((local_variance(scene.grey) < _FLAT**2)[scene.outside].mean())
    return (
        math.log10(scene.level * (1 - scene.fog) + scene.fog + 0.05),
        math.log10(float((around > scene.level + _BRIGHT).mean()) + 0.03),
        math.log10(1.05 - flat),
    )


def _tissue(scene: _Scene) -> tuple[float, ...]:
    tissue = scene.grey[scene.inside]
    dark = float((tissue < scene.level + _DARK * scene.contrast).mean())
    counts = np.bincount((tissue * (_STEPS - 0.01)).astype(np.intp), minlength=_STEPS)
    shares = counts[counts > 0] / tissue.size
    return (
        math.log10(dark + 0.02),
        math.log10(float(tissue.std()) / scene.contrast + 0.1),
        float(-(shares * np.log2(shares)).sum()),
    )


def _texture(scene: _Scene) -> tuple[float, ...]:
    """Describe detail of three sizes, whether it has preferred directions, and the skin line."""
    blurred = [scene.grey, *(ndimage.gaussian_filter(scene.grey, size) for size in (1, 2, 4))]
    fine, middle, coarse = (
        math.log10(float((sharp - blunt)[scene.inside].std()) + 0.003) for sharp, blunt in itertools.pairwise(blurred)
    )
    down, across = np.gradient(blurred[1])
    steepness = np.hypot(down, across)
    direction = (across + 1j * down)[scene.inside] / np.maximum(steepness[scene.inside], 1e-9)
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
            math.log10(abs(complex((steep * direction**fold).sum())) / total + 0.05) for fold in (2, 4)
        ),
        math.log10(float(edge.mean()) / scene.contrast + 0.02),
        float(edge.std()) / (float(edge.mean()) + 0.002),
    )


def _standardised(statistics: NDArray[np.float32]) -> Vector:
    """Return statistics, (…, STATISTICS), in the reference's deviations from its means."""
    _, mean, deviation = zip(*_REFERENCE["statistics"], strict=True)
    return np.asarray(np.clip((statistics - np.array(mean)) / np.array(deviation), -_CLIP, _CLIP))


def _reference_correlation() -> Vector:
    lower = np.zeros((STATISTICS, STATISTICS))
    lower[np.tril_indices(STATISTICS, -1)] = np.concatenate(_REFERENCE["correlations"]) / 100
    return np.asarray(lower + lower.T + np.eye(STATISTICS))
