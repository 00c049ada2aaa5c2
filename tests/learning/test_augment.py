import numpy as np
import pytest

from mammolens.learning.augment import augmented, augmented_alike
from mammolens.model.recipe import Augment


def images(count: int = 64) -> np.ndarray:
    """A bright square off centre on grey."""
    stack = np.full((count, 32, 32), 0.2, np.float32)
    stack[:, 6:14, 4:10] = 0.8
    return stack


def change(augment: Augment, seed: int = 0) -> np.ndarray:
    return augmented(images(), augment, np.random.default_rng(seed))


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
        changed = augmented(dark, augment, np.random.default_rng(0))
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
    generator = np.random.default_rng(0)
    changed, moved = augmented_alike(images(), masks, augment, generator)
    np.testing.assert_array_equal(changed, change(augment))
    assert ((changed > 0.6) <= (moved > 0.5)).all()
    assert ((moved > 0.9) <= (changed > 0.7)).all()
