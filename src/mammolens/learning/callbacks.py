"""What happens between steps: learning rates, averages, a bar. What lasts an epoch is told them."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mammolens.learning.efficientnet_lite import STAGES, layers_by_stage
from mammolens.learning.networks import ATTENTION
from mammolens.parallel import progress_bar


class EpochSeed(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """What an epoch draws depends on the seed and the epoch, and on nothing that was drawn before.

    On PyTorch, Keras' dropout draws from the one generator of the whole process.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Set all generators."""
        drawn = np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]
        keras.utils.set_random_seed(int(drawn))


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


class EpochLines(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """A bar over all steps with the most time that is left, and a line an epoch."""

    def __init__(self, epochs: int, steps: int, done: int, *, visible: bool) -> None:
        super().__init__()
        self._bar = progress_bar(visible=visible)
        self._visible = visible
        self._task = self._bar.add_task(
            f"Training, at most {epochs} epochs", total=epochs * steps, completed=done * steps
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Move the bar."""
        self._bar.advance(self._task)

    def say(self, number: int, measures: Mapping[str, float], *, best: bool) -> None:
        """Print the line."""
        if self._visible:
            say_epoch(number, measures, self._bar.console, "  best so far" if best else "")


def say_epoch(number: int, logs: Mapping[str, float], console: Console, remark: str = "") -> None:
    """Print what an epoch was like, on one line."""
    console.print(
        f"epoch {number:3d}   training loss {logs['loss']:.4f}  AUC {logs['auc']:.3f}   "
        f"validation loss {logs['val_loss']:.4f}  AUC {logs['val_auc']:.3f}{remark}",
        highlight=False,
        soft_wrap=True,
    )
