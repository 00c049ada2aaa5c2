import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.data.sources import read_source
from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.images.preprocess import Preprocess
from mammolens.learning.batches import Batches, CanvasBoxes, augmented, canvas_boxes, cells, draw_changes
from mammolens.learning.team import Team
from mammolens.model.recipe import Augment
from mammolens.records import Mammogram


@pytest.fixture
def data(phantoms: Path) -> PreparedSet:
    """Ten images, every other one with a tumor, each of a patient of her own."""
    paths = sorted(phantoms.rglob("*.jpg"))[:10]
    mammograms = (Mammogram(path=path, label=1 if index % 2 else 0) for index, path in enumerate(paths))
    return PreparedSet.of(Manifest(tuple(mammograms)), Preprocess.plain())


def drawn(batches: Batches, data: PreparedSet) -> list[int]:
    """Return which images come, by what they show."""
    known = data.pixels.take(range(len(data)))
    shown = np.concatenate([batches[index][0][..., 0] for index in range(len(batches))])
    return [int(np.abs(known - image).max(axis=(1, 2)).argmin()) for image in shown]


def test_without_a_seed_images_come_once_and_in_order(data: PreparedSet) -> None:
    batches = Batches(data, 4)
    assert len(batches) == 3
    images, labels = batches[2]
    assert images.shape == (2, 64, 64, 1)
    assert labels.tolist() == [[0], [1]]
    np.testing.assert_array_equal(images[..., 0], data.pixels.take([8, 9]))
    assert drawn(batches, data) == list(range(10))


def test_with_a_seed_each_epoch_has_an_order_of_its_own(data: PreparedSet) -> None:
    batches = Batches(data, 4, seed=1)
    first = drawn(batches, data)
    batches.start(1)
    second = drawn(batches, data)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != list(range(10))
    assert drawn(Batches(data, 4, seed=1), data) == first
    assert drawn(Batches(data, 4, seed=2), data) != first


def test_pixels_stay_with_their_label(data: PreparedSet) -> None:
    batches = Batches(data, 10, seed=3)
    assert batches[0][1].ravel().tolist() == [index % 2 for index in drawn(batches, data)]


def test_only_learning_batches_are_augmented(data: PreparedSet) -> None:
    augment = Augment(contrast=0.5)
    judged = Batches(data, 10, augment=augment)[0][0]
    np.testing.assert_array_equal(judged[..., 0], data.pixels.take(range(10)))
    learning = Batches(data, 10, augment=augment, seed=0)
    plain = Batches(data, 10, seed=0)[0][0]
    assert not np.array_equal(learning[0][0], plain)
    np.testing.assert_array_equal(learning[0][0], learning[0][0])


def test_by_patient_classes_and_patients_have_an_equal_part(data: PreparedSet) -> None:
    dealt = zip(data.manifest, ["a", "b", *["c"] * 8], strict=True)
    manifest = Manifest(tuple(replace(m, label=1 if who == "a" else 0, patient_id=who) for m, who in dealt))
    batches = Batches(PreparedSet(manifest, data.pixels), 10, by_patient=True, seed=0)
    counts = np.zeros(2)
    for epoch in range(200):
        batches.start(epoch)
        images, labels = batches[0]
        bees = np.abs(images[..., 0] - data.pixels.take([1])).max(axis=(1, 2)) == 0
        counts += [labels.mean(), bees.mean()]
    tumors, patient_b = counts / 200
    assert tumors == pytest.approx(0.5, abs=0.05)
    assert patient_b == pytest.approx(0.25, abs=0.05)


def test_boxes_come_as_cells_that_are_mirrored_with_their_image(data: PreparedSet) -> None:
    boxes = CanvasBoxes((64, 64), (2, 2), (((0, 0, 32, 32),), *[()] * 9))
    mirrored = Augment(horizontal_flip=True)
    sides = set()
    for seed in range(20):
        batches = Batches(data, 10, augment=mirrored, boxes=boxes, seed=seed)
        (images, labels, masks), again = batches[0]
        np.testing.assert_array_equal(labels, again)
        (boxed,) = np.flatnonzero(masks.max(axis=(1, 2, 3)))
        is_mirrored = not np.array_equal(images[boxed, ..., 0], data.pixels.take([0])[0])
        assert masks[boxed, 0, int(is_mirrored), 0] == masks[boxed].sum() == 1
        sides.add(is_mirrored)
    assert sides == {True, False}


def beside(data: PreparedSet, **options: Any) -> Batches:
    """Four a batch, one of them of the last three images, which are of another data set."""
    return Batches(data, 4, also=[7, 8, 9], also_images=1, seed=1, **options)


def labelled(data: PreparedSet, chosen: list[int]) -> list[list[float]]:
    labels: list[list[float]] = data.manifest.labels[chosen, np.newaxis].tolist()
    return labels


def test_each_batch_ends_with_images_that_are_learnt_from_as_well(data: PreparedSet) -> None:
    batches, epochs = beside(data), []
    for epoch in range(3):
        batches.start(epoch)
        assert len(batches) == 3, "seven images of its own, three a batch"
        shown = drawn(batches, data)
        parts = [shown[:4], shown[4:8], shown[8:]]
        assert sorted(part[-1] for part in parts) == [7, 8, 9], "each of them once before one comes again"
        assert sorted(index for part in parts for index in part[:-1]) == list(range(7))
        assert [labels.tolist() for _, labels, _ in map(batches.__getitem__, range(3))] == [
            labelled(data, part) for part in parts
        ]
        epochs.append(shown)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len({tuple(shown[3::4]) for shown in epochs}) > 1


def test_labels_of_others_weigh_nothing_and_the_rest_keep_their_mean(data: PreparedSet) -> None:
    weights = [beside(data)[index][2] for index in range(3)]
    np.testing.assert_allclose(weights[0], [4 / 3, 4 / 3, 4 / 3, 0])
    np.testing.assert_allclose(weights[1], weights[0])
    np.testing.assert_allclose(weights[2], [2, 0])


def test_few_others_come_again_and_again_in_turn(data: PreparedSet) -> None:
    batches = Batches(data, 8, also=[2, 5], also_images=6, seed=0)
    assert len(batches) == 4
    shown = np.reshape(drawn(batches, data), (4, 8))
    assert sorted(shown[:, :2].ravel().tolist()) == [0, 1, 3, 4, 6, 7, 8, 9]
    assert (np.sort(shown[:, 2:].reshape(4, 3, 2), axis=2) == [2, 5]).all()


def test_by_patient_only_own_images_are_dealt(data: PreparedSet) -> None:
    batches, own = beside(data, by_patient=True), set()
    for epoch in range(30):
        batches.start(epoch)
        shown = drawn(batches, data)
        others = [shown.pop(place) for place in (9, 7, 3)]
        assert sorted(others) == [7, 8, 9]
        own |= set(shown)
    assert own == set(range(7))


def test_boxes_of_others_come_along(data: PreparedSet) -> None:
    boxes = CanvasBoxes((64, 64), (2, 2), (*[()] * 7, *[((0, 0, 32, 32),)] * 3))
    (images, labels, masks), again, weights = beside(data, boxes=boxes)[0]
    assert (images.shape, masks.shape) == ((4, 64, 64, 1), (4, 2, 2, 1))
    np.testing.assert_array_equal(labels, again)
    np.testing.assert_array_equal(masks.max(axis=(1, 2, 3)) > 0, weights == 0)


def arrays(batch: tuple[Any, ...]) -> list[np.ndarray]:
    (images, labels, masks), *others = batch
    return [images, labels, masks, *others]


def test_a_batch_depends_on_seed_epoch_and_step_alone(data: PreparedSet) -> None:
    """Not on whether the one before was asked for, and thus made this one ahead."""
    boxes = CanvasBoxes((64, 64), (2, 2), (*[()] * 7, *[((0, 0, 32, 32),)] * 3))

    def made(epoch: int, *steps: int) -> list[np.ndarray]:
        batches = beside(data, boxes=boxes, augment=Augment(rotation=20, horizontal_flip=True, noise=0.1))
        batches[0]  # makes one of epoch 0 ahead
        batches.start(epoch)
        return [arrays(batches[step]) for step in steps][-1]

    for epoch in (0, 1):
        for found in (made(epoch, 1), made(epoch, 0, 0, 1), made(epoch, 2, 0, 1), made(epoch, 0, 1, 2, 1)):
            for mine, theirs in zip(found, made(epoch, 0, 1), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(made(0, 1)[0], made(1, 1)[0])


def test_shares_of_a_team_make_up_the_batches_of_one_alone(data: PreparedSet) -> None:
    boxes = CanvasBoxes((64, 64), (2, 2), (*[()] * 7, *[((0, 0, 32, 32),)] * 3))
    changes = Augment(rotation=20, horizontal_flip=True, noise=0.1)
    whole, *shares = (
        beside(data, boxes=boxes, augment=changes, team=team)
        for team in (Team(), *(Team(rank, 3) for rank in range(3)))
    )
    for step in range(3):
        made = arrays(whole[step])
        together = [np.empty_like(array) for array in made]
        for part in shares:
            mine = part.share(step)
            for whole_array, array in zip(together, arrays(part[step]), strict=True):
                whole_array[mine.start :: mine.step] = array[: len(mine)]
        for expected, found in zip(made, together, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_who_has_no_share_of_a_small_batch_gets_its_first_image(data: PreparedSet) -> None:
    last = [Batches(data, 9, seed=0, team=Team(rank, 2)) for rank in (0, 1)]
    assert [len(one.share(1)) for one in last] == [1, 0]
    np.testing.assert_array_equal(last[0][1][0], last[1][1][0])


@pytest.mark.parametrize(("cores", "ahead"), [(1, 1), (2, 1), (4, 3), (64, 4)])
def test_batches_are_made_while_those_before_are_learnt_from(
    data: PreparedSet, monkeypatch: pytest.MonkeyPatch, cores: int, ahead: int
) -> None:
    monkeypatch.setattr("mammolens.learning.batches.cores", lambda: cores)
    batches, asked, ready = Batches(data, 2, seed=0), [], threading.Event()
    take = CachedPixels.take

    def noted(pixels: CachedPixels, indices: Any) -> np.ndarray:
        asked.append(threading.current_thread() is threading.main_thread())
        if len(asked) == 1 + ahead:
            ready.set()
        return take(pixels, indices)

    monkeypatch.setattr(CachedPixels, "take", noted)
    batches[0]
    assert ready.wait(60), "nobody asked for those to come"
    assert sorted(asked) == [False] * ahead + [True]
    for index in range(1, 5):
        batches[index]
    assert sorted(asked) == [False] * 4 + [True], "each is made once"


def images(count: int = 64) -> np.ndarray:
    """A bright square off centre on grey."""
    stack = np.full((count, 32, 32), 0.2, np.float32)
    stack[:, 6:14, 4:10] = 0.8
    return stack


def change(augment: Augment, seed: int = 0) -> np.ndarray:
    return augmented(images(), images()[:, :0], augment, draw_changes(np.random.default_rng(seed)))[0]


def test_nothing_switched_on_changes_nothing() -> None:
    np.testing.assert_array_equal(change(Augment()), images())


@pytest.mark.parametrize(("augment", "axis"), [(Augment(horizontal_flip=True), 2), (Augment(vertical_flip=True), 1)])
def test_about_half_of_the_images_are_mirrored(augment: Augment, axis: int) -> None:
    changed = change(augment)
    mirrored = [np.array_equal(new, np.flip(old, axis - 1)) for new, old in zip(changed, images())]  # noqa: B905
    kept = [np.array_equal(new, old) for new, old in zip(changed, images(), strict=True)]
    assert np.logical_xor(mirrored, kept).all()
    assert 20 < sum(mirrored) < 44


def test_rotation_turns_within_its_limit() -> None:
    changed = change(Augment(rotation=20))
    angles = []
    for image in changed:
        rows, columns = np.nonzero(image > 0.5)
        before = np.arctan2(9.5 - 15.5, 6.5 - 15.5)
        turn = np.arctan2(rows.mean() - 15.5, columns.mean() - 15.5) - before
        angles.append(np.rad2deg((turn + np.pi) % (2 * np.pi) - np.pi))
    assert np.abs(angles).max() < 22
    assert np.std(angles) > 6


def test_zoom_scales_within_its_limit() -> None:
    areas = (change(Augment(zoom=0.2)) > 0.5).sum(axis=(1, 2)) / 48
    assert areas.min() > 0.8**2 * 0.8
    assert areas.max() < 1.2**2 * 1.25
    assert areas.std() > 0.1


def test_contrast_keeps_the_mean_and_changes_the_spread() -> None:
    changed = change(Augment(contrast=0.3))
    np.testing.assert_allclose(changed.mean(axis=(1, 2)), images().mean(axis=(1, 2)), atol=1e-3)
    factors = changed.std(axis=(1, 2)) / images().std(axis=(1, 2))
    assert factors.min() > 0.69
    assert factors.max() < 1.31
    assert factors.std() > 0.1


def test_pixels_stay_in_range_and_a_seed_repeats() -> None:
    strong = Augment(rotation=90, zoom=0.5, contrast=0.9, horizontal_flip=True)
    changed = change(strong, seed=1)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(changed, change(strong, seed=1))
    assert not np.array_equal(changed, change(strong, seed=2))


def test_gamma_and_noise_leave_the_background_black() -> None:
    dark = images() * (images() > 0.5)
    for augment in (Augment(gamma=0.5), Augment(noise=0.1)):
        changed, _ = augmented(dark, dark[:, :0], augment, draw_changes(np.random.default_rng(0)))
        assert (changed[dark == 0] == 0).all()
        assert np.abs(changed - dark).max() > 0.01
        assert ((changed >= 0) & (changed <= 1)).all()


def test_shift_moves_by_at_most_its_share() -> None:
    changed = change(Augment(shift=0.25))
    rows = [np.flatnonzero(image.max(axis=1) > 0.5) for image in changed]
    middles = np.array([row.mean() for row in rows])
    assert np.abs(middles - 9.5).max() <= 8.5
    assert middles.std() > 2


def test_masks_move_with_their_images() -> None:
    augment = Augment(horizontal_flip=True, vertical_flip=True, rotation=20, zoom=0.2, shift=0.1)
    masks = (images() > 0.5).astype(np.float32)
    changed, moved = augmented(images(), masks, augment, draw_changes(np.random.default_rng(0)))
    np.testing.assert_array_equal(changed, change(augment))
    assert ((changed > 0.6) <= (moved > 0.5)).all()
    assert ((moved > 0.9) <= (changed > 0.7)).all()


def test_a_box_marks_its_pixels_and_nothing_else() -> None:
    boxes = CanvasBoxes((8, 6), (1, 1), (((1, 2, 3, 5),), (), ((-2, 6, 2, 99),)))
    masks = boxes.masks([0, 1, 2])
    assert masks.sum(axis=(1, 2)).tolist() == [6, 0, 4]
    assert masks[0, 2:5, 1:3].all()
    assert masks[2, 6:, :2].all()
    np.testing.assert_array_equal(boxes.masks([2, 0]), masks[::-2])


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
    masks = canvas_boxes(boxed, preprocess, (1, 1)).masks(range(12)) > 0
    pixels = prepared_pixels(boxed.paths, preprocess).take(range(12))
    brighter = [
        image[mask].mean() > image[~mask & (image > 0)].mean() for image, mask in zip(pixels, masks, strict=True)
    ]
    assert np.mean(brighter) > 0.9
    assert all(0.0005 < mask.mean() < 0.2 for mask in masks)


def test_images_without_boxes_have_none(phantoms: Path) -> None:
    listed = read_source(str(phantoms))
    healthy = listed.with_label(0)
    assert canvas_boxes(healthy, Preprocess.breast(64, 32), (1, 1)).rectangles == ((),) * len(healthy)
