"""How good predictions are: pure functions of labels, scores and weights.

Every measure takes weights of shape (resamples, images), so that a point estimate (all ones) and a
bootstrap over patients (how often each image was drawn) are one computation, done at once.
Labels are 0 or 1; scores rise with the suspicion of a tumor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BeforeValidator

Array = NDArray[np.float64]

RESAMPLES = 2000
"""Bootstrap resamples behind each interval."""

_TINY = 1e-7  # probabilities are kept this far from 0 and 1 in the loss, as Keras does


# JSON knows no NaN: it is written as null and read back.
_Figure = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined."""

    value: _Figure
    low: _Figure
    high: _Figure


class Confusion(NamedTuple):
    """Weighted counts of the four outcomes, each of shape (resamples,)."""

    true_negatives: Array
    false_positives: Array
    false_negatives: Array
    true_positives: Array


Measure = Callable[[Array], Array]
"""From weights (resamples, images) to values (resamples,)."""


def patient_weights(patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Return how often each image is drawn when patients are resampled with replacement.

    The cluster bootstrap: images of a patient are drawn together, because they are not
    independent (Field & Welsh 2007, J. R. Stat. Soc. B 69:369).

    Returns:
        Weights of shape (resamples, images).
    """
    _, members = np.unique(np.asarray(patients), return_inverse=True)
    count = int(members.max()) + 1
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(draws[:, members], dtype=np.float64)


def estimate(measure: Measure, weights: Array) -> Estimate:
    """Return a measure's value on the data and the 2.5th and 97.5th percentile over resamples."""
    value = float(measure(np.ones((1, weights.shape[1])))[0])
    resampled = measure(weights)
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled) or not np.isfinite(value):
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> Measure:
    """Area under the ROC curve: the chance that a tumor scores above a non-tumor, ties half.

    The Mann-Whitney form (Hanley & McNeil 1982, Radiology 143:29).
    """
    label, starts, order = _ranked(labels, scores)

    def measure(weights: Array) -> Array:
        positive, negative = _by_score(weights[:, order], label, starts)
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        return _divide((positive * below).sum(axis=1), pairs)

    return measure


def average_precision(labels: ArrayLike, scores: ArrayLike) -> Measure:
    """Average precision: the sum of precision times the step in recall, as scikit-learn has it."""
    label, starts, order = _ranked(labels, scores)

    def measure(weights: Array) -> Array:
        positive, negative = _by_score(weights[:, order], label, starts)
        found = np.cumsum(positive[:, ::-1], axis=1)[:, ::-1]
        called = found + np.cumsum(negative[:, ::-1], axis=1)[:, ::-1]
        return _divide((_divide(found, called, 0) * positive).sum(axis=1), positive.sum(axis=1))

    return measure


def log_loss(labels: ArrayLike, scores: ArrayLike) -> Measure:
    """Binary cross-entropy in nats, averaged over images."""
    label = np.asarray(labels, dtype=np.float64)
    probability = np.clip(np.asarray(scores, dtype=np.float64), _TINY, 1 - _TINY)
    losses = -(label * np.log(probability) + (1 - label) * np.log(1 - probability))
    return lambda weights: _divide(weights @ losses, weights.sum(axis=1))


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Callable[..., Confusion]:
    """Counts at `threshold`: a score at or above it is called tumor."""
    label = np.asarray(labels, dtype=np.float64)
    called = (np.asarray(scores, dtype=np.float64) >= threshold).astype(np.float64)

    def count(weights: Array) -> Confusion:
        return Confusion(
            weights @ ((1 - label) * (1 - called)),
            weights @ ((1 - label) * called),
            weights @ (label * (1 - called)),
            weights @ (label * called),
        )

    return count


def decision_measures(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, Measure]:
    """Return the measures of a yes-or-no decision at `threshold`, by name."""
    count = confusion(labels, scores, threshold)

    def of(formula: Callable[[Confusion], Array]) -> Measure:
        return lambda weights: formula(count(weights))

    return {
        "accuracy": of(lambda c: _divide(c.true_positives + c.true_negatives, sum(c))),
        "sensitivity": of(
            lambda c: _divide(c.true_positives, c.true_positives + c.false_negatives)
        ),
        "specificity": of(
            lambda c: _divide(c.true_negatives, c.true_negatives + c.false_positives)
        ),
        "precision": of(lambda c: _divide(c.true_positives, c.true_positives + c.false_positives)),
        "f1": of(
            lambda c: _divide(
                2 * c.true_positives,
                2 * c.true_positives + c.false_positives + c.false_negatives,
            )
        ),
    }


def youden_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the score with the largest sensitivity + specificity (Youden 1950, Cancer 3:32).

    Of equals the highest is taken. It belongs to the data it is chosen on: the validation split.
    """
    label, starts, order = _ranked(labels, scores)
    positive, negative = _by_score(np.ones((1, len(order))), label, starts)
    sensitivity = np.cumsum(positive[0, ::-1])[::-1] / positive.sum()
    false_positive_rate = np.cumsum(negative[0, ::-1])[::-1] / negative.sum()
    gain = sensitivity - false_positive_rate
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[-1])
    return float(np.asarray(scores, dtype=np.float64)[order][starts[best]])


def _ranked(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[Array, NDArray[np.intp], NDArray[np.intp]]:
    """Return labels by rising score, where each distinct score starts, and the order used."""
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    return np.asarray(labels, dtype=np.float64)[order], starts, order


def _by_score(weights: Array, label: Array, starts: NDArray[np.intp]) -> tuple[Array, Array]:
    """Return the weight of positives and of negatives at each distinct score."""
    positive = np.add.reduceat(weights * label, starts, axis=1)
    negative = np.add.reduceat(weights * (1 - label), starts, axis=1)
    return positive, negative


def _divide(numerator: Array, denominator: Array | float, otherwise: float = np.nan) -> Array:
    """Divide; `otherwise` where the denominator is 0, for then the measure is not defined."""
    zero = np.equal(denominator, 0)
    return np.where(zero, otherwise, numerator / np.where(zero, 1, denominator))
