"""From a probability to an answer: operating points, levels, prevalence. NumPy alone.

What is fitted here is fitted on validation, travels in the bundle and is applied when serving.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from mammolens import metrics
from mammolens.calibration import DIGITS, Probability, logit, sigmoid
from mammolens.conformal import Conformal, fit_conformal
from mammolens.decisions import decision_measures
from mammolens.manifest import Manifest
from mammolens.metrics import Estimate
from mammolens.records import LABEL_NAMES, Level

BALANCED = "balanced"
SENSITIVITY_90, SPECIFICITY_90 = "sensitivity-90", "specificity-90"
FIXED = "fixed"
"""The threshold that is given as a number, such as the original project's 0.5, and not chosen."""

_ENOUGH = 0.9

Array = NDArray[np.float64]


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


def operating_points(
    labels: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[str],
    fixed: float | None = None,
) -> OperatingPoints:
    """Choose thresholds on validation.

    ``balanced`` has the largest sensitivity + specificity; ``sensitivity-90`` is the highest
    threshold that finds 90 % of tumors, ``specificity-90`` the lowest that lets 90 % of the others
    go. `fixed` is a threshold that is given instead of chosen.

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
    if fixed is not None:
        thresholds[FIXED] = fixed
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
    shift = logit(expected) - logit(seen)
    return float(sigmoid(logit(probability) + shift))


def predictive_value(point: OperatingPoint, decision: str, prevalence: float) -> Estimate:
    """Return how often a decision is right at a prevalence in (0, 1), by Bayes' rule.

    The ends are those at both low, and at both high, ends of sensitivity and specificity: at least
    as far apart as an interval of 95 %. NaN where they were not measured, or it is never decided.
    """
    called = decision == LABEL_NAMES[1]

    def at(sensitivity: float, specificity: float) -> float:
        true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
        if not called:
            true, false = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
        return true / (true + false) if true + false > 0 else np.nan

    both = point.sensitivity, point.specificity
    value, low, high = (
        at(*(getattr(rate, end) for rate in both)) for end in ("value", "low", "high")
    )
    return Estimate(value, low, high)


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


def points_by_level(
    manifest: Manifest, probabilities: NDArray[np.float64], fixed: float | None = None
) -> dict[Level, OperatingPoints]:
    """Choose operating points on validation at each level; a breast or patient counts once.

    Where every patient has a tumor, in one of her breasts, thresholds are those of breasts.

    Args:
        manifest: validation images, labelled.
        probabilities: of tumor, (images,).
        fixed: a threshold that is given instead of chosen.
    """
    chosen: dict[Level, OperatingPoints] = {}
    found: OperatingPoints = {}
    for level, (labels, values, patients) in by_level(manifest, probabilities).items():
        if 0 < labels.sum() < len(labels):
            found = operating_points(labels, values, patients, fixed)
        chosen[level] = found
    return chosen


def conformal_by_level(
    manifest: Manifest, probabilities: NDArray[np.float64]
) -> dict[Level, Conformal]:
    """Fit conformal thresholds on validation at each level; a breast or patient counts once."""
    subjects = by_level(manifest, probabilities)
    return {level: fit_conformal(labels, values) for level, (labels, values, _) in subjects.items()}


def unmeasured(threshold: float) -> OperatingPoint:
    """Return a threshold that was not chosen on anything."""
    unknown = Estimate(np.nan, np.nan, np.nan)
    return OperatingPoint(
        threshold=threshold, sensitivity=unknown, specificity=unknown, subjects=0, patients=0
    )


def _operating_point(
    label: Array,
    probability: Array,
    threshold: float,
    weights: metrics.PatientWeights,
    patients: int,
) -> OperatingPoint:
    measures = decision_measures(label, probability, threshold)
    return OperatingPoint(
        threshold=threshold,
        sensitivity=metrics.estimate(measures["sensitivity"], weights),
        specificity=metrics.estimate(measures["specificity"], weights),
        subjects=len(label),
        patients=patients,
    )
