"""Who learns a network together: one process, or several that each make their share of every batch.

Several take each step by the mean of their gradients, and normalise by the statistics of the whole batch, so that all
know the same after it, to the last bit. Whoever starts them has PyTorch connect them first (`torch.distributed`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import keras

from mammolens.errors import DataError

Told = TypeVar("Told")
Tensors = Sequence[Any]  # of PyTorch, 32-bit floats


@dataclass(frozen=True)
class Team:
    """Processes that learn one network together; as it stands, one that learns alone.

    Attributes:
        rank: which of them this is; 0 is the first, which alone writes.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> "Team":
        """Return the team that PyTorch has connected this process with.

        Raises:
            DataError: Keras runs on another backend, which no such team learns by.
        """
        if keras.backend.backend() != "torch":
            raise DataError(f"several workers learn on PyTorch alone, and Keras runs on {keras.backend.backend()}.")
        from torch import distributed  # noqa: PLC0415 - of one backend alone

        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this process is the first of them."""
        return self.rank == 0

    def told(self, make: Callable[[], Told]) -> Told:
        """Return, to all, what the first makes."""
        if self.alone:
            return make()
        from torch import distributed  # noqa: PLC0415 - likewise

        said: list[Any] = [make() if self.leads else None]
        distributed.broadcast_object_list(said)
        made: Told = said[0]
        return made

    def share(self, images: int) -> range:
        """Return which images of a batch of so many are this process's."""
        return range(self.rank, images, self.size)

    def summed(self, tensors: Tensors) -> Tensors:
        """Return the sums of such tensors over all, by one message."""
        import torch  # noqa: PLC0415 - likewise

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


ALONE = Team()


class Together(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Has a team take the steps of one that learns alone: those of whole batches.

    What a process draws itself, dropout, is not what one alone would draw; and the loss of boxes takes its mean over a
    process's own share.

    Args:
        team: of several.
        share: which images of a batch, by its number, are this process's.
        steps: in an epoch.
    """

    def __init__(self, team: Team, share: Callable[[int], range], steps: int) -> None:
        super().__init__()
        self._team, self._share, self._steps, self._images = team, share, steps, 0

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002
        """Have the optimizer and each normalisation see what all saw."""
        optimizer, step = self.model.optimizer, self.model.optimizer.apply
        optimizer.scale_loss = lambda loss: loss * self._images
        optimizer.apply = lambda gradients, variables: step(self._of_all(gradients), variables)
        for layer in self.model.layers:
            if hasattr(layer, "moments"):
                layer.moments = self._moments
            elif isinstance(layer, keras.layers.BatchNormalization):  # Keras synchronises on other backends alone
                layer._moments = partial(self._moments_of, layer)  # noqa: SLF001

    def on_train_end(self, logs: object = None) -> None:  # noqa: ARG002
        """Leave the optimizer as it was."""
        del self.model.optimizer.apply, self.model.optimizer.scale_loss

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Count what the step to come is of."""
        self._images = len(self._share(batch))

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Have the measures of an epoch count what all saw: each is made of sums."""
        if batch == self._steps - 1:
            counts = self.model.metrics_variables
            for count, total in zip(counts, self._team.summed([count.value for count in counts]), strict=True):
                count.assign(total)

    def _of_all(self, gradients: Tensors) -> Tensors:
        """Return gradients by the mean loss of a batch, of those by the sum over a share."""
        own = [gradient for gradient in gradients if gradient is not None]
        *sums, images = self._team.summed([*own, own[0].new_full((1,), self._images)])
        means = iter([total / images for total in sums])
        return [None if gradient is None else next(means) for gradient in gradients]

    def _moments(self, values: Any, axes: Sequence[int]) -> tuple[Any, ...]:  # noqa: ANN401 - tensors of PyTorch
        from mammolens.learning.networks.normalised import moments  # noqa: PLC0415 - of one backend alone

        return moments(values, axes, lambda own: self._team.summed([own])[0], float(self._images > 0))

    def _moments_of(self, layer: Any, values: Any, mask: object) -> tuple[Any, ...]:  # noqa: ANN401, ARG002 - Keras'
        return self._moments(values, layer._reduction_axes)[:2]  # noqa: SLF001
