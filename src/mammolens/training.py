"""Manifest + recipe → `Run`. Read it from top to bottom: `train` is the whole story."""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mammolens.batches import Batches
from mammolens.boxes import canvas_boxes
from mammolens.bundle import BundleRecord
from mammolens.cache import CachedPixels, prepared_pixels
from mammolens.callbacks import EpochLines, callbacks, say_epoch
from mammolens.errors import DataError
from mammolens.evaluation import Question, judge, model_of
from mammolens.evaluation.page import write_report
from mammolens.evaluation.tables import write_predictions
from mammolens.export import Card, Evidence, admitted, export, learnt_by, served_network
from mammolens.features import Frozen, cut
from mammolens.figures import learning_curves, save_figure
from mammolens.files import content_hash, write_text, written_whole
from mammolens.losses import with_losses
from mammolens.manifest import Manifest
from mammolens.networks import LOGITS, Network, build, check_network
from mammolens.onnx_model import scores_by, to_onnx
from mammolens.recipe import Recipe
from mammolens.records import LABEL_NAMES, Prediction, Split
from mammolens.regression import fit_scores, measures, pooled_features
from mammolens.runs import (
    BUNDLE,
    CHECKPOINT,
    ENVIRONMENT,
    EVALUATION,
    FIGURES,
    HISTORY,
    MODEL,
    RECORD,
    Run,
    RunRecord,
    environment,
    open_run,
    record_manifest,
    save_network,
    start_run,
)

FEWEST = 4
"""Images of each class that training and validation need at the very least."""

_INFERENCE_BATCH = 64
_CLIP = 5.0  # largest norm of all gradients together


@dataclass(frozen=True, eq=False)
class Learnt:
    """A fitted network and the course of its fitting."""

    network: Network
    history: Mapping[str, Sequence[float]]
    seconds: float
    best_epoch: int


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
    that was interrupted goes on from its last epoch, where recipe and images are the same; which
    epoch before the interruption was best is forgotten.

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
        str(path): error
        for path, error in zip(manifest.paths, pixels.errors, strict=True)
        if error is not None
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


def fit(
    manifest: Manifest,
    pixels: CachedPixels,
    recipe: Recipe,
    folder: Path,
    *,
    progress: bool = False,
) -> Learnt:
    """Fit the recipe's network to the training split; go on where an earlier call was interrupted.

    Args:
        manifest: labelled images with splits.
        pixels: theirs, prepared, in the same order.
        recipe: how to learn.
        folder: for the history and the checkpoint.
        progress: show bars and a line an epoch on standard error.
    """
    keras.utils.set_random_seed(recipe.seed)
    network = build(recipe)
    if recipe.optimizer == "lbfgs":
        return _fit_at_once(network, manifest, pixels, recipe, folder, progress=progress)
    extra = _extra_inputs(manifest, network, recipe, progress=progress)
    learner = with_losses(network, recipe)
    if recipe.frozen_stages:
        frozen, learner = cut(learner, recipe.frozen_stages)
        extra["frozen"] = Frozen(frozen)
    learner.compile(
        optimizer=_optimizer(recipe),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Recall(name="recall")],
    )
    training = _batches(manifest, pixels, recipe, Split.TRAIN, extra)
    valid = _batches(manifest, pixels, recipe, Split.VALID, extra)
    started = time.perf_counter()
    learner.fit(
        training,
        validation_data=valid,
        epochs=recipe.epochs,
        class_weight=_class_weights(recipe, manifest.of_split(Split.TRAIN)),
        callbacks=[
            *callbacks(recipe, folder / HISTORY, folder / CHECKPOINT, len(training)),
            EpochLines(recipe.epochs, visible=progress),
        ],
        verbose=0,
    )
    history = _read_history(folder / HISTORY)
    best = len(history["loss"])
    if recipe.monitor != "nothing":
        watched = history[f"val_{recipe.monitor}"]
        best = 1 + int(np.argmax(watched) if recipe.monitor == "auc" else np.argmin(watched))
    return Learnt(network, history, time.perf_counter() - started, best)


def _fit_at_once(
    network: Network,
    manifest: Manifest,
    pixels: CachedPixels,
    recipe: Recipe,
    folder: Path,
    *,
    progress: bool,
) -> Learnt:
    """Fit what has one best answer, and tell of it as of an epoch."""
    started = time.perf_counter()
    evidence = Evidence(folder.name, manifest, pixels)
    training, valid = (
        (pooled_features(network, part.pixels, recipe, progress=progress), part.manifest.labels)
        for part in map(evidence.of_split, (Split.TRAIN, Split.VALID))
    )
    fit_scores(network, *training, recipe)
    epoch = measures(network, *training)
    epoch |= {f"val_{name}": value for name, value in measures(network, *valid).items()}
    with written_whole(folder / HISTORY) as file, file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("epoch", *epoch))
        writer.writerow((0, *epoch.values()))
    if progress:
        say_epoch(1, epoch, Console(stderr=True))
    history = {name: [value] for name, value in epoch.items()}
    return Learnt(network, history, time.perf_counter() - started, 1)


def _extra_inputs(
    manifest: Manifest, network: Network, recipe: Recipe, *, progress: bool
) -> dict[str, Any]:
    """Return what `Batches` needs to know for losses beyond that of single images."""
    extra: dict[str, Any] = {"labels_too": bool(recipe.bags or recipe.boxes)}
    if recipe.boxes:
        extra["boxes"] = canvas_boxes(manifest, recipe.preprocess, progress=progress)
        extra["places"] = network.get_layer(LOGITS).output.shape[1:3]
    return extra


def _batches(
    manifest: Manifest,
    pixels: CachedPixels,
    recipe: Recipe,
    split: Split,
    extra: dict[str, Any],
) -> Batches:
    indices = [index for index, mammogram in enumerate(manifest) if mammogram.split is split]
    chosen, shown = manifest.of_split(split), pixels.subset(indices)
    if "boxes" in extra:
        extra = extra | {"boxes": extra["boxes"].subset(indices)}
    if split is not Split.TRAIN:
        return Batches(shown, chosen.labels, _INFERENCE_BATCH, **extra)
    return Batches(
        shown,
        chosen.labels,
        recipe.batch_size,
        augment=recipe.augment,
        mixup=recipe.mixup,
        patients=chosen.patients if recipe.sampling == "patient" else None,
        breasts=[m.breast_key for m in chosen] if recipe.bags else None,
        seed=recipe.seed,
        **extra,
    )


def _read_history(path: Path) -> dict[str, list[float]]:
    """Return each column of what the epochs were like, those before an interruption included."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(recipe.learning_rate)
    return keras.optimizers.AdamW(
        recipe.learning_rate, weight_decay=recipe.weight_decay, global_clipnorm=_CLIP
    )


def _class_weights(recipe: Recipe, training: Manifest) -> dict[int, float] | None:
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(training.labels.astype(int), minlength=2)
    return {label: len(training) / (2 * int(count)) for label, count in enumerate(counts)}


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
        answers = [
            Prediction(path, probability, admitted=passes) for path, probability, passes in known
        ]
        question = Question(evidence.manifest, split, evidence.name, command)
        report = judge(answers, question, record.rules(), model_of(record))
        write_predictions(answers, images, folder / EVALUATION / split)
        write_report(report, folder / EVALUATION / split)
