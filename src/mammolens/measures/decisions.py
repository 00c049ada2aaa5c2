"""A yes or no at a threshold, and how good it is: like `metrics`, pure functions of arrays."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammolens.measures.intervals import Measure, OfRates, Share, divide
from mammolens.measures.metrics import called, share_of

Array = NDArray[np.float64]


class Confusion(NamedTuple):
    """Weighted counts of the four outcomes, each of shape (resamples,)."""

    true_negatives: Array
    false_positives: Array
    false_negatives: Array
    true_positives: Array


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Callable[..., Confusion]:
    """Counts at `threshold`."""
    label = np.asarray(labels, dtype=np.float64)
    call = called(scores, threshold).astype(np.float64)
    none, tumor = 1 - label, label
    outcomes = np.stack([none * (1 - call), none * call, tumor * (1 - call), tumor * call], axis=1)

    def count(weights: Array) -> Confusion:
        return Confusion(*(weights @ outcomes).T)

    return count


def decision_measures(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, Measure]:
    """Return the measures of a yes-or-no decision at `threshold`, by name.

    Precision is the positive predictive value. ``mcc`` is Matthews' correlation coefficient, from
    -1 to 1 (Matthews 1975, Biochim. Biophys. Acta 405:442). The likelihood ratios are how the odds
    of a tumor change with a call (positive) and without one (negative), from 0 up (Deeks & Altman
    2004, BMJ 329:168). A ratio over 0 is NaN.
    """
    label = np.asarray(labels, dtype=np.float64)
    call = called(scores, threshold).astype(np.float64)
    prevalence = label.mean() if len(label) else math.nan
    count = confusion(labels, scores, threshold)
    rates = _rates(label, call)

    def of(
        counted: Callable[[Array, Array, Array, Array], Array],
        formula: Callable[[Array, Array], Array],
        *,
        falls: bool = False,
    ) -> Measure:
        return OfRates(lambda weights: counted(*count(weights)), formula, *rates, falls)

    def calls(sensitivity: Array, specificity: Array) -> Array:
        return np.asarray(sensitivity * prevalence + (1 - specificity) * (1 - prevalence))

    return {
        "accuracy": share_of(call == label),
        "balanced_accuracy": of(
            lambda tn, fp, fn, tp: (divide(tp, tp + fn) + divide(tn, tn + fp)) / 2,
            lambda found, passed: (found + passed) / 2,
        ),
        "sensitivity": rates[0],
        "specificity": rates[1],
        "precision": share_of(label, call),
        "negative_predictive_value": share_of(1 - label, 1 - call),
        "f1": of(
            lambda tn, fp, fn, tp: divide(2 * tp, 2 * tp + fp + fn),  # noqa: ARG005
            lambda found, passed: divide(2 * prevalence * found, calls(found, passed) + prevalence),
        ),
        "mcc": of(
            lambda tn, fp, fn, tp: divide(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
            lambda found, passed: divide(
                (found + passed - 1) * np.sqrt(prevalence * (1 - prevalence)),
                np.sqrt(calls(found, passed) * (1 - calls(found, passed))),
            ),
        ),
        "positive_likelihood_ratio": of(
            lambda tn, fp, fn, tp: divide(tp * (tn + fp), fp * (tp + fn)),
            lambda found, passed: divide(found, 1 - passed, np.inf),
        ),
        "negative_likelihood_ratio": of(
            lambda tn, fp, fn, tp: divide(fn * (tn + fp), tn * (tp + fn)),
            lambda found, passed: divide(1 - found, passed, np.inf),
            falls=True,
        ),
    }


def predictive_values(
    labels: ArrayLike, scores: ArrayLike, threshold: float, prevalence: float
) -> tuple[Measure, Measure]:
    """Return the positive and negative predictive value at another prevalence, by Bayes' rule.

    What a decision at `threshold` would mean were sensitivity and specificity as they are here and
    only tumors rarer, or commoner. NaN where nothing is called, or everything.
    """
    rates = _rates(
        np.asarray(labels, dtype=np.float64),
        called(scores, threshold).astype(np.float64),
    )

    def positive(found: Array, passed: Array) -> Array:
        true = found * prevalence
        return divide(true, true + (1 - passed) * (1 - prevalence))

    def negative(found: Array, passed: Array) -> Array:
        true = passed * (1 - prevalence)
        return divide(true, true + (1 - found) * prevalence)

    def of(formula: Callable[[Array, Array], Array]) -> Measure:
        return OfRates(lambda weights: formula(*(rate(weights) for rate in rates)), formula, *rates)

    return of(positive), of(negative)


def _rates(label: Array, call: Array) -> tuple[Share, Share]:
    return share_of(call, label), share_of(1 - call, 1 - label)
