"""Every 95 % interval, by patient: the bootstrap over patients, and what holds where it has none.

Shares near 0 and 1, what follows from two of them, and rankings that are nearly perfect: where all of
59 images are right, so they are in each resample, and a percentile interval from 100 % to 100 % would
claim what nobody knows. What is here for these counts patients instead, is of the same kind at 1 as
just below it, and draws from nothing but its own fixed seed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Annotated

import numpy as np
import scipy  # which loads its parts where they are asked for
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict

Array = NDArray[np.float64]
Bounds = tuple[float, float]

Measure = Callable[[Array], Array]
"""From weights (resamples, images) to values (resamples,)."""

UNKNOWN: Bounds = (math.nan, math.nan)

_TAIL = 0.025  # on either side of a 95 % interval
_DRAWS = 4_000  # of a confidence distribution

RESAMPLES = 2000
"""Bootstrap resamples behind each interval."""

_ROWS, _NUMBERS = 64, 2**12  # resamples measured together: what a processor's cache holds, or of few images, more
_ROUNDING = 1e-9  # an interval of no more than this share of its value has no width
# JSON knows no NaN: it is written as null and read back.
_Figure = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]

Z = NormalDist().inv_cdf(1 - _TAIL)
"""Half the width of a 95 % interval, in standard errors."""


@dataclass(frozen=True, eq=False)
class Share:
    """The share of `members` that are `hits`, each 0 or 1, (images,).

    Its interval is Korn and Graubard's, of as many independent subjects as the images of so many
    patients are worth: it has a width at 0 and 1, where no resample differs from another.
    """

    hits: Array
    members: Array

    @property
    def value(self) -> float:
        """The share; NaN without members."""
        among = self.members > 0
        return float(self.hits[among].mean()) if among.any() else math.nan

    def number(self, patients: NDArray[np.intp]) -> float:
        """Return how many independent subjects the members are worth."""
        among = self.members > 0
        return effective_number(self.hits[among], patients[among]) if among.any() else 0.0

    def bounds(self, patients: NDArray[np.intp]) -> Bounds:
        """Return the 95 % interval."""
        return share_bounds(self.value, self.number(patients))


@dataclass(frozen=True, eq=False)
class OfRates:
    """A measure of a decision that follows from sensitivity, specificity and prevalence.

    Its interval follows from theirs, at a prevalence held as it is (`melded_bounds`).

    Attributes:
        value: on the data; NaN where it is not defined.
        formula: the same from arrays of sensitivities and specificities; it may not fall with
            either, unless `falls`.
        sensitivity: the share of tumors that are called.
        specificity: the share of the others that are not.
        falls: whether less is better.
    """

    value: float
    formula: Callable[[Array, Array], Array]
    sensitivity: Share
    specificity: Share
    falls: bool = False

    def bounds(self, patients: NDArray[np.intp]) -> Bounds:
        """Return the 95 % interval; unknown where the measure is."""
        rates = [(rate.value, rate.number(patients)) for rate in (self.sensitivity, self.specificity)]
        if math.isnan(self.value) or not all(number for _, number in rates):
            return UNKNOWN
        if not self.falls:
            return melded_bounds(self.formula, *rates)
        low, high = melded_bounds(lambda *both: -self.formula(*both), *rates)
        return -high, -low


@dataclass(frozen=True, eq=False)
class Ranking:
    """A measure of how scores rank images, whose interval is the bootstrap's wherever it has one.

    Where resamples reach 0 or 1 they know no worse, or better, case than was seen. An AUC then has
    the wider of the bootstrap's interval and Newcombe's. The others are means over images of one
    class of what lies between 0 and 1: where all images have the same, it is the interval of a
    share that as many patients have.

    Attributes:
        measure: what it is in each resample.
        members: 1 for images of the class that it is a mean over, (images,).
        placements: of an AUC: how well each image is placed among those of the other class,
            (images,), see `metrics.roc_auc`.
    """

    measure: Measure
    members: Array
    placements: Array | None = None

    def __call__(self, weights: Array) -> Array:
        """Return the measure in each resample."""
        return self.measure(weights)

    def widened(self, value: float, drawn: Bounds, patients: NDArray[np.intp]) -> Bounds:
        """Return the bootstrap's interval, made wider where it has met 0 or 1."""
        if drawn[0] > 0 and drawn[1] < 1:
            return drawn
        among = self.members > 0
        if self.placements is not None:
            tumors, others = (effective_number(self.placements[part], patients[part]) for part in (among, ~among))
            wider = area_bounds(value, tumors, others)
        elif drawn[0] == drawn[1]:
            wider = share_bounds(value, len(np.unique(patients[among])))
        else:
            return drawn
        return min(drawn[0], wider[0]), max(drawn[1], wider[1])


def effective_number(values: Array, patients: NDArray[np.intp]) -> float:
    """Return how many independent values tell as much as these, several of a patient.

    Their number over the design effect (Rao & Scott 1992, Biometrics 48:577): the variance of the
    mean by patient over that of independent values, but at least 1. It is estimated as if there
    were two patients more, one with nothing but 0 and one with nothing but 1, so that it is that of
    equal values within a patient where all that was seen is equal: 59 of 59 from 40 patients tell
    as much as 40 of 40.

    Args:
        values: in [0, 1], (images,).
        patients: a number for each patient, (images,).
    """
    _, member = np.unique(patients, return_inverse=True)
    count = np.bincount(member).astype(np.float64)
    more = len(values) / len(count)
    total = np.append(np.bincount(member, weights=values), [0, more])
    count = np.append(count, [more, more])
    mean = total.sum() / count.sum()
    independent = float((values**2).sum()) + more - count.sum() * mean**2
    by_patient = float(((total - mean * count) ** 2).sum())
    return float(len(values) / max(1.0, by_patient / independent))


def share_bounds(share: float, number: float) -> Bounds:
    """Return the 95 % interval of a share of `number` independent subjects, any positive number.

    That of Clopper & Pearson 1934 (Biometrika 26:404); with an effective number, that of Korn &
    Graubard 1998 (Survey Methodology 24:193) for shares near 0 and 1.
    """
    if math.isnan(share):
        return UNKNOWN
    seen = share * number
    low = scipy.special.betaincinv(seen, number - seen + 1, _TAIL) if seen > 0 else 0.0
    high = scipy.special.betaincinv(seen + 1, number - seen, 1 - _TAIL) if share < 1 else 1.0
    return min(float(low), share), max(float(high), share)


def melded_bounds(
    formula: Callable[[Array, Array], Array], first: tuple[float, float], second: tuple[float, float]
) -> Bounds:
    """Return the 95 % interval of what two independent shares give, by a rising formula of both.

    Fay, Proschan & Brittain 2015 (Biometrics 71:146): the low end is a quantile over draws from the
    distributions whose quantiles are Clopper and Pearson's low ends, the high end from those of
    their high ends. An end that is not finite is as it comes out.

    Args:
        formula: of arrays of both shares; it must not fall with either.
        first: a share, and the effective number of subjects.
        second: another.
    """
    ends = []
    for is_high, tail in ((False, _TAIL), (True, 1 - _TAIL)):
        drawn = [_quantiles(*share, place, is_high=is_high) for place, share in enumerate((first, second))]
        ends.append(np.quantile(formula(*drawn), tail, method="inverted_cdf"))
    return float(ends[0]), float(ends[1])


def area_bounds(area: float, tumors: float, others: float) -> Bounds:
    """Return the 95 % interval of an AUC from the numbers of independent subjects of either class.

    Newcombe 2006 (Stat. Med. 25:559), method 5: each end is an AUC from which the one seen is as
    far as its standard error there, by Hanley and McNeil's formula, allows. It has a width at 1.
    """
    if math.isnan(area) or min(tumors, others) <= 0:
        return UNKNOWN
    return 1 - _highest(1 - area, tumors, others), _highest(area, tumors, others)


def divide(numerator: Array | float, denominator: Array | float, otherwise: float = np.nan) -> Array:
    """Divide; `otherwise` where the denominator is 0, for then the measure is not defined."""
    zero = np.equal(denominator, 0)
    return np.where(zero, otherwise, numerator / np.where(zero, 1, denominator))


def _highest(area: float, tumors: float, others: float) -> float:
    """Return the largest AUC that is not too far above `area`, by halving."""
    more = (tumors + others) / 2 - 1
    low, high = area, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        spread = 1 + more * (1 - middle) / (2 - middle) + more * middle / (1 + middle)
        variance = max(middle * (1 - middle) * spread / (tumors * others), 0.0)
        low, high = (middle, high) if middle - area <= Z * math.sqrt(variance) else (low, middle)
    return low


@lru_cache(maxsize=64)  # one decision asks for those of its two rates again and again
def _quantiles(share: float, number: float, place: int, *, is_high: bool) -> Array:
    """Return quantiles of the distribution of low, or of high, ends of Clopper and Pearson."""
    rank = (np.arange(_DRAWS) + 0.5) / _DRAWS  # evenly spread, and independent of the other share's
    if place:
        rank = np.random.default_rng(0).permutation(rank)
    seen, missing = share * number, (1 - share) * number
    if is_high:
        return np.ones_like(rank) if share >= 1 else scipy.special.betaincinv(seen + 1, missing, rank)
    return np.zeros_like(rank) if share <= 0 else scipy.special.betaincinv(seen, missing + 1, rank)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined."""

    value: _Figure
    low: _Figure
    high: _Figure


class Figures(BaseModel):
    """Figures that belong together, as a JSON object; what is not finite is null there."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


@dataclass(frozen=True, eq=False)
class PatientWeights:
    """Whose each image is, and how often it is drawn when patients are resampled.

    Attributes:
        drawn: how often, (resamples, images): whole numbers in a byte each, for of many images they are many.
        patients: a number for each patient, (images,).
    """

    drawn: NDArray[np.uint8]
    patients: NDArray[np.intp]

    def of(self, chosen: NDArray[np.bool_]) -> "PatientWeights":
        """Return those of the chosen images alone, (images,)."""
        return PatientWeights(self.drawn[:, chosen], self.patients[chosen])

    def resampled(self, measure: Measure) -> Array:
        """Return a measure in each resample, (resamples,); they are numbers a few at a time."""
        rows = max(_ROWS, _NUMBERS // self.drawn.shape[1])
        blocks = np.array_split(self.drawn, len(self.drawn) // rows + 1)
        return np.concatenate([measure(block.astype(np.float64)) for block in blocks])


def patient_weights(patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> PatientWeights:
    """Return how often each image is drawn when patients are resampled with replacement.

    The cluster bootstrap: images of a patient are drawn together, because they are not
    independent (Field & Welsh 2007, J. R. Stat. Soc. B 69:369).
    """
    _, members = np.unique(np.asarray(patients), return_inverse=True)
    count = int(members.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(members)), dtype=np.uint8)
    for row in drawn:
        row[:] = generator.multinomial(count, np.full(count, 1 / count))[members]
    return PatientWeights(drawn, members)


def estimate(measure: Measure | Share | OfRates, weights: PatientWeights) -> Estimate:
    """Return a measure's value on the data and its 95 % interval.

    That is from the 2.5th to the 97.5th percentile over resamples, but for shares and what follows
    from them, and for rankings that are nearly perfect: see `Share`, `OfRates` and `Ranking`. Where
    all resamples have the same value, as of one patient, they tell nothing: there is no interval.
    """
    if isinstance(measure, Share | OfRates):
        return Estimate(measure.value, *measure.bounds(weights.patients))
    value = float(measure(np.ones((1, len(weights.patients))))[0])
    resampled = weights.resampled(measure) if np.isfinite(value) else np.empty(0)
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled):
        return Estimate(value, np.nan, np.nan)
    low, high = map(float, np.percentile(resampled, [2.5, 97.5]))
    if isinstance(measure, Ranking):
        low, high = measure.widened(value, (low, high), weights.patients)
    if high - low <= _ROUNDING * max(1.0, abs(value)):
        return Estimate(value, np.nan, np.nan)
    return Estimate(value, low, high)
