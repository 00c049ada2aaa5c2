"""A model or a table of scores + a data set → a written report, with maps and mild changes.

What `evaluation` computes from answers, this gathers: it lets the model answer, looks where its
maps point, tries it on changed pictures, and draws its most confident mistakes.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mammolens.data.manifest import Manifest
from mammolens.images.reading import read_image
from mammolens.judging.judge import Question, answered, common_folder, judge, model_of, probabilities_of
from mammolens.judging.predictions import write_predictions
from mammolens.judging.schema import Model, Report
from mammolens.judging.scores import scores_from
from mammolens.measures.localisation import (
    Localisation,
    breast_mask,
    chance_rate,
    iou,
    localised,
    pointing_hit,
    rank_correlation,
)
from mammolens.model.bundle import write_bundle
from mammolens.model.rules import Rules, fit_rules, unmeasured
from mammolens.records import Level, Mammogram, Prediction, Split
from mammolens.reports.evaluation import write_report
from mammolens.serving.overlay import overlay
from mammolens.serving.predictor import Predictor
from mammolens.serving.robustness import auc_under, randomised

NOT_CHOSEN = "not-chosen"
"""The operating point of other systems' scores without a validation split: a probability of 0.5."""

_LONGEST = 320  # pixels of a picture in the gallery
_MAPS = 24  # pictures whose maps are compared with those of random weights


@dataclass
class _Looked:
    """Where maps pointed in images that have boxes."""

    hits: list[bool] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    images: list[Mammogram] = field(default_factory=list)

    def add(self, mammogram: Mammogram, answer: Prediction) -> None:
        if not mammogram.boxes or answer.score_map is None:
            return
        pixels = read_image(mammogram.path).pixels
        shape = pixels.shape[0], pixels.shape[1]
        self.hits.append(pointing_hit(answer.score_map, mammogram.boxes, shape))
        self.ious.append(iou(answer.score_map, mammogram.boxes, shape))
        self.chances.append(chance_rate(pixels, mammogram.boxes))
        self.images.append(mammogram)

    def figures(self) -> Localisation | None:
        if not self.images:
            return None
        labels = [-1 if m.label is None else m.label for m in self.images]
        patients = [m.patient_key for m in self.images]
        return localised(self.hits, self.chances, self.ious, labels, patients)


def assess(
    predictor: Predictor,
    question: Question,
    folder: Path,
    *,
    robustness: int = 0,
    pictures: bool = True,
    progress: bool = False,
) -> Report:
    """Let a model answer, judge it and write the report.

    Args:
        predictor: the model.
        question: which images to judge.
        folder: for the report.
        robustness: images, of whole patients, that mild changes are tried on; 0 is none.
        pictures: show the most confident mistakes, not just name them.
        progress: show a bar on standard error.

    Raises:
        DataError: nothing can be judged.
    """
    images = question.images
    looked, predictions = _Looked(), []
    # What the gate does not admit is judged, too: see `evaluation.judging`.
    answers = predictor.predict(images.paths, gated=False, progress=progress)
    for mammogram, answer in zip(images, answers, strict=True):
        looked.add(mammogram, answer)
        predictions.append(replace(answer, score_map=None))  # thousands of maps would not fit
    record = predictor.bundle.record
    report = judge(
        predictions,
        question,
        record.rules(predictor.operating_point),
        model_of(record),
        localisation=looked.figures(),
    )
    known = answered(predictions, images)
    if robustness:
        tried = auc_under(predictor, known, limit=robustness, progress=progress)
        changes = {"robustness": tried, "map_correlation": _map_correlation(predictor, known)}
        report = report.model_copy(update=changes)
    write_predictions(predictions, images, folder)
    home = common_folder(known)
    mistaken = [home / mistake.path for mistake in report.mistakes] if pictures else []
    write_report(report, folder, _gallery(mistaken, predictor))
    return report


def _map_correlation(predictor: Predictor, images: Manifest) -> float | None:
    """Return how alike maps are before and after all weights are drawn at random, if it can."""
    record = predictor.bundle.record
    if record.outputs.score_map is None or find_spec("onnx") is None:
        return None
    paths = images.paths[:: max(1, len(images) // _MAPS)][:_MAPS]
    with TemporaryDirectory() as folder:
        drawn = write_bundle(record, randomised(predictor.bundle.model), Path(folder) / "random")
        other = Predictor.load(drawn.folder)
        pairs = zip(predictor.predict(paths), other.predict(paths), strict=True)
        maps = [
            (mine.score_map, theirs.score_map, breast_mask(read_image(path).pixels))
            for path, (mine, theirs) in zip(paths, pairs, strict=True)
            if mine.score_map is not None and theirs.score_map is not None
        ]
    return rank_correlation(*map(list, zip(*maps, strict=True))) if maps else None


def assess_scores(table: Path, question: Question, folder: Path) -> Report:
    """Judge any system's scores, and write the report.

    Thresholds are chosen on the validation split where the table has its scores, else 0.5 decides,
    and is named `NOT_CHOSEN`. No image is read, and none needs to be there.

    Args:
        table: CSV of path and probability, see `scores_from`.
        question: which images to judge.
        folder: for the report.

    Raises:
        DataError: the table cannot be read, or nothing can be judged.
    """
    scores = scores_from(table, question.manifest)
    predictions, rules = scores.predictions, _rules_from(scores.predictions, question)
    said = ["Judged from two tables alone: no image was looked at, so no pictures and no maps."]
    if rules.default_point == NOT_CHOSEN:
        said.append(
            "The threshold is 0.5, and not chosen: that takes scores of a validation split that is not the one judged."
        )
    report = judge(predictions, question, rules, Model(name=table.name))
    notes = (*said, *scores.notes(question.images))
    report = report.model_copy(update={"notes": notes})
    write_predictions(predictions, question.images, folder)
    write_report(report, folder)
    return report


def _rules_from(predictions: Sequence[Prediction], question: Question) -> Rules:
    """Choose thresholds on validation, where it has answers and is not what is judged."""
    valid = answered(predictions, question.manifest.of_split(Split.VALID))
    apart = question.split in (Split.TRAIN, Split.TEST)
    if not (apart and 0 < valid.labels.sum() < len(valid)):
        return Rules(NOT_CHOSEN, {level: {NOT_CHOSEN: unmeasured(0.5)} for level in Level})
    return fit_rules(valid, probabilities_of(predictions, valid))


def _gallery(paths: Sequence[Path], predictor: Predictor) -> list[bytes]:
    """Draw each picture with its map, as PNG."""
    answers = predictor.predict(paths)
    return [_picture(path, answer) for path, answer in zip(paths, answers, strict=True)]


def _picture(path: Path, answer: Prediction) -> bytes:
    pixels = read_image(path).pixels
    nothing = np.zeros((1, 1), dtype=np.float32)
    drawn = overlay(pixels, nothing if answer.score_map is None else answer.score_map)
    drawn.thumbnail((_LONGEST, _LONGEST))
    stream = io.BytesIO()
    drawn.save(stream, "PNG", optimize=True)
    return stream.getvalue()
