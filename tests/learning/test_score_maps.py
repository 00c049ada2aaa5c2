from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from numpy.typing import NDArray

from mammolens.learning.networks import Network, baseline_cnn
from mammolens.learning.score_maps import with_score_map


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def network(*head: Any) -> Network:
    """A small convolutional body, (16, 12) pixels in and 4 × 3 places out, below a head."""
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 12, 1))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    x = layers.MaxPooling2D(4)(x)
    for layer in head:
        x = layer(x)
    built = keras.Model(image, x)
    for weight in built.weights:  # fresh normalisations and biases would do nothing
        weight.assign(keras.ops.convert_to_numpy(weight) + 0.6 * (noise(*weight.shape) - 0.5))
    return built


def probability() -> Any:
    return layers.Dense(1, activation="sigmoid")


def hidden() -> list[Any]:
    return [layers.Dense(8), layers.BatchNormalization(), layers.Activation("relu")]


HEADS: dict[str, list[Any]] = {
    "flat": [layers.Flatten(), probability()],
    "pooled": [layers.GlobalAveragePooling2D(), layers.Dropout(0.5), probability()],
    "as the baseline": [layers.Flatten(), *hidden(), layers.Dropout(0.5), probability()],
    "pooled, two hidden": [
        layers.GlobalAveragePooling2D(),
        layers.Dense(8, activation="relu"),
        layers.BatchNormalization(scale=False),
        layers.Dense(5),
        layers.ReLU(),
        layers.Dense(1, activation="sigmoid", use_bias=False),
    ],
}


def shares(built: Network, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Activation times gradient of the logit, by PyTorch's own gradient engine."""
    kinds = (layers.Flatten, layers.GlobalAveragePooling2D)
    start = next(i for i, layer in enumerate(built.layers) if isinstance(layer, kinds))
    body = keras.Model(built.inputs, built.layers[start].input)
    features = body(torch.from_numpy(pixels)).detach().requires_grad_()
    x = features
    *head, last = built.layers[start:]
    for layer in head:
        x = layer(x, training=False) if isinstance(layer, layers.BatchNormalization) else layer(x)
    logits = x @ last.kernel.value  # a bias has no share
    (gradient,) = torch.autograd.grad(logits.sum(), features)
    return np.asarray((features * gradient).sum(-1).detach())


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_each_place_has_its_share_of_the_logit(head: list[Any]) -> None:
    pixels = noise(5, 16, 12, 1)
    built = network(*head)
    mapped = with_score_map(built)
    assert mapped is not None
    expected = built.predict(pixels, verbose=0)
    found, score_map = mapped.predict(pixels, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert score_map.shape == (5, 4, 3, 1)
    towards = np.maximum(shares(built, pixels), 0)
    largest = towards.max(axis=(1, 2), keepdims=True)
    scaled = expected[:, :, np.newaxis] * towards / np.where(largest > 0, largest, 1)
    np.testing.assert_allclose(score_map[..., 0], scaled, atol=1e-4)


def test_the_hottest_place_has_the_probability_of_the_picture() -> None:
    keras.utils.set_random_seed(0)
    mapped = with_score_map(baseline_cnn(32, 32))
    assert mapped is not None
    probabilities, score_map = mapped.predict(noise(6, 32, 32, 1), verbose=0)
    assert score_map.shape == (6, 4, 4, 1)
    assert score_map.min() >= 0
    np.testing.assert_allclose(score_map.max(axis=(1, 2, 3)), probabilities[:, 0], atol=1e-6)


def test_where_nothing_speaks_for_a_tumor_the_map_is_dark() -> None:
    built = network(layers.Flatten(), probability())
    kernel, bias = built.layers[-1].weights
    kernel.assign(-np.abs(keras.ops.convert_to_numpy(kernel)))
    bias.assign([40.0])
    mapped = with_score_map(built)
    assert mapped is not None
    found, score_map = mapped.predict(noise(2, 16, 12, 1), verbose=0)
    assert (found > 0.5).all()
    assert (score_map == 0).all()


@pytest.mark.parametrize(
    "head",
    [
        [layers.GlobalMaxPooling2D(), probability()],
        [layers.Flatten(), layers.Dense(2, activation="softmax")],
        [layers.Flatten(), layers.Dense(1), layers.Activation("sigmoid")],
        [layers.Flatten(), layers.Dense(4, activation="tanh"), probability()],
        [layers.Flatten(), layers.Dense(4), layers.ReLU(max_value=6), probability()],
        [layers.Flatten(), layers.LayerNormalization(), probability()],
        [layers.GlobalAveragePooling2D(data_format="channels_first"), probability()],
        [layers.GlobalAveragePooling2D(), layers.Flatten(), probability()],
        [layers.Flatten()],
    ],
    ids=lambda head: "-".join(layer.name for layer in head),
)
def test_a_head_that_is_not_understood_has_no_map(head: list[Any]) -> None:
    assert with_score_map(network(*head)) is None


def test_a_network_within_a_network_has_no_map() -> None:
    inner = network(layers.Flatten(), probability())
    image = keras.Input((16, 12, 1))
    assert with_score_map(keras.Model(image, inner(image))) is None


def test_making_a_map_leaves_the_network_as_it_was() -> None:
    built = network(layers.Flatten(), *hidden(), probability())
    before = built.get_weights()
    with_score_map(built)
    assert len(built.outputs) == 1
    for one, other in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
