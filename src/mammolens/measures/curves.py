"""Whether probabilities mean what they say, and what acting on them would bring.

Calibration, net benefit and risk over coverage: like `metrics`, pure functions of labels (0 or 1)
and probabilities of tumor, each of shape (images,).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammolens.measures.intervals import Measure, divide
from mammolens.measures.metrics import Array, Estimate, called, wilson

_EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before their logit is taken
_STEPS = 100
_CLOSE = 1e-6  # a Newton step that moves no logit further is the last: errors square
_SINGULAR = 1e-12  # of the product of its diagonal: a determinant that is rounding alone


class BrierParts(NamedTuple):
    """Brier score = reliability - resolution + uncertainty, but for the spread within bins."""

    reliability: float
    resolution: float
    uncertainty: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar probability, and the share of them with a tumor."""

    mean_probability: float
    observed: Estimate
    count: int


class CalibrationLine(NamedTuple):
    """Slope and calibration-in-the-large, each of shape (resamples,); ideal are 1 and 0."""

    slope: Array
    intercept: Array


class NetBenefit(NamedTuple):
    """Net benefit per image, each of shape (thresholds,); of treating nobody it is 0."""

    model: Array
    treat_all: Array


class RiskCoverage(NamedTuple):
    """Share of images that are answered, rising, and share of these answers that are wrong."""

    coverage: Array
    risk: Array


def brier_decomposition(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> BrierParts:
    """Split the Brier score (Murphy 1973, J. Appl. Meteorol. 12:595), over bins of equal count.

    Reliability is the squared distance of probability and observed share, and best at 0; resolution
    the variance of observed shares, and best at the uncertainty; uncertainty that of the labels.
    The sum is exact where each bin has one probability (Stephenson et al. 2008, Weather Forecast.
    23:752).

    Raises:
        ValueError: there is no image, or `bins` is below 1.
    """
    count, probability, observed = _by_bin(labels, probabilities, bins)
    share = count / count.sum()
    prevalence = float(share @ observed)
    return BrierParts(
        float(share @ (probability - observed) ** 2),
        float(share @ (observed - prevalence) ** 2),
        prevalence * (1 - prevalence),
    )


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> Measure:
    """Mean distance of probability and observed share (L1), over bins of equal count.

    Naeini et al. 2015 (AAAI 29:2901) with the bins of equal mass of Nixon et al. 2019 (CVPR
    Workshops), on the probability of tumor. Bins are cut once, on all images. Chance alone makes it
    larger than 0, and larger still in a resample: its percentile interval can lie above its value.

    Raises:
        ValueError: there is no image, or `bins` is below 1.
    """
    probability = np.asarray(probabilities, dtype=np.float64)
    member = _equal_count_bins(probability, bins)
    gap = np.asarray(labels, dtype=np.float64) - probability
    gaps = np.where(member[:, None] == np.unique(member), gap[:, None], 0)
    return lambda weights: divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def reliability_curve(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Return observed shares over probabilities, in rising bins of equal count.

    Equal probabilities share a bin, so bins may be fewer than asked for. Intervals are Wilson's and
    take images as independent.

    Raises:
        ValueError: there is no image, or `bins` is below 1.
    """
    return tuple(
        ReliabilityBin(float(probability), wilson(round(count * observed), int(count)), int(count))
        for count, probability, observed in zip(*_by_bin(labels, probabilities, bins), strict=True)
    )


def calibration_slope(labels: ArrayLike, probabilities: ArrayLike) -> Measure:
    """Slope of a logistic regression of the label on the logit of the probability.

    Below 1, probabilities are too extreme; above, too timid (Van Calster et al. 2016, J. Clin.
    Epidemiol. 74:167). Probabilities are cut to [1e-6, 1 - 1e-6]. NaN where there is no slope: one
    class, classes that a threshold separates, or equal probabilities throughout.
    """
    logit = _logit(probabilities)
    inputs = np.stack([np.ones_like(logit), logit - logit.mean()], axis=1)
    fit = _logistic_regression(inputs, np.zeros_like(logit), labels)
    return lambda weights: fit(weights)[:, 1]


def calibration_in_the_large(labels: ArrayLike, probabilities: ArrayLike) -> Measure:
    """Intercept of that regression with the slope held at 1, in logits.

    Above 0, probabilities are too low on the whole; below, too high (Van Calster et al. 2016, J.
    Clin. Epidemiol. 74:167). Probabilities are cut to [1e-6, 1 - 1e-6]. NaN for one class.
    """
    logit = _logit(probabilities)
    fit = _logistic_regression(np.ones((len(logit), 1)), logit, labels)
    return lambda weights: fit(weights)[:, 0]


def calibration_line(labels: ArrayLike, probabilities: ArrayLike) -> Callable[[Array], CalibrationLine]:
    """Return `calibration_slope` and `calibration_in_the_large` together, from the same weights."""
    slope = calibration_slope(labels, probabilities)
    intercept = calibration_in_the_large(labels, probabilities)
    return lambda weights: CalibrationLine(slope(weights), intercept(weights))


def net_benefit(
    labels: ArrayLike,
    probabilities: ArrayLike,
    thresholds: ArrayLike,
    prevalence: float | None = None,
) -> NetBenefit:
    """Return true calls less false calls weighted by the odds of each threshold, per image.

    The decision curve of Vickers & Elkin 2006 (Med. Decis. Making 26:565); a probability at or
    above the threshold is called tumor.

    Args:
        labels: 0 or 1.
        probabilities: of tumor, calibrated for the prevalence that counts.
        thresholds: of shape (thresholds,), each in [0, 1).
        prevalence: share of tumors to weight the classes to, in [0, 1]; None: as in the labels.

    Raises:
        ValueError: a threshold or the prevalence is out of range, or a class to weight is missing.
    """
    label = np.asarray(labels, dtype=np.float64)
    threshold = np.asarray(thresholds, dtype=np.float64)
    if not np.all((threshold >= 0) & (threshold < 1)):
        raise ValueError(f"thresholds must be in [0, 1), not {threshold}")
    calls = called(probabilities, threshold[:, None])
    odds = threshold / (1 - threshold)
    weights = _class_weights(label, prevalence)
    tumor, none = weights * label, weights * (1 - label)
    return NetBenefit(calls @ tumor - odds * (calls @ none), tumor.sum() - odds * none.sum())


def risk_coverage(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> RiskCoverage:
    """Return the error rate among the most confident share of images, for every share.

    Confidence is the distance from `threshold` as a share of that to 0 or 1, whichever side the
    probability is on; images of equal confidence are answered together (El-Yaniv & Wiener 2010, J.
    Mach. Learn. Res. 11:1605).

    Returns:
        Coverage up to 1 and the risk there, each of shape (distinct confidences,).

    Raises:
        ValueError: `threshold` is outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], not {threshold}")
    probability = np.asarray(probabilities, dtype=np.float64)
    calls = called(probability, threshold)
    room = np.where(calls, 1 - threshold, threshold)
    confidence = divide(np.abs(probability - threshold), room, 0)
    _, member, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(member, weights=calls != (np.asarray(labels) == 1))
    answered = np.cumsum(count)
    return RiskCoverage(answered / len(probability), np.cumsum(wrong) / answered)


def _equal_count_bins(probability: Array, bins: int) -> NDArray[np.intp]:
    """Return the bin of each image; equal probabilities share one."""
    if bins < 1 or not len(probability):
        raise ValueError(f"need an image and a bin, not {len(probability)} and {bins}")
    rank = np.searchsorted(np.sort(probability), probability)
    return np.asarray(rank * bins // len(probability))


def _by_bin(labels: ArrayLike, probabilities: ArrayLike, bins: int) -> tuple[NDArray[np.intp], Array, Array]:
    """Return count, mean probability and observed share of each bin that has images."""
    probability = np.asarray(probabilities, dtype=np.float64)
    _, member, count = np.unique(_equal_count_bins(probability, bins), return_inverse=True, return_counts=True)
    observed = np.bincount(member, weights=np.asarray(labels, dtype=np.float64)) / count
    return count, np.bincount(member, weights=probability) / count, observed


def _class_weights(label: Array, prevalence: float | None) -> Array:
    """Return weights that sum to 1, the tumors' to `prevalence`."""
    if prevalence is None:
        return np.full(len(label), 1 / len(label))
    if not 0 <= prevalence <= 1:
        raise ValueError(f"prevalence must be in [0, 1], not {prevalence}")
    tumors = float(label.sum())
    if not 0 < tumors < len(label):
        raise ValueError("a prevalence needs images of both classes to weight")
    return np.where(label == 1, prevalence / tumors, (1 - prevalence) / (len(label) - tumors))


def _logit(probabilities: ArrayLike) -> Array:
    probability = np.clip(np.asarray(probabilities, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(probability / (1 - probability)))


def _logistic_regression(inputs: Array, offset: Array, labels: ArrayLike) -> Callable[[Array], Array]:
    """Return a fit by maximum likelihood: weights (resamples, images) to coefficients.

    Newton's steps for all resamples at once, from the fit to all images: where that has no maximum,
    its resamples have none. A step is cut where it would move a logit by more than 1: so far the
    curvature changes little enough for each step to bring the likelihood up (Bach 2010, Electron.
    J. Stat. 4:384). NaN where there is no maximum, or none within 100 steps.
    """
    label = np.asarray(labels, dtype=np.float64)
    size = inputs.shape[1]
    products = (inputs[:, :, None] * inputs[:, None, :]).reshape(len(inputs), size * size)
    ends = inputs[[inputs[:, -1].argmin(), inputs[:, -1].argmax()]]

    def newton(weights: Array, coefficients: Array) -> Array:
        probability = (1 + np.tanh((coefficients @ inputs.T + offset) / 2)) / 2
        gradient = (weights * (label - probability)) @ inputs
        curvature = (weights * probability * (1 - probability)) @ products
        return _solve(curvature.reshape(-1, size, size), gradient)

    def fit(weights: Array, start: Array) -> Array:
        moving = np.tile(start, (len(weights), 1))
        found = np.full_like(moving, np.nan)
        active = np.flatnonzero(np.isfinite(moving).all(axis=1))
        for _ in range(_STEPS):
            if not len(active):
                break
            step = newton(weights[active], moving[active])
            furthest = np.abs(step @ ends.T).max(axis=1)
            moving[active] += step / np.maximum(furthest, 1)[:, None]
            arrived = active[furthest < _CLOSE]
            found[arrived] = moving[arrived]
            active = active[furthest >= _CLOSE]
        return found

    whole = fit(np.ones((1, len(label))), np.zeros(size))[0]
    return lambda weights: fit(weights, whole)


def _solve(curvature: Array, gradient: Array) -> Array:
    """Solve each resample's system; NaN where it is singular."""
    diagonal = np.diagonal(curvature, axis1=1, axis2=2).prod(axis=1)
    singular = ~(np.linalg.det(curvature) > _SINGULAR * diagonal)
    solvable = np.where(singular[:, None, None], np.eye(curvature.shape[1]), curvature)
    solved = np.linalg.solve(solvable, gradient[:, :, None])[:, :, 0]
    return np.where(singular[:, None], np.nan, solved)
