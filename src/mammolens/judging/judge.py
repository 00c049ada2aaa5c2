"""Predictions + manifest → `Report`. Read `judge` first.

Images without a label or without an answer are counted and left out of the figures. Those that the
gate does not admit are neither: leaving out what a test cannot evaluate makes it look better than
it is (Schuetz et al. 2012, BMJ 345:e6717; STARD 2015, item 15). They are judged by what the network
makes of them, so that figures on the same images stay comparable, are counted by label, and beside
sensitivity and specificity stands what is left of them where each missing decision is a wrong one.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from mammolens.data.manifest import Manifest
from mammolens.data.splits import leakage
from mammolens.errors import DataError
from mammolens.judging.schema import (
    SCREENING_PREVALENCE,
    CalibrationReport,
    ConformalReport,
    Counts,
    Curve,
    Decision,
    DecisionCurve,
    LevelReport,
    Mistake,
    Model,
    PredictiveValues,
    ReliabilityBin,
    Report,
)
from mammolens.judging.subgroups import references, subgroups
from mammolens.measures import curves, decisions, metrics
from mammolens.measures.localisation import Localisation
from mammolens.measures.metrics import Array, Estimate, PatientWeights
from mammolens.model.bundle import BundleRecord
from mammolens.model.rules import FIXED, Rules, Subjects, by_level, decide, unmeasured
from mammolens.records import LABEL_NAMES, Level, Mammogram, Prediction, Split

MISTAKES = 12
"""Most confident mistakes that a report names."""

_POINTS = 200  # of a curve
_THRESHOLDS = np.arange(0.01, 0.995, 0.01)  # of the decision curve


@dataclass(frozen=True, eq=False)
class Question:
    """Which images to judge.

    Attributes:
        manifest: the whole data set: its training split tells which patients were learnt from.
        split: what to judge of it, or None for all images.
        data: name of the data set.
        command: what was typed.
    """

    manifest: Manifest
    split: Split | None = None
    data: str = ""
    command: str = ""

    @property
    def images(self) -> Manifest:
        """What is judged."""
        return self.manifest if self.split is None else self.manifest.of_split(self.split)


def judge(
    predictions: Sequence[Prediction],
    question: Question,
    rules: Rules,
    model: Model,
    *,
    localisation: Localisation | None = None,
) -> Report:
    """Judge predictions by image, at every level.

    Args:
        predictions: at least one for each image of the question, in any order.
        question: which images to judge.
        rules: how probabilities become answers.
        model: what answered.
        localisation: where the network looked, if that was judged.

    Raises:
        DataError: the split has no labelled image with an answer, or a prediction is missing.
    """
    split, chosen = question.split, question.images
    answers = {prediction.path: prediction for prediction in predictions}
    if missing := [path for path in chosen.paths if path not in answers]:
        raise DataError(f"{missing[0]}: no prediction for it ({len(missing)} are missing).")
    judged = answered(predictions, chosen)
    where = f"split {split}" if split else "the data set"
    if not len(judged):
        raise DataError(f"{where} has no labelled image with an answer: nothing to judge.")
    probabilities = probabilities_of(predictions, judged)
    admitted = np.array([answers[path].admitted for path in judged.paths], dtype=bool)
    return Report(
        model=model,
        data=question.data,
        split=split,
        command=question.command,
        default_point=rules.default_point,
        counts=Counts(
            images=len(judged),
            patients=len(set(judged.patients)),
            tumors=int(judged.labels.sum()),
            without_label=len(chosen) - len(chosen.labelled()),
            without_answer=sum(answers[path].probability is None for path in chosen.paths),
            not_like_training=int((~admitted).sum()),
            patients_also_in_training=_patients_learnt_from(question.manifest, split),
            without_patient=sum(mammogram.patient_id is None for mammogram in judged),
        ),
        levels={
            level: _at_level(level, subjects, rules)
            for level, subjects in by_level(judged, probabilities, admitted).items()
        },
        references=references(judged),
        subgroups=subgroups(judged, probabilities),
        localisation=localisation,
        mistakes=_mistakes(judged, probabilities, rules),
    )


def judge_scores(
    labels: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[object] | None = None,
    *,
    threshold: float = 0.5,
    name: str = "scores",
) -> Report:
    """Judge any system's probabilities from arrays alone, as `judge` does.

    Breasts are not known, so each image is one. A mistake's path is its place in the arrays, from 0.

    Args:
        labels: (images,), 1 for tumor and 0 for none.
        probabilities: of tumor, (images,), in [0, 1].
        patients: whose each image is, (images,): images of a patient are drawn together for the
            intervals. One that is None or NaN, or None for all: each image is a patient of its own.
        threshold: a probability at or above it is called tumor, in [0, 1]; the operating point ``fixed``.
        name: of the system that answered.

    Raises:
        DataError: lengths differ, there is no image, a label is not 0 or 1, or a probability or the
            threshold is not in [0, 1].
    """
    known = _numbers("labels", labels, lambda value: np.isin(value, (0, 1)), "0 or 1")
    answers = _numbers("probabilities", probabilities, _in_unit, "in [0, 1]")
    owners = [None] * len(known) if patients is None else list(patients)
    if not len(known) == len(answers) == len(owners) or not len(known):
        raise DataError(
            f"{len(known)} labels, {len(answers)} probabilities and {len(owners)} patients: expected one of each an "
            "image, and at least one image."
        )
    if not _in_unit(threshold):
        raise DataError(f"threshold is {threshold}: expected a number in [0, 1].")
    images = Manifest(
        tuple(
            Mammogram(Path(str(place)), label, patient_id=None if pd.isna(owner) else str(owner))  # type: ignore[call-overload]
            for place, (label, owner) in enumerate(zip(known.astype(int).tolist(), owners, strict=True))
        )
    )
    predictions = [Prediction(path, value) for path, value in zip(images.paths, answers.tolist(), strict=True)]
    rules = Rules(FIXED, {level: {FIXED: unmeasured(threshold)} for level in Level})
    return judge(predictions, Question(images), rules, Model(name=name))


def _numbers(name: str, values: ArrayLike, allowed: Callable[[Array], NDArray[np.bool_]], expected: str) -> Array:
    """Return values as float64 of shape (images,).

    Raises:
        DataError: they are not numbers, not of one dimension, or not `allowed`.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} are not numbers ({error}): expected {expected}.") from error
    if numbers.ndim != 1:
        raise DataError(f"{name} have the shape {numbers.shape}: expected (images,), a number an image.")
    if not (fits := allowed(numbers)).all():
        place = int(np.flatnonzero(~fits)[0])
        raise DataError(f"{name}[{place}] is {numbers[place]:g}: expected {expected}.")
    return numbers


def _in_unit(values: ArrayLike) -> NDArray[np.bool_]:
    """Tell which values are from 0 to 1; NaN is not."""
    value = np.asarray(values, dtype=np.float64)
    return (value >= 0) & (value <= 1)


def model_of(record: BundleRecord) -> Model:
    """Return what a report says of a bundle."""
    learnt = record.training_data
    return Model(
        name=record.name,
        is_bundle=True,
        licence=record.licence,
        intended_use=record.intended_use,
        training_data=learnt and learnt.name,
        training_images=learnt and learnt.images,
        training_patients=learnt and learnt.patients,
        training_prevalence=learnt and learnt.prevalence,
        synthetic=learnt and learnt.synthetic,
        calibration_only=bool(learnt and learnt.calibration_only),
        calibration=record.calibration.method if learnt else None,
        learnt=record.learnt,
        gate=record.gate is not None,
    )


def answered(predictions: Sequence[Prediction], manifest: Manifest) -> Manifest:
    """Return the images that have a label and an answer."""
    got = {prediction.path for prediction in predictions if prediction.probability is not None}
    return manifest.where(lambda m: m.label is not None and m.path in got)


def probabilities_of(predictions: Sequence[Prediction], manifest: Manifest) -> NDArray[np.float64]:
    """Return the probability of each image of `manifest`, (images,)."""
    known = {prediction.path: prediction.probability for prediction in predictions}
    return np.array([known[path] for path in manifest.paths], dtype=np.float64)


def _at_level(level: Level, subjects: Subjects, rules: Rules) -> LevelReport:
    labels, values, patients, admitted = subjects
    weights = metrics.patient_weights(patients)
    both = 0 < labels.sum() < len(labels)
    undefined = Estimate(np.nan, np.nan, np.nan)
    return LevelReport(
        level=level,
        subjects=len(labels),
        patients=len(set(patients)),
        tumors=int(labels.sum()),
        not_admitted=tuple(int((~admitted[labels == label]).sum()) for label in (0, 1)),
        majority_accuracy=float(max(labels.mean(), 1 - labels.mean())),
        discrimination=_discrimination(labels, values, weights),
        delong=metrics.delong(labels, values) if both else undefined,
        decisions={name: _decision(subjects, point.threshold, weights) for name, point in rules.points[level].items()},
        calibration=_calibration(labels, values, weights) if both else None,
        conformal=_conformal(subjects, weights, rules, level),
        roc=_roc(labels, values) if both else Curve(x=(), y=()),
        precision_recall=_precision_recall(labels, values) if both else Curve(x=(), y=()),
        risk_coverage=_risk_coverage(labels, values, rules, level),
        decision_curve=_decision_curve(labels, values),
    )


def _discrimination(labels: Array, values: Array, weights: PatientWeights) -> dict[str, Estimate]:
    measures = {
        "roc_auc": metrics.roc_auc(labels, values),
        "average_precision": metrics.average_precision(labels, values),
        "partial_auc": metrics.partial_auc(labels, values),
        **{
            f"sensitivity_at_{target}_specificity": metrics.sensitivity_at_specificity(labels, values, target / 100)
            for target in (80, 90, 95)
        },
        **{
            f"specificity_at_{target}_sensitivity": metrics.specificity_at_sensitivity(labels, values, target / 100)
            for target in (80, 87, 90)
        },
        "log_loss": metrics.log_loss(labels, values),
    }
    return {name: metrics.estimate(measure, weights) for name, measure in measures.items()}


def _decision(subjects: Subjects, threshold: float, weights: PatientWeights) -> Decision:
    labels, values, *_ = subjects
    counts = decisions.confusion(labels, values, threshold)(np.ones((1, len(labels))))
    tn, fp, fn, tp = (round(float(count[0])) for count in counts)
    measures = {
        name: metrics.estimate(measure, weights)
        for name, measure in decisions.decision_measures(labels, values, threshold).items()
    }

    def at_prevalence(prevalence: float) -> PredictiveValues:
        both = decisions.predictive_values(labels, values, threshold, prevalence)
        positive, negative = (metrics.estimate(one, weights) for one in both)
        return PredictiveValues(prevalence=prevalence, positive=positive, negative=negative)

    return Decision(
        threshold=threshold,
        confusion=((tn, fp), (fn, tp)),
        measures=measures | _missing_as_wrong(subjects, threshold, weights),
        at_own_prevalence=at_prevalence(float(labels.mean())),
        at_screening_prevalence=at_prevalence(SCREENING_PREVALENCE),
    )


def _missing_as_wrong(subjects: Subjects, threshold: float, weights: PatientWeights) -> dict[str, Estimate]:
    """Return sensitivity and specificity where subjects without a decision are decided wrongly."""
    labels, values, _, admitted = subjects
    if admitted.all():
        return {}
    worst = np.where(admitted, values, np.where(labels == 1, -np.inf, np.inf))
    measures = decisions.decision_measures(labels, worst, threshold)
    return {
        f"{name}_missing_as_wrong": metrics.estimate(measures[name], weights) for name in ("sensitivity", "specificity")
    }


def _calibration(labels: Array, values: Array, weights: PatientWeights) -> CalibrationReport:
    parts = curves.brier_decomposition(labels, values)
    measures = {
        "slope": curves.calibration_slope(labels, values),
        "in_the_large": curves.calibration_in_the_large(labels, values),
        "brier": metrics.brier(labels, values),
        "expected_calibration_error": curves.expected_calibration_error(labels, values),
    }
    return CalibrationReport(
        **{name: metrics.estimate(measure, weights) for name, measure in measures.items()},
        reliability=parts.reliability,
        resolution=parts.resolution,
        uncertainty=parts.uncertainty,
        bins=tuple(
            ReliabilityBin(subjects=one.count, mean_probability=one.mean_probability, observed=one.observed)
            for one in curves.reliability_curve(labels, values)
        ),
    )


def _conformal(subjects: Subjects, weights: PatientWeights, rules: Rules, level: Level) -> ConformalReport | None:
    labels, values, _, admitted = subjects
    conformal = rules.conformal.get(level)
    if conformal is None:
        return None
    point, pairs = rules.default_point, zip(values.tolist(), admitted, strict=True)
    made = [decide(value, level, point, rules, admitted=bool(known)) for value, known in pairs]
    certain = np.array([not one.uncertain for one in made])
    sets = [conformal.prediction_set(value) for value in values.tolist()]
    covered = np.array([label in one for label, one in zip(labels, sets, strict=True)])
    return ConformalReport(
        promised=1 - conformal.alpha,
        coverage={
            name: metrics.estimate(metrics.share_of(covered, labels == label), weights)
            for label, name in enumerate(LABEL_NAMES)
        },
        uncertain=metrics.estimate(metrics.share_of(~certain), weights),
        error=metrics.estimate(metrics.share_of(~covered, certain), weights),
    )


def _thinned(x: Array, y: Array) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, _POINTS).round().astype(int))
    return Curve(x=tuple(x[kept].round(5).tolist()), y=tuple(y[kept].round(5).tolist()))


def _roc(labels: Array, values: Array) -> Curve:
    false_positive_rate, sensitivity, _ = roc_curve(labels, values)
    return _thinned(false_positive_rate, sensitivity)


def _precision_recall(labels: Array, values: Array) -> Curve:
    precision, recall, _ = precision_recall_curve(labels, values)
    return _thinned(recall[::-1], precision[::-1])


def _risk_coverage(labels: Array, values: Array, rules: Rules, level: Level) -> Curve:
    threshold = rules.points[level][rules.default_point].threshold
    found = curves.risk_coverage(labels, values, threshold)
    return _thinned(found.coverage, found.risk)


def _decision_curve(labels: Array, values: Array) -> DecisionCurve:
    benefit = curves.net_benefit(labels, values, _THRESHOLDS)
    return DecisionCurve(
        thresholds=tuple(_THRESHOLDS.round(2).tolist()),
        model=tuple(benefit.model.round(5).tolist()),
        treat_all=tuple(benefit.treat_all.round(5).tolist()),
    )


def common_folder(manifest: Manifest) -> Path:
    """Return the deepest folder that all images lie in: reports name images from there on."""
    return Path(os.path.commonpath([path.parent.absolute() for path in manifest.paths]))


def _mistakes(judged: Manifest, probabilities: Array, rules: Rules) -> tuple[Mistake, ...]:
    """Name the surest false calls and misses, by turns."""
    threshold = rules.points[Level.IMAGE][rules.default_point].threshold
    called = metrics.called(probabilities, threshold)
    labels = judged.labels == 1
    order = np.argsort(probabilities, kind="stable")
    false_calls = [int(i) for i in order[::-1] if called[i] and not labels[i]]
    misses = [int(i) for i in order if labels[i] and not called[i]]
    half = MISTAKES // 2
    folder = common_folder(judged)
    return tuple(
        Mistake(
            path=str(judged.paths[index].absolute().relative_to(folder)),
            truth=LABEL_NAMES[int(labels[index])],
            probability=float(probabilities[index]),
        )
        for index in (*false_calls[:half], *misses[:half])
    )


def _patients_learnt_from(manifest: Manifest, split: Split | None) -> int:
    if split is None or split is Split.TRAIN:
        return 0
    return leakage(manifest, Split.TRAIN, split).patients
