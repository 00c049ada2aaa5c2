"""A network fitted to the training split, epoch by epoch, from wherever it was interrupted.

Between two epochs all there is to know lies in a `checkpoint.State`, and all that is random is a
function of the seed, the epoch and the step. So an epoch that is done again is the same epoch, and
a training that was killed ends as one that was not, to the last bit on one machine.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mammolens.data.manifest import Manifest
from mammolens.images.cache import CachedPixels
from mammolens.images.preprocess import VERSION
from mammolens.learning.batches import Batches
from mammolens.learning.boxes import canvas_boxes
from mammolens.learning.callbacks import (
    EpochLines,
    EpochSeed,
    MovingAverage,
    OneCycle,
    StageRates,
    say_epoch,
)
from mammolens.learning.checkpoint import Arrays, State, latest, save
from mammolens.learning.course import best_epoch, is_over, rate_falls, write_history
from mammolens.learning.export import Evidence
from mammolens.learning.features import Frozen, cut
from mammolens.learning.losses import with_losses
from mammolens.learning.networks import LOGITS, Network, build
from mammolens.learning.regression import fit_scores, measures, pooled_features
from mammolens.learning.runs import CHECKPOINT, HISTORY
from mammolens.model.recipe import Recipe
from mammolens.records import Split

_INFERENCE_BATCH = 64
_CLIP = 5.0  # largest norm of all gradients together


@dataclass(frozen=True, eq=False)
class Learnt:
    """A fitted network and the course of its fitting."""

    network: Network
    history: Mapping[str, Sequence[float]]
    seconds: float
    best_epoch: int


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
        folder: for the history and the checkpoints, which stay: what follows may be interrupted.
        progress: show bars and a line an epoch on standard error.
    """
    keras.utils.clear_session(free_memory=False)  # layers' names, too, depend on nothing before
    keras.utils.set_random_seed(recipe.seed)
    network = build(recipe)
    if recipe.optimizer == "lbfgs":
        return _fit_at_once(network, manifest, pixels, recipe, folder, progress=progress)
    key = _key(network, manifest, pixels, recipe)
    known = latest(folder / CHECKPOINT, key)
    threads = _with_threads(known.threads if known else None)
    extra = _extra_inputs(manifest, network, recipe, progress=progress)
    learner = with_losses(network, recipe)
    if recipe.frozen_stages:
        frozen, learner = cut(learner, recipe.frozen_stages)
        extra["frozen"] = Frozen(frozen, threads)
    _compile(learner, recipe)
    training, valid = (_batches(manifest, pixels, recipe, split, extra) for split in (Split.TRAIN, Split.VALID))
    state = known or State(key, threads, 0.0, (), _arrays(learner))
    weights = _class_weights(recipe, manifest.of_split(Split.TRAIN))
    lesson = _Lesson(learner, training, valid, weights, recipe)
    state = _epochs(lesson, state, folder, progress=progress)
    learner.set_weights(state.arrays["best"])
    history = {name: [epoch[name] for epoch in state.epochs] for name in state.epochs[0]}
    return Learnt(network, history, state.seconds, best_epoch(state.epochs, recipe))


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What learns, from what, and how."""

    learner: Network
    training: Batches
    valid: Batches
    weights: Mapping[int, float] | None
    recipe: Recipe


def _epochs(lesson: _Lesson, state: State, folder: Path, *, progress: bool) -> State:
    """Train epoch after epoch, from `state` to the end, with a checkpoint after each."""
    recipe, steps, done = lesson.recipe, len(lesson.training), len(state.epochs)
    _restore(lesson.learner, state)
    average = MovingAverage(recipe.moving_average, state.arrays.get("average", ()), done * steps)
    if not done:  # tells the number of threads
        save(state, folder / CHECKPOINT)
    with EpochLines(recipe.epochs, steps, done, visible=progress) as lines:
        while not is_over(state.epochs, recipe):
            state = _epoch(lesson, state, average, lines)
            save(state, folder / CHECKPOINT)
            write_history(state.epochs, folder / HISTORY)
            best = best_epoch(state.epochs, recipe) == len(state.epochs)
            lines.say(len(state.epochs), state.epochs[-1], best=best)
    write_history(state.epochs, folder / HISTORY)
    return state


def _epoch(lesson: _Lesson, state: State, average: MovingAverage, lines: EpochLines) -> State:
    """Train for one epoch."""
    started, number = time.perf_counter(), len(state.epochs)
    learner, recipe = lesson.learner, lesson.recipe
    lesson.training.start(number)
    course = learner.fit(
        lesson.training,
        initial_epoch=number,
        epochs=number + 1,
        shuffle=False,
        class_weight=lesson.weights,
        callbacks=[*_between_steps(recipe, len(lesson.training), average), lines],
        verbose=0,
    )
    measured = {name: float(values[0]) for name, values in course.history.items()}
    measured["learning_rate"] = float(learner.optimizer.learning_rate)
    validated, kept = _validated(learner, lesson.valid, average.average)
    epochs = (*state.epochs, measured | validated)
    if recipe.schedule == "plateau" and rate_falls(epochs, recipe):
        learner.optimizer.learning_rate = measured["learning_rate"] * recipe.plateau_factor
    arrays = _arrays(learner) | {"average": _copies(average.average)}
    best = best_epoch(epochs, recipe) == len(epochs)
    arrays["best"] = kept if best else state.arrays["best"]
    seconds = state.seconds + time.perf_counter() - started
    return replace(state, seconds=seconds, epochs=epochs, arrays=arrays)


def _validated(
    learner: Network, valid: Batches, average: Sequence[NDArray[np.generic]]
) -> tuple[dict[str, float], Arrays]:
    """Return validation's measures of the average, if there is one, and whose weights they are."""
    own = _copies(learner.get_weights())
    if average:
        learner.set_weights(average)
    found = learner.evaluate(valid, verbose=0, return_dict=True)
    kept = _copies(learner.get_weights())
    learner.set_weights(own)
    return {f"val_{name}": float(value) for name, value in found.items()}, kept


def _between_steps(recipe: Recipe, steps: int, average: MovingAverage) -> list[keras.callbacks.Callback]:
    """Return what a recipe wants done between steps, and before the first."""
    cycle = OneCycle(recipe.learning_rate, recipe.warm_up, recipe.epochs * steps)
    return [
        EpochSeed(recipe.seed),
        # Before the average, which is of weights as they are in the end.
        *([StageRates(recipe.stage_rates)] if recipe.stage_rates < 1 else []),
        *([average] if recipe.moving_average else []),
        *([cycle] if recipe.schedule == "one_cycle" else []),
    ]


def _compile(learner: Network, recipe: Recipe) -> None:
    learner.compile(
        optimizer=_optimizer(recipe),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Recall(name="recall")],
    )
    learner.optimizer.build(learner.trainable_variables)


def _arrays(learner: Network) -> dict[str, Arrays]:
    """Return all that learning changes. `weights` of Keras lack dropout's random state."""
    both = {"network": learner.variables, "optimizer": learner.optimizer.variables}
    return {
        name: _copies([keras.ops.convert_to_numpy(variable) for variable in variables])
        for name, variables in both.items()
    }


def _restore(learner: Network, state: State) -> None:
    both = {"network": learner.variables, "optimizer": learner.optimizer.variables}
    for name, variables in both.items():
        for variable, value in zip(variables, state.arrays[name], strict=True):
            variable.assign(value)


def _copies(arrays: Sequence[NDArray[np.generic]]) -> Arrays:
    """Return copies: PyTorch's arrays are views of the living weights."""
    return tuple(np.array(array) for array in arrays)


def _key(network: Network, manifest: Manifest, pixels: CachedPixels, recipe: Recipe) -> str:
    """Return a hash of all that the course of a training depends on."""
    images = [
        (digest, m.label, m.split, m.patient_key, m.breast_key, m.boxes)
        for digest, m in zip(pixels.digests, manifest, strict=True)
    ]
    told = (keras.__version__, keras.backend.backend(), VERSION, recipe.to_toml(), images)
    digest = hashlib.sha256(repr(told).encode())
    for weight in network.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _with_threads(wanted: int | None) -> int:
    """Compute with as many threads from here on, or tell with how many it is: 0 is not known."""
    if keras.backend.backend() != "torch":
        return 0
    import torch  # noqa: PLC0415 - of one backend alone

    if wanted:
        torch.set_num_threads(wanted)
    return int(torch.get_num_threads())


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
    write_history([epoch], folder / HISTORY)
    if progress:
        say_epoch(1, epoch, Console(stderr=True))
    history = {name: [value] for name, value in epoch.items()}
    return Learnt(network, history, time.perf_counter() - started, 1)


def _extra_inputs(manifest: Manifest, network: Network, recipe: Recipe, *, progress: bool) -> dict[str, Any]:
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


def _optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(recipe.learning_rate)
    return keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay, global_clipnorm=_CLIP)


def _class_weights(recipe: Recipe, training: Manifest) -> dict[int, float] | None:
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(training.labels.astype(int), minlength=2)
    return {label: len(training) / (2 * int(count)) for label, count in enumerate(counts)}
