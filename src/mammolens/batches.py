"""Cached pixels and labels → the batches that Keras learns from."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from mammolens.augment import augmented
from mammolens.breast import Pixels
from mammolens.cache import CachedPixels
from mammolens.recipe import Augment


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Batches of (pixels, labels): float32 (images, height, width, 1) and (images, 1).

    With a seed the images are shuffled anew for each epoch, augmented and mixed, from that seed
    alone; without one they come in order, unchanged.

    Args:
        pixels: of all images.
        labels: 0 or 1, (images,).
        batch_size: images a batch.
        augment: random changes.
        mixup: pairs are mixed with a share drawn from Beta(mixup, mixup), 0 is off (Zhang et al.
            2018, ICLR).
        patients: whose image each is: an epoch then draws as many images as there are, so that
            both classes, and within them all patients, have an equal part.
        seed: of all that is random.
    """

    def __init__(
        self,
        pixels: CachedPixels,
        labels: NDArray[np.float32],
        batch_size: int,
        *,
        augment: Augment | None = None,
        mixup: float = 0.0,
        patients: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._pixels, self._labels, self._batch_size = pixels, labels, batch_size
        self._augment, self._mixup, self._seed = augment or Augment(), mixup, seed
        self._share = None if patients is None else _equal_shares(labels, patients)
        self._epoch = 0
        self._order = self._shuffled()

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[Pixels, NDArray[np.float32]]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        images, labels = self._pixels.take(chosen), self._labels[chosen]
        if self._seed is not None:
            generator = np.random.default_rng([self._seed, self._epoch, index])
            images = augmented(images, self._augment, generator)
            if self._mixup:
                images, labels = _mixed(images, labels, self._mixup, generator)
        return images[..., np.newaxis], labels[:, np.newaxis]

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> NDArray[np.intp]:
        order = np.arange(len(self._labels))
        if self._seed is None:
            return order
        generator = np.random.default_rng([self._seed, self._epoch])
        if self._share is not None:
            return generator.choice(order, len(order), p=self._share)
        generator.shuffle(order)
        return order


def _equal_shares(labels: NDArray[np.float32], patients: Sequence[str]) -> NDArray[np.float64]:
    """Return how likely each image is drawn: classes alike, patients alike in a class."""
    keys = [f"{label:.0f} {patient}" for label, patient in zip(labels, patients, strict=True)]
    _, member, count = np.unique(np.asarray(keys), return_inverse=True, return_counts=True)
    share = 1 / count[member]
    for label in np.unique(labels):
        share[labels == label] /= share[labels == label].sum()
    return np.asarray(share / share.sum())


def _mixed(
    images: Pixels, labels: NDArray[np.float32], alpha: float, generator: np.random.Generator
) -> tuple[Pixels, NDArray[np.float32]]:
    """Mix each image and its label with another of the batch."""
    share = generator.beta(alpha, alpha, len(labels)).astype(np.float32)
    other = generator.permutation(len(labels))
    mixed = share * labels + (1 - share) * labels[other]
    share = share[:, np.newaxis, np.newaxis]
    return share * images + (1 - share) * images[other], mixed
