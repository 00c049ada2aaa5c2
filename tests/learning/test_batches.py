from pathlib import Path

import numpy as np
import pytest

from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.images.preprocess import Preprocess
from mammolens.learning.batches import Batches
from mammolens.model.recipe import Augment


@pytest.fixture
def pixels(phantoms: Path) -> CachedPixels:
    return prepared_pixels(sorted(phantoms.rglob("*.jpg"))[:10], Preprocess.plain())


LABELS = np.arange(10, dtype=np.float32)


def drawn(batches: Batches) -> list[float]:
    return [float(label) for index in range(len(batches)) for label in batches[index][1].ravel()]


def test_without_a_seed_images_come_once_and_in_order(pixels: CachedPixels) -> None:
    batches = Batches(pixels, LABELS, 4)
    assert len(batches) == 3
    images, labels = batches[2]
    assert images.shape == (2, 64, 64, 1)
    assert labels.shape == (2, 1)
    np.testing.assert_array_equal(images[..., 0], pixels.take([8, 9]))
    assert drawn(batches) == LABELS.tolist()


def test_with_a_seed_each_epoch_has_an_order_of_its_own(pixels: CachedPixels) -> None:
    batches = Batches(pixels, LABELS, 4, seed=1)
    first = drawn(batches)
    batches.start(1)
    second = drawn(batches)
    assert sorted(first) == sorted(second) == LABELS.tolist()
    assert first != second != LABELS.tolist()
    assert drawn(Batches(pixels, LABELS, 4, seed=1)) == first
    assert drawn(Batches(pixels, LABELS, 4, seed=2)) != first


def test_pixels_stay_with_their_label(pixels: CachedPixels) -> None:
    images, labels = Batches(pixels, LABELS, 10, seed=3)[0]
    np.testing.assert_array_equal(images[..., 0], pixels.take(labels.ravel().astype(int)))


def test_only_learning_batches_are_augmented(pixels: CachedPixels) -> None:
    augment = Augment(contrast=0.5)
    judged = Batches(pixels, LABELS, 10, augment=augment)[0][0]
    np.testing.assert_array_equal(judged[..., 0], pixels.take(range(10)))
    learning = Batches(pixels, LABELS, 10, augment=augment, seed=0)
    images, labels = learning[0]
    assert not np.array_equal(images[..., 0], pixels.take(labels.ravel().astype(int)))
    np.testing.assert_array_equal(learning[0][0], images)


def test_frozen_stages_see_augmented_pixels_and_the_rest_what_they_make(
    pixels: CachedPixels,
) -> None:
    augment = Augment(contrast=0.5)
    plain, made = (
        Batches(pixels, LABELS, 4, augment=augment, seed=0, frozen=frozen)[0][0]
        for frozen in (None, lambda images: images[:, ::8, ::8] + 7)
    )
    np.testing.assert_array_equal(made, plain[:, ::8, ::8] + 7)


def test_by_patient_classes_and_patients_have_an_equal_part(pixels: CachedPixels) -> None:
    labels = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)
    patients = ["a", "b", *["c"] * 8]
    batches = Batches(pixels, labels, 10, patients=patients, seed=0)
    counts = np.zeros(2)
    for epoch in range(200):
        batches.start(epoch)
        images, drawn = batches[0]
        bees = np.abs(images[..., 0] - pixels.take([1])).max(axis=(1, 2)) == 0
        counts += [drawn.mean(), bees.mean()]
    tumors, patient_b = counts / 200
    assert tumors == pytest.approx(0.5, abs=0.05)
    assert patient_b == pytest.approx(0.25, abs=0.05)


def test_mixup_mixes_labels_as_it_mixes_pixels(pixels: CachedPixels) -> None:
    labels = (LABELS > 4).astype(np.float32)
    images, mixed = Batches(pixels, labels, 10, mixup=1.0, seed=0)[0]
    assert ((mixed >= 0) & (mixed <= 1)).all()
    assert ((mixed > 0.01) & (mixed < 0.99)).any()
    plain = Batches(pixels, labels, 10, seed=0)[0]
    changed = np.abs(images - plain[0]).max(axis=(1, 2, 3)) > 0
    assert changed.mean() > 0.5
