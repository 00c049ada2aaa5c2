"""Manifest + recipe → `Run`. Read it from top to bottom: `train` is the whole story."""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.data.splits import with_training_images
from mammolens.errors import DataError
from mammolens.files import content_hash, write_text
from mammolens.judging.judge import EvaluationSet, judge, model_of
from mammolens.judging.predictions import write_predictions
from mammolens.learning import runs
from mammolens.learning.export import Card, Evidence, export, learnt_by, measured_files
from mammolens.learning.fitting import fit
from mammolens.learning.networks.builders import check_network, donor_file
from mammolens.learning.onnx_model import as_served, scores_by
from mammolens.learning.team import ALONE, Team
from mammolens.model.bundle import BundleRecord
from mammolens.model.gate import Measured, is_admitted
from mammolens.model.provenance import provenance
from mammolens.model.recipe import Recipe
from mammolens.records import LABEL_NAMES, Prediction, Split
from mammolens.reports.evaluation import write_report
from mammolens.reports.figures import learning_curves, save_figure

FEWEST = 4  # images of each class that training and validation need at the very least


def train(  # noqa: PLR0913 - what is learnt from, how, by whom, and what to call it
    manifest: Manifest,
    recipe: Recipe,
    folder: Path,
    *,
    also: Sequence[Manifest] = (),
    name: str = "",
    command: str = "",
    team: Team = ALONE,
    progress: bool = False,
) -> runs.Run:
    """Train the recipe's network on the manifest's training split and write a run folder.

    The validation split decides when to stop, which weights stay, the calibration and the
    operating points. The test split, where there is one, is judged once, at the end. A training
    that was interrupted, at whatever moment, goes on from its last epoch where recipe and images
    are the same, and ends as if it had never been.

    Args:
        manifest: images with labels and splits; images without a label are not used.
        recipe: how to learn.
        folder: where the run goes; it must not hold a complete run.
        also: data sets whose training images are learnt from as well, and none is judged.
        name: of the data set, for the record.
        command: what was typed, for the record.
        team: who learns: this is its first, and `assist` what the others do.
        progress: show bars and a line an epoch on standard error.

    Raises:
        DataError: a split is missing, has one class only or too few images.
        RecipeError: the recipe names an unknown network.
        RunError: `folder` is in the way.
    """
    manifest, learnt_also = with_others(manifest.labelled(), also, recipe)
    check_network(recipe)
    check_trainable(manifest, recipe)
    runs.start_run(folder, recipe)
    data = PreparedSet.of(manifest, recipe.preprocess, progress=progress)
    check_trainable(data.manifest, recipe)
    runs.record_manifest(folder, data.manifest)
    runs.record_fingerprints(folder, data, learnt_also)
    initial = _initial_hash(recipe)
    environment = runs.environment(command) | ({} if team.alone else {"workers": team.size})
    write_text(folder / runs.ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
    learnt = fit(data, recipe, folder, also=learnt_also, team=team, progress=progress)
    curves = learning_curves(learnt.history, learnt.best_epoch)
    save_figure(curves, folder / runs.FIGURES / "learning_curves.png")
    runs.save_network(learnt.network, folder / runs.MODEL)
    served, name = as_served([learnt.network], recipe), name or folder.name
    parts = {split: data.of_split(split) for split in Split}
    scores = {
        split: scores_by(served.model, parts[split].pixels) for split in (Split.VALID, Split.TEST) if parts[split]
    }
    measured = {split: measured_files(parts[split].manifest.paths) for split in scores}
    shutil.rmtree(folder / runs.BUNDLE, ignore_errors=True)  # of a call that was interrupted later on
    bundle = export(
        served,
        recipe,
        folder / runs.BUNDLE,
        Card(recipe.name),
        evidence=Evidence(name, data, scores=scores[Split.VALID], measured=measured[Split.VALID]),
        learnt=[learnt_by(recipe, name, provenance())],
    )
    for split, raw in scores.items():
        evaluated = EvaluationSet(data.manifest, split, name, command)
        _judge(evaluated, raw, measured[split], bundle.record, folder / runs.EVALUATION / split)
    record = runs.RunRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=name,
        epochs=len(learnt.epochs),
        best_epoch=learnt.best_epoch,
        seconds=round(learnt.seconds, 1),
        parameters=learnt.network.count_params(),
        images={split: len(part) for split, part in parts.items()},
        left_out=dict(data.left_out),
        model_sha256=content_hash(folder / runs.MODEL),
        threads=learnt.threads,
        initial_sha256=initial,
    )
    write_text(folder / runs.RECORD, record.model_dump_json(indent=2) + "\n")
    runs.forget_checkpoints(folder)
    return runs.open_run(folder)


def assist(manifest: Manifest, recipe: Recipe, team: Team, *, also: Sequence[Manifest] = ()) -> None:
    """Learn beside the process that trains, by the same arguments, and write nothing.

    Raises:
        DataError: as `fit` does.
    """
    manifest, learnt_also = with_others(manifest.labelled(), also, recipe)
    fit(PreparedSet.of(manifest, recipe.preprocess), recipe, Path(), also=learnt_also, team=team)


def _initial_hash(recipe: Recipe) -> str | None:
    """Return the checksum of the file whose weights are taken over, if one is; that it is missing is told later."""
    path = donor_file(Path(recipe.initial_weights))
    return content_hash(path) if recipe.starts_from_another and path.is_file() else None


def check_others(also: Sequence[Manifest], recipe: Recipe) -> None:
    """Refuse, before any work, data sets to learn from as well that the recipe takes no images of.

    Raises:
        DataError: there are such, or the recipe takes images of them and there are none.
    """
    if bool(also) != bool(recipe.also_images):
        how = "--set also_images=0 --set boxes=0" if recipe.also_images else "--set also_images=4 --set boxes=2"
        missing = "none was named: add --also DATA" if recipe.also_images else "one was named: leave --also out"
        raise DataError(
            f"recipe {recipe.name}: of each batch, {recipe.also_images} images are of data sets that are learnt "
            f"from as well, and {missing}, or {how}."
        )


def with_others(manifest: Manifest, also: Sequence[Manifest], recipe: Recipe) -> tuple[Manifest, frozenset[Path]]:
    """Return `manifest` with the training images of `also`, and which those are.

    Raises:
        DataError: of `also` there is nothing to learn from, or it has a patient who is judged; or as
            `check_others` says.
    """
    check_others(also, recipe)
    own = set(manifest.paths)
    for other in also:  # what is ill and has no box teaches nothing
        manifest = with_training_images(manifest, other.where(lambda m: bool(m.boxes) or m.label == 0))
    return manifest, frozenset(manifest.paths) - own


def check_trainable(manifest: Manifest, recipe: Recipe) -> None:
    """Refuse, before any work, what cannot be learnt from.

    Raises:
        DataError: training or validation split missing, of one class only, or too small; or the
            recipe weighs boxes, and no training image has one.
    """
    for split in (Split.TRAIN, Split.VALID):
        labels = manifest.of_split(split).labels
        if not len(labels):
            raise DataError(
                f"the data set has no labelled images in split '{split}'. Make splits by patient: "
                "mammolens manifest DATA data.csv --splits patient; then train on data.csv."
            )
        for label, name in enumerate(LABEL_NAMES):
            count = int((labels == label).sum())
            if count < FEWEST:
                raise DataError(
                    f"split '{split}' has {count} images labelled '{name}'; at least {FEWEST} of "
                    "each class are needed. Check the labels, or add data."
                )
    if recipe.boxes and not any(m.boxes for m in manifest.of_split(Split.TRAIN)):
        raise DataError(
            f"boxes = {recipe.boxes:g}: no training image of the data set has a box. "
            "Add a column boxes, or --set boxes=0."
        )


def _judge(
    evaluated: EvaluationSet,
    raw: NDArray[np.float64],
    measured: Sequence[Measured | None],
    record: BundleRecord,
    folder: Path,
) -> None:
    """Judge the images of a split by their scores, as they are served.

    An image that went away after its pixels were cached is judged by these, whatever the gate would say.
    """
    images = evaluated.images
    answers = [
        Prediction(path, probability, admitted=seen is None or is_admitted(seen, record.gate))
        for path, probability, seen in zip(images.paths, record.calibration(raw).tolist(), measured, strict=True)
    ]
    report = judge(answers, evaluated, record.rules(), model_of(record), with_age=record.with_age)
    write_predictions(answers, images, folder)
    write_report(report, folder)
