"""The gate: is this picture a mammogram at all, and one like those that the model learnt from? Knows no network.

Two questions, both put to the numbers of `images.appearance`. Whether it is a mammogram is a question of two classes,
mammograms of all kinds against everything else, answered alike for all models (`gate.npz`, made by
`benchmarks/gate.py`): what differs from one vendor's images is a mammogram all the same. Whether it is like the
training images is a Mahalanobis distance from them, which travels in the bundle.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from mammolens.errors import DataError
from mammolens.images.appearance import WHOLE_STATISTICS, statistics, whole_statistics
from mammolens.images.breast import Anatomy, anatomy
from mammolens.images.image import Image
from mammolens.images.reading import read_image

Vector = NDArray[np.float64]

MIN_IMAGES = 8
"""Fewest images that a gate is fitted on."""

_TABLES = resources.files("mammolens.model")
_REFERENCE = tomllib.loads(_TABLES.joinpath("gate.toml").read_text(encoding="utf-8"))["statistics"]

_CLIP = 5.0  # deviations beyond which a statistic is no odder, so that no single one rules
_CLASS_CLIP = 2.0  # the same, where two classes are told apart
LEAST = -1.34  # log odds of a mammogram: no vendor left out of fitting lost more than 1 % (docs/experiments.md, 38)
_RIDGE = 0.1  # shrinkage of correlations towards none (target D of Schäfer and Strimmer 2005)
_PRIOR = 20  # images that count for the spread of mammograms in general, without correlations
_UNLIKE = 0.01  # share of validation images, or of those fitted on, that are called unlike them
_MARGIN = 1.1  # unseen images lie a little further out than those fitted on: where there are no others
_PIECES = 0.1  # share of training images that look like no mammogram where they are not meant to


class Likeness(Enum):
    """What a picture is to a model: no mammogram, one unlike or one like those that it learnt from."""

    NO_MAMMOGRAM = 0
    UNLIKE_TRAINING = 1
    LIKE_TRAINING = 2


class Gate(BaseModel):
    """The training images' place among pictures. Travels in a bundle's `bundle.json`.

    Attributes:
        version: of the statistics it was fitted on; another version's mean something else.
        images: how many images it was fitted on.
        centre: mean of each statistic, (WHOLE_STATISTICS,), in units of the deviations in `gate.toml`.
        precision: inverse covariance in these units, (WHOLE_STATISTICS, WHOLE_STATISTICS), symmetric.
        threshold: largest distance of what is like them.
        whole: whether they look like mammograms, so that what does not can be turned away; not where a network
            learns from pieces cut out of breasts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    images: int
    centre: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    threshold: float
    whole: bool = True

    @model_validator(mode="after")
    def _one_number_a_statistic(self) -> Self:
        lengths = {len(self.centre), len(self.precision), *map(len, self.precision)}
        if lengths != {WHOLE_STATISTICS}:
            raise ValueError(f"a gate has {WHOLE_STATISTICS} numbers in each direction, not {lengths}")
        return self

    def distance(self, described: NDArray[np.float32]) -> float:
        """Return how unlike the training images one is: about 1 for one of them, at least 0.

        The Mahalanobis distance (1936) of its `whole_statistics`, divided by the square root of their number.
        """
        offset = _standardised(described) - np.asarray(self.centre)
        return math.sqrt(float(offset @ np.asarray(self.precision) @ offset) / WHOLE_STATISTICS)

    def likeness(self, seen: Anatomy) -> Likeness:
        """Tell what a grey picture is to the model."""
        if self.whole and not is_mammogram(seen):
            return Likeness.NO_MAMMOGRAM
        near = self.distance(whole_statistics(seen)) <= self.threshold
        return Likeness.LIKE_TRAINING if near else Likeness.UNLIKE_TRAINING


class Classes:
    """Mammograms and other pictures, told apart by what is measured of them.

    Logistic regression on standardised `statistics`, their squares, and the distances from both classes.

    Attributes:
        tables: ``mean`` and ``deviation`` over mammograms, (STATISTICS,); each class's ``centre``, (2, STATISTICS),
            and ``precision``, (2, STATISTICS, STATISTICS), in these units; ``weights`` and ``constant``.
    """

    def __init__(self, tables: Mapping[str, Vector]) -> None:
        self.tables = tables

    def features(self, described: Vector) -> Vector:
        """Return what is weighed, (images, 2 STATISTICS + 4), of statistics, (images, STATISTICS)."""
        tables = self.tables
        standard = np.clip((described - tables["mean"]) / tables["deviation"], -_CLASS_CLIP, _CLASS_CLIP)
        offsets = (standard - centre for centre in tables["centre"])
        pairs = zip(offsets, tables["precision"], strict=True)
        far = np.stack([(offset @ precision * offset).mean(axis=1) for offset, precision in pairs], axis=1)
        return np.hstack([standard, standard * standard, 3 * np.log(far + 0.1), far])

    def log_odds(self, described: Vector) -> Vector:
        """Return log odds of a mammogram, (images,), of statistics, (images, STATISTICS)."""
        return np.asarray(self.features(described) @ self.tables["weights"] + self.tables["constant"])


@cache
def _classes() -> Classes:
    with _TABLES.joinpath("gate.npz").open("rb") as file, np.load(file) as tables:
        return Classes({name: tables[name].astype(np.float64) for name in tables.files})


def is_mammogram(seen: Anatomy) -> bool:
    """Tell whether a grey picture is a mammogram, of any kind."""
    return bool(_classes().log_odds(statistics(seen)[np.newaxis].astype(np.float64))[0] >= LEAST)


class Measured(NamedTuple):
    """What a gate is fitted on and asked about, of one image.

    Attributes:
        described: its `whole_statistics`.
        mammogram: whether it looks like one, colour aside.
        colour: whether it has any.
    """

    described: NDArray[np.float32]
    mammogram: bool
    colour: bool = False


def measured(image: Image) -> Measured:
    """Measure an image as read."""
    seen = anatomy(image.pixels)
    return Measured(whole_statistics(seen), is_mammogram(seen), image.colour)


def measured_file(path: Path) -> Measured:
    """Measure an image in its file.

    Raises:
        ImageError: it cannot be read.
    """
    return measured(read_image(path))


def fit_gate(images: Sequence[Measured], unseen: Sequence[Measured] = ()) -> Gate:
    """Fit a gate on training images.

    Args:
        images: that the model learnt from.
        unseen: of its validation, of which one in a hundred is called unlike them; fewer than `MIN_IMAGES` have no say.

    Raises:
        DataError: there are fewer than `MIN_IMAGES` images.
    """
    if len(images) < MIN_IMAGES:
        raise DataError(f"A gate needs at least {MIN_IMAGES} training images; received {len(images)}.")
    own = _standardised(np.stack([image.described for image in images]))
    centre = own.mean(axis=0)
    covariance = ((own - centre).T @ (own - centre) + _PRIOR * np.eye(WHOLE_STATISTICS)) / (len(own) + _PRIOR)
    covariance += _RIDGE * (np.diag(np.diag(covariance)) - covariance)
    gate = Gate(
        images=len(own),
        centre=tuple(centre.tolist()),
        precision=tuple(map(tuple, np.linalg.inv(covariance).tolist())),
        threshold=0,
        whole=bool(np.mean([image.mammogram for image in images]) >= 1 - _PIECES),
    )
    judged, margin = (unseen, 1.0) if len(unseen) >= MIN_IMAGES else (images, _MARGIN)
    meant = [image for image in judged if image.mammogram] if gate.whole else judged  # a blank file has no say
    distances = [gate.distance(image.described) for image in meant or judged]
    return gate.model_copy(update={"threshold": margin * float(np.quantile(distances, 1 - _UNLIKE))})


def likeness(image: Image, gate: Gate | None, seen: Anatomy | None = None) -> Likeness:
    """Tell what an image as read is to the model of this gate.

    Mammograms have no colour, whatever a network learnt from: without a gate, that alone counts.

    Args:
        image: as read.
        gate: of the model's bundle, if it has one.
        seen: the image's `anatomy`, where it is known already.
    """
    if image.colour:
        return Likeness.NO_MAMMOGRAM
    if gate is None:
        return Likeness.LIKE_TRAINING
    return gate.likeness(anatomy(image.pixels) if seen is None else seen)


def is_admitted(image: Measured, gate: Gate | None) -> bool:
    """Tell whether a model with this gate would decide about an image: its `likeness` is not that of no mammogram."""
    return not image.colour and (gate is None or not gate.whole or image.mammogram)


def _standardised(described: NDArray[np.float32]) -> Vector:
    """Return whole statistics, (…, WHOLE_STATISTICS), in the reference's deviations from its means."""
    _, mean, deviation = zip(*_REFERENCE, strict=True)
    return np.asarray(np.clip((described - np.array(mean)) / np.array(deviation), -_CLIP, _CLIP))
