"""Folded convolutions where PyTorch is Keras' backend: fused, and with a backward pass of our own.

Images come as (images, channels, rows, columns) and lie in memory with channels last, which
PyTorch's convolutions are fastest on. Of a depthwise convolution in bfloat16, PyTorch's own backward
pass takes several times as long as the forward pass. As kernels are fixed here, the gradient by the
images is itself a depthwise convolution, by the kernel turned round, of the gradient with zeros
put between its pixels where the stride is 2; those by gain and shift are sums.
"""

from typing import Any

import torch
from torch.nn.functional import conv2d, hardtanh, pad

from mammolens.learning.networks.folded import FoldedConvolution, same_padding

Context = Any  # of an operation; PyTorch has no type of it

_HIGHEST = 6.0  # of ReLU6


def convolve(layer: FoldedConvolution, images: torch.Tensor) -> torch.Tensor:
    """Return what the layer makes of `images`, in their precision."""
    images = images.contiguous(memory_format=torch.channels_last)
    kernel, scale, gain, shift = (w.value for w in (layer.kernel, layer.scale, layer.gain, layer.shift))
    strength = scale * (1 + gain)
    if layer.filters is None:
        made: torch.Tensor = Depthwise.apply(
            images, kernel[..., 0].permute(2, 0, 1)[:, None], strength, shift, layer.stride
        )
        return made
    weights = (kernel * strength).to(images.dtype).permute(3, 2, 0, 1)
    wide, padding = padded(images, layer.size, layer.stride)
    convolved = conv2d(wide, weights, shift.to(images.dtype), layer.stride, padding)
    return hardtanh(convolved, 0.0, _HIGHEST, inplace=True) if layer.activated else convolved


class Depthwise(torch.autograd.Function):  # type: ignore[misc]  # PyTorch has no type of it
    """ReLU6 of a depthwise convolution by `kernels * strength`, and `shift`; kernels do not learn."""

    @staticmethod
    def forward(  # noqa: D102 - as PyTorch has it
        context: Context,
        images: torch.Tensor,
        kernels: torch.Tensor,
        strength: torch.Tensor,
        shift: torch.Tensor,
        stride: int,
    ) -> torch.Tensor:
        wide, padding = padded(images, kernels.shape[-1], stride)
        weights = (kernels * strength[:, None, None, None]).to(images.dtype)
        made = conv2d(wide, weights, shift.to(images.dtype), stride, padding, 1, images.shape[1])
        made.clamp_(0.0, _HIGHEST)
        context.save_for_backward(kernels, strength, shift, made)
        context.stride, context.places = stride, images.shape[2:]
        return made

    @staticmethod
    def backward(context: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: D102
        kernels, strength, shift, made = context.saved_tensors
        gradient = torch.ops.aten.hardtanh_backward(gradient, made, 0.0, _HIGHEST)
        sums = torch.promote_types(gradient.dtype, torch.float32)
        by_shift = gradient.sum((0, 2, 3), dtype=sums)
        # What the kernel made is (made - shift) / strength wherever the gradient is not 0.
        rounded = shift.to(made.dtype).to(sums)
        by_strength = ((gradient * made).sum((0, 2, 3), dtype=sums) - by_shift * rounded) / strength
        by_strength = torch.where(strength == 0, 0, by_strength)
        by_images = None
        if context.needs_input_grad[0]:
            weights = kernels * strength[:, None, None, None]
            by_images = by_images_of(gradient, weights.to(gradient.dtype), context.stride, context.places)
        return by_images, None, by_strength, by_shift, None


def by_images_of(gradient: torch.Tensor, kernels: torch.Tensor, stride: int, places: tuple[int, int]) -> torch.Tensor:
    """Return the gradient by images of so many `places` that a depthwise convolution was made of."""
    size, (rows, columns), channels = kernels.shape[-1], places, gradient.shape[1]
    if stride > 1:
        apart = [(n - 1) * stride + 1 for n in gradient.shape[2:]]
        spread = gradient.new_zeros((len(gradient), channels, *apart)).to(memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    (top, _), (left, _) = (same_padding(n, size, stride) for n in (rows, columns))
    before = size - 1 - left, size - 1 - top
    after = columns + left - gradient.shape[3], rows + top - gradient.shape[2]
    turned = kernels.flip(2, 3)
    if before[0] == after[0] and before[1] == after[1]:
        return conv2d(gradient, turned, None, 1, (before[1], before[0]), 1, channels)
    wide = pad(gradient, (before[0], after[0], before[1], after[1]))
    return conv2d(wide, turned, None, 1, 0, 1, channels)


def padded(images: torch.Tensor, size: int, stride: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return images padded, where that is not alike on both sides, and what padding is left to do."""
    (top, bottom), (left, right) = (same_padding(n, size, stride) for n in images.shape[2:])
    if (top, left) == (bottom, right):
        return images, (top, left)
    return pad(images, (left, right, top, bottom)), (0, 0)
