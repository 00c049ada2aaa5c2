"""Predictions + manifest → `Report`: every figure with its n, its interval and where it comes from.

Images without a label or without an answer are counted and left out of the figures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from mammolens import __version__, metrics
from mammolens.errors import DataError
from mammolens.figures import confusion_figure, precision_recall_figure, roc_figure, save_figure
from mammolens.files import write_text
from mammolens.manifest import Manifest
from mammolens.metrics import RESAMPLES, Estimate
from mammolens.records import LABEL_NAMES, Prediction, Split
from mammolens.splits import leakage

_FROZEN = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Counts(BaseModel):
    """What was judged."""

    model_config = _FROZEN

    images: int
    patients: int
    tumors: int
    without_label: int
    without_answer: int
    patients_also_in_training: int


class ClassReport(BaseModel):
    """One class, as scikit-learn's classification report has it."""

    model_config = _FROZEN

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    images: int


class Report(BaseModel):
    """What `report.json` holds. Figures are by image; intervals are 95 %, by patient.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        model: the run or bundle that answered.
        split: the split that was judged, or None for all images.
        command: what to type to get this report again.
        threshold: probability from which an image is called tumor.
        metrics: log_loss, roc_auc, average_precision, accuracy, sensitivity, specificity,
            precision and f1.
        majority_accuracy: what always answering the commoner class would reach.
        confusion: [[true negatives, false positives], [false negatives, true positives]].
    """

    model_config = _FROZEN

    schema_version: Literal[1] = 1
    mammolens_version: str = __version__
    model: str
    split: Split | None
    command: str
    level: Literal["image"] = "image"
    threshold: float
    counts: Counts
    metrics: dict[str, Estimate]
    majority_accuracy: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    classes: tuple[ClassReport, ClassReport]
    bootstrap_resamples: int = RESAMPLES
    bootstrap_unit: Literal["patient"] = "patient"


def judge(
    predictions: Sequence[Prediction],
    manifest: Manifest,
    split: Split | None,
    *,
    model: str,
    command: str,
) -> Report:
    """Judge the predictions of one split (None: of all images).

    Args:
        predictions: at least one for each image of the split, in any order.
        manifest: the whole data set: its training split tells which patients were learnt from.
        split: what to judge.
        model: what answered.
        command: what was typed.

    Raises:
        DataError: the split has no labelled image with an answer, or a prediction is missing.
    """
    chosen = manifest if split is None else manifest.of_split(split)
    answers = {prediction.path: prediction for prediction in predictions}
    if missing := [path for path in chosen.paths if path not in answers]:
        raise DataError(f"{missing[0]}: no prediction for it ({len(missing)} are missing).")
    judged = chosen.where(lambda m: m.label is not None and answers[m.path].error is None)
    where = f"split {split}" if split else "the data set"
    if not len(judged):
        raise DataError(f"{where} has no labelled image that can be read: nothing to judge.")
    threshold = answers[judged.paths[0]].threshold
    labels = judged.labels
    scores = np.array([answers[path].probability for path in judged.paths], dtype=np.float64)
    counts = metrics.confusion(labels, scores, threshold)(np.ones((1, len(judged))))
    tn, fp, fn, tp = (round(float(count[0])) for count in counts)
    return Report(
        model=model,
        split=split,
        command=command,
        threshold=threshold,
        counts=Counts(
            images=len(judged),
            patients=len(set(judged.patients)),
            tumors=int(labels.sum()),
            without_label=len(chosen) - len(chosen.labelled()),
            without_answer=sum(answers[path].error is not None for path in chosen.paths),
            patients_also_in_training=_patients_learnt_from(manifest, split),
        ),
        metrics=_measured(judged, scores, threshold),
        majority_accuracy=max(tn + fp, fn + tp) / len(judged),
        confusion=((tn, fp), (fn, tp)),
        classes=(
            _class_report(LABEL_NAMES[0], tn, fn, fp),
            _class_report(LABEL_NAMES[1], tp, fp, fn),
        ),
    )


def write_report(
    report: Report, predictions: Sequence[Prediction], manifest: Manifest, folder: Path
) -> None:
    """Write figures as PNG and, last, `report.json` into `folder`."""
    answers = {prediction.path: prediction.probability for prediction in predictions}
    judged = manifest.labelled().where(lambda m: answers.get(m.path) is not None)
    judged = judged if report.split is None else judged.of_split(report.split)
    scores = np.array([answers[path] for path in judged.paths], dtype=np.float64)
    caption = f"{report.split or 'all images'}: {len(judged)} images"
    if 0 < report.counts.tumors < report.counts.images:
        roc = roc_figure(judged.labels, scores, f"{caption}, AUC {show(report.metrics['roc_auc'])}")
        save_figure(roc, folder / "roc.png")
        average = show(report.metrics["average_precision"])
        curve = precision_recall_figure(judged.labels, scores, f"{caption}, AP {average}")
        save_figure(curve, folder / "precision_recall.png")
    caption = f"{caption}, threshold {report.threshold:.2f}"
    save_figure(confusion_figure(report.confusion, caption), folder / "confusion.png")
    write_text(folder / "report.json", report.model_dump_json(indent=2) + "\n")


def show(figure: Estimate) -> str:
    """Return an estimate as text, such as ``0.652 (0.611 to 0.690)``."""
    if np.isnan(figure.value):
        return "not defined"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _measured(judged: Manifest, scores: metrics.Array, threshold: float) -> dict[str, Estimate]:
    weights = metrics.patient_weights(judged.patients)
    measures = {
        "log_loss": metrics.log_loss(judged.labels, scores),
        "roc_auc": metrics.roc_auc(judged.labels, scores),
        "average_precision": metrics.average_precision(judged.labels, scores),
        **metrics.decision_measures(judged.labels, scores, threshold),
    }
    return {name: metrics.estimate(measure, weights) for name, measure in measures.items()}


def _class_report(name: str, hits: int, false_calls: int, misses: int) -> ClassReport:
    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return ClassReport(
        name=name,
        precision=share(hits, hits + false_calls),
        recall=share(hits, hits + misses),
        f1=share(2 * hits, 2 * hits + false_calls + misses),
        images=hits + misses,
    )


def _patients_learnt_from(manifest: Manifest, split: Split | None) -> int:
    if split is None or split is Split.TRAIN:
        return 0
    return leakage(manifest, Split.TRAIN, split).patients
