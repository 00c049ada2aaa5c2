"""Cached pixels and labels → the batches that Keras learns from."""

import math

import keras
import numpy as np
from numpy.typing import NDArray

from mammolens.augment import augmented
from mammolens.breast import Pixels
from mammolens.cache import CachedPixels
from mammolens.recipe import Augment


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Batches of (pixels, labels): float32 (images, height, width, 1) and (images, 1).

    With a seed the images are shuffled anew for each epoch and augmented, from that seed alone;
    without one they come in order, unchanged.
    """

    def __init__(
        self,
        pixels: CachedPixels,
        labels: NDArray[np.float32],
        batch_size: int,
        *,
        augment: Augment | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._pixels, self._labels, self._batch_size = pixels, labels, batch_size
        self._augment, self._seed = augment or Augment(), seed
        self._epoch = 0
        self._order = self._shuffled()

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[Pixels, NDArray[np.float32]]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        images = self._pixels.take(chosen)
        if self._seed is not None:
            generator = np.random.default_rng([self._seed, self._epoch, index])
            images = augmented(images, self._augment, generator)
        return images[..., np.newaxis], self._labels[chosen, np.newaxis]

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> NDArray[np.intp]:
        order = np.arange(len(self._labels))
        if self._seed is not None:
            np.random.default_rng([self._seed, self._epoch]).shuffle(order)
        return order
