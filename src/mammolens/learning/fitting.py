"""A network fitted to the training split, epoch by epoch, from wherever it was interrupted.

Between two epochs all there is to know lies in a `runs.State`, and all that is random is a function
of the seed, the epoch and the step. So an epoch that is done again is the same epoch, and a
training that was killed ends as one that was not, to the last bit on one machine.
"""

import hashlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mammolens.data.prepared import PreparedSet
from mammolens.errors import DataError
from mammolens.images.preprocess import VERSION
from mammolens.learning import callbacks
from mammolens.learning.batches import Batches, canvas_boxes
from mammolens.learning.networks.box_loss import with_box_loss
from mammolens.learning.networks.builders import build, build_learner, hand_back, learns_normalised
from mammolens.learning.networks.folded import Network, take_statistics
from mammolens.learning.networks.heads import LOGITS, rest_on_both
from mammolens.learning.runs import CHECKPOINT, HISTORY, Arrays, Epoch, State, latest_state, save_state
from mammolens.learning.team import ALONE, Team, Together
from mammolens.memory import keep_freed_memory
from mammolens.model.recipe import Recipe
from mammolens.records import Split

_INFERENCE_BATCH = 16  # keeps all activations of an image, 0.3 GB of Lite0's at 512 x 320
_STATISTICS = 30  # batches that batch statistics are taken of
_COMPARED = 64  # batches that the answer's two parts are brought to one scale by
_CLIP = 5.0  # largest norm of all gradients together


@dataclass(frozen=True, eq=False)
class Learnt:
    """A fitted network and the course of its fitting."""

    network: Network
    epochs: Sequence[Epoch]
    seconds: float
    best_epoch: int
    threads: int

    @property
    def history(self) -> dict[str, list[float]]:
        """Measures of all epochs, by name."""
        return {name: [epoch[name] for epoch in self.epochs] for name in self.epochs[0]}


def fit(
    data: PreparedSet,
    recipe: Recipe,
    folder: Path,
    *,
    also: Collection[Path] = (),
    team: Team = ALONE,
    progress: bool = False,
) -> Learnt:
    """Fit the recipe's network to the training split; go on where an earlier call was interrupted.

    Args:
        data: labelled images with splits.
        recipe: how to learn.
        folder: for the history and the checkpoints, which stay: what follows may be interrupted.
        also: which training images are of data sets that are learnt from as well.
        team: who learns; each of them calls this with the same arguments, and the first alone reads and writes
            `folder`. As many need not go on as were interrupted.
        progress: show bars and a line an epoch on standard error.

    Raises:
        DataError: the recipe takes images of such data sets, and there are none; or one of the team sees other
            images than the first.
    """
    keep_freed_memory()
    keras.utils.clear_session(free_memory=False)  # layers' names, too, depend on nothing before
    keras.utils.set_random_seed(recipe.seed)
    network = build(recipe)
    training, valid = data.of_split(Split.TRAIN), data.of_split(Split.VALID)
    beside = [index for index, path in enumerate(training.manifest.paths) if path in also]
    if recipe.also_images and not beside:
        raise DataError("none of the images to learn from as well could be read, or all are of the data set itself.")
    key = _key(network, data, recipe, also)
    if team.told(lambda: key) != key:
        raise DataError("a worker finds other images than the first: all must see the same files under the same paths.")
    state = team.told(lambda: latest_state(folder / CHECKPOINT, key))
    threads = with_threads(state.threads if state else None)
    places = network.get_layer(LOGITS).output.shape[1:3] if recipe.boxes else None
    boxes = [
        canvas_boxes(part.manifest, recipe.preprocess, places, progress=progress) if places else None
        for part in (training, valid)
    ]
    drawn: dict[str, Any] = {
        "by_patient": recipe.sampling == "patient",
        "also": beside,
        "also_images": recipe.also_images,
        "seed": recipe.seed,
        "team": team,
    }
    batches = Batches(training, recipe.batch_size, augment=recipe.augment, boxes=boxes[0], **drawn)
    if recipe.normalisation == "folded" and recipe.initial_weights == "imagenet" and state is None:
        take_statistics(network, _pixels_of(batches, _STATISTICS))
    body = build_learner(network, recipe)
    learner = with_box_loss(body, recipe)
    compile_learner(learner, recipe)
    valid_batches = Batches(valid, _INFERENCE_BATCH, boxes=boxes[1])
    lesson = _Lesson(learner, batches, valid_batches, _class_weights(recipe, training), recipe, team)
    state = state or team.told(lambda: State(key, threads, 0.0, (), _arrays(learner)))
    state = _epochs(lesson, state, folder, progress=progress)
    learner.set_weights(state.arrays["best"])
    hand_back(body, network, recipe)
    if learner is body and body is not network:  # plain Keras may go on with what is saved
        compile_learner(network, recipe)
    rest_on_both(network, _pixels_of(Batches(training, _INFERENCE_BATCH, also=beside), _COMPARED))
    return Learnt(network, state.epochs, state.seconds, callbacks.best_epoch(state.epochs, recipe), threads)


def _pixels_of(batches: Batches, count: int) -> Iterator[Any]:
    """Return the pixels of so many batches, evenly spread."""
    chosen = np.unique(np.linspace(0, len(batches) - 1, count).round().astype(int))
    for inputs, *_ in map(batches.made, chosen.tolist()):
        yield inputs[0] if isinstance(inputs, tuple) else inputs


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What learns, from what, how and together with whom."""

    learner: Network
    training: Batches
    valid: Batches
    weights: Mapping[int, float] | None
    recipe: Recipe
    team: Team


def _epochs(lesson: _Lesson, state: State, folder: Path, *, progress: bool) -> State:
    """Train epoch after epoch, from `state` to the end, with a checkpoint after each."""
    recipe, steps, done = lesson.recipe, len(lesson.training), len(state.epochs)
    for name, variables in _variables(lesson.learner).items():
        for variable, value in zip(variables, state.arrays[name], strict=True):
            variable.assign(value)
    average = callbacks.MovingAverage(recipe.moving_average, state.arrays.get("average", ()), done * steps)
    leads = lesson.team.leads
    if not done and leads:  # tells the number of threads
        save_state(state, folder / CHECKPOINT)
    with callbacks.EpochLines(recipe.epochs, steps, done, visible=progress and leads) as lines:
        while not callbacks.is_over(state.epochs, recipe):
            state = _epoch(lesson, state, average, lines)
            if leads:
                save_state(state, folder / CHECKPOINT)
                callbacks.write_history(state.epochs, folder / HISTORY)
            best = callbacks.best_epoch(state.epochs, recipe) == len(state.epochs)
            lines.say(len(state.epochs), state.epochs[-1], best=best)
    if leads:
        callbacks.write_history(state.epochs, folder / HISTORY)
    return state


def _epoch(lesson: _Lesson, state: State, average: callbacks.MovingAverage, lines: callbacks.EpochLines) -> State:
    """Train for one epoch."""
    started, number = time.perf_counter(), len(state.epochs)
    learner, recipe, team, steps = lesson.learner, lesson.recipe, lesson.team, len(lesson.training)
    together = [] if team.alone else [Together(team, lesson.training.share, steps)]
    lesson.training.start(number)
    course = learner.fit(
        lesson.training,
        initial_epoch=number,
        epochs=number + 1,
        shuffle=False,
        class_weight=lesson.weights,
        callbacks=[*together, *callbacks.between_steps(recipe, steps, average, team.rank), lines],
        verbose=0,
    )
    measured = {name: float(values[0]) for name, values in course.history.items()}
    measured["learning_rate"] = float(learner.optimizer.learning_rate)
    validated, kept = _validated(lesson, average.average)
    epochs = (*state.epochs, measured | validated)
    if recipe.schedule == "plateau" and callbacks.rate_falls(epochs, recipe):
        learner.optimizer.learning_rate = measured["learning_rate"] * recipe.plateau_factor
    best = kept if callbacks.best_epoch(epochs, recipe) == len(epochs) else state.arrays["best"]
    arrays = _arrays(learner) | {"average": _copies(average.average), "best": best}
    seconds = state.seconds + time.perf_counter() - started
    return replace(state, seconds=seconds, epochs=epochs, arrays=arrays)


def _validated(lesson: _Lesson, average: Sequence[NDArray[np.generic]]) -> tuple[dict[str, float], Arrays]:
    """Return validation's measures of the average, if there is one, and whose weights they are."""
    learner = lesson.learner
    own = _copies(learner.get_weights())
    if average:
        learner.set_weights(average)
    measured = lesson.team.told(lambda: learner.evaluate(lesson.valid, verbose=0, return_dict=True))
    kept = _copies(learner.get_weights())
    learner.set_weights(own)
    return {f"val_{name}": float(value) for name, value in measured.items()}, kept


def compile_learner(learner: Network, recipe: Recipe) -> None:
    """Give a network to train its optimizer, loss and measures."""
    optimizer = keras.optimizers.Adam(recipe.learning_rate)
    if recipe.optimizer == "adamw":
        decay = recipe.weight_decay
        optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=decay, global_clipnorm=_CLIP)
    learner.compile(
        optimizer=optimizer,
        loss=keras.losses.BinaryCrossentropy(label_smoothing=recipe.label_smoothing),
        # By weight: what is learnt from as well has none.
        weighted_metrics=["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Recall(name="recall")],
    )
    learner.optimizer.build(learner.trainable_variables)


def _class_weights(recipe: Recipe, training: PreparedSet) -> dict[int, float] | None:
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(training.manifest.labels.astype(int), minlength=2)
    return {label: len(training) / (2 * int(count)) for label, count in enumerate(counts)}


def _variables(learner: Network) -> dict[str, Sequence[keras.Variable]]:
    """Return all that learning changes. `weights` of Keras lack dropout's random state."""
    return {"network": learner.variables, "optimizer": learner.optimizer.variables}


def _arrays(learner: Network) -> dict[str, Arrays]:
    return {name: _copies(map(keras.ops.convert_to_numpy, both)) for name, both in _variables(learner).items()}


def _copies(arrays: Iterable[NDArray[np.generic]]) -> Arrays:
    """Return copies: PyTorch's arrays are views of the living weights."""
    return tuple(np.array(array) for array in arrays)


def _key(network: Network, data: PreparedSet, recipe: Recipe, also: Collection[Path]) -> str:
    """Return a hash of all that the course of a training depends on."""
    images = [
        (digest, m.label, m.split, m.patient_key, m.boxes, m.path in also)
        for digest, m in zip(data.pixels.digests, data.manifest, strict=True)
    ]
    told = (keras.__version__, keras.backend.backend(), VERSION, recipe.to_toml(), images)
    digest = hashlib.sha256(repr(told).encode())
    if learns_normalised(recipe):  # a state of before there were such layers is one of another training
        digest.update(b"normalised")
    for weight in network.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def with_threads(wanted: int | None) -> int:
    """Compute with as many threads from here on, or tell with how many it is: 0 is not known."""
    if keras.backend.backend() != "torch":
        return 0
    import torch  # noqa: PLC0415 - of one backend alone

    if torch.cuda.is_available():  # as a processor would, as far as may be: in 32 bits where that is said
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    if wanted:
        torch.set_num_threads(wanted)
    return int(torch.get_num_threads())


def gpu() -> str | None:
    """Return the name of the GPU that learns, if one does: Keras on PyTorch takes the first that is there."""
    if keras.backend.backend() != "torch" or not str(keras.Variable(0.0).value.device).startswith("cuda"):
        return None
    import torch  # noqa: PLC0415 - likewise

    return str(torch.cuda.get_device_name())
