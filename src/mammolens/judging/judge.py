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

from mammolens.data.manifest import Manifest
from mammolens.data.meanings import UNKNOWN
from mammolens.errors import DataError
from mammolens.judging import schema
from mammolens.judging.comparison import age_figures, references, subgroups
from mammolens.judging.predictions import ScoredImages, scored_images
from mammolens.judging.schema import Model, Report
from mammolens.levels import Level
from mammolens.measures import curves, metrics
from mammolens.measures.intervals import Estimate, PatientWeights, estimate, patient_weights
from mammolens.measures.localisation import Localisation
from mammolens.measures.metrics import Array
from mammolens.measures.shortcuts import image_table
from mammolens.model.age import WithAge
from mammolens.model.bundle import BundleRecord
from mammolens.model.decisions import FIXED, Rules, Subjects, by_level, decide, unmeasured
from mammolens.records import LABEL_NAMES, Mammogram, Prediction, Split

MISTAKES = 12
"""Most confident mistakes that a report names."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The images to judge, and where they are from.

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
    evaluated: EvaluationSet,
    rules: Rules,
    model: Model,
    *,
    localisation: Localisation | None = None,
    with_age: WithAge | None = None,
) -> Report:
    """Judge predictions by image, at every level.

    Args:
        predictions: at least one for each image to judge, in any order.
        evaluated: the images to judge.
        rules: how probabilities become answers.
        model: what answered.
        localisation: where the network looked, if that was judged.
        with_age: the model's second answer, if it has one.

    Raises:
        DataError: the split has no labelled image with an answer, or a prediction is missing.
    """
    split, chosen = evaluated.split, evaluated.images
    answers = {prediction.path: prediction for prediction in predictions}
    if missing := [path for path in chosen.paths if path not in answers]:
        raise DataError(f"{missing[0]}: no prediction for it ({len(missing)} are missing).")
    scored = scored_images(predictions, chosen)
    judged, probabilities, admitted = scored
    if not len(judged):
        where = f"split {split}" if split else "the data set"
        raise DataError(f"{where} has no labelled image with an answer: nothing to judge.")
    table = image_table(judged)
    learnt_from = (
        set(evaluated.manifest.of_split(Split.TRAIN).patients) if split in {Split.VALID, Split.TEST} else set()
    )
    return Report(
        model=model,
        data=evaluated.data,
        split=split,
        command=evaluated.command,
        default_point=rules.default_point,
        counts=schema.Counts(
            images=len(judged),
            patients=len(set(judged.patients)),
            tumors=int(judged.labels.sum()),
            without_label=len(chosen) - len(chosen.labelled()),
            without_answer=sum(answers[path].probability is None for path in chosen.paths),
            not_like_training=int((~admitted).sum()),
            patients_also_in_training=len(learnt_from & set(chosen.patients)),
            without_patient=sum(mammogram.patient_id is None for mammogram in judged),
        ),
        levels={level: _at_level(level, subjects, rules) for level, subjects in by_level(*scored).items()},
        references=references(table),
        subgroups=subgroups(table, probabilities),
        with_age=age_figures(scored, with_age) if with_age else {},
        localisation=localisation,
        mistakes=_mistakes(scored, rules),
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
    truth = _numbers("labels", labels, lambda values: np.isin(values, (0, 1)), "0 or 1")
    answers = _numbers("probabilities", probabilities, lambda values: (values >= 0) & (values <= 1), "in [0, 1]")
    owners = [None] * len(truth) if patients is None else _owners(patients)
    if not 0 < len(truth) == len(answers) == len(owners):
        raise DataError(
            f"{len(truth)} labels, {len(answers)} probabilities and {len(owners)} patients: expected one of each an "
            "image, and at least one image."
        )
    if not isinstance(threshold, int | float | np.number) or not 0 <= threshold <= 1:
        raise DataError(f"threshold is {threshold!r}: expected a number in [0, 1].")
    images = Manifest(
        tuple(
            Mammogram(Path(str(place)), label, patient_id=owner)
            for place, (label, owner) in enumerate(zip(truth.astype(int).tolist(), owners, strict=True))
        )
    )
    predictions = [Prediction(path, value) for path, value in zip(images.paths, answers.tolist(), strict=True)]
    rules = Rules(FIXED, {level: {FIXED: unmeasured(threshold)} for level in Level})
    return judge(predictions, EvaluationSet(images), rules, Model(name=str(name)))


def _owners(patients: Sequence[object]) -> list[str | None]:
    """Return patients as text; None where one is not known, in whatever way tables say so."""
    try:
        texts = ["" if pd.isna(owner) else str(owner).strip() for owner in patients]  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise DataError("patients are no sequence of names: expected (images,), whose each image is.") from error
    return [None if text.lower() in UNKNOWN else text for text in texts]


def _numbers(name: str, values: ArrayLike, allowed: Callable[[Array], NDArray[np.bool_]], expected: str) -> Array:
    """Return values as float64 of shape (images,)."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} are not numbers ({error}): expected {expected}.") from error
    if numbers.ndim != 1:
        raise DataError(f"{name} have the shape {numbers.shape}: expected (images,), a number an image.")
    if not (fits := allowed(numbers)).all():
        place = int(fits.argmin())
        raise DataError(f"{name}[{place}] is {numbers[place]:g}: expected {expected}.")
    return numbers


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
        training_fingerprint=learnt and learnt.fingerprint,
        made_with=record.made_with,
    )


def _at_level(level: Level, subjects: Subjects, rules: Rules) -> schema.LevelReport:
    labels, values, patients, admitted = subjects
    weights = patient_weights(patients)
    both, nothing = 0 < labels.sum() < len(labels), curves.Curve(x=(), y=())
    return schema.LevelReport(
        level=level,
        subjects=len(labels),
        patients=len(set(patients)),
        tumors=int(labels.sum()),
        not_admitted=tuple(int((~admitted[labels == label]).sum()) for label in (0, 1)),
        majority_accuracy=float(max(labels.mean(), 1 - labels.mean())),
        discrimination=_discrimination(labels, values, weights),
        delong=metrics.delong(labels, values),
        decisions={name: _decision(subjects, point.threshold, weights) for name, point in rules.points[level].items()},
        calibration=curves.calibration(labels, values, weights) if both else None,
        conformal=_conformal(subjects, weights, rules, level),
        roc=curves.roc(labels, values) if both else nothing,
        precision_recall=curves.precision_recall(labels, values) if both else nothing,
        risk_coverage=curves.risk_coverage(labels, values, rules.points[level][rules.default_point].threshold),
        decision_curve=curves.decision_curve(labels, values),
    )


def _discrimination(labels: Array, values: Array, weights: PatientWeights) -> dict[str, Estimate]:
    measures = {
        "roc_auc": metrics.roc_auc(labels, values),
        "average_precision": metrics.average_precision(labels, values),
        "partial_auc": metrics.partial_auc(labels, values, 0.8),
    }
    for target in (80, 90, 95):
        measure = metrics.sensitivity_at_specificity(labels, values, target / 100)
        measures[f"sensitivity_at_{target}_specificity"] = measure
    for target in (80, 87, 90):
        measure = metrics.specificity_at_sensitivity(labels, values, target / 100)
        measures[f"specificity_at_{target}_sensitivity"] = measure
    measures["log_loss"] = metrics.log_loss(labels, values)
    return {name: estimate(measure, weights) for name, measure in measures.items()}


def _decision(subjects: Subjects, threshold: float, weights: PatientWeights) -> schema.Decision:
    labels, values, *_ = subjects
    (tn, fp), (fn, tp) = curves.confusion(labels, values, threshold).tolist()
    measures = curves.decision_measures(labels, values, threshold)

    def at_prevalence(prevalence: float) -> schema.PredictiveValues:
        both = curves.predictive_values(labels, values, threshold, prevalence)
        positive, negative = (estimate(value, weights) for value in both)
        return schema.PredictiveValues(prevalence=prevalence, positive=positive, negative=negative)

    return schema.Decision(
        threshold=threshold,
        confusion=((tn, fp), (fn, tp)),
        measures={name: estimate(measure, weights) for name, measure in measures.items()}
        | _missing_as_wrong(subjects, threshold, weights),
        at_own_prevalence=at_prevalence(float(labels.mean())),
        at_screening_prevalence=at_prevalence(schema.SCREENING_PREVALENCE),
    )


def _missing_as_wrong(subjects: Subjects, threshold: float, weights: PatientWeights) -> dict[str, Estimate]:
    """Return sensitivity and specificity where subjects without a decision are decided wrongly."""
    labels, values, _, admitted = subjects
    if admitted.all():
        return {}
    worst = np.where(admitted, values, np.where(labels == 1, -np.inf, np.inf))
    measures = curves.decision_measures(labels, worst, threshold)
    return {f"{name}_missing_as_wrong": estimate(measures[name], weights) for name in ("sensitivity", "specificity")}


def _conformal(
    subjects: Subjects, weights: PatientWeights, rules: Rules, level: Level
) -> schema.ConformalReport | None:
    labels, values, _, admitted = subjects
    conformal = rules.conformal.get(level)
    if conformal is None:
        return None
    admissions = zip(values.tolist(), admitted.tolist(), strict=True)
    decisions = [decide(value, level, rules.default_point, rules, admitted=one) for value, one in admissions]
    certain = np.array([not one.uncertain for one in decisions])
    sets = [conformal.prediction_set(value) for value in values.tolist()]
    covered = np.array([label in one for label, one in zip(labels, sets, strict=True)])
    return schema.ConformalReport(
        promised=1 - conformal.alpha,
        coverage={
            name: estimate(metrics.share_of(covered, labels == label), weights)
            for label, name in enumerate(LABEL_NAMES)
        },
        uncertain=estimate(metrics.share_of(~certain), weights),
        error=estimate(metrics.share_of(~covered, certain), weights),
    )


def common_folder(manifest: Manifest) -> Path:
    """Return the deepest folder that all images lie in: reports name images from there on."""
    return Path(os.path.commonpath([path.parent.absolute() for path in manifest.paths]))


def _mistakes(scored: ScoredImages, rules: Rules) -> tuple[schema.Mistake, ...]:
    """Name the surest false calls and misses, by turns."""
    judged, probabilities, _ = scored
    threshold = rules.points[Level.IMAGE][rules.default_point].threshold
    called, tumors = metrics.called(probabilities, threshold), judged.labels == 1
    order = np.argsort(probabilities, kind="stable")
    false_calls = [index for index in order[::-1] if called[index] and not tumors[index]]
    misses = [index for index in order if tumors[index] and not called[index]]
    half = MISTAKES // 2
    folder = common_folder(judged)
    return tuple(
        schema.Mistake(
            path=str(judged.paths[index].absolute().relative_to(folder)),
            truth=LABEL_NAMES[int(tumors[index])],
            probability=float(probabilities[index]),
        )
        for index in (*false_calls[:half], *misses[:half])
    )
