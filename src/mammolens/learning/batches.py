"""Prepared images → the batches that Keras learns from: drawn, changed at random, with their boxes."""

import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.images.breast import Pixels
from mammolens.images.cache import prepare
from mammolens.images.preprocess import Prepared, Preprocess
from mammolens.learning.team import ALONE, Team
from mammolens.model.recipe import Augment
from mammolens.parallel import cores, map_in_order, tracked

Inputs = Any  # pixels, or (pixels, labels, cells)
Draw = tuple[Any, ...]  # flips, seven numbers in [-1, 1], the seed of the noise

_AHEAD = 8  # batches that are made at a time, at most: a GPU learns from one in less time than it takes to make it


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Batches of (pixels, labels): float32 (images, height, width, 1) and (images, 1).

    With a seed the images are shuffled anew for each epoch and augmented: a function of that seed,
    the epoch and the step alone. Without one they come in order, unchanged. Batches are made while
    those before are learnt from, a few of them at a time where there are cores for it.

    Args:
        data: the images.
        batch_size: images a batch.
        augment: random changes.
        by_patient: an epoch draws as many images as there are, so that both classes, and within
            them all patients, have an equal part.
        boxes: of lesions: labels, and what share of each place of a map boxes cover, come as inputs
            then, too.
        also: which of the images are of data sets that are learnt from as well: an epoch passes over
            all others, with some of these in each batch. Weights come as a third part then, so
            that their labels teach nothing but what their boxes hold.
        also_images: how many of them a batch has.
        seed: of all that is random.
        team: who learns from them: here come the images of each batch that are this process's share. Of a batch of
            fewer images than there are processes, the others get its first, of which they make nothing.
    """

    def __init__(  # noqa: PLR0913 - what is drawn, how, and what is made of it
        self,
        data: PreparedSet,
        batch_size: int,
        *,
        augment: Augment | None = None,
        by_patient: bool = False,
        boxes: "CanvasBoxes | None" = None,
        also: Collection[int] = (),
        also_images: int = 0,
        seed: int | None = None,
        team: Team = ALONE,
    ) -> None:
        super().__init__()
        self._pixels, self._labels = data.pixels, data.manifest.labels
        self._own = np.setdiff1d(np.arange(len(data)), np.array(sorted(also), np.intp))
        self._also, self._also_images, self._batch_size = np.array(sorted(also), np.intp), also_images, batch_size
        self._augment, self._boxes, self._seed, self._team = augment or Augment(), boxes, seed, team
        self._share = _equal_shares(data.subset(self._own.tolist()).manifest) if by_patient else None
        self._threads = max(1, min(_AHEAD, cores() - 1))
        self._ahead = ThreadPoolExecutor(self._threads)
        self._coming: dict[int, Future[tuple[Any, ...]]] = {}
        self.start(0)

    def __len__(self) -> int:
        return math.ceil(len(self._order) / (self._batch_size - self._also_images))

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        coming = self._coming.pop(index, None)
        for later in range(index + 1, min(index + 1 + self._threads, len(self))):
            if later not in self._coming:
                self._coming[later] = self._ahead.submit(self.made, later)
        return self.made(index) if coming is None else coming.result()

    def made(self, index: int) -> tuple[Any, ...]:
        """Make a batch, and none ahead: for who does not take one after the other."""
        own = self._batch_size - self._also_images
        chosen, also = (
            order[index * count : (index + 1) * count]
            for order, count in ((self._order, own), (self._also_order, self._also_images))
        )
        weights = np.append(np.full(len(chosen), 1 + len(also) / len(chosen)), np.zeros(len(also)))
        mine = list(self.share(index)) or [0]
        chosen, weights = np.append(chosen, also)[mine], weights[mine]
        images, labels = self._pixels.take(chosen), self._labels[chosen, np.newaxis]
        masks = self._boxes.masks(chosen.tolist()) if self._boxes else images[:, :0]
        if self._seed is not None:
            generator = np.random.default_rng([self._seed, self._epoch, index])
            draws = islice(draw_changes(generator), self._team.rank, None, self._team.size)
            images, masks = augmented(images, masks, self._augment, draws)
        inputs: Inputs = images[..., np.newaxis]
        if self._boxes:
            inputs = (inputs, labels, cells(masks, *self._boxes.places))
        return (inputs, labels, weights) if self._also_images else (inputs, labels)

    def share(self, index: int) -> range:
        """Return which images of a batch are this process's."""
        own = self._batch_size - self._also_images
        return self._team.share(min(own, len(self._order) - index * own) + self._also_images)

    def start(self, epoch: int) -> None:
        """Shuffle for an epoch, counted from 0.

        Keras calls `on_epoch_end` once more where it builds metrics, so that does not count.
        """
        self._coming.clear()
        self._epoch, self._order, self._also_order = epoch, self._own.copy(), self._also
        if self._seed is not None:
            generator = np.random.default_rng([self._seed, epoch])
            if self._share is None:
                generator.shuffle(self._order)
            else:
                self._order = generator.choice(self._order, len(self._order), p=self._share)
        if self._also_images:
            generator = np.random.default_rng([self._seed or 0, epoch, len(self._also)])
            rounds = math.ceil(len(self) * self._also_images / len(self._also))
            self._also_order = np.concatenate([generator.permutation(self._also) for _ in range(rounds)])


def _equal_shares(manifest: Manifest) -> NDArray[np.float64]:
    """Return how likely each image is drawn: classes alike, patients alike in a class."""
    labels = manifest.labels
    keys = [f"{label:.0f} {patient}" for label, patient in zip(labels, manifest.patients, strict=True)]
    _, member, count = np.unique(np.asarray(keys), return_inverse=True, return_counts=True)
    share = 1 / count[member]
    for label in np.unique(labels):
        share[labels == label] /= share[labels == label].sum()
    return np.asarray(share / share.sum())


def draw_changes(generator: np.random.Generator) -> Iterator[Draw]:
    """Yield what is drawn for each image: all of it, whatever is switched on, so that no option reshuffles another."""
    while True:
        yield generator.random(2) < 0.5, generator.uniform(-1, 1, 7), generator.integers(2**32)  # noqa: PLR2004 - half


def augmented(images: Pixels, masks: Pixels, augment: Augment, draws: Iterator[Draw]) -> tuple[Pixels, Pixels]:
    """Return changed copies of `images`, float32 (images, height, width) in [0, 1], and of `masks`.

    Each image has its own changes, by NumPy and Pillow, so that every backend sees the same ones;
    what turns in from outside is 0. Gamma and noise leave 0 as it is, so that nothing happens
    outside the breast. Masks, of the images' size or empty, move along. With all options off
    everything comes back as it is.
    """
    if augment == Augment():
        return images, masks
    pairs = [_augment_one(image, mask, augment, next(draws)) for image, mask in zip(images, masks, strict=True)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def _augment_one(image: Pixels, mask: Pixels, augment: Augment, drawn: Draw) -> tuple[Pixels, Pixels]:
    flips, (angle, zoom, contrast, down, right, gamma, noise), grain = drawn
    if augment.horizontal_flip and flips[0]:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if augment.vertical_flip and flips[1]:
        image, mask = image[::-1], mask[::-1]
    if augment.rotation or augment.zoom or augment.shift:
        shift = np.array([down * image.shape[0], right * image.shape[1]]) * augment.shift
        turn = np.deg2rad(angle * augment.rotation)
        scale = 1 + zoom * augment.zoom
        image = _moved(image, turn, scale, shift)
        mask = _moved(mask, turn, scale, shift) if mask.any() else mask
    if augment.contrast:
        mean = image.mean()
        image = np.clip(mean + (image - mean) * (1 + contrast * augment.contrast), 0, 1)
    if augment.gamma:
        image = image ** np.float32(np.exp(gamma * augment.gamma))
    if augment.noise:
        grains = np.random.default_rng(grain).standard_normal(image.shape, dtype=np.float32)
        image = np.clip(image + grains * np.float32(abs(noise) * augment.noise) * (image > 0), 0, 1)
    return np.asarray(image, dtype=np.float32), np.asarray(mask, dtype=np.float32)


def _moved(image: Pixels, angle: float, scale: float, shift: NDArray[np.float64]) -> Pixels:
    """Rotate by `angle` (radians) and scale about the centre, then shift (pixels), bilinearly."""
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) / scale
    centre = np.array(image.shape) / 2  # Pillow counts from the corner of the first pixel
    down, right = centre - matrix @ (centre + shift)
    picture = Image.fromarray(np.ascontiguousarray(image))
    # Pillow is asked for (x, y), and takes a third of the time that SciPy takes.
    coefficients = (matrix[1, 1], matrix[1, 0], right, matrix[0, 1], matrix[0, 0], down)
    moved = picture.transform(picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.array(moved)


Rectangle = tuple[int, ...]  # (left, top, right, bottom) in pixels of the canvas


@dataclass(frozen=True)
class CanvasBoxes:
    """Boxes of lesions of a list of images, on the canvas that the network sees.

    Attributes:
        shape: (height, width) of the canvas.
        places: (rows, columns) of the network's map of it.
        rectangles: of each image.
    """

    shape: tuple[int, int]
    places: tuple[int, int]
    rectangles: tuple[tuple[Rectangle, ...], ...]

    def masks(self, indices: Sequence[int]) -> Pixels:
        """Return float32 (images, height, width): 1 inside a box, 0 elsewhere."""
        drawn = np.zeros((len(indices), *self.shape), dtype=np.float32)
        for mask, index in zip(drawn, indices, strict=True):
            for left, top, right, bottom in self.rectangles[index]:
                mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
        return drawn


def canvas_boxes(
    manifest: Manifest, preprocess: Preprocess, places: tuple[int, int], *, progress: bool = False
) -> CanvasBoxes:
    """Find where preprocessing puts the boxes of each image; none where it cannot be read."""
    boxed = {index: m for index, m in enumerate(manifest) if m.boxes}
    work = map_in_order(partial(prepare, preprocess=preprocess), [m.path for m in boxed.values()])
    rectangles: list[tuple[Rectangle, ...]] = [()] * len(manifest)
    coming = zip(boxed.items(), work, strict=True)
    for (index, mammogram), prepared in tracked(coming, "Placing boxes", len(boxed), visible=progress):
        if isinstance(prepared, Prepared):
            placed = map(prepared.geometry.to_canvas, mammogram.boxes)
            rectangles[index] = tuple(tuple(map(round, box)) for box in placed)
    return CanvasBoxes(preprocess.shape, places, tuple(rectangles))


def cells(masks: Pixels, rows: int, columns: int) -> Pixels:
    """Return which share of each place of a map is masked, (images, rows, columns, 1)."""
    images, height, width = masks.shape
    down, across = -(-height // rows), -(-width // columns)
    padded = np.pad(masks, ((0, 0), (0, rows * down - height), (0, columns * across - width)))
    blocks = padded.reshape(images, rows, down, columns, across)
    return np.asarray(blocks.mean(axis=(2, 4))[..., np.newaxis], dtype=np.float32)
