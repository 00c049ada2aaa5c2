"""From a network's score to an answer: calibration, operating points, levels. NumPy alone.

Everything here is fitted on a validation split, travels in the bundle and is applied when serving.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from mammolens import metrics
from mammolens.manifest import Manifest
from mammolens.metrics import Estimate
from mammolens.records import Level

BALANCED = "balanced"
SENSITIVITY_90, SPECIFICITY_90 = "sensitivity-90", "specificity-90"
AS_TRAINED = "as-trained"
"""The threshold that a recipe fixes as a number, such as the original project's 0.5."""

DIGITS = 6
"""Of a probability, after the point."""

_FLATTEST = 0.01  # smallest slope: a calibration may doubt a network, but never turn it round
_EDGE = 1e-7  # scores are kept this far from 0 and 1
_ENOUGH = 0.9
_STEPS = 100

Array = NDArray[np.float64]
Probability = Annotated[float, Field(ge=0, le=1)]


class Calibration(BaseModel):
    """Scores to probabilities of tumor: sigmoid(slope · logit(score) + intercept).

    Slope 1 and intercept 0 change nothing; intercept 0 alone is temperature scaling (Guo et al.
    2017, ICML); both are Platt scaling (Platt 1999, Advances in Large Margin Classifiers).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: Annotated[float, Field(gt=0)] = 1.0
    intercept: float = 0.0

    def __call__(self, scores: ArrayLike) -> Array:
        """Return probabilities for scores in [0, 1], of their shape.

        They are rounded to six digits: what two machines agree on.
        """
        return np.round(_sigmoid(self.slope * _logit(scores) + self.intercept), DIGITS)


class OperatingPoint(BaseModel):
    """A threshold on the probability, and what it did where it was chosen: validation.

    Attributes:
        threshold: a probability at or above it is called tumor.
        sensitivity: with its 95 % interval by patient.
        specificity: likewise.
        subjects: how many images, breasts or patients it was chosen on.
        patients: they belong to this many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    threshold: Probability
    sensitivity: Estimate
    specificity: Estimate
    subjects: int
    patients: int


OperatingPoints = dict[str, OperatingPoint]


def fit_calibration(labels: ArrayLike, scores: ArrayLike) -> Calibration:
    """Fit Platt scaling by Newton's method, with Platt's smoothed targets.

    Targets (positives + 1) / (positives + 2) and 1 / (negatives + 2) keep it finite where classes
    do not overlap. Where scores fall with suspicion, the slope is held at a small positive value.
    """
    label = np.asarray(labels, dtype=np.float64)
    logits = _logit(scores)
    positives, negatives = label.sum(), (1 - label).sum()
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A young network's scores hardly differ: steps must not depend on the unit of the logits.
    centre, spread = logits.mean(), max(float(logits.std()), _EDGE)
    inputs = np.stack([(logits - centre) / spread, np.ones_like(logits)], axis=1)
    slope, intercept = _logistic_fit(inputs, target)
    slope /= spread
    intercept -= slope * centre
    if slope < _FLATTEST:
        slope = _FLATTEST
        intercept = _logistic_fit(inputs[:, 1:], target, offset=slope * logits)[0]
    return Calibration(slope=float(slope), intercept=float(intercept))


def operating_points(
    labels: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[str],
    as_trained: float | None = None,
) -> OperatingPoints:
    """Choose thresholds on validation.

    ``balanced`` has the largest sensitivity + specificity; ``sensitivity-90`` is the highest
    threshold that finds 90 % of tumors, ``specificity-90`` the lowest that lets 90 % of the others
    go. `as_trained` is a threshold that is given instead of chosen.

    Raises:
        ValueError: one class only.
    """
    label = np.asarray(labels, dtype=np.float64)
    probability = np.asarray(probabilities, dtype=np.float64)
    tumors, others = np.sort(probability[label == 1]), np.sort(probability[label == 0])
    if not len(tumors) or not len(others):
        raise ValueError("operating points need both classes")
    missed = int(np.floor(round((1 - _ENOUGH) * len(tumors), 9)))
    passed = int(np.ceil(round(_ENOUGH * len(others), 9)))
    thresholds = {
        BALANCED: metrics.youden_threshold(label, probability),
        SENSITIVITY_90: float(tumors[missed]),
        SPECIFICITY_90: min(1.0, round(float(others[passed - 1]) + 10**-DIGITS, DIGITS)),
    }
    if as_trained is not None:
        thresholds[AS_TRAINED] = as_trained
    weights = metrics.patient_weights(patients)
    return {
        name: _operating_point(label, probability, threshold, weights, len(set(patients)))
        for name, threshold in thresholds.items()
    }


def is_uncertain(probability: float, points: OperatingPoints) -> bool:
    """Tell whether a probability is too high to rule out and too low to rule in.

    That is: at or above the threshold that finds 90 % of tumors, and below the one that lets 90 %
    of the others go.
    """
    if SENSITIVITY_90 not in points or SPECIFICITY_90 not in points:
        return False
    return points[SENSITIVITY_90].threshold <= probability < points[SPECIFICITY_90].threshold


def at_prevalence(probability: float, seen: float, expected: float) -> float:
    """Return a probability as it would be where tumors are rarer or commoner than in training.

    The odds are multiplied by the ratio of prior odds (Saerens et al. 2002, Neural Computation
    14:21): right if only the prevalence differs.

    Args:
        probability: of tumor, at the prevalence `seen`.
        seen: prevalence that it was calibrated at, in (0, 1).
        expected: prevalence to translate it to, in (0, 1).
    """
    shift = _logit(expected) - _logit(seen)
    return float(_sigmoid(_logit(probability) + shift))


def aggregated(
    probabilities: ArrayLike,
    breasts: Sequence[str],
    patients: Sequence[str],
    level: Level,
) -> Array:
    """Return for each image the probability of its breast or patient.

    A breast has the mean of its views: the label is the breast's, and views err independently. A
    patient has the larger of her breasts: one tumor is enough.
    """
    probability = np.asarray(probabilities, dtype=np.float64)
    if level is Level.IMAGE or not len(probability):
        return probability
    _, breast = np.unique(np.asarray(breasts), return_inverse=True)
    # Rounded as everywhere, so that a threshold chosen on such means meets equal ones later.
    by_breast = np.round(np.bincount(breast, weights=probability) / np.bincount(breast), DIGITS)
    if level is Level.BREAST:
        return np.asarray(by_breast[breast])
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    by_patient = np.zeros(patient.max() + 1)
    np.maximum.at(by_patient, patient, by_breast[breast])
    return by_patient[patient]


def by_level(
    manifest: Manifest, probabilities: NDArray[np.float64]
) -> dict[Level, tuple[NDArray[np.float64], NDArray[np.float64], list[str]]]:
    """Return labels, probabilities and patients of each image, breast and patient."""
    breasts = [mammogram.breast_key for mammogram in manifest]
    keys = {Level.IMAGE: [str(p) for p in manifest.paths], Level.BREAST: breasts}
    keys[Level.PATIENT] = list(manifest.patients)
    found = {}
    for level, names in keys.items():
        values = aggregated(probabilities, breasts, manifest.patients, level)
        _, first, member = np.unique(np.asarray(names), return_index=True, return_inverse=True)
        labels = np.zeros(len(first))
        np.maximum.at(labels, member, manifest.labels)
        found[level] = (labels, values[first], [manifest.patients[index] for index in first])
    return found


def _operating_point(
    label: Array, probability: Array, threshold: float, weights: Array, patients: int
) -> OperatingPoint:
    measures = metrics.decision_measures(label, probability, threshold)
    return OperatingPoint(
        threshold=threshold,
        sensitivity=metrics.estimate(measures["sensitivity"], weights),
        specificity=metrics.estimate(measures["specificity"], weights),
        subjects=len(label),
        patients=patients,
    )


def _logistic_fit(inputs: Array, target: Array, offset: Array | float = 0.0) -> Array:
    """Minimise the cross-entropy of sigmoid(inputs · w + offset) against soft targets."""
    weights = np.zeros(inputs.shape[1])
    ridge = 1e-9 * np.eye(len(weights))
    for _ in range(_STEPS):
        probability = _sigmoid(inputs @ weights + offset)
        gradient = inputs.T @ (probability - target)
        curvature = (inputs.T * (probability * (1 - probability))) @ inputs + ridge
        step = np.linalg.solve(curvature, gradient)
        weights -= np.clip(step, -1, 1)  # a full Newton step can overshoot far from the optimum
        if np.abs(step).max() < 1e-10:  # noqa: PLR2004 - converged
            break
    return weights


def _sigmoid(logits: ArrayLike) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -np.asarray(logits, dtype=np.float64))))


def _logit(probabilities: ArrayLike) -> Array:
    probability = np.clip(np.asarray(probabilities, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(probability / (1 - probability)))
