from pathlib import Path

import keras
import numpy as np
import pytest

from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.learning.features import Frozen, cut
from mammolens.learning.networks import build
from mammolens.model.recipe import Recipe, read_recipe


@pytest.fixture
def recipe() -> Recipe:
    changes = ["preprocess.height=64", "preprocess.width=32", "initial_weights=none"]
    return read_recipe("lesions", [*changes, "frozen_stages=4"])


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


@pytest.mark.parametrize("stages", [1, 4, 9])
def test_frozen_stages_are_those_of_the_network(stages: int, recipe: Recipe, pixels: CachedPixels) -> None:
    frozen, rest = cut(build(recipe), stages)
    images = pixels.take([7, 2, 11])[..., np.newaxis]
    made = Frozen(frozen)(images)
    expected = keras.ops.convert_to_numpy(frozen(images, training=False))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-4, rtol=1e-3)
    assert rest(made, training=False).shape == (3, 1)
