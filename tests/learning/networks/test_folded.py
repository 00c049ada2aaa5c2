"""Folded convolutions, as any backend computes them and as PyTorch does."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d, hardtanh, pad

from mammolens.learning.networks import efficientnet_lite as lite
from mammolens.learning.networks import folded as room
from mammolens.learning.networks.builders import build, build_learner
from mammolens.learning.networks.efficientnet_lite import STAGES, efficientnet_lite, layers_by_stage
from mammolens.learning.networks.folded import FoldedConvolution, Network, fold, same_padding, take_statistics, unfold
from mammolens.learning.networks.folded_torch import Depthwise
from mammolens.learning.runs import save_network
from mammolens.model.recipe import Recipe, read_recipe

Tensors = tuple[Any, ...]

PLACES = [(8, 6), (7, 9), (5, 8), (1, 2)]
"""Rows and columns, even and odd, and fewer than a kernel has."""


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


def array(tensor: Any) -> NDArray[np.float32]:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in 32 bits: what is left are differences of principle."""
    for module in (room, lite):
        monkeypatch.setattr(module, "PRECISION", "float32")


@pytest.fixture(scope="module")
def known() -> Network:
    """Lite0 on images of 64 × 48 whose normalisations all scale and shift."""
    keras.utils.set_random_seed(0)
    network = efficientnet_lite(0, 64, 48, weights=None)
    generator = np.random.default_rng(1)
    for norm in norms(network):
        gamma, beta, *others = norm.get_weights()
        gamma, beta = generator.uniform(0.5, 1.5, gamma.shape), generator.normal(0.3, 0.3, beta.shape)
        norm.set_weights([gamma, beta, *others])
    take_statistics(network, [noise(8, 64, 48, 1)])
    return network


def norms(network: Network) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]


def convolutions(network: Network) -> Iterator[FoldedConvolution]:
    return (layer for layer in network.layers if isinstance(layer, FoldedConvolution))


def folded_of(network: Network) -> Network:
    learner = efficientnet_lite(0, 64, 48, as_one="folded")
    fold(network, learner)
    return learner


def small(*changes: str) -> Recipe:
    size = ["preprocess.height=64", "preprocess.width=32", "initial_weights=none"]
    still = ["normalisation=folded", "pooling=attention", "dense_dropout=0", "drop_connect=0", "frozen_stages=0"]
    return read_recipe("lesions", [*size, *still, *changes])


def padded(images: Any, kernel: int, stride: int) -> Any:
    """Padded as TensorFlow's documentation of "same" has it."""
    sides: list[int] = []
    for size in reversed(images.shape[2:]):
        over = kernel - stride if size % stride == 0 else kernel - size % stride
        sides += [max(over, 0) // 2, max(over, 0) - max(over, 0) // 2]
    return pad(images, sides)


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_of_a_depthwise_convolution_are_those_of_autograd(
    kernel: int, stride: int, places: tuple[int, int]
) -> None:
    images, strength, shift = (
        torch.from_numpy(values).requires_grad_()
        for values in (normal(3, 4, *places), normal(4, seed=1), 2 + normal(4, seed=2))
    )
    kernels = torch.from_numpy(normal(4, 1, kernel, kernel, seed=3))
    ours = Depthwise.apply(images, kernels, strength, shift, stride)
    weights = kernels * strength[:, None, None, None]
    plain = hardtanh(conv2d(padded(images, kernel, stride), weights, shift, stride, groups=4), 0, 6)
    assert ((plain > 0) & (plain < 6)).any()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    above = torch.from_numpy(normal(*plain.shape, seed=4))
    found, expected = (torch.autograd.grad(made, (images, strength, shift), above) for made in (ours, plain))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_a_depthwise_convolution_of_no_strength_has_finite_gradients() -> None:
    images, strength, shift = (
        torch.from_numpy(values).requires_grad_() for values in (normal(1, 2, 4, 4), np.zeros(2), np.full(2, 1.5))
    )
    made = Depthwise.apply(images, torch.from_numpy(normal(2, 1, 3, 3)), strength, shift, 1)
    for gradient in torch.autograd.grad(made.sum(), (images, strength, shift)):
        assert torch.isfinite(gradient).all()


def layer_of(filters: int | None, stride: int, data_format: room.DataFormat, *, activated: bool) -> FoldedConvolution:
    """A layer of 3 × 3 on 4 channels with weights like those of a taught one."""
    layer = FoldedConvolution(filters, 3, stride, data_format, activated=activated)
    layer.build((None, 4, 7, 6) if data_format == "channels_first" else (None, 7, 6, 4))
    out = filters or 4
    layer.kernel.assign(0.5 * normal(3, 3, 4, filters or 1))
    for seed, weight in enumerate((layer.scale, layer.gain, layer.shift), 1):
        weight.assign((weight is not layer.gain) + 0.3 * normal(out, seed=seed))
    return layer


def gradients(layer: FoldedConvolution, images: NDArray[np.float32]) -> tuple[Any, Tensors]:
    """What the layer makes, and the gradients of a sum by images, gain, shift and, if it learns, kernel."""
    given = torch.from_numpy(images).requires_grad_()
    made = layer(given, training=True)
    by = [given, layer.gain.value, layer.shift.value, *([layer.kernel.value] if layer.filters else [])]
    channels = made if layer.data_format == "channels_first" else made.permute(0, 3, 1, 2)
    above = torch.from_numpy(normal(*channels.shape, seed=9)).to(made.dtype)
    return channels, torch.autograd.grad(channels, by, above)


KINDS = [(6, 1, True), (6, 2, True), (6, 1, False), (None, 1, True), (None, 2, True), (None, 1, False)]
"""Filters, stride, and whether values are cut."""


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("filters", "stride", "activated"), KINDS)
def test_it_is_a_convolution_by_scaled_kernels_a_shift_and_relu6(
    filters: int | None, stride: int, *, activated: bool
) -> None:
    layer, images = layer_of(filters, stride, "channels_first", activated=activated), noise(3, 4, 7, 6)
    made, found = gradients(layer, images)
    given, kernel, gain, shift = (
        torch.from_numpy(np.array(values)).requires_grad_()
        for values in (images, *map(keras.ops.convert_to_numpy, (layer.kernel, layer.gain, layer.shift)))
    )
    scale = torch.from_numpy(np.array(keras.ops.convert_to_numpy(layer.scale)))
    strength = scale * (1 + gain)
    weights = (
        (kernel * strength).permute(3, 2, 0, 1) if filters else (kernel[..., 0] * strength).permute(2, 0, 1)[:, None]
    )
    plain = conv2d(padded(given, 3, stride), weights, shift, stride, groups=1 if filters else 4)
    plain = hardtanh(plain, 0, 6) if activated or not filters else plain
    torch.testing.assert_close(made, plain, rtol=0, atol=1e-5)
    above = torch.from_numpy(normal(*plain.shape, seed=9)).float()
    by = [given, gain, shift, *([kernel] if filters else [])]
    for mine, theirs in zip(found, torch.autograd.grad(plain, by, above), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("filters", "stride", "activated"), KINDS)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_other_backends_compute_the_same(
    data_format: room.DataFormat,
    filters: int | None,
    stride: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    activated: bool,
) -> None:
    """They take the way that `keras.ops` spells out; JAX and TensorFlow need not be here to try it."""
    images = noise(3, 4, 7, 6)
    made, expected = gradients(layer_of(filters, stride, "channels_first", activated=activated), images)
    layer = layer_of(filters, stride, data_format, activated=activated)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    turned = images if data_format == "channels_first" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    plain, found = gradients(layer, turned)
    torch.testing.assert_close(plain, made, rtol=0, atol=1e-5)
    by_images = found[0] if data_format == "channels_first" else found[0].permute(0, 3, 1, 2)
    for mine, theirs in zip((by_images, *found[1:]), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("filters", [None, 6])
@pytest.mark.parametrize("size", [(7, 6), (8, 5)])
def test_shapes_are_known_beforehand(size: tuple[int, int], filters: int | None) -> None:
    layer = FoldedConvolution(filters, 5, 2, "channels_first")
    images = noise(2, 4, *size)
    assert layer.compute_output_shape(images.shape) == tuple(layer(images).shape)
    last = FoldedConvolution(filters, 5, 2, "channels_last")
    assert last.compute_output_shape((None, *size, 4)) == (None, 4, 3, filters or 4)
    assert last.compute_output_shape((None, None, None, 4)) == (None, None, None, filters or 4)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 1), (8, 3, 2), (7, 3, 2), (7, 5, 2), (8, 5, 2), (1, 5, 2)]
)
def test_padding_is_that_of_tensorflow(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert padded(torch.zeros(1, 1, 1, size), kernel, stride).shape[-1] == size + before + after
    assert after - before in {0, 1}


@pytest.mark.usefixtures("exact")
def test_a_folded_network_answers_as_the_ordinary_one(known: Network) -> None:
    learner, pixels = folded_of(known), noise(3, 64, 48, 1, seed=5)
    assert learner.output_shape == known.output_shape
    expected = array(known(pixels, training=False))
    assert expected.std() > 0.3
    for training in (True, False):  # statistics are fixed
        np.testing.assert_allclose(array(learner(pixels, training=training)), expected, rtol=0, atol=1e-4)


def test_in_16_bits_it_answers_within_their_precision(known: Network) -> None:
    learner, pixels = folded_of(known), noise(3, 64, 48, 1, seed=5)
    made = learner(pixels, training=True)
    assert keras.backend.standardize_dtype(made.dtype) == "bfloat16"
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in learner.weights} == {"float32"}
    expected = array(known(pixels, training=False))
    difference = array(made) - expected
    assert np.sqrt(np.mean(difference**2)) < 0.15 * expected.std()  # of 49 roundings, one upon the other


@pytest.mark.parametrize(("filters", "stride", "activated"), KINDS)
def test_in_16_bits_one_layer_is_rounded_and_no_more(
    filters: int | None, stride: int, monkeypatch: pytest.MonkeyPatch, *, activated: bool
) -> None:
    images = noise(3, 4, 7, 6)
    made, found = gradients(layer_of(filters, stride, "channels_first", activated=activated), images)
    monkeypatch.setattr(room, "PRECISION", "float32")
    expected, exactly = gradients(layer_of(filters, stride, "channels_first", activated=activated), images)
    for mine, theirs in zip((made, *found), (expected, *exactly), strict=True):
        assert (mine.float() - theirs).square().mean().sqrt() < 0.05 * theirs.std()
    assert {gradient.dtype for gradient in found[1:]} == {torch.float32}


@pytest.mark.usefixtures("exact")
def test_what_was_learnt_goes_back_into_the_ordinary_network(known: Network) -> None:
    learner, pixels = folded_of(known), noise(3, 64, 48, 1, seed=5)
    before = array(learner(pixels))
    generator = np.random.default_rng(2)
    for layer in convolutions(learner):
        for weight in layer.trainable_weights:
            values = keras.ops.convert_to_numpy(weight)
            spread = 0.2 * values.std() if weight is layer.kernel else 0.1
            weight.assign(values + generator.normal(0, spread, values.shape))
    network = efficientnet_lite(0, 64, 48, weights=None)
    unfold(learner, network)
    learnt = array(learner(pixels))
    assert np.abs(learnt - before).max() > 0.5
    np.testing.assert_allclose(array(network(pixels, training=False)), learnt, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("exact")
def test_folding_takes_the_head_along() -> None:
    network = build(small("pooling=attention_and_peak"))
    learner = build_learner(network, small("pooling=attention_and_peak"))
    pixels = noise(3, 64, 32, 1)
    np.testing.assert_allclose(array(learner(pixels)), array(network(pixels, training=False)), rtol=0, atol=1e-5)
    assert not {id(weight) for weight in learner.weights} & {id(weight) for weight in network.weights}


def test_frozen_stages_scales_and_depthwise_kernels_learn_nothing_and_all_else_does() -> None:
    recipe = small("frozen_stages=3")
    learner = build_learner(build(recipe), recipe)
    frozen = {layer.name for stage in STAGES[:3] for layer in layers_by_stage(learner)[stage]}
    before = {weight.path: array(weight) for weight in learner.weights}
    learner.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    learner.train_on_batch(noise(4, 64, 32, 1), np.array([[0], [1], [0], [1]], np.float32))
    for layer in learner.layers:
        fixed = ["scale", *(["kernel"] if getattr(layer, "filters", 1) is None else [])]
        for weight in layer.weights:
            still = layer.name in frozen or (isinstance(layer, FoldedConvolution) and weight.name in fixed)
            assert (weight.value.grad is None) == still, weight.path
            assert (array(weight) == before[weight.path]).all() == still, weight.path
    assert frozen


def test_statistics_are_those_of_the_images_and_nothing_else_changes() -> None:
    keras.utils.set_random_seed(0)
    network = efficientnet_lite(0, 64, 48, weights=None, batch_norm_momentum=0.9)
    for layer in layers_by_stage(network)["stem"]:
        layer.trainable = False
    learns = [weight.trainable for weight in network.weights]
    before = {weight.path: array(weight) for weight in network.weights}
    pixels = 0.3 * noise(12, 64, 48, 1) * np.linspace(0.2, 1, 12, dtype=np.float32)[:, None, None, None]
    take_statistics(network, iter(np.split(pixels, 3)))
    for weight in network.weights:
        moved = weight.name.startswith("moving_")
        assert (array(weight) != before[weight.path]).any() == moved, weight.path
    assert [weight.trainable for weight in network.weights] == learns
    assert {norm.momentum for norm in norms(network)} == {0.9}
    stem = array(keras.Model(network.input, network.get_layer("stem").output)(pixels))
    stem = np.moveaxis(stem, 1, -1) if network.get_layer("stem").data_format == "channels_first" else stem
    *_, mean, variance = network.get_layer("stem_norm").get_weights()
    within = np.mean([part.var(axis=(0, 1, 2)) for part in np.split(stem, 3)], axis=0)
    np.testing.assert_allclose(mean, stem.mean(axis=(0, 1, 2)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(variance, within, rtol=0.002, atol=1e-6)


def test_what_is_left_opens_as_layers_of_keras_alone(tmp_path: Path) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    recipe, pixels = small(), noise(2, 64, 32, 1)
    network = build(recipe)
    unfold(build_learner(network, recipe), network)
    save_network(network, tmp_path / "breast.h5")
    opened = keras.saving.load_model(tmp_path / "breast.h5", compile=False)
    assert all(type(layer).__module__.startswith("keras.") for layer in opened.layers)
    assert all(layer.compute_dtype == "float32" for layer in opened.layers)
    np.testing.assert_allclose(array(opened(pixels)), array(network(pixels)), atol=1e-6)
