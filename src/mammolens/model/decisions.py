"""From a probability to an answer: operating points, prediction sets, levels, prevalence. NumPy alone.

What is fitted here is fitted on validation, travels in the bundle and is applied when serving.
`decide` is the one place where an answer is made: whoever serves, shows or judges calls it.

Prediction sets are by Mondrian conformal prediction, by class: Vovk, Gammerman & Shafer 2005,
Algorithmic Learning in a Random World; Sadinle, Lei & Wasserman 2019, J. Am. Stat. Assoc. 114:223;
Angelopoulos & Bates 2021, arXiv:2107.07511.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from mammolens.data.manifest import Manifest
from mammolens.levels import Level, ServedLevel
from mammolens.measures import metrics
from mammolens.measures.curves import decision_measures
from mammolens.measures.intervals import Estimate, estimate, patient_weights
from mammolens.model.calibration import DIGITS, Probability, logit, sigmoid
from mammolens.records import LABEL_NAMES, Prediction, Reason

BALANCED = "balanced"
SENSITIVITY_90, SPECIFICITY_90 = "sensitivity-90", "specificity-90"
FIXED = "fixed"
"""The threshold that is given as a number, such as the original project's 0.5, and not chosen."""

ALPHA = 0.1
"""Share of either class whose prediction set may lack it."""

_ENOUGH = 0.9

Array = NDArray[np.float64]
Count = Annotated[int, Field(ge=0)]


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


class Conformal(BaseModel):
    """Thresholds on how odd a class is for a subject: 1 − its probability.

    Of new subjects of either class, on average over validation sets, at least 1 − alpha have a set
    that holds their class, if they and those it was fitted on are exchangeable. That is marginal
    over subjects, not true of each kind of breast or machine. And it is approximate: breasts and
    images of one patient are alike, so that validation says less than its counts promise; and
    validation also chose epoch and calibration. (A calibration keeps the order of images, and so
    their sets, but for ties; means of views it changes a little.)

    Attributes:
        alpha: the error rate, in (0, 1).
        thresholds: largest oddness in the set of no tumor and of tumor; 1 holds it always.
        subjects: how many without and with a tumor each was chosen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: Annotated[float, Field(gt=0, lt=1)]
    thresholds: tuple[Probability, Probability]
    subjects: tuple[Count, Count]

    def prediction_set(self, probability: float) -> tuple[int, ...]:
        """Return the labels that are not too odd for a probability of tumor in [0, 1].

        (0,) is no tumor and (1,) tumor. Both, and none, are uncertain: both where the network
        cannot tell, none where it tells so well that what lies between is odd for either.
        """
        odd = np.round((probability, 1 - probability), DIGITS)
        return tuple(label for label in (0, 1) if odd[label] <= self.thresholds[label])


@dataclass(frozen=True, eq=False)
class Rules:
    """How probabilities become answers: fitted on a validation split, never on what is judged.

    Attributes:
        default_point: the operating point that decides where none is named.
        points: thresholds, by level and name.
        conformal: which classes a probability leaves possible, by level; empty where the model
            has no such sets.
    """

    default_point: str
    points: dict[Level, OperatingPoints]
    conformal: dict[Level, Conformal] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What is made of a probability.

    Attributes:
        decision: one of `LABEL_NAMES`, or None.
        uncertain: whether it is not to be relied on; an input that is not admitted is uncertain.
        reason: why it is uncertain, or why there is none; None where it is certain, and where
            there is no probability to decide by.
    """

    decision: str | None
    uncertain: bool
    reason: Reason | None


def decide(probability: float | None, level: Level, point: str, rules: Rules, *, admitted: bool = True) -> Decision:
    """Return what an operating point makes of a probability: the one place that does.

    Nothing is decided about an input that is not admitted. Else a decision is certain where the
    prediction set holds the class decided on and no other: so at most a share alpha of either
    class gets an answer that is certain and wrong. A set that is empty, holds both classes, or
    only the one that the operating point decides against, makes it uncertain.

    Without prediction sets, what lies at or above the threshold that finds 90 % of tumors and
    below the one that passes 90 % of the others is uncertain: too high to rule a tumor out, too
    low to rule it in.

    Args:
        probability: of tumor, in [0, 1], at `level`; None where there is none.
        level: what it is of.
        point: the name of an operating point.
        rules: of the model.
        admitted: whether the input looks like a mammogram.
    """
    if not admitted:
        return Decision(None, uncertain=True, reason=Reason.NOT_A_MAMMOGRAM)
    if probability is None:
        return Decision(None, uncertain=False, reason=None)
    points = rules.points[level]
    label = int(metrics.called(probability, points[point].threshold))
    if level in rules.conformal:
        reason = _set_against(rules.conformal[level].prediction_set(probability), label)
    else:
        reason = _between(probability, points)
    return Decision(LABEL_NAMES[label], uncertain=reason is not None, reason=reason)


def decided(answer: Prediction, level: ServedLevel, point: str, rules: Rules) -> Prediction:
    """Return a prediction with what `decide` makes of its probability, whatever it was before."""
    made = decide(answer.probability, level.judged, point, rules, admitted=answer.admitted)
    threshold = rules.points[level.judged][point].threshold
    return replace(answer, level=level, operating_point=point, threshold=threshold, **vars(made))


def fit_rules(valid: Manifest, probabilities: Array, fixed: float | None = None) -> Rules:
    """Choose operating points and prediction sets on validation at each level.

    A breast or patient counts once. Where every patient has a tumor, in one of her breasts, the
    thresholds of patients are those of breasts.

    Args:
        valid: validation images, labelled, of both classes.
        probabilities: of tumor, (images,).
        fixed: a threshold that is given instead of chosen, and decides where none is named.
    """
    points: dict[Level, OperatingPoints] = {}
    conformal: dict[Level, Conformal] = {}
    chosen: OperatingPoints = {}
    for level, subjects in by_level(valid, probabilities).items():
        if 0 < subjects.labels.sum() < len(subjects.labels):
            chosen = operating_points(subjects.labels, subjects.probabilities, subjects.patients, fixed)
        points[level] = chosen
        conformal[level] = fit_conformal(subjects.labels, subjects.probabilities)
    return Rules(BALANCED if fixed is None else FIXED, points, conformal)


def operating_points(
    labels: ArrayLike, probabilities: ArrayLike, patients: Sequence[str], fixed: float | None = None
) -> OperatingPoints:
    """Choose thresholds on validation.

    ``balanced`` has the largest sensitivity + specificity; ``sensitivity-90`` is the highest
    threshold that finds 90 % of tumors, ``specificity-90`` the lowest that passes 90 % of the
    others. `fixed` is a threshold that is given instead of chosen.

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
    weights = patient_weights(patients)
    points = {}
    for name, threshold in thresholds.items():
        measures = decision_measures(label, probability, threshold)
        points[name] = OperatingPoint(
            threshold=threshold,
            sensitivity=estimate(measures["sensitivity"], weights),
            specificity=estimate(measures["specificity"], weights),
            subjects=len(label),
            patients=len(set(patients)),
        )
    return points


def unmeasured(threshold: float) -> OperatingPoint:
    """Return a threshold that was not chosen on anything."""
    unknown = Estimate(np.nan, np.nan, np.nan)
    return OperatingPoint(threshold=threshold, sensitivity=unknown, specificity=unknown, subjects=0, patients=0)


def fit_conformal(labels: ArrayLike, probabilities: ArrayLike, alpha: float = ALPHA) -> Conformal:
    """Choose for each class the ⌈(n + 1)(1 − alpha)⌉-th smallest oddness of its n subjects.

    Where there is no such, as for fewer than 9 subjects at alpha 0.1, the set always holds the
    class: too little is known to rule it out.

    Args:
        labels: 1 for tumor, else 0, (subjects,): images, breasts or patients.
        probabilities: of tumor, (subjects,).
        alpha: the error rate, in (0, 1).
    """
    label, probability = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    odd = probability[label == 0], 1 - probability[label == 1]
    return Conformal(
        alpha=alpha,
        thresholds=(_largest_odd(odd[0], alpha), _largest_odd(odd[1], alpha)),
        subjects=(len(odd[0]), len(odd[1])),
    )


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

    def at(sensitivity: float, specificity: float) -> float:
        true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
        if decision == LABEL_NAMES[0]:
            true, false = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
        return true / (true + false) if true + false > 0 else np.nan

    sensitivity, specificity = point.sensitivity, point.specificity
    return Estimate(
        at(sensitivity.value, specificity.value),
        at(sensitivity.low, specificity.low),
        at(sensitivity.high, specificity.high),
    )


def aggregated(probabilities: ArrayLike, breasts: Sequence[str], patients: Sequence[str], level: Level) -> Array:
    """Return for each image the probability of its breast or patient.

    A breast has the mean of its views: the label is the breast's, and views err independently. A
    patient has the larger of her breasts: one tumor is enough.
    """
    probability = np.asarray(probabilities, dtype=np.float64)
    if level is Level.IMAGE or not len(probability):
        return probability
    _, breast = np.unique(np.asarray(breasts), return_inverse=True)
    # Rounded as everywhere, so that a threshold chosen on such means meets equal ones later.
    by_breast = np.round(np.bincount(breast, weights=probability) / np.bincount(breast), DIGITS)[breast]
    if level is Level.BREAST:
        return np.asarray(by_breast)
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    by_patient = np.zeros(patient.max() + 1)
    np.maximum.at(by_patient, patient, by_breast)
    return by_patient[patient]


class Subjects(NamedTuple):
    """Images, breasts or patients: arrays and lists of shape (subjects,).

    Attributes:
        labels: 1 for tumor, else 0.
        probabilities: of tumor.
        patients: whose they are.
        admitted: whether any of a subject's images looks like a mammogram.
    """

    labels: Array
    probabilities: Array
    patients: list[str]
    admitted: NDArray[np.bool_]


def by_level(manifest: Manifest, probabilities: Array, admitted: ArrayLike | None = None) -> dict[Level, Subjects]:
    """Return each image, breast and patient.

    As in serving, images that are not admitted have no say in what is said of their breast or
    patient. Only where none of its images is admitted do all of them stand for a subject, so that
    it can be counted.

    Args:
        manifest: labelled images.
        probabilities: of tumor, (images,).
        admitted: which images look like mammograms, (images,); None: all.
    """
    passed = np.ones(len(manifest), dtype=bool) if admitted is None else np.asarray(admitted, dtype=bool)
    patients = np.asarray(manifest.patients)
    breasts = np.asarray([mammogram.breast_key for mammogram in manifest])
    images = np.asarray([str(path) for path in manifest.paths])
    subjects = {}
    for level, keys in ((Level.IMAGE, images), (Level.BREAST, breasts), (Level.PATIENT, patients)):
        _, first, member = np.unique(keys, return_index=True, return_inverse=True)
        any_passed = np.bincount(member, weights=passed) > 0
        speaks = passed | ~any_passed[member]
        labels, values = np.zeros(len(first)), np.zeros(len(first))
        np.maximum.at(labels, member, manifest.labels)
        values[member[speaks]] = aggregated(
            probabilities[speaks], breasts[speaks].tolist(), patients[speaks].tolist(), level
        )
        subjects[level] = Subjects(labels, values, patients[first].tolist(), any_passed)
    return subjects


def _set_against(possible: tuple[int, ...], label: int) -> Reason | None:
    """Return why a prediction set does not bear out the class decided on, if it does not."""
    if possible == (label,):
        return None
    return (Reason.NEITHER, Reason.AGAINST, Reason.BOTH)[len(possible)]


def _between(probability: float, points: OperatingPoints) -> Reason | None:
    if SENSITIVITY_90 not in points or SPECIFICITY_90 not in points:
        return None
    between = points[SENSITIVITY_90].threshold <= probability < points[SPECIFICITY_90].threshold
    return Reason.BETWEEN if between else None


def _largest_odd(odd: Array, alpha: float) -> float:
    ordered = np.sort(np.round(odd, DIGITS))
    rank = int(np.ceil(round((len(ordered) + 1) * (1 - alpha), 9)))  # 9.000000000000002 is 9
    return float(ordered[rank - 1]) if rank <= len(ordered) else 1.0
