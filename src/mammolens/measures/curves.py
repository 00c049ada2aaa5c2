"""What probabilities are good for: decisions at a threshold, calibration, net benefit, and curves of them.

Pure functions of labels (0 or 1) and probabilities of tumor, each of shape (images,).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammolens.measures.intervals import Estimate, Figures, Measure, OfRates, PatientWeights, Share, divide, estimate
from mammolens.measures.metrics import Array, brier, called, share_of, wilson

_POINTS = 200  # of a curve
_THRESHOLDS = np.arange(0.01, 0.995, 0.01)  # of the decision curve
_BINS = 10  # of equally many images
_EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before their logit is taken
_STEPS = 100
_CLOSE = 1e-6  # a Newton step that moves no logit further is the last: errors square
_SINGULAR = 1e-12  # of the product of its diagonal: a determinant that is rounding alone


class Curve(Figures):
    """Points of a curve, at most some hundred."""

    x: tuple[float, ...]
    y: tuple[float, ...]


class DecisionCurve(Figures):
    """Net benefit over threshold probabilities, against treating all and none (which is 0)."""

    thresholds: tuple[float, ...]
    model: tuple[float, ...]
    treat_all: tuple[float, ...]


class ReliabilityBin(Figures):
    """One of ten bins of equally many subjects, and the share of them with a tumor."""

    subjects: int
    mean_probability: float
    observed: Estimate


class CalibrationReport(Figures):
    """Whether probabilities mean what they say.

    Attributes:
        slope: 1 is ideal; below 1, probabilities are too extreme.
        in_the_large: intercept at slope 1; 0 is ideal; above 0, tumors are underestimated.
        brier: mean squared error of the probability.
        expected_calibration_error: over ten bins of equally many subjects, L1.
        reliability: Murphy's decomposition of the Brier score; smaller is better.
        resolution: larger is better.
        uncertainty: of the labels alone.
        bins: the reliability curve.
    """

    slope: Estimate
    in_the_large: Estimate
    brier: Estimate
    expected_calibration_error: Estimate
    reliability: float
    resolution: float
    uncertainty: float
    bins: tuple[ReliabilityBin, ...]


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float) -> NDArray[np.intp]:
    """Return [[true negatives, false positives], [false negatives, true positives]] at `threshold`."""
    outcome = 2 * np.asarray(labels, dtype=np.intp) + called(scores, threshold)
    return np.bincount(outcome, minlength=4).reshape(2, 2)


def decision_measures(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, Share | OfRates]:
    """Return the measures of a yes-or-no decision at `threshold`, by name.

    Precision is the positive predictive value. ``mcc`` is Matthews' correlation coefficient, from
    -1 to 1 (Matthews 1975, Biochim. Biophys. Acta 405:442). The likelihood ratios are how the odds
    of a tumor change with a call (positive) and without one (negative), from 0 up (Deeks & Altman
    2004, BMJ 329:168). A ratio over 0 is NaN.
    """
    label = np.asarray(labels, dtype=np.float64)
    call = called(scores, threshold).astype(np.float64)
    prevalence = label.mean()
    rates = _rates(label, call)
    tn, fp, fn, tp = confusion(labels, scores, threshold).astype(np.float64).ravel()

    def calls(sensitivity: Array, specificity: Array) -> Array:
        return np.asarray(sensitivity * prevalence + (1 - specificity) * (1 - prevalence))

    def f1(sensitivity: Array, specificity: Array) -> Array:
        return divide(2 * prevalence * sensitivity, calls(sensitivity, specificity) + prevalence)

    def mcc(sensitivity: Array, specificity: Array) -> Array:
        share = calls(sensitivity, specificity)
        covariance = (sensitivity + specificity - 1) * np.sqrt(prevalence * (1 - prevalence))
        return divide(covariance, np.sqrt(share * (1 - share)))

    def of_rates(value: Array, formula: Callable[[Array, Array], Array], *, falls: bool = False) -> OfRates:
        return OfRates(float(value), formula, *rates, falls)

    return {
        "accuracy": share_of(call == label),
        "balanced_accuracy": of_rates(
            (divide(tp, tp + fn) + divide(tn, tn + fp)) / 2,
            lambda sensitivity, specificity: (sensitivity + specificity) / 2,
        ),
        "sensitivity": rates[0],
        "specificity": rates[1],
        "precision": share_of(label, call),
        "negative_predictive_value": share_of(1 - label, 1 - call),
        "f1": of_rates(divide(2 * tp, 2 * tp + fp + fn), f1),
        "mcc": of_rates(divide(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))), mcc),
        "positive_likelihood_ratio": of_rates(
            divide(tp * (tn + fp), fp * (tp + fn)),
            lambda sensitivity, specificity: divide(sensitivity, 1 - specificity, np.inf),
        ),
        "negative_likelihood_ratio": of_rates(
            divide(fn * (tn + fp), tn * (tp + fn)),
            lambda sensitivity, specificity: divide(1 - sensitivity, specificity, np.inf),
            falls=True,
        ),
    }


def predictive_values(labels: ArrayLike, scores: ArrayLike, threshold: float, prevalence: float) -> list[OfRates]:
    """Return the positive and negative predictive value at another prevalence, by Bayes' rule.

    What a decision at `threshold` would mean were sensitivity and specificity as they are here and
    only tumors rarer, or commoner. NaN where nothing is called, or everything.
    """
    rates = _rates(np.asarray(labels, dtype=np.float64), called(scores, threshold).astype(np.float64))

    def positive(sensitivity: Array, specificity: Array) -> Array:
        true = sensitivity * prevalence
        return divide(true, true + (1 - specificity) * (1 - prevalence))

    def negative(sensitivity: Array, specificity: Array) -> Array:
        true = specificity * (1 - prevalence)
        return divide(true, true + (1 - sensitivity) * prevalence)

    here = [np.asarray(rate.value) for rate in rates]
    return [OfRates(float(formula(*here)), formula, *rates) for formula in (positive, negative)]


def calibration(labels: ArrayLike, probabilities: ArrayLike, weights: PatientWeights) -> CalibrationReport:
    """Judge the calibration of probabilities of images of both classes."""
    measures = {
        "slope": calibration_slope(labels, probabilities),
        "in_the_large": calibration_in_the_large(labels, probabilities),
        "brier": brier(labels, probabilities),
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
    }
    reliability, resolution, uncertainty = brier_decomposition(labels, probabilities)
    return CalibrationReport(
        **{name: estimate(measure, weights) for name, measure in measures.items()},
        reliability=reliability,
        resolution=resolution,
        uncertainty=uncertainty,
        bins=reliability_curve(labels, probabilities),
    )


def brier_decomposition(labels: ArrayLike, probabilities: ArrayLike) -> tuple[float, float, float]:
    """Split the Brier score (Murphy 1973, J. Appl. Meteorol. 12:595), over bins of equal count.

    Brier score = reliability - resolution + uncertainty, but for the spread within bins: the sum is
    exact where each bin has one probability (Stephenson et al. 2008, Weather Forecast. 23:752).

    Returns:
        Reliability, the squared distance of probability and observed share, best at 0; resolution,
        the variance of observed shares, best at the uncertainty; and uncertainty, that of labels.
    """
    count, probability, observed = _by_bin(labels, probabilities)
    share = count / count.sum()
    prevalence = float(share @ observed)
    reliability = float(share @ (probability - observed) ** 2)
    return reliability, float(share @ (observed - prevalence) ** 2), prevalence * (1 - prevalence)


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> Measure:
    """Mean distance of probability and observed share (L1), over bins of equal count.

    Naeini et al. 2015 (AAAI 29:2901) with the bins of equal mass of Nixon et al. 2019 (CVPR
    Workshops), on the probability of tumor. Bins are cut once, on all images. Chance alone makes it
    larger than 0, and larger still in a resample: its percentile interval can lie above its value.
    """
    probability = np.asarray(probabilities, dtype=np.float64)
    member = _equal_count_bins(probability)
    gap = np.asarray(labels, dtype=np.float64) - probability
    gaps = np.where(member[:, None] == np.unique(member), gap[:, None], 0)
    return lambda weights: divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def reliability_curve(labels: ArrayLike, probabilities: ArrayLike) -> tuple[ReliabilityBin, ...]:
    """Return observed shares over probabilities, in rising bins of equal count.

    Equal probabilities share a bin, so bins may be fewer than ten. Intervals are Wilson's and take
    images as independent.
    """
    return tuple(
        ReliabilityBin(
            subjects=int(count),
            mean_probability=float(probability),
            observed=wilson(round(count * observed), int(count)),
        )
        for count, probability, observed in zip(*_by_bin(labels, probabilities), strict=True)
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


def roc(labels: ArrayLike, probabilities: ArrayLike) -> Curve:
    """Return sensitivity over 1 - specificity; both classes are needed."""
    from sklearn.metrics import roc_curve  # noqa: PLC0415 - takes a second to load, and who serves needs no curve

    false_positive_rate, sensitivity, _ = roc_curve(labels, probabilities)
    return _thinned(false_positive_rate, sensitivity)


def precision_recall(labels: ArrayLike, probabilities: ArrayLike) -> Curve:
    """Return precision over sensitivity; tumors are needed."""
    from sklearn.metrics import precision_recall_curve  # noqa: PLC0415 - takes a second to load, and who serves needs no curve

    precision, recall, _ = precision_recall_curve(labels, probabilities)
    return _thinned(recall[::-1], precision[::-1])


def risk_coverage(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> Curve:
    """Return the error rate among the most confident share of images, for every share.

    Confidence is the distance from `threshold`, in [0, 1], as a share of that to 0 or 1, whichever
    side the probability is on; images of equal confidence are answered together (El-Yaniv & Wiener
    2010, J. Mach. Learn. Res. 11:1605).
    """
    probability = np.asarray(probabilities, dtype=np.float64)
    calls = called(probability, threshold)
    room = np.where(calls, 1 - threshold, threshold)
    confidence = divide(np.abs(probability - threshold), room, 0)
    _, member, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(member, weights=calls != (np.asarray(labels) == 1))
    answered = np.cumsum(count)
    return _thinned(answered / len(probability), np.cumsum(wrong) / answered)


def decision_curve(labels: ArrayLike, probabilities: ArrayLike) -> DecisionCurve:
    """Return true calls less false calls weighted by the odds of each threshold, per image.

    Vickers & Elkin 2006 (Med. Decis. Making 26:565); probabilities are taken as calibrated for the
    prevalence that counts, and a probability at or above the threshold is called tumor.
    """
    tumor = np.asarray(labels, dtype=np.float64) / np.size(labels)
    none = 1 / np.size(labels) - tumor
    calls = called(probabilities, _THRESHOLDS[:, None])
    odds = _THRESHOLDS / (1 - _THRESHOLDS)
    benefit, treat_all = calls @ tumor - odds * (calls @ none), tumor.sum() - odds * none.sum()
    return DecisionCurve(
        thresholds=tuple(_THRESHOLDS.round(2).tolist()),
        model=tuple(benefit.round(5).tolist()),
        treat_all=tuple(treat_all.round(5).tolist()),
    )


def _rates(label: Array, call: Array) -> tuple[Share, Share]:
    """Return sensitivity and specificity."""
    return share_of(call, label), share_of(1 - call, 1 - label)


def _thinned(x: Array, y: Array) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, _POINTS).round().astype(int))
    return Curve(x=tuple(x[kept].round(5).tolist()), y=tuple(y[kept].round(5).tolist()))


def _equal_count_bins(probability: Array) -> NDArray[np.intp]:
    """Return the bin of each image; equal probabilities share one."""
    rank = np.searchsorted(np.sort(probability), probability)
    return np.asarray(rank * _BINS // len(probability))


def _by_bin(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.intp], Array, Array]:
    """Return count, mean probability and observed share of each bin that has images."""
    probability = np.asarray(probabilities, dtype=np.float64)
    _, member, count = np.unique(_equal_count_bins(probability), return_inverse=True, return_counts=True)
    observed = np.bincount(member, weights=np.asarray(labels, dtype=np.float64)) / count
    return count, np.bincount(member, weights=probability) / count, observed


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
        fitted = np.full_like(moving, np.nan)
        active = np.flatnonzero(np.isfinite(moving).all(axis=1))
        for _ in range(_STEPS):
            if not len(active):
                break
            step = newton(weights[active], moving[active])
            furthest = np.abs(step @ ends.T).max(axis=1)
            moving[active] += step / np.maximum(furthest, 1)[:, None]
            arrived = active[furthest < _CLOSE]
            fitted[arrived] = moving[arrived]
            active = active[furthest >= _CLOSE]
        return fitted

    whole = fit(np.ones((1, len(label))), np.zeros(size))[0]
    return lambda weights: fit(weights, whole)


def _solve(curvature: Array, gradient: Array) -> Array:
    """Solve each resample's system; NaN where it is singular."""
    diagonal = np.diagonal(curvature, axis1=1, axis2=2).prod(axis=1)
    singular = ~(np.linalg.det(curvature) > _SINGULAR * diagonal)
    solvable = np.where(singular[:, None, None], np.eye(curvature.shape[1]), curvature)
    solved = np.linalg.solve(solvable, gradient[:, :, None])[:, :, 0]
    return np.where(singular[:, None], np.nan, solved)
