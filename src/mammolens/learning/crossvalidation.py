"""How good a recipe is: every patient judged by a network that has never seen her."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mammolens.data.csv_table import write_row
from mammolens.data.manifest import Manifest
from mammolens.data.splits import folds_by_patient, with_training_images
from mammolens.errors import DataError, RecipeError
from mammolens.files import sweep, write_text, written_whole
from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.learning.export import served_network
from mammolens.learning.fitting import fit
from mammolens.learning.networks import check_network
from mammolens.learning.onnx_model import scores_by, to_onnx
from mammolens.learning.runs import (
    MANIFEST,
    MODEL,
    RECIPE,
    forget_checkpoints,
    record_manifest,
    save_network,
    start_run,
)
from mammolens.learning.training import check_boxes, check_trainable, readable
from mammolens.measures.intervals import Measure
from mammolens.measures.metrics import Estimate, estimate, patient_weights, roc_auc
from mammolens.model.calibration import logit, sigmoid
from mammolens.model.recipe import Recipe
from mammolens.model.rules import by_level
from mammolens.records import Level, Split

SCORES, REPORT = "scores.csv", "crossvalidation.json"


class CrossValidation(BaseModel):
    """What `crossvalidation.json` holds.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        data: name of the data set.
        command: what was typed.
        images: judged, each once.
        patients: whose they are.
        tumors: images with the label tumor.
        roc_auc: by level: the mean over folds, with an interval by patient. Scores of different
            networks are never ranked together.
        folds: by level: the AUC of each fold, with its interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    data: str
    command: str
    images: int
    patients: int
    tumors: int
    roc_auc: dict[Level, Estimate]
    folds: dict[Level, tuple[Estimate, ...]]


@dataclass(frozen=True, eq=False)
class _Judged:
    """Raw scores of the images of one fold."""

    manifest: Manifest
    scores: NDArray[np.float64]


def cross_validate(  # noqa: PLR0913 - what is learnt from, how, and what to call it
    manifest: Manifest,
    recipe: Recipe,
    folder: Path,
    *,
    folds: int = 5,
    also: Manifest | None = None,
    others: Sequence[Path] = (),
    name: str = "",
    command: str = "",
    progress: bool = False,
) -> CrossValidation:
    """Train the recipe once a fold of patients, and judge each fold by the network that lacks it.

    Args:
        manifest: labelled images; their splits are forgotten.
        recipe: how to learn. It may not look at validation to choose an epoch.
        folder: for `crossvalidation.json`, `scores.csv` and a folder a fold. A call that was
            interrupted is gone on with.
        folds: how many.
        also: a data set whose training images every fold learns from, and none is judged on.
        others: folders of complete cross-validations on the same folds: judged is the mean of all
            logits, as an ensemble of such networks would answer.
        name: of the data set, for the report.
        command: what was typed, for the report.
        progress: show bars and a line an epoch on standard error.

    Raises:
        RecipeError: the recipe chooses the epoch by validation.
        DataError: too few patients, images that cannot be read, or others on other folds.
        RunError: `folder` is in the way.
    """
    check_network(recipe)
    if (folder / "fold-0" / RECIPE).is_file():
        sweep(folder)
    if recipe.monitor != "nothing":
        raise RecipeError(
            f"monitor = {recipe.monitor}: the epoch would be chosen on the fold that is judged. "
            "Add --set monitor=nothing, and set epochs."
        )
    labelled = manifest.labelled()
    pixels = prepared_pixels(labelled.paths, recipe.preprocess, progress=progress)
    labelled, pixels = readable(labelled, pixels)
    dealt = folds_by_patient(labelled, folds)
    members = [_known_logits(other, dealt) for other in others]
    if also is not None:
        dealt = [with_training_images(fold, also) for fold in dealt]
        pixels = prepared_pixels(dealt[0].paths, recipe.preprocess, progress=progress)
    judged = [
        _fold(*readable(fold, pixels), recipe, folder / f"fold-{number}", progress=progress)
        for number, fold in enumerate(dealt)
    ]
    if members:
        judged = [_together(fold, *logits) for fold, *logits in zip(judged, *members, strict=True)]
    report = _report(judged, name, command)
    _write_scores(folder / SCORES, judged)
    write_text(folder / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def _fold(manifest: Manifest, pixels: CachedPixels, recipe: Recipe, folder: Path, *, progress: bool) -> _Judged:
    check_trainable(manifest)
    check_boxes(manifest, recipe)
    held_out = manifest.of_split(Split.VALID)
    if (folder / SCORES).is_file():
        if (folder / RECIPE).read_text(encoding="utf-8") != recipe.to_toml():
            raise DataError(f"{folder}: holds scores of another recipe. Choose another --out.")
        known = _read_scores(folder / SCORES, held_out)
        same = Manifest.load(folder / MANIFEST).fingerprint() == manifest.fingerprint()
        if known is None or not same:
            raise DataError(f"{folder}: holds scores of other images. Choose another --out.")
        forget_checkpoints(folder)
        return _Judged(held_out, known)
    start_run(folder, recipe)
    record_manifest(folder, manifest)
    learnt = fit(manifest, pixels, recipe, folder, progress=progress)
    save_network(learnt.network, folder / MODEL)
    indices = [index for index, m in enumerate(manifest) if m.split is Split.VALID]
    served = to_onnx(served_network(learnt.network, recipe=recipe))
    scores = scores_by(served, pixels.subset(indices))
    judged = _Judged(held_out, scores)
    _write_scores(folder / SCORES, [judged])
    forget_checkpoints(folder)
    return judged


def _known_logits(folder: Path, dealt: Sequence[Manifest]) -> list[NDArray[np.float64]]:
    """Return what another cross-validation made of the images of each of these folds."""
    found = []
    for number, fold in enumerate(dealt):
        known = _read_scores(folder / f"fold-{number}" / SCORES, fold.of_split(Split.VALID))
        if known is None:
            raise DataError(
                f"{folder}: its fold {number + 1} has other images. Cross-validate both on the "
                "same data set with as many folds."
            )
        found.append(logit(known))
    return found


def _together(fold: _Judged, *logits: NDArray[np.float64]) -> _Judged:
    return _Judged(fold.manifest, sigmoid(np.mean([logit(fold.scores), *logits], axis=0)))


def _report(judged: Sequence[_Judged], name: str, command: str) -> CrossValidation:
    all_images = [mammogram for fold in judged for mammogram in fold.manifest]
    figures: dict[Level, Estimate] = {}
    folds: dict[Level, tuple[Estimate, ...]] = {}
    for level in Level:
        subjects = [by_level(fold.manifest, fold.scores)[level] for fold in judged]
        ends = np.cumsum([len(labels) for labels, *_ in subjects])
        measures = [roc_auc(labels, scores) for labels, scores, *_ in subjects]
        figures[level] = estimate(
            _mean_of(measures, ends),
            patient_weights([patient for one in subjects for patient in one.patients]),
        )
        folds[level] = tuple(
            estimate(measure, patient_weights(one.patients)) for measure, one in zip(measures, subjects, strict=True)
        )
    return CrossValidation(
        data=name,
        command=command,
        images=len(all_images),
        patients=len({m.patient_key for m in all_images}),
        tumors=sum(m.label == 1 for m in all_images),
        roc_auc=figures,
        folds=folds,
    )


def _mean_of(measures: Sequence[Measure], ends: NDArray[np.intp]) -> Measure:
    """Return the mean of measures, each of its own part of the subjects."""
    starts = np.concatenate([[0], ends[:-1]])

    def measure(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [one(weights[:, start:end]) for one, start, end in zip(measures, starts, ends, strict=True)]
        return np.asarray(np.mean(parts, axis=0))

    return measure


def _write_scores(path: Path, judged: Sequence[_Judged]) -> None:
    """Write a row an image; with several folds, each row names its fold."""
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        write_row(stream, ("path", "fold", "label", "score"))
        for number, fold in enumerate(judged):
            for mammogram, score in zip(fold.manifest, fold.scores, strict=True):
                row = str(mammogram.path), number, mammogram.label, repr(float(score))
                write_row(stream, row)


def _read_scores(path: Path, images: Manifest) -> NDArray[np.float64] | None:
    """Return the scores of `images`, or None where the file is about others."""
    if not path.is_file():
        raise DataError(f"{path}: is not there. Name the folder of a complete cross-validation.")
    with path.open(encoding="utf-8", newline="") as stream:
        known = {row["path"]: float(row["score"]) for row in csv.DictReader(stream)}
    paths = [str(path) for path in images.paths]
    return np.array([known[path] for path in paths]) if set(known) == set(paths) else None
