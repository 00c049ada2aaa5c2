"""What happens between steps and epochs: learning rates, averages, checkpoints, a line an epoch."""

import math
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mammolens.efficientnet_lite import STAGES, layers_by_stage
from mammolens.networks import ATTENTION
from mammolens.parallel import progress_bar
from mammolens.recipe import Recipe


def callbacks(
    recipe: Recipe, history: Path, checkpoint: Path, steps: int
) -> list[keras.callbacks.Callback]:
    """Return what a recipe wants done between steps and epochs.

    Args:
        recipe: how to learn.
        history: CSV of the epochs, appended to.
        checkpoint: folder that an interrupted training goes on from.
        steps: in an epoch.
    """
    mode = "max" if recipe.monitor == "auc" else "min"
    measure = "loss" if recipe.monitor == "nothing" else recipe.monitor
    watched = {"monitor": f"val_{measure}", "mode": mode}
    rate = (
        OneCycle(recipe.learning_rate, recipe.warm_up, recipe.epochs * steps)
        if recipe.schedule == "one_cycle"
        else keras.callbacks.ReduceLROnPlateau(
            factor=recipe.plateau_factor, patience=recipe.plateau_patience, **watched
        )
    )
    stopping = keras.callbacks.EarlyStopping(
        patience=recipe.early_stopping_patience, restore_best_weights=True, **watched
    )
    slower = [StageRates(recipe.stage_rates)] if recipe.stage_rates < 1 else []
    averaged = [MovingAverage(recipe.moving_average)] if recipe.moving_average else []
    return [
        keras.callbacks.BackupAndRestore(str(checkpoint)),
        *slower,  # before the average, which is of weights as they are in the end
        *averaged,
        *([] if recipe.monitor == "nothing" else [stopping]),
        rate,
        keras.callbacks.CSVLogger(str(history), append=True),
    ]


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


class StageRates(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Earlier stages of a backbone learn more slowly: each at `decay` times the rate of the next.

    Discriminative fine-tuning (Howard & Ruder 2018, ACL). Attention, which earlier training may
    have taught, learns like the last stage. After a step, weights go back by what they moved too
    far, which is the same with any optimizer.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self._before: list[NDArray[np.float32]] = []

    def set_model(self, model: keras.Model) -> None:
        """Note which weights belong to which stage."""
        super().set_model(model)
        listed = layers_by_stage(model)
        listed[STAGES[-1]] += [layer for layer in model.layers if layer.name == ATTENTION]
        self._weights = [
            (weight, self._decay ** (len(STAGES) - place))
            for place, stage in enumerate(STAGES)
            for layer in listed[stage]
            for weight in layer.trainable_weights
        ]

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Remember the weights."""
        self._before = [np.array(weight.numpy()) for weight, _ in self._weights]

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Take back a part of the step."""
        for (weight, share), before in zip(self._weights, self._before, strict=True):
            weight.assign(before + share * (weight.numpy() - before))


class MovingAverage(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """A moving average of all weights, which is what is validated and kept.

    Polyak & Juditsky 1992, SIAM J. Control Optim. 30:838. The network learns on with its own
    weights: they are exchanged for the average after an epoch's last step, and back before the
    next epoch's first. The average starts late, as the mean of what there was.
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self._momentum, self._steps = momentum, 0
        self._average: list[NDArray[np.float32]] = []
        self._own: list[NDArray[np.float32]] | None = None

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Take the new weights into the average."""
        self._steps += 1
        momentum = min(self._momentum, self._steps / (self._steps + 10))
        weights = self.model.get_weights()
        if not self._average:  # copies: PyTorch's arrays are views of the living weights
            self._average = [weight.copy() for weight in weights]
        for average, weight in zip(self._average, weights, strict=True):
            np.multiply(average, momentum, out=average)
            np.add(average, (1 - momentum) * weight, out=average)

    def on_test_begin(self, logs: object = None) -> None:  # noqa: ARG002
        """Validate the average."""
        if self._own is None and self._average:
            self._own = [weight.copy() for weight in self.model.get_weights()]
            self.model.set_weights(self._average)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Learn on with the own weights."""
        if self._own is not None:
            self.model.set_weights(self._own)
            self._own = None


class EpochLines(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """A bar over all steps with the most time that is left, and a line an epoch."""

    def __init__(self, epochs: int, *, visible: bool) -> None:
        super().__init__()
        self._bar = progress_bar(visible=visible)
        self._epochs = epochs
        self._visible = visible
        self._best = np.inf

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002 - Keras' signature
        """Start the bar."""
        self._task = self._bar.add_task(
            f"Training, at most {self._epochs} epochs", total=self._epochs * self.params["steps"]
        )
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Move the bar."""
        self._bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Print the line."""
        logs = logs or {}
        better = logs["val_loss"] < self._best
        self._best = min(self._best, logs["val_loss"])
        if self._visible:
            say_epoch(epoch + 1, logs, self._bar.console, "  best so far" if better else "")

    def on_train_end(self, logs: object = None) -> None:  # noqa: ARG002
        """Stop the bar."""
        self._bar.stop()


def say_epoch(number: int, logs: Mapping[str, float], console: Console, remark: str = "") -> None:
    """Print what an epoch was like, on one line."""
    console.print(
        f"epoch {number:3d}   training loss {logs['loss']:.4f}  AUC {logs['auc']:.3f}   "
        f"validation loss {logs['val_loss']:.4f}  AUC {logs['val_auc']:.3f}{remark}",
        highlight=False,
        soft_wrap=True,
    )
