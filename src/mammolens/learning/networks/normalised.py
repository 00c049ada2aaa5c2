"""Convolution, batch normalisation and activation as one layer, in 16 bits: ordinary training, fast on PyTorch.

Keras' own layers spell each of them out in 32 bits. Where a layer is frozen, its normalisation goes into its kernel.
Kernels, scales and shifts stay 32-bit floats, and batch statistics are sums of 32-bit floats. After training all
goes back into the ordinary network.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from keras import layers, ops
from torch.nn.functional import batch_norm, conv2d, hardtanh, pad, relu

from mammolens.learning.networks.folded import PRECISION, Network
from mammolens.learning.networks.folded_torch import by_images_of, padded

Context = Any  # of an operation; PyTorch has no type of it
Sum = Callable[[torch.Tensor], torch.Tensor]  # over several processes
Moments = Callable[[torch.Tensor, Sequence[int]], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

_HIGHEST = 6.0  # of ReLU6
_CACHED = 4 * 2**20  # bytes of images that a processor's cache holds beside all else
_QUICK = 3  # rows and columns of depthwise kernels whose gradient PyTorch has a fast way for


def precision() -> str:
    """Return what layers compute in: 16 bits where the processor, or the GPU that Keras learns on, multiplies such."""
    if ops.zeros(()).device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return PRECISION if native else "float32"


class NormalisedConvolution(layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A convolution, padded as TensorFlow's "same", batch normalisation and an activation, as one step.

    In: (images, channels, rows, columns). Out: likewise, rows and columns divided by `stride`, rounded up.

    Args:
        filters: out; None convolves each channel alone.
        kernel: rows and columns.
        stride: in both directions.
        momentum: share of the moving mean and variance that a step keeps.
        activation: ReLU, ReLU6 (cut to 0 to 6), or none.
        name: of the layer.
        dtype: what it computes in.
    """

    def __init__(
        self,
        filters: int | None,
        kernel: int,
        stride: int,
        momentum: float,
        *,
        activation: Literal["relu", "relu6"] | None = None,
        name: str | None = None,
        dtype: str | None = PRECISION,
    ) -> None:
        super().__init__(dtype=dtype, name=name)
        self.filters, self.size, self.stride = filters, kernel, stride
        self.momentum, self.activation, self.epsilon = momentum, activation, 1e-3
        self.moments: Moments | None = None  # of a batch of which here is a part

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights, as an ordinary convolution and normalisation have them."""
        channels = input_shape[1]
        shape = (self.size, self.size, channels, self.filters or 1)
        out = (self.filters or channels,)

        def weight(name: str, shape: tuple[int | None, ...], initial: str, *, learns: bool = True) -> Any:  # noqa: ANN401
            return self.add_weight(name=name, shape=shape, initializer=initial, trainable=learns, autocast=False)

        self.kernel = weight("kernel", shape, "zeros")
        self.gamma, self.beta = weight("gamma", out, "ones"), weight("beta", out, "zeros")
        self.moving_mean = weight("moving_mean", out, "zeros", learns=False)
        self.moving_variance = weight("moving_variance", out, "ones", learns=False)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of what comes out."""
        images, channels, *places = input_shape
        return (images, self.filters or channels, *(size and -(-size // self.stride) for size in places))

    def call(self, inputs: torch.Tensor, training: bool | None = None) -> torch.Tensor:
        """Convolve, normalise by the batch's own statistics or else the moving ones, and activate."""
        images = inputs.contiguous(memory_format=torch.channels_last)
        kernel, gamma, beta, mean, variance = (weight.value for weight in self.weights_in_order())
        if training and self.trainable and self.moments:
            made = self._normalised(self._convolved(images, kernel, None), self.moments)
        elif training and self.trainable:
            made = batch_norm(
                self._convolved(images, kernel, None),
                mean,
                variance,
                gamma,
                beta,
                True,
                1 - self.momentum,
                self.epsilon,
            )
        else:
            strength = gamma * torch.rsqrt(variance + self.epsilon)
            scaled = kernel * (strength if self.filters else strength[:, None])
            made = self._convolved(images, scaled, beta - mean * strength)
        if self.activation == "relu6":
            return hardtanh(made, 0.0, _HIGHEST, inplace=True)
        return relu(made, inplace=True) if self.activation else made

    def _normalised(self, convolved: torch.Tensor, moments: Moments) -> torch.Tensor:
        found = convolved.float()
        _, gamma, beta, *known = (weight.value for weight in self.weights_in_order())
        mean, variance, count = moments(found, (0, 2, 3))
        with torch.no_grad():
            for moving, now in zip(known, (mean, variance * count / (count - 1)), strict=True):
                moving.lerp_(now, 1 - self.momentum)
        strength = gamma * torch.rsqrt(variance + self.epsilon)
        return (found * strength[:, None, None] + (beta - mean * strength)[:, None, None]).to(convolved.dtype)

    def weights_in_order(self) -> tuple[Any, ...]:
        """Return kernel, scale, shift, moving mean and variance: as the layers have them that it stands for."""
        return self.kernel, self.gamma, self.beta, self.moving_mean, self.moving_variance

    def _convolved(self, images: torch.Tensor, kernel: torch.Tensor, shift: torch.Tensor | None) -> torch.Tensor:
        kernel = kernel.to(images.dtype)
        if self.filters is None and shift is None and images.device.type == "cpu":
            made: torch.Tensor = Depthwise.apply(images, kernel.permute(2, 3, 0, 1), self.stride)
            return made
        wide, padding = padded(images, self.size, self.stride)
        order, groups = ((3, 2, 0, 1), 1) if self.filters else ((2, 3, 0, 1), images.shape[1])
        bias = None if shift is None else shift.to(images.dtype)
        return conv2d(wide, kernel.permute(order), bias, self.stride, padding, 1, groups)


class Depthwise(torch.autograd.Function):  # type: ignore[misc]  # PyTorch has no type of it
    """A depthwise convolution whose backward pass takes about as long as the forward pass.

    PyTorch's own takes up to fifty times as long, in 16 bits and for kernels of 5 × 5.
    """

    @staticmethod
    def forward(  # noqa: D102 - as PyTorch has it
        context: Context, images: torch.Tensor, kernels: torch.Tensor, stride: int
    ) -> torch.Tensor:
        context.save_for_backward(images, kernels)
        context.stride = stride
        wide, padding = padded(images, kernels.shape[-1], stride)
        return conv2d(wide, kernels, None, stride, padding, 1, images.shape[1])

    @staticmethod
    def backward(context: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: D102
        images, kernels = context.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        by_images = by_kernels = None
        if context.needs_input_grad[0]:
            by_images = by_images_of(gradient, kernels, context.stride, images.shape[2:])
        if context.needs_input_grad[1]:
            by_kernels = _by_kernels(images, gradient, kernels, context.stride)
        return by_images, by_kernels, None


def _by_kernels(images: torch.Tensor, gradient: torch.Tensor, kernels: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the gradient by kernels: of 5 × 5, by its four corners of 3 × 3, for which there is a fast way.

    Of a few images at a time, which stay in the processor's cache meanwhile.
    """
    size = kernels.shape[-1]
    part = min(size, _QUICK)
    corners = [(top, left) for top in {0, size - part} for left in {0, size - part}]
    rows, columns = ((n - 1) * stride + part for n in gradient.shape[2:])
    first = kernels[:, :, :part, :part].contiguous()
    found = torch.zeros_like(kernels, dtype=torch.promote_types(kernels.dtype, torch.float32))
    few = max(1, _CACHED // (images[0].nbytes + 1))
    for some, above in zip(images.split(few), gradient.split(few), strict=True):
        wide, (down, across) = padded(some, size, stride)
        wide = pad(wide, (across, across, down, down)) if down or across else wide
        sums = torch.zeros_like(found)
        for top, left in corners:
            corner = wide[:, :, top : top + rows, left : left + columns].contiguous(memory_format=torch.channels_last)
            sums[:, :, top : top + part, left : left + part] = torch.ops.aten.convolution_backward(
                above,
                corner,
                first,
                None,
                [stride] * 2,
                [0, 0],
                [1, 1],
                False,
                [0, 0],
                len(kernels),
                [False, True, False],
            )[1]
        found += sums
    return found.to(kernels.dtype)


class _Summed(torch.autograd.Function):  # type: ignore[misc]  # PyTorch has no type of it
    """A sum over processes, whose gradient is that of all they make of it."""

    @staticmethod
    def forward(context: Context, tensor: torch.Tensor, total: Sum) -> torch.Tensor:
        context.total = total
        return total(tensor)

    @staticmethod
    def backward(context: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return context.total(gradient), None


def moments(values: torch.Tensor, axes: Sequence[int], total: Sum, part: float) -> tuple[torch.Tensor, ...]:
    """Return mean and variance over a batch that several processes have parts of, and how many values that is of.

    Args:
        values: this process's.
        axes: over which, besides over processes; one axis is left.
        total: the sum over processes.
        part: 1, or 0 where this process has no part.
    """
    own = torch.stack([values.sum(axes), (values * values).sum(axes)])
    count = own.new_full((1,), values.numel() // own.shape[1])
    *sums, count = _Summed.apply(torch.cat([own.flatten(), count]) * part, total).tensor_split([own.numel()])
    mean, square = (sums[0] / count).view_as(own)
    return mean, (square - mean * mean).clamp(min=0), count


def normalise(network: Network, learner: Network) -> None:
    """Give `learner`, built like `network` of these layers, all that `network` knows.

    A bias before a normalisation, which learners have none of, first goes into the mean that is taken off next:
    `network` answers as before.
    """
    norms = _norms(network)
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D) and layer.use_bias and id(layer.output) in norms:
            norms[id(layer.output)].moving_mean.assign_sub(layer.bias)
            layer.bias.assign(layer.bias * 0)
    for mine, theirs in _pairs(learner, network):
        mine.assign(theirs)


def hand_back(learner: Network, network: Network) -> None:
    """Give `network` what `learner` has learnt."""
    for mine, theirs in _pairs(learner, network):
        theirs.assign(mine)


def _norms(network: Network) -> dict[int, Any]:
    """Return normalisations by what goes into them."""
    return {id(layer.input): layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)}


def _pairs(learner: Network, network: Network) -> Iterator[tuple[Any, Any]]:
    """Yield the variables of both that stand for the same; a bias before a normalisation, which has no say, stays."""
    norms = _norms(network)
    left = [layer for layer in network.layers if layer.weights]
    for mine in (layer for layer in learner.layers if isinstance(layer, NormalisedConvolution)):
        convolution = network.get_layer(mine.name)
        norm = norms[id(convolution.output)]
        left = [layer for layer in left if layer not in (convolution, norm)]
        yield from zip(mine.weights_in_order(), (convolution.kernel, *norm.weights), strict=True)
    others = (layer for layer in learner.layers if layer.weights and not isinstance(layer, NormalisedConvolution))
    for mine, theirs in zip(others, left, strict=True):
        yield from zip(mine.weights, theirs.weights, strict=True)
