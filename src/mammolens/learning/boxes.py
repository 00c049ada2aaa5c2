"""Boxes of lesions, from a data set's pictures to the places of a score map."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mammolens.data.manifest import Manifest
from mammolens.images.breast import Pixels
from mammolens.images.cache import prepare
from mammolens.images.preprocess import Prepared, Preprocess
from mammolens.parallel import map_in_order, tracked

Rectangle = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of the canvas."""


@dataclass(frozen=True)
class CanvasBoxes:
    """Boxes of a list of images, on the canvas that the network sees.

    Attributes:
        shape: (height, width) of the canvas.
        rectangles: of each image.
    """

    shape: tuple[int, int]
    rectangles: tuple[tuple[Rectangle, ...], ...]

    def subset(self, indices: Sequence[int]) -> "CanvasBoxes":
        """Return the boxes of some of the images, in the order of `indices`."""
        return CanvasBoxes(self.shape, tuple(self.rectangles[index] for index in indices))

    def masks(self, indices: Sequence[int]) -> Pixels:
        """Return float32 (images, height, width): 1 inside a box, 0 elsewhere."""
        drawn = np.zeros((len(indices), *self.shape), dtype=np.float32)
        for mask, index in zip(drawn, indices, strict=True):
            for left, top, right, bottom in self.rectangles[index]:
                mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
        return drawn


def canvas_boxes(manifest: Manifest, preprocess: Preprocess, *, progress: bool = False) -> CanvasBoxes:
    """Find where preprocessing puts the boxes of each image; none where it cannot be read."""
    boxed = [index for index, mammogram in enumerate(manifest) if mammogram.boxes]
    paths = [manifest.paths[index] for index in boxed]
    work = map_in_order(partial(prepare, preprocess=preprocess), paths)
    found: list[tuple[Rectangle, ...]] = [()] * len(manifest)
    for index, prepared in tracked(zip(boxed, work, strict=True), "Placing boxes", len(boxed), visible=progress):
        if isinstance(prepared, Prepared):
            placed = [prepared.geometry.to_canvas(b) for b in manifest.mammograms[index].boxes]
            found[index] = tuple(tuple(map(round, box)) for box in placed)  # type: ignore[misc]
    return CanvasBoxes(preprocess.shape, tuple(found))


def cells(masks: Pixels, rows: int, columns: int) -> Pixels:
    """Return which share of each place of a map is masked, (images, rows, columns, 1)."""
    images, height, width = masks.shape
    down, across = -(-height // rows), -(-width // columns)
    padded = np.pad(masks, ((0, 0), (0, rows * down - height), (0, columns * across - width)))
    blocks = padded.reshape(images, rows, down, columns, across)
    return np.asarray(blocks.mean(axis=(2, 4))[..., np.newaxis], dtype=np.float32)
