from pathlib import Path

import keras
import numpy as np
import pytest

from mammolens.cache import CachedPixels, prepared_pixels
from mammolens.features import cut, forget_features, frozen_features
from mammolens.networks import build
from mammolens.recipe import Recipe, read_recipe


@pytest.fixture
def recipe() -> Recipe:
    changes = ["preprocess.height=64", "preprocess.width=32", "initial_weights=none"]
    return read_recipe("accurate", [*changes, "frozen_stages=4", "cached_variants=2"])


@pytest.fixture
def pixels(phantoms: Path, recipe: Recipe) -> CachedPixels:
    return prepared_pixels(sorted(phantoms.rglob("*.jpg"))[:20], recipe.preprocess)


def test_both_parts_of_a_cut_network_are_the_network(recipe: Recipe, pixels: CachedPixels) -> None:
    network = build(recipe)
    frozen, rest = cut(network, recipe.frozen_stages)
    images = pixels.take(range(3))[..., np.newaxis]
    halfway = frozen(images, training=False)
    whole = keras.ops.convert_to_numpy(network(images, training=False))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(rest(halfway)), whole, atol=1e-6)
    assert not frozen.trainable_weights
    assert len(rest.trainable_weights) == len(network.trainable_weights)


def test_features_are_what_the_frozen_stages_make(
    recipe: Recipe, pixels: CachedPixels, tmp_path: Path
) -> None:
    frozen, _ = cut(build(recipe), 4)
    features = frozen_features(frozen, pixels, recipe, tmp_path)
    expected = frozen(pixels.take([7, 2])[..., np.newaxis], training=False)
    taken = features.take(np.array([7, 2]))
    np.testing.assert_allclose(taken, keras.ops.convert_to_numpy(expected), atol=0.01, rtol=0.01)
    part = features.subset([5, 7, 2])
    assert (len(features), len(part)) == (20, 3)
    np.testing.assert_array_equal(part.take(np.array([1, 2])), taken)


def test_each_epoch_draws_an_augmented_variant(
    recipe: Recipe, pixels: CachedPixels, tmp_path: Path
) -> None:
    frozen, _ = cut(build(recipe), 4)
    features = frozen_features(frozen, pixels, recipe, tmp_path)
    generator = np.random.default_rng(0)
    one = np.array([4])
    drawn = {features.take(one, generator).tobytes() for _ in range(20)}
    assert len(drawn) == 2
    assert features.take(one).tobytes() not in drawn


def test_features_are_found_again_and_those_of_other_weights_are_not(
    recipe: Recipe, pixels: CachedPixels, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(1)
    frozen, _ = cut(build(recipe), 4)
    frozen_features(frozen, pixels, recipe, tmp_path)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    frozen_features(frozen, pixels, recipe, tmp_path)
    assert kept.stat().st_mtime_ns == written
    frozen_features(cut(build(recipe), 4)[0], pixels, recipe, tmp_path)
    frozen_features(frozen, pixels.subset(range(5)), recipe, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    forget_features(tmp_path)
    assert not list(tmp_path.iterdir())
