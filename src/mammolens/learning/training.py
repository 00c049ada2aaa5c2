"""Manifest + recipe → `Run`. Read it from top to bottom: `train` is the whole story."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammolens.data.manifest import Manifest
from mammolens.errors import DataError
from mammolens.files import content_hash, write_text
from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.judging.judge import Question, judge, model_of
from mammolens.judging.predictions import write_predictions
from mammolens.learning.export import Card, Evidence, admitted, export, learnt_by, served_network
from mammolens.learning.fitting import fit
from mammolens.learning.networks import check_network
from mammolens.learning.onnx_model import scores_by, to_onnx
from mammolens.learning.runs import (
    BUNDLE,
    ENVIRONMENT,
    EVALUATION,
    FIGURES,
    MODEL,
    RECORD,
    Run,
    RunRecord,
    environment,
    forget_checkpoints,
    open_run,
    record_manifest,
    save_network,
    start_run,
)
from mammolens.model.bundle import BundleRecord
from mammolens.model.recipe import Recipe
from mammolens.records import LABEL_NAMES, Prediction, Split
from mammolens.reports.evaluation import write_report
from mammolens.reports.figures import learning_curves, save_figure

FEWEST = 4
"""Images of each class that training and validation need at the very least."""


def train(
    manifest: Manifest,
    recipe: Recipe,
    folder: Path,
    *,
    name: str = "",
    command: str = "",
    progress: bool = False,
) -> Run:
    """Train the recipe's network on the manifest's training split and write a run folder.

    The validation split decides when to stop, which weights stay, the calibration and the
    operating points. The test split, where there is one, is judged once, at the end. A training
    that was interrupted, at whatever moment, goes on from its last epoch where recipe and images
    are the same, and ends as if it had never been.

    Args:
        manifest: images with labels and splits; images without a label are not used.
        recipe: how to learn.
        folder: where the run goes; it must not hold a complete run.
        name: of the data set, for the record.
        command: what was typed, for the record.
        progress: show bars and a line an epoch on standard error.

    Raises:
        DataError: a split is missing, has one class only or too few images.
        RecipeError: the recipe names an unknown network.
        RunError: `folder` is in the way.
    """
    manifest = manifest.labelled()
    check_trainable(manifest)
    check_network(recipe)
    check_boxes(manifest, recipe)
    start_run(folder, recipe)
    pixels = prepared_pixels(manifest.paths, recipe.preprocess, progress=progress)
    left_out = {
        str(path): error for path, error in zip(manifest.paths, pixels.errors, strict=True) if error is not None
    }
    manifest, pixels = readable(manifest, pixels)
    check_trainable(manifest)
    record_manifest(folder, manifest)
    write_text(folder / ENVIRONMENT, json.dumps(environment(command), indent=2) + "\n")
    learnt = fit(manifest, pixels, recipe, folder, progress=progress)
    save_figure(
        learning_curves(learnt.history, learnt.best_epoch),
        folder / FIGURES / "learning_curves.png",
    )
    save_network(learnt.network, folder / MODEL)
    evidence = Evidence(name or folder.name, manifest, pixels)
    served = to_onnx(served_network(learnt.network, recipe=recipe))
    judged = [split for split in (Split.VALID, Split.TEST) if len(manifest.of_split(split))]
    scores = {split: scores_by(served, evidence.of_split(split).pixels) for split in judged}
    known = scores[Split.VALID]
    card = Card(recipe.name)
    shutil.rmtree(folder / BUNDLE, ignore_errors=True)  # of a call that was interrupted later on
    told = [learnt_by(recipe, evidence.name)]
    bundle = export(
        learnt.network,
        recipe,
        folder / BUNDLE,
        card,
        evidence=evidence,
        scores=known,
        learnt=told,
    )
    _evaluate(folder, evidence, scores, bundle.record, command)
    record = RunRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=evidence.name,
        epochs=len(learnt.history["loss"]),
        best_epoch=learnt.best_epoch,
        seconds=round(learnt.seconds, 1),
        parameters=learnt.network.count_params(),
        images={split: len(manifest.of_split(split)) for split in Split},
        left_out=left_out,
        model_sha256=content_hash(folder / MODEL),
    )
    write_text(folder / RECORD, record.model_dump_json(indent=2) + "\n")
    forget_checkpoints(folder)
    return open_run(folder)


def check_trainable(manifest: Manifest) -> None:
    """Refuse, before any work, what cannot be learnt from.

    Raises:
        DataError: training or validation split missing, of one class only, or too small.
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


def check_boxes(manifest: Manifest, recipe: Recipe) -> None:
    """Refuse, before any work, to learn from boxes that are not there.

    Raises:
        DataError: the recipe weighs boxes, and no training image has one.
    """
    if recipe.boxes and not any(m.boxes for m in manifest.of_split(Split.TRAIN)):
        raise DataError(
            f"boxes = {recipe.boxes:g}: no training image of the data set has a box. "
            "Add a column boxes, or --set boxes=0."
        )


def readable(manifest: Manifest, pixels: CachedPixels) -> tuple[Manifest, CachedPixels]:
    """Return the images that have pixels, and these."""
    keep = [index for index, error in enumerate(pixels.errors) if error is None]
    mammograms = tuple(manifest.mammograms[index] for index in keep)
    return Manifest(mammograms), pixels.subset(keep)


def _evaluate(
    folder: Path,
    evidence: Evidence,
    scores: Mapping[Split, NDArray[np.float64]],
    record: BundleRecord,
    command: str,
) -> None:
    """Judge validation and test, each into a folder of its own."""
    for split, raw in scores.items():
        images = evidence.manifest.of_split(split)
        known = zip(
            images.paths,
            record.calibration(raw).tolist(),
            admitted(images.paths, record.gate),
            strict=True,
        )
        answers = [Prediction(path, probability, admitted=passes) for path, probability, passes in known]
        question = Question(evidence.manifest, split, evidence.name, command)
        report = judge(answers, question, record.rules(), model_of(record))
        write_predictions(answers, images, folder / EVALUATION / split)
        write_report(report, folder / EVALUATION / split)
