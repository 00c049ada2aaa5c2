"""A model or a table of scores + a data set → a written report, with maps and mild changes.

What `judging` computes from answers, this gathers: it lets the model answer, sees where its maps
point, tries it on changed pictures, and draws its most confident mistakes.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mammolens.data.manifest import Manifest
from mammolens.images.breast import Pixels
from mammolens.images.reading import read_image
from mammolens.judging.judge import EvaluationSet, common_folder, judge, model_of
from mammolens.judging.predictions import scored_images, scores_from, write_predictions
from mammolens.judging.schema import Model, Report
from mammolens.levels import Level
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
from mammolens.model.decisions import Rules, fit_rules, unmeasured
from mammolens.records import Mammogram, Prediction, Split
from mammolens.reports.evaluation import write_report
from mammolens.serving.overlay import overlay
from mammolens.serving.predictor import Predictor
from mammolens.serving.robustness import auc_under, randomised

NOT_CHOSEN = "not-chosen"
"""The operating point of other systems' scores without a validation split: a probability of 0.5."""

_NO_IMAGES = "Judged from two tables alone: no image was looked at, so no pictures and no maps."
_NO_VALIDATION = (
    "The threshold is 0.5, and not chosen: that takes scores of a validation split that is not the one judged."
)
_LONGEST = 320  # pixels of a picture in the gallery
_MAPS = 24  # pictures whose maps are compared with those of random weights


def assess(
    predictor: Predictor,
    evaluated: EvaluationSet,
    folder: Path,
    *,
    robustness: int = 0,
    pictures: bool = True,
    progress: bool = False,
) -> Report:
    """Let a model answer, judge it and write the report.

    Args:
        predictor: the model.
        evaluated: the images to judge.
        folder: for the report.
        robustness: images, of whole patients, that mild changes are tried on; 0 is none.
        pictures: show the most confident mistakes, not just name them.
        progress: show a bar on standard error.

    Raises:
        DataError: nothing can be judged.
    """
    images = evaluated.images
    predictions: list[Prediction] = []
    boxed: list[tuple[Mammogram, bool, float, float]] = []
    # What the gate does not admit is judged, too: see `judging.judge`.
    answers = predictor.answers(images.paths, ungated=True, progress=progress)
    for mammogram, answer in zip(images, answers, strict=True):
        if mammogram.boxes and answer.score_map is not None:
            boxed.append((mammogram, *_where(mammogram, answer.score_map)))
        predictions.append(replace(answer, score_map=None))  # thousands of maps would not fit
    record = predictor.bundle.record
    report = judge(
        predictions,
        evaluated,
        record.rules(predictor.operating_point),
        model_of(record),
        localisation=_localisation(boxed),
        with_age=record.with_age,
    )
    judged = scored_images(predictions, images).manifest
    if robustness:
        tried = auc_under(predictor, judged, limit=robustness, progress=progress)
        changes = {"robustness": tried, "map_correlation": _map_correlation(predictor, judged)}
        report = report.model_copy(update=changes)
    write_predictions(predictions, images, folder)
    home = common_folder(judged)
    mistaken = [home / mistake.path for mistake in report.mistakes] if pictures else []
    write_report(report, folder, list(map(_picture, mistaken, predictor.answers(mistaken))))
    return report


def _where(mammogram: Mammogram, score_map: Pixels) -> tuple[bool, float, float]:
    """Return whether a map's maximum is in a box, how likely that is by chance, and the overlap of both."""
    pixels = read_image(mammogram.path).pixels
    shape = pixels.shape[0], pixels.shape[1]
    hit = pointing_hit(score_map, mammogram.boxes, shape)
    return hit, chance_rate(pixels, mammogram.boxes), iou(score_map, mammogram.boxes, shape)


def _localisation(boxed: Sequence[tuple[Mammogram, bool, float, float]]) -> Localisation | None:
    if not boxed:
        return None
    images, hits, chances, overlaps = zip(*boxed, strict=True)
    labels = [-1 if image.label is None else image.label for image in images]
    return localised(hits, chances, overlaps, labels, [image.patient_key for image in images])


def _map_correlation(predictor: Predictor, images: Manifest) -> float | None:
    """Return how alike maps are before and after all weights are drawn at random, if it can."""
    record = predictor.bundle.record
    if record.outputs.score_map is None or find_spec("onnx") is None:
        return None
    paths = images.paths[:: max(1, len(images) // _MAPS)][:_MAPS]
    with TemporaryDirectory() as folder:
        drawn = write_bundle(record, randomised(predictor.bundle.model), Path(folder) / "random")
        other = Predictor.load(drawn.folder)
        maps = [
            (mine.score_map, theirs.score_map, breast_mask(read_image(mine.path).pixels))
            for mine, theirs in zip(predictor.answers(paths), other.answers(paths), strict=True)
            if mine.score_map is not None and theirs.score_map is not None
        ]
    return rank_correlation(*map(list, zip(*maps, strict=True))) if maps else None


def assess_scores(table: Path, evaluated: EvaluationSet, folder: Path) -> Report:
    """Judge any system's scores, and write the report.

    Thresholds are chosen on the validation split where the table has its scores, else 0.5 decides,
    and is named `NOT_CHOSEN`. No image is read, and none needs to be there.

    Args:
        table: CSV of path and probability, see `scores_from`.
        evaluated: the images to judge.
        folder: for the report.

    Raises:
        DataError: the table cannot be read, or nothing can be judged.
    """
    scores = scores_from(table, evaluated.manifest)
    rules = _rules_from(scores.predictions, evaluated)
    notes = [_NO_IMAGES, *([_NO_VALIDATION] if rules.default_point == NOT_CHOSEN else [])]
    report = judge(scores.predictions, evaluated, rules, Model(name=table.name))
    report = report.model_copy(update={"notes": (*notes, *scores.notes(evaluated.images))})
    write_predictions(scores.predictions, evaluated.images, folder)
    write_report(report, folder)
    return report


def _rules_from(predictions: Sequence[Prediction], evaluated: EvaluationSet) -> Rules:
    """Choose thresholds on validation, where it has answers and is not what is judged."""
    valid, probabilities, _ = scored_images(predictions, evaluated.manifest.of_split(Split.VALID))
    apart = evaluated.split in (Split.TRAIN, Split.TEST)
    if not (apart and 0 < valid.labels.sum() < len(valid)):
        return Rules(NOT_CHOSEN, {level: {NOT_CHOSEN: unmeasured(0.5)} for level in Level})
    return fit_rules(valid, probabilities)


def _picture(path: Path, answer: Prediction) -> bytes:
    """Draw a picture with its map, as PNG."""
    pixels = read_image(path).pixels
    nothing = np.zeros((1, 1), dtype=np.float32)
    drawn = overlay(pixels, nothing if answer.score_map is None else answer.score_map)
    drawn.thumbnail((_LONGEST, _LONGEST))
    stream = io.BytesIO()
    drawn.save(stream, "PNG", optimize=True)
    return stream.getvalue()
