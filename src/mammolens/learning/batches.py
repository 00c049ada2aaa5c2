"""Cached pixels and labels → the batches that Keras learns from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mammolens.images.breast import Pixels
from mammolens.images.cache import CachedPixels
from mammolens.learning.augment import augmented_alike
from mammolens.learning.boxes import CanvasBoxes, cells
from mammolens.model.recipe import Augment

Inputs = Any
"""Pixels, or (pixels, labels), or (pixels, labels, cells)."""


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Batches of (pixels, labels): float32 (images, height, width, 1) and (images, 1).

    With a seed the images are shuffled anew for each epoch, augmented and mixed: a function of that
    seed, the epoch and the step alone. Without one they come in order, unchanged. What frozen
    stages make of them may come instead of pixels.

    Args:
        pixels: of all images.
        labels: 0 or 1, (images,).
        batch_size: images a batch.
        augment: random changes.
        mixup: pairs are mixed with a share drawn from Beta(mixup, mixup), 0 is off (Zhang et al.
            2018, ICLR).
        patients: whose image each is: an epoch then draws as many images as there are, so that
            both classes, and within them all patients, have an equal part.
        breasts: which breast each shows: an epoch then has two views of each breast, one after the
            other; the only view of a breast comes twice.
        labels_too: give labels as a second input, for losses that are layers.
        boxes: of lesions: what share of each place of a map they cover is the third input then.
        places: (rows, columns) of that map.
        frozen: of pixels, (images, height, width, 1), makes what the network takes.
        seed: of all that is random.
    """

    def __init__(  # noqa: PLR0913 - one a way of drawing
        self,
        pixels: CachedPixels,
        labels: NDArray[np.float32],
        batch_size: int,
        *,
        augment: Augment | None = None,
        mixup: float = 0.0,
        patients: Sequence[str] | None = None,
        breasts: Sequence[str] | None = None,
        labels_too: bool = False,
        boxes: CanvasBoxes | None = None,
        places: tuple[int, int] = (1, 1),
        frozen: Callable[[Pixels], Pixels] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._pixels, self._labels, self._batch_size = pixels, labels, batch_size
        self._augment, self._mixup, self._seed = augment or Augment(), mixup, seed
        self._labels_too, self._boxes, self._places = labels_too, boxes, places
        self._frozen = frozen
        self._share = None if patients is None else _equal_shares(labels, patients)
        self._views = None if breasts is None else _views(breasts)
        self.start(0)

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[Inputs, NDArray[np.float32]]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        generator = None if self._seed is None else np.random.default_rng([self._seed, self._epoch, index])
        images, masks = self._taken(chosen, generator)
        labels = self._labels[chosen]
        if generator is not None and self._mixup:
            images, labels = _mixed(images, labels, self._mixup, generator)
        if self._frozen is not None:
            images = self._frozen(images)
        column = labels[:, np.newaxis]
        if self._boxes is not None:
            return (images, column, cells(masks, *self._places)), column
        return (images, column) if self._labels_too else images, column

    def start(self, epoch: int) -> None:
        """Shuffle for an epoch, counted from 0.

        Keras calls `on_epoch_end` once more where it builds metrics, so that does not count.
        """
        self._epoch = epoch
        self._order = self._shuffled()

    def _taken(self, chosen: NDArray[np.intp], generator: np.random.Generator | None) -> tuple[Pixels, Pixels]:
        """Return images, changed if they are learnt from, and where their boxes are."""
        none = np.zeros((len(chosen), 0, 0), np.float32)
        images = self._pixels.take(chosen)
        masks = none if self._boxes is None else self._boxes.masks(chosen.tolist())
        if generator is not None:
            images, masks = augmented_alike(images, masks, self._augment, generator)
        return images[..., np.newaxis], masks

    def _shuffled(self) -> NDArray[np.intp]:
        order = np.arange(len(self._labels))
        if self._seed is None:
            return order
        generator = np.random.default_rng([self._seed, self._epoch])
        if self._views is not None:
            pairs = [_two_of(views, generator) for views in self._views]
            return np.concatenate([pairs[index] for index in generator.permutation(len(pairs))])
        if self._share is not None:
            return generator.choice(order, len(order), p=self._share)
        generator.shuffle(order)
        return order


def _views(breasts: Sequence[str]) -> list[NDArray[np.intp]]:
    """Return the indices of each breast's images."""
    _, member = np.unique(np.asarray(breasts), return_inverse=True)
    return [np.flatnonzero(member == breast) for breast in range(int(member.max()) + 1)]


def _two_of(views: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.intp]:
    """Return two of a breast's images; the same one twice where there is no other."""
    return generator.permutation(np.resize(views, max(2, len(views))))[:2]


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
    share = share.reshape(-1, *[1] * (images.ndim - 1))
    return share * images + (1 - share) * images[other], mixed
