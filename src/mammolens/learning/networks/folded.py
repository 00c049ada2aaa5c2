"""Convolutions with their batch normalisation folded in: what makes a step of training fast on a processor.

Once batch statistics are fixed, a normalisation is a scale and a shift a channel. Here a convolution
has its own weights, the scale that the statistics give, a gain that starts at zero and a shift; in a
step it is `kernel * scale * (1 + gain)`, computed in bfloat16. So weights keep the size that learning
rates are made for. Depthwise kernels stay as they are, so that nothing but sums and one more
convolution is left of their backward pass. After training all goes back into the ordinary network.
"""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

DataFormat = Literal["channels_first", "channels_last"]
Tensor = Any  # a `keras.KerasTensor`; Keras ships no type information
Network = Any

PRECISION = "mixed_bfloat16"  # computes in 16 bits; weights are 32-bit floats


class FoldedConvolution(layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A convolution, padded as TensorFlow's "same", its folded normalisation and ReLU6, as one step.

    In: (images, channels, rows, columns) or with channels last. Out: likewise, rows and columns
    divided by `stride`, rounded up.

    Args:
        filters: out; None convolves each channel alone, by a kernel that does not learn.
        kernel: rows and columns.
        stride: in both directions.
        data_format: where channels are.
        activated: whether values are cut to 0 to 6; those of channels convolved alone always are.
        name: of the layer.
    """

    def __init__(
        self,
        filters: int | None,
        kernel: int,
        stride: int,
        data_format: DataFormat,
        *,
        activated: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(dtype=PRECISION, name=name)
        self.filters, self.size, self.stride = filters, kernel, stride
        self.activated = activated or filters is None
        self.data_format = data_format

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights: as an ordinary convolution that no normalisation follows."""
        channels = input_shape[1 if self.data_format == "channels_first" else -1]
        shape = (self.size, self.size, channels, self.filters or 1)
        out = (self.filters or channels,)
        self.kernel = self._weight("kernel", shape, "glorot_uniform", learns=bool(self.filters))
        self.scale = self._weight("scale", out, "ones", learns=False)
        self.gain = self._weight("gain", out, "zeros")
        self.shift = self._weight("shift", out, "zeros")

    def _weight(self, name: str, shape: tuple[int | None, ...], initial: str, *, learns: bool = True) -> keras.Variable:
        # Not cast of itself: products are rounded to 16 bits, their factors are not.
        return self.add_weight(name=name, shape=shape, initializer=initial, trainable=learns, autocast=False)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of what comes out."""
        first = self.data_format == "channels_first"
        images, *places = input_shape
        channels = places.pop(0) if first else places.pop()
        smaller = [size and -(-size // self.stride) for size in places]
        filters = self.filters or channels
        return (images, filters, *smaller) if first else (images, *smaller, filters)

    def call(self, inputs: Tensor) -> Tensor:
        """Convolve, shift and cut."""
        if keras.backend.backend() == "torch" and self.data_format == "channels_first":
            from mammolens.learning.networks import folded_torch  # noqa: PLC0415 - other backends need no PyTorch

            return folded_torch.convolve(self, inputs)
        strength = self.scale * (1 + self.gain)
        options = {"strides": self.stride, "padding": "same", "data_format": self.data_format}
        if self.filters:
            x = ops.conv(inputs, ops.cast(self.kernel * strength, self.compute_dtype), **options)
        else:
            kernel = self.kernel * ops.reshape(strength, (1, 1, -1, 1))
            x = ops.depthwise_conv(inputs, ops.cast(kernel, self.compute_dtype), **options)
        along = (1, -1, 1, 1) if self.data_format == "channels_first" else (1, 1, 1, -1)
        x = x + ops.reshape(ops.cast(self.shift, self.compute_dtype), along)
        return ops.clip(x, 0, 6) if self.activated else x


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many zeros padding="same" puts before and after `size` pixels, as TensorFlow has it."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def take_statistics(network: Network, batches: Iterable[Tensor]) -> None:
    """Have batch normalisations know mean and variance of these images in place of those before.

    Args:
        network: of ordinary layers; nothing else of it changes.
        batches: pixels, (images, height, width, 1); the mean over them is what is known then.
    """
    norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    before = [(norm.momentum, norm.trainable) for norm in norms]
    for norm in norms:
        norm.trainable = True
    with without_gradients():
        for done, pixels in enumerate(batches):
            for norm in norms:
                norm.momentum = done / (done + 1)
            network(ops.convert_to_tensor(pixels), training=True)
    for norm, (momentum, trainable) in zip(norms, before, strict=True):
        norm.momentum, norm.trainable = momentum, trainable


def without_gradients() -> AbstractContextManager[object]:
    """Return what keeps PyTorch from holding on to what a backward pass would need."""
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch  # noqa: PLC0415 - of one backend alone

    guard: AbstractContextManager[object] = torch.no_grad()
    return guard


def fold(network: Network, learner: Network) -> None:
    """Give `learner`, built like `network` of folded convolutions, all that `network` knows."""
    for layer in _learning(learner):
        if isinstance(layer, FoldedConvolution):
            (kernel,), norm = network.get_layer(layer.name).get_weights(), network.get_layer(f"{layer.name}_norm")
            gamma, beta, mean, variance = norm.get_weights()
            scale = gamma / np.sqrt(variance + norm.epsilon)
            for weight, value in (
                (layer.kernel, kernel),
                (layer.scale, scale),
                (layer.gain, np.zeros_like(scale)),
                (layer.shift, beta - mean * scale),
            ):
                weight.assign(value)
        else:
            layer.set_weights(network.get_layer(layer.name).get_weights())


def unfold(learner: Network, network: Network) -> None:
    """Give `network` what `learner` has learnt: scales, gains and shifts become its normalisations."""
    for layer in _learning(learner):
        own = network.get_layer(layer.name)
        if isinstance(layer, FoldedConvolution):
            kernel, scale, gain, shift = map(ops.convert_to_numpy, (layer.kernel, layer.scale, layer.gain, layer.shift))
            own.set_weights([kernel])
            norm = network.get_layer(f"{layer.name}_norm")
            norm.set_weights([scale * (1 + gain), shift, np.zeros_like(shift), np.full_like(shift, 1 - norm.epsilon)])
        else:
            own.set_weights(layer.get_weights())


def _learning(learner: Network) -> list[Any]:
    return [layer for layer in learner.layers if layer.weights]
