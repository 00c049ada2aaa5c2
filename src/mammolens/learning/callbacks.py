"""What decides the course of a training: between steps rates and averages, between epochs the measures so far.

The latter are pure functions of the measures, so that a training that goes on decides as one that
never stopped. Each takes the measures of all epochs so far; NaN is better than nothing.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from mammolens.files import write_text
from mammolens.model.recipe import Recipe
from mammolens.parallel import progress_bar

Epoch = Mapping[str, float]  # measures of an epoch by name, those of validation as ``val_...``

_LEAST = 1e-4  # by so much an epoch is better for the plateau, as Keras has it


def watched(epochs: Sequence[Epoch], recipe: Recipe) -> list[float]:
    """Return what the recipe watches in each epoch, so that smaller is better."""
    if recipe.monitor == "auc":
        return [-epoch["val_auc"] for epoch in epochs]
    return [epoch["val_loss"] for epoch in epochs]


def best_epoch(epochs: Sequence[Epoch], recipe: Recipe) -> int:
    """Return whose weights are kept, counted from 1: the first of the best, or the last of all."""
    if recipe.monitor == "nothing":
        return len(epochs)
    values = watched(epochs, recipe)
    return 1 + min(range(len(values)), key=lambda index: (math.isnan(values[index]), values[index]))


def is_over(epochs: Sequence[Epoch], recipe: Recipe) -> bool:
    """Tell whether there is nothing more to train."""
    if recipe.monitor == "nothing" or not epochs:
        return len(epochs) >= recipe.epochs
    waited = len(epochs) - best_epoch(epochs, recipe)
    return len(epochs) >= recipe.epochs or waited >= max(1, recipe.early_stopping_patience)


def rate_falls(epochs: Sequence[Epoch], recipe: Recipe) -> bool:
    """Tell whether a rate of the schedule ``plateau`` falls after the last epoch.

    It does where that is the `plateau_patience`-th in a row without a better one, counted anew
    after each fall, like `keras.callbacks.ReduceLROnPlateau`.
    """
    best, waited, falls = math.inf, 0, False
    for value in watched(epochs, recipe):
        better = value < best - _LEAST
        best, waited = (value, 0) if better else (best, waited + 1)
        falls = waited >= recipe.plateau_patience
        waited = 0 if falls else waited
    return falls


def write_history(epochs: Sequence[Epoch], path: Path) -> None:
    """Write a row an epoch, counted from 0, whole or not at all."""
    table = pd.DataFrame(epochs).sort_index(axis=1)
    write_text(path, table.to_csv(index_label="epoch", na_rep="nan", lineterminator="\n"))


def epoch_seed(seed: int, rank: int = 0) -> keras.callbacks.Callback:
    """Have what an epoch draws depend on the seed, the epoch and who draws, and on nothing drawn before.

    On PyTorch, Keras' dropout draws from the one generator of the whole process.
    """

    def begin(epoch: int, _logs: object) -> None:
        drawn = np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]  # a last 0 changes nothing
        keras.utils.set_random_seed(int(drawn))

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin)


class OneCycle(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """The learning rate of each step: up over the warm-up, down to zero along a cosine.

    After Smith & Topin 2018, arXiv:1708.07120.
    """

    def __init__(self, highest: float, warm_up: float, steps: int) -> None:
        super().__init__()
        self._highest, self._rise, self._steps = highest, max(1, round(warm_up * steps)), steps

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Set the rate of the step to come."""
        step = int(self.model.optimizer.iterations)
        if step < self._rise:
            share = (step + 1) / self._rise
        else:
            fall = (step - self._rise) / max(1, self._steps - self._rise)
            share = (1 + math.cos(math.pi * min(1.0, fall))) / 2
        self.model.optimizer.learning_rate = self._highest * share


class MovingAverage(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """A moving average of all weights, which is what is validated and kept.

    Polyak & Juditsky 1992, SIAM J. Control Optim. 30:838. The average starts late, as the mean of
    what there was.

    Attributes:
        average: so far; empty before the first step.
    """

    def __init__(self, momentum: float, average: Sequence[NDArray[np.generic]] = (), steps: int = 0) -> None:
        super().__init__()
        self._momentum, self._steps = momentum, steps
        self.average = [weight.copy() for weight in average]

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Take the new weights into the average."""
        self._steps += 1
        momentum = min(self._momentum, self._steps / (self._steps + 10))
        weights = self.model.get_weights()
        if not self.average:  # copies: PyTorch's arrays are views of the living weights
            self.average = [weight.copy() for weight in weights]
        for average, weight in zip(self.average, weights, strict=True):
            np.multiply(average, momentum, out=average)
            np.add(average, (1 - momentum) * weight, out=average)


def between_steps(recipe: Recipe, steps: int, average: MovingAverage, rank: int = 0) -> list[keras.callbacks.Callback]:
    """Return what a recipe wants done between the `steps` of an epoch, and before the first, by one of a team."""
    cycle = OneCycle(recipe.learning_rate, recipe.warm_up, recipe.epochs * steps)
    wanted = [
        (epoch_seed(recipe.seed, rank), True),
        (average, recipe.moving_average > 0),
        (cycle, recipe.schedule == "one_cycle"),
    ]
    return [callback for callback, is_wanted in wanted if is_wanted]


class EpochLines(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """A bar over all steps with the most time that is left, and a line an epoch."""

    def __init__(self, epochs: int, steps: int, done: int, *, visible: bool) -> None:
        super().__init__()
        self._bar, self._visible = progress_bar(visible=visible), visible
        title = f"Training, at most {epochs} epochs"
        self._task = self._bar.add_task(title, total=epochs * steps, completed=done * steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Move the bar."""
        self._bar.advance(self._task)

    def say(self, number: int, measures: Epoch, *, best: bool) -> None:
        """Print the line."""
        if self._visible:
            say_epoch(number, measures, self._bar.console, "  best so far" if best else "")


def say_epoch(number: int, logs: Epoch, console: Console, remark: str = "") -> None:
    """Print what an epoch was like, on one line."""
    console.print(
        f"epoch {number:3d}   training loss {logs['loss']:.4f}  AUC {logs['auc']:.3f}   "
        f"validation loss {logs['val_loss']:.4f}  AUC {logs['val_auc']:.3f}{remark}",
        highlight=False,
        soft_wrap=True,
    )
