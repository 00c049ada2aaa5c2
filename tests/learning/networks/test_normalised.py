"""Convolution, normalisation and activation as one layer, beside Keras' own layers and PyTorch's own gradients."""

from typing import Any

import keras
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d

from mammolens.learning.networks import normalised as room
from mammolens.learning.networks.builders import build, build_learner, hand_back
from mammolens.learning.networks.folded import PRECISION, Network
from mammolens.learning.networks.folded_torch import padded
from mammolens.learning.networks.normalised import Depthwise, NormalisedConvolution
from mammolens.model.recipe import Recipe, read_recipe

SMALL = ("preprocess.height=64", "preprocess.width=48", "dense_dropout=0")
BASELINE = read_recipe("baseline", ["convolution_dropout=0", *SMALL])
LITE = read_recipe("lesions", ["initial_weights=none", "drop_connect=0", "frozen_stages=0", "boxes=0", *SMALL])
FROZEN = LITE.model_copy(update={"frozen_stages": 3})


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in 32 bits: what is left are differences of principle."""
    monkeypatch.setattr(room, "precision", lambda: "float32")


def built(recipe: Recipe) -> tuple[Network, Network]:
    """A network whose normalisations scale and shift, and what learns in its place."""
    keras.utils.set_random_seed(0)
    network, generator = build(recipe), np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return network, build_learner(network, recipe)


def images(count: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(2).random((count, 64, 48, 1), dtype=np.float32)


def taught(network: Network) -> Any:
    """What a network answers in training, once gradients of a loss are known."""
    network.zero_grad()
    answers = network(images(), training=True)
    keras.losses.BinaryCrossentropy()(np.tile([[0.0], [1.0]], (4, 1)), answers).backward()
    return answers.detach()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("places", [(8, 6), (7, 9), (1, 2)])
def test_gradients_of_a_depthwise_convolution_are_those_of_autograd(
    places: tuple[int, int], kernel: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_CACHED", 2 * 4 * 8 * 6 * 8)  # some images at a time
    generator = torch.Generator().manual_seed(0)
    shown, kernels = (
        torch.randn(shape, generator=generator, dtype=torch.float32).requires_grad_()
        for shape in ((5, 4, *places), (4, 1, kernel, kernel))
    )
    wide, padding = padded(shown, kernel, stride)
    plain = conv2d(wide, kernels, None, stride, padding, 1, 4)
    ours = Depthwise.apply(shown, kernels, stride)
    torch.testing.assert_close(ours, plain)
    above = torch.randn(plain.shape, generator=generator)
    found, expected = (torch.autograd.grad(made, (shown, kernels), above) for made in (ours, plain))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("recipe", [BASELINE, LITE, FROZEN], ids=["baseline", "lite", "frozen"])
def test_in_32_bits_answers_gradients_and_statistics_are_those_of_keras_own_layers(recipe: Recipe) -> None:
    network, learner = built(recipe)
    assert any(isinstance(layer, NormalisedConvolution) for layer in learner.layers)
    torch.testing.assert_close(taught(learner), taught(network), rtol=0, atol=1e-4)
    largest = max(float(weight.value.grad.norm()) for weight in network.trainable_weights)
    for mine, theirs in room._pairs(learner, network):
        assert (mine.value.grad is None) == (theirs.value.grad is None), mine.path
        if mine.value.grad is None:
            torch.testing.assert_close(mine.value, theirs.value, rtol=1e-3, atol=1e-4)
        else:
            # Keras' variance, the mean square less the square of the mean, is the less exact one.
            assert (mine.value.grad - theirs.value.grad).norm() < 5e-3 * largest, mine.path


@pytest.mark.parametrize("recipe", [BASELINE, LITE], ids=["baseline", "lite"])
def test_what_was_learnt_in_16_bits_goes_back_into_the_ordinary_network(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "precision", lambda: PRECISION)
    network, learner = built(recipe)
    before = network(images(), training=False).detach()
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in learner.weights} <= {"float32", "int64"}
    learner.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    learner.train_on_batch(images(), np.tile([[0.0], [1.0]], (4, 1)))
    hand_back(learner, network, recipe)
    after, ours = (one(images(), training=False).detach() for one in (network, learner))
    assert (after - before).abs().max() > 0.01
    assert (after - ours).abs().max() < 0.05
    assert not {id(weight) for weight in learner.weights} & {id(weight) for weight in network.weights}


@pytest.mark.parametrize(("native", "dtype"), [(False, "float32"), (True, PRECISION)])
def test_a_gpu_that_keras_leaves_alone_does_not_say_what_the_processor_computes_in(
    native: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with KERAS_TORCH_DEVICE=cpu: 16 bits that a processor does not multiply take many times as long."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert room.precision() == dtype


@pytest.mark.usefixtures("exact")
def test_a_bias_before_a_normalisation_changes_no_answer_before_or_after_learning() -> None:
    network = build(BASELINE)  # such as one that another run was trained as: noise alone moves its biases
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.bias.assign(generator.uniform(-1, 1, layer.bias.shape))
    before = network(images(), training=False).detach()
    learner = build_learner(network, BASELINE)
    torch.testing.assert_close(learner(images(), training=False).detach(), before, rtol=0, atol=1e-5)
    learner(images(), training=True)
    hand_back(learner, network, BASELINE)
    after, ours = (one(images(), training=False).detach() for one in (network, learner))
    torch.testing.assert_close(after, ours, rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 1e-4
