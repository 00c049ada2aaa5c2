from pathlib import Path

import numpy as np

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import Preprocess
from mammolens.learning.boxes import CanvasBoxes, canvas_boxes, cells


def test_a_box_marks_its_pixels_and_nothing_else() -> None:
    boxes = CanvasBoxes((8, 6), (((1, 2, 3, 5),), (), ((-2, 6, 2, 99),)))
    masks = boxes.masks([0, 1, 2])
    assert masks.sum(axis=(1, 2)).tolist() == [6, 0, 4]
    assert masks[0, 2:5, 1:3].all()
    assert masks[2, 6:, :2].all()
    assert boxes.subset([2, 0]).rectangles == (boxes.rectangles[2], boxes.rectangles[0])


def test_a_place_has_the_share_of_it_that_is_marked() -> None:
    masks = np.zeros((1, 8, 4), np.float32)
    masks[0, :2, :2] = 1
    masks[0, 7, 3] = 1
    np.testing.assert_allclose(cells(masks, 2, 1)[0, :, 0, 0], [4 / 16, 1 / 16])
    assert cells(masks, 3, 2).shape == (1, 3, 2, 1)  # where places do not divide the canvas


def test_boxes_follow_the_lesion_onto_the_canvas(phantoms: Path) -> None:
    # Drawn tumors are brighter than what surrounds them, on the canvas as in the picture.
    listed = read_source(str(phantoms))
    boxed = Manifest(tuple(m for m in listed if m.boxes)[:12])
    assert len(boxed) == 12
    preprocess = Preprocess.breast(192, 128)
    masks = canvas_boxes(boxed, preprocess).masks(range(12)) > 0
    pixels = prepared_pixels(boxed.paths, preprocess).take(range(12))
    brighter = [
        image[mask].mean() > image[~mask & (image > 0)].mean() for image, mask in zip(pixels, masks, strict=True)
    ]
    assert np.mean(brighter) > 0.9
    assert all(0.0005 < mask.mean() < 0.2 for mask in masks)


def test_images_without_boxes_have_none(phantoms: Path) -> None:
    listed = read_source(str(phantoms))
    healthy = listed.with_label(0)
    assert canvas_boxes(healthy, Preprocess.breast(64, 32)).rectangles == ((),) * len(healthy)
