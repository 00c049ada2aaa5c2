"""How good predictions are: pure functions of labels, scores and weights.

A `Measure` takes weights of shape (resamples, images), so that a point estimate (all ones) and a
bootstrap over patients (how often each image was drawn) are one computation, done at once. Shares,
and what follows from them, have intervals by formula instead and are never resampled.
Labels are 0 or 1; scores rise with the suspicion of a tumor.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammolens.measures.intervals import Estimate, Measure, PatientWeights, Ranking, Share, Z, divide, estimate

Array = NDArray[np.float64]


_TINY = 1e-7  # probabilities are kept this far from 0 and 1 in the loss, as Keras does
_ROUNDING = 1e-9  # 1 - 0.8 is a little less than 0.2, and 2 of 10 are still 0.2


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> Measure:
    """Area under the ROC curve: the chance that a tumor scores above a non-tumor, ties half.

    The Mann-Whitney form (Hanley & McNeil 1982, Radiology 143:29).
    """
    tumors, score = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    placements = np.empty_like(tumors)
    placements[tumors == 1], placements[tumors != 1] = _placements(labels, scores)
    ill, others = np.flatnonzero(tumors == 1), np.flatnonzero(tumors != 1)
    ranked = others[np.argsort(score[others])]
    lower, not_higher = (np.searchsorted(score[ranked], score[ill], side) for side in ("left", "right"))

    def measure(weights: Array) -> Array:
        below = np.zeros((len(weights), len(ranked) + 1))
        np.cumsum(weights[:, ranked], axis=1, out=below[:, 1:])
        drawn = weights[:, ill]
        twice = (drawn * (below[:, lower] + below[:, not_higher])).sum(axis=1)
        return divide(twice / 2, drawn.sum(axis=1) * below[:, -1])

    return Ranking(measure, tumors, placements)


def auc_difference(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, weights: PatientWeights) -> Estimate:
    """Return the difference of AUCs, a - b, of two scores of the same images, paired.

    Of scores that rank images alike, such as before and after calibration, it is 0, whoever is
    drawn.
    """
    ranks, others = (np.unique(one, return_inverse=True)[1] for one in (scores_a, scores_b))
    if np.array_equal(ranks, others):
        return Estimate(0, 0, 0)
    one, other = roc_auc(labels, scores_a), roc_auc(labels, scores_b)
    return estimate(lambda drawn: one(drawn) - other(drawn), weights)


def partial_auc(labels: ArrayLike, scores: ArrayLike, lowest_specificity: float) -> Measure:
    """Area under the ROC curve where specificity is at least `lowest_specificity`, in [0, 1).

    Linear up to the border and standardised, so that chance is 0.5 and perfection 1 (McClish 1989,
    Med. Decis. Making 9:190): scikit-learn's ``roc_auc_score(max_fpr=1 - lowest_specificity)``.
    """
    counts = _counts_by_score(labels, scores)
    width = 1 - lowest_specificity

    def measure(weights: Array) -> Array:
        positive, negative = counts(weights)
        true_calls = np.cumsum(positive, axis=1) - positive
        false_calls = np.cumsum(negative, axis=1) - negative
        others = negative.sum(axis=1)
        inside = np.clip(width * others[:, None] - false_calls, 0, negative)
        height = true_calls + positive * divide(inside, negative, 0) / 2
        area = divide((inside * height).sum(axis=1), positive.sum(axis=1) * others)
        chance = width**2 / 2
        return (1 + (area - chance) / (width - chance)) / 2

    return Ranking(measure, np.asarray(labels, dtype=np.float64))


def sensitivity_at_specificity(labels: ArrayLike, scores: ArrayLike, target: float) -> Measure:
    """Largest sensitivity among the thresholds whose specificity is at least `target`, in [0, 1].

    A threshold is any score, or above all of them; nothing is interpolated, and each resample has
    its own threshold.
    """
    counts = _counts_by_score(labels, scores)

    def measure(weights: Array) -> Array:
        positive, negative = counts(weights)
        false_calls = np.cumsum(negative, axis=1)
        others = negative.sum(axis=1)
        allowed = false_calls <= (1 - target + _ROUNDING) * others[:, None]
        sensitivity = divide((positive * allowed).sum(axis=1), positive.sum(axis=1))
        return np.where(others > 0, sensitivity, np.nan)

    return Ranking(measure, np.asarray(labels, dtype=np.float64))


def specificity_at_sensitivity(labels: ArrayLike, scores: ArrayLike, target: float) -> Measure:
    """Largest specificity among the thresholds whose sensitivity is at least `target`, in [0, 1].

    The mirror image of `sensitivity_at_specificity`: classes swapped and scores turned round.
    """
    mirrored = 1 - np.asarray(labels, dtype=np.float64)
    return sensitivity_at_specificity(mirrored, -np.asarray(scores, dtype=np.float64), target)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> Measure:
    """Average precision: the sum of precision times the step in recall, as scikit-learn has it."""
    counts = _counts_by_score(labels, scores)

    def measure(weights: Array) -> Array:
        positive, negative = counts(weights)
        true_calls = np.cumsum(positive, axis=1)
        precision = divide(true_calls, true_calls + np.cumsum(negative, axis=1), 0)
        terms = precision * positive
        return divide(terms[:, ::-1].sum(axis=1), positive.sum(axis=1))

    return Ranking(measure, np.asarray(labels, dtype=np.float64))


def share_of(hits: ArrayLike, members: ArrayLike | None = None) -> Share:
    """Share of images that are hits among those that are members, each (images,) of 0 and 1."""
    hit = np.asarray(hits, dtype=np.float64)
    member = np.ones_like(hit) if members is None else np.asarray(members, dtype=np.float64)
    return Share(hit, member)


def mean_of(values: ArrayLike) -> Measure:
    """Mean of a value of each subject, (subjects,); where it is 0 or 1, see `share_of`."""
    value = np.asarray(values, dtype=np.float64)
    return lambda weights: divide(weights @ value, weights.sum(axis=1))


def log_loss(labels: ArrayLike, scores: ArrayLike) -> Measure:
    """Binary cross-entropy in nats, averaged over images."""
    label = np.asarray(labels, dtype=np.float64)
    probability = np.clip(np.asarray(scores, dtype=np.float64), _TINY, 1 - _TINY)
    losses = -(label * np.log(probability) + (1 - label) * np.log(1 - probability))
    return mean_of(losses)


def brier(labels: ArrayLike, probabilities: ArrayLike) -> Measure:
    """Mean squared difference of probability and label (Brier 1950, Mon. Weather Rev. 78:1)."""
    label = np.asarray(labels, dtype=np.float64)
    squares = (np.asarray(probabilities, dtype=np.float64) - label) ** 2
    return mean_of(squares)


def called(scores: ArrayLike, threshold: ArrayLike) -> NDArray[np.bool_]:
    """Tell which scores are called tumor: those at or above `threshold`, and no others."""
    return np.asarray(scores, dtype=np.float64) >= np.asarray(threshold, dtype=np.float64)


def youden_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the score with the largest sensitivity + specificity (Youden 1950, Cancer 3:32).

    Of equals the highest is taken. It belongs to the data it is chosen on: the validation split.
    """
    from sklearn.metrics import roc_curve  # noqa: PLC0415 - takes a second to load, and who serves needs no curve

    false_positive_rate, sensitivity, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    gain = (sensitivity - false_positive_rate)[1:]  # the first threshold lies above all scores
    return float(thresholds[1:][np.flatnonzero(gain >= gain.max() - 1e-12)[0]])


def wilson(successes: float, total: float) -> Estimate:
    """Return a proportion with Wilson's score interval (Wilson 1927, JASA 22:209).

    For independent subjects, at least one.
    """
    share = successes / total
    shrinkage = 1 + Z**2 / total
    centre = (share + Z**2 / (2 * total)) / shrinkage
    half = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2)) / shrinkage
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def delong(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Return the AUC with DeLong's interval (DeLong et al. 1988, Biometrics 44:837).

    Cut at 0 and 1; by sorting, as Sun & Xu 2014 (IEEE Signal Process. Lett. 21:1389). For
    independent subjects: several images of a patient need `patient_weights`. The interval is NaN
    with fewer than two of a class, and where the classes do not overlap, for then it has no width.
    """
    area, error = _mean_and_error(*_placements(labels, scores))
    error = error or math.nan
    low, high = np.clip([area - Z * error, area + Z * error], 0, 1)
    return Estimate(area, float(low), float(high))


def delong_paired(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> tuple[Estimate, float]:
    """Compare the AUCs, a - b, of two scores of the same independent subjects, by DeLong's test.

    Returns:
        The difference, and the two-sided p-value of there being none: NaN where the difference has
        no spread, but 1 where there is no difference.
    """
    one, other = _placements(labels, scores_a), _placements(labels, scores_b)
    difference, error = _mean_and_error(one[0] - other[0], one[1] - other[1])
    interval = Estimate(difference, difference - Z * error, difference + Z * error)
    if error == 0:
        return interval, math.nan if difference else 1.0
    return interval, math.erfc(abs(difference) / error / math.sqrt(2))


def holm(p_values: ArrayLike) -> Array:
    """Return p-values adjusted for their number (Holm 1979, Scand. J. Stat. 6:65), in their order.

    Rejecting those of at most 0.05 errs anywhere among them in at most 5 % of studies.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.asarray(np.minimum(steps, 1)[np.argsort(order)])


def _placements(labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Return of each tumor the share of the others below it, of each other the tumors above it."""
    label, score = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    tumors, others = np.sort(score[label == 1]), np.sort(score[label == 0])

    def below(ranked: Array, values: Array) -> Array:
        twice = np.searchsorted(ranked, values) + np.searchsorted(ranked, values, side="right")
        return twice / (2 * max(len(ranked), 1))

    return below(others, score[label == 1]), 1 - below(tumors, score[label == 0])


def _mean_and_error(of_tumors: Array, of_others: Array) -> tuple[float, float]:
    """Return the mean of DeLong's components and its standard error; NaN where not defined."""
    if not len(of_tumors) or not len(of_others):
        return math.nan, math.nan
    if min(len(of_tumors), len(of_others)) == 1:
        return float(of_tumors.mean()), math.nan
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (of_tumors, of_others))
    return float(of_tumors.mean()), math.sqrt(variance)


def _counts_by_score(labels: ArrayLike, scores: ArrayLike) -> Callable[[Array], tuple[Array, Array]]:
    """Return what sums up weights of positives and of negatives at each distinct score, the highest first."""
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    label = np.asarray(labels, dtype=np.float64)[order]

    def counts(weights: Array) -> tuple[Array, Array]:
        drawn = weights[:, order]
        return np.add.reduceat(drawn * label, starts, axis=1), np.add.reduceat(drawn * (1 - label), starts, axis=1)

    return counts
