from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from keras import layers, ops
from numpy.typing import NDArray

from mammolens.errors import BundleError
from mammolens.images.cache import prepared_pixels
from mammolens.learning import onnx_model
from mammolens.learning.networks.builders import baseline_cnn
from mammolens.learning.networks.folded import Network
from mammolens.learning.onnx_model import Served, parity, round_weights, to_onnx, with_score_map
from mammolens.learning.runs import Run

Floats = NDArray[np.float32]


def pixels(count: int = 5) -> Floats:
    return np.random.default_rng(0).random((count, 32, 32), dtype=np.float32)


def opened(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def answers(model: bytes, images: Floats) -> list[Floats]:
    found: list[Floats] = opened(model).run(None, {"image": images[..., np.newaxis]})
    return found


def plain(seed: int = 0) -> Network:
    """A network of few layers with random weights; most of them are in one of the layers."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((32, 32, 1))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(image))
    x = layers.Flatten()(layers.MaxPooling2D(8)(layers.ReLU()(x)))
    x = layers.BatchNormalization()(layers.Dense(512, activation="relu")(x))
    return keras.Model(image, layers.Dense(1, activation="sigmoid")(x))


def small(seed: int = 0, *, rounded: bool = False) -> Network:
    network = plain(seed)
    if rounded:
        round_weights(network)
    mapped = with_score_map(network)
    assert mapped is not None
    return mapped


@pytest.fixture(scope="module")
def network() -> Network:
    return small()


@pytest.fixture(scope="module")
def model(network: Network) -> bytes:
    return to_onnx(network)


def test_a_trained_network_answers_alike_in_keras_and_onnx_on_real_pixels(run: Run) -> None:
    images = prepared_pixels(run.manifest.paths[:40], run.recipe.preprocess).take(range(40))
    trained = with_score_map(run.load_network())
    assert trained is not None
    expected = trained.predict(images[..., np.newaxis], verbose=0)
    bundled = (run.folder / "bundle" / "model.onnx").read_bytes()
    for ours, theirs in zip(answers(bundled, images), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.ptp(expected[0]) > 0.01, "a network that says the same of all proves nothing"


def test_input_and_outputs_have_their_names_and_the_batch_is_free(model: bytes) -> None:
    session = opened(model)
    (image,) = session.get_inputs()
    assert (image.name, image.shape, image.type) == (
        "image",
        ["images", 32, 32, 1],
        "tensor(float)",
    )
    assert [output.name for output in session.get_outputs()] == ["probability", "score_map"]
    together = answers(model, pixels(5))
    assert [array.shape for array in together] == [(5, 1), (5, 4, 4, 1)]
    for index, image in enumerate(pixels(5)):
        for one, all_of_them in zip(answers(model, image[np.newaxis]), together, strict=True):
            np.testing.assert_allclose(one[0], all_of_them[index], atol=1e-5)


def test_a_network_without_a_map_has_one_output() -> None:
    session = opened(to_onnx(plain()))
    assert [output.name for output in session.get_outputs()] == ["probability"]


def test_the_map_shares_the_weights_of_the_network(network: Network, model: bytes) -> None:
    weights = 4 * network.count_params()
    assert 0.95 * weights < len(model) < 1.2 * weights
    graph = onnx.load_from_string(model).graph
    assert not [node for node in graph.node if node.doc_string], "no paths of this machine inside"


def test_a_network_that_answers_otherwise_is_refused(model: bytes) -> None:
    with pytest.raises(BundleError, match=r"differ by .* Nothing was written"):
        parity(Served(small(seed=1), model, half=False), pixels())


def test_the_difference_is_the_largest_of_all_outputs(
    network: Network, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 <= parity(Served(network, model, half=False), pixels()) <= onnx_model.PARITY
    monkeypatch.setattr(onnx_model, "PARITY", 2.0)
    expected = small(seed=1).predict(pixels()[..., np.newaxis], verbose=0)
    found = answers(model, pixels())
    worst = max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True))
    assert parity(Served(small(seed=1), model, half=False), pixels()) == pytest.approx(worst, abs=1e-5)


def test_what_is_not_a_number_does_not_agree() -> None:
    image = keras.Input((32, 32, 1))
    probability = layers.Dense(1, activation="sigmoid")(layers.Flatten()(image))
    broken = keras.Model(image, [probability, ops.log(-1 - image)])
    with pytest.raises(BundleError, match="differ by nan"):
        parity(Served(broken, to_onnx(broken), half=False), pixels())


def test_half_is_half_the_size_and_answers_as_the_rounded_network(model: bytes) -> None:
    rounded = small(rounded=True)
    halved = to_onnx(rounded, half=True)
    assert 0.45 < len(halved) / len(model) < 0.6
    assert parity(Served(rounded, halved, half=True), pixels()) <= 1e-5
    whole = answers(model, pixels())
    assert any((a != b).any() for a, b in zip(answers(halved, pixels()), whole, strict=True))


def test_rounding_touches_large_weights_only_and_is_done_once() -> None:
    network = small()
    before = [ops.convert_to_numpy(weight).copy() for weight in network.weights]
    round_weights(network)
    once = network.get_weights()
    for old, new in zip(before, once, strict=True):
        expected = old.astype(np.float16).astype(np.float32) if old.size >= 1024 else old
        np.testing.assert_array_equal(new, expected)
    round_weights(network)
    for one, other in zip(once, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def headed(*head: Any) -> Network:
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
    built = headed(*head)
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
    built = headed(layers.Flatten(), probability())
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
    assert with_score_map(headed(*head)) is None


def test_a_network_within_a_network_has_no_map() -> None:
    inner = headed(layers.Flatten(), probability())
    image = keras.Input((16, 12, 1))
    assert with_score_map(keras.Model(image, inner(image))) is None


def test_making_a_map_leaves_the_network_as_it_was() -> None:
    built = headed(layers.Flatten(), *hidden(), probability())
    before = built.get_weights()
    with_score_map(built)
    assert len(built.outputs) == 1
    for one, other in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
