"""How good a recipe is: every patient judged by a network that has never seen her."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mammolens.data.csv_table import read_rows, write_row
from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.data.splits import folds_by_patient
from mammolens.errors import DataError, RecipeError
from mammolens.files import sweep, write_text, written_whole
from mammolens.learning import runs
from mammolens.learning.fitting import fit
from mammolens.learning.networks.builders import check_network
from mammolens.learning.onnx_model import as_served, scores_by
from mammolens.learning.training import check_others, check_trainable, with_others
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate, Measure, estimate, patient_weights
from mammolens.measures.metrics import roc_auc
from mammolens.model.calibration import logit, sigmoid
from mammolens.model.decisions import by_level
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.parallel import Each, tracked
from mammolens.records import Split

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
class Judged:
    """Raw scores, (images,), of the images of one fold."""

    manifest: Manifest
    scores: NDArray[np.float64]


def cross_validate(  # noqa: PLR0913 - what is learnt from, how, and what to call it
    manifest: Manifest,
    recipe: Recipe,
    folder: Path,
    *,
    folds: int = 5,
    also: Sequence[Manifest] = (),
    others: Sequence[Path] = (),
    name: str = "",
    command: str = "",
    each: Each | None = None,
    progress: bool = False,
) -> CrossValidation:
    """Train the recipe once a fold of patients, and judge each fold by the network that lacks it.

    Args:
        manifest: labelled images; their splits are forgotten.
        recipe: how to learn. It may not look at validation, to choose an epoch or a learning rate.
        folder: for `crossvalidation.json`, `scores.csv` and a folder a fold. A call that was
            interrupted is gone on with.
        folds: how many.
        also: data sets whose training images every fold learns from, and none is judged on.
        others: folders of complete cross-validations on the same folds: judged is the mean of all
            logits, as an ensemble of such networks would answer.
        name: of the data set, for the report.
        command: what was typed, for the report.
        each: does what is to be done for each fold, wherever it likes: images and `folder` must be there under the
            same paths. None does one after the other, here.
        progress: show bars and a line an epoch on standard error.

    Raises:
        RecipeError: the recipe looks at validation while it learns.
        DataError: too few patients, images that cannot be read, or others on other folds.
        RunError: `folder` is in the way.
    """
    check_network(recipe)
    check_others(also, recipe)
    if (folder / "fold-0" / runs.RECIPE).is_file():
        sweep(folder)
    check_unseen(recipe)
    data = PreparedSet.of(manifest.labelled(), recipe.preprocess, progress=progress)
    dealt = folds_by_patient(data.manifest, folds)
    members = [_logits_of(other, dealt) for other in others]
    taught = [with_others(fold, also, recipe) for fold in dealt]
    learnt_also = taught[0][1]
    if learnt_also:
        data = PreparedSet.of(taught[0][0], recipe.preprocess, progress=progress)
    places = [folder / f"fold-{number}" for number in range(folds)]
    judged: list[Judged]
    if each is None:
        judged = [
            judge_fold(data.described_by(fold), recipe, place, learnt_also, progress=progress)
            for (fold, _), place in zip(taught, places, strict=True)
        ]
    else:
        readable = [data.described_by(fold).manifest for fold, _ in taught]
        done = each(partial(_fold_anywhere, recipe, learnt_also), list(zip(readable, places, strict=True)))
        judged = list(tracked(done, "Folds", folds, visible=progress))
    if members:
        together = ([logit(fold.scores), *logits] for fold, *logits in zip(judged, *members, strict=True))
        means = [sigmoid(np.mean(logits, axis=0)) for logits in together]
        judged = [replace(fold, scores=mean) for fold, mean in zip(judged, means, strict=True)]
    report = _report(judged, name, command)
    _write_scores(folder / SCORES, judged)
    write_text(folder / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def _fold_anywhere(recipe: Recipe, also: Collection[Path], fold: tuple[Manifest, Path]) -> Judged:
    """Do a fold on a machine that knows nothing of it."""
    manifest, folder = fold
    return judge_fold(PreparedSet.whole(manifest, recipe.preprocess), recipe, folder, also, progress=False)


def check_unseen(recipe: Recipe) -> None:
    """Refuse a recipe that looks at the fold that is judged while it learns.

    Raises:
        RecipeError: the epoch is chosen by it, or the learning rate falls by it.
    """
    chosen = {}
    if recipe.monitor != "nothing":
        chosen[f"the epoch (monitor = {recipe.monitor})"] = "--set monitor=nothing"
    if recipe.schedule == "plateau" and recipe.plateau_patience < recipe.epochs:
        chosen["the learning rate (schedule = plateau)"] = "--set schedule=one_cycle"
    if chosen:
        raise RecipeError(
            f"{' and '.join(chosen)} would be chosen on the fold that is judged. "
            f"Add {' '.join(chosen.values())}, and set epochs."
        )


def judge_fold(
    data: PreparedSet, recipe: Recipe, folder: Path, also: Collection[Path] = (), *, progress: bool = False
) -> Judged:
    """Learn from the training split, judge the validation split, and keep its scores in `folder`; or find them there.

    Raises:
        DataError: there is too little to learn from, or `folder` has scores of another recipe or other images.
        RunError: `folder` is in the way.
    """
    check_trainable(data.manifest, recipe)
    held_out = data.of_split(Split.VALID)
    if (folder / SCORES).is_file():
        if read_recipe(str(folder / runs.RECIPE)) != recipe:
            raise DataError(f"{folder}: holds scores of another recipe. Choose another --out.")
        scores = _read_scores(folder / SCORES, held_out.manifest)
        same = Manifest.load(folder / runs.MANIFEST).fingerprint() == data.manifest.fingerprint()
        if scores is None or not same or not runs.held_the_same(folder, data):
            raise DataError(f"{folder}: holds scores of other images. Choose another --out.")
        runs.forget_checkpoints(folder)
        return Judged(held_out.manifest, scores)
    runs.start_run(folder, recipe)
    runs.record_manifest(folder, data.manifest)
    runs.record_fingerprints(folder, data, also)
    learnt = fit(data, recipe, folder, also=also, progress=progress)
    runs.save_network(learnt.network, folder / runs.MODEL)
    judged = Judged(held_out.manifest, scores_by(as_served([learnt.network], recipe).model, held_out.pixels))
    _write_scores(folder / SCORES, [judged])
    runs.forget_checkpoints(folder)
    return judged


def folds_done(folder: Path, dealt: Sequence[Manifest]) -> list[Judged]:
    """Return what a cross-validation on these folds has judged so far, up to the first fold that it has not.

    Raises:
        DataError: it was on other images.
    """
    done = []
    for number, fold in enumerate(dealt):
        path, images = folder / f"fold-{number}" / SCORES, fold.of_split(Split.VALID)
        if not path.is_file():
            break
        if (scores := _read_scores(path, images)) is None:
            raise DataError(f"{path}: is of other images. Choose another --out.")
        done.append(Judged(images, scores))
    return done


def mean_auc(judged: Sequence[Judged], level: Level = Level.IMAGE) -> tuple[Measure, list[str]]:
    """Return the mean AUC over folds as a measure of all their subjects, and the patient of each of these.

    Scores of different networks are never ranked together.
    """
    subjects = [by_level(fold.manifest, fold.scores)[level] for fold in judged]
    ends = np.cumsum([len(labels) for labels, *_ in subjects])
    measures = [roc_auc(labels, scores) for labels, scores, *_ in subjects]
    patients = list(chain.from_iterable(one.patients for one in subjects))
    return measures[0] if len(measures) == 1 else _mean_of(measures, ends), patients


def _logits_of(folder: Path, dealt: Sequence[Manifest]) -> list[NDArray[np.float64]]:
    """Return what another cross-validation made of the images of each of these folds."""
    logits = []
    for number, fold in enumerate(dealt):
        scores = _read_scores(folder / f"fold-{number}" / SCORES, fold.of_split(Split.VALID))
        if scores is None:
            raise DataError(
                f"{folder}: its fold {number + 1} has other images. Cross-validate both on the "
                "same data set with as many folds."
            )
        logits.append(logit(scores))
    return logits


def _report(judged: Sequence[Judged], name: str, command: str) -> CrossValidation:
    images = [mammogram for fold in judged for mammogram in fold.manifest]
    figures: dict[Level, Estimate] = {}
    by_fold: dict[Level, tuple[Estimate, ...]] = {}
    for level in Level:
        figures[level] = estimated_auc(judged, level)
        by_fold[level] = tuple(estimated_auc([fold], level) for fold in judged)
    return CrossValidation(
        data=name,
        command=command,
        images=len(images),
        patients=len({m.patient_key for m in images}),
        tumors=sum(m.label == 1 for m in images),
        roc_auc=figures,
        folds=by_fold,
    )


def estimated_auc(judged: Sequence[Judged], level: Level = Level.IMAGE) -> Estimate:
    """Return the mean AUC over folds, with an interval by patient."""
    measure, patients = mean_auc(judged, level)
    return estimate(measure, patient_weights(patients))


def _mean_of(measures: Sequence[Measure], ends: NDArray[np.intp]) -> Measure:
    """Return the mean of measures, each of its own part of the subjects."""

    def measure(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = np.split(weights, ends[:-1], axis=1)
        return np.asarray(np.mean([one(part) for one, part in zip(measures, parts, strict=True)], axis=0))

    return measure


def _write_scores(path: Path, judged: Sequence[Judged]) -> None:
    """Write a row an image; with several folds, each row names its fold."""
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        write_row(stream, ("path", "fold", "label", "score"))
        for number, fold in enumerate(judged):
            for mammogram, score in zip(fold.manifest, fold.scores, strict=True):
                write_row(stream, (str(mammogram.path), number, mammogram.label, repr(float(score))))


def _read_scores(path: Path, images: Manifest) -> NDArray[np.float64] | None:
    """Return the scores of `images`, or None where the file is about others."""
    if not path.is_file():
        raise DataError(f"{path}: is not there. Name the folder of a complete cross-validation.")
    scores = {row["path"]: float(row["score"]) for row in read_rows(path)}
    paths = [str(path) for path in images.paths]
    return np.array([scores[path] for path in paths]) if set(scores) == set(paths) else None
