"""Where a network looked, as part of the network: a second output that needs no gradient engine.

For a convolutional body with a head of dense layers, the share of each place in the tumor's logit
is an exact product of known weights, because such a head is linear once its ReLUs are known
(HiResCAM: Draelos & Carin 2020, arXiv:2011.08891; with pooling, CAM: Zhou et al. 2016, CVPR).
"""

from typing import Any

import keras
from keras import layers, ops

from mammolens.learning.networks import ATTENTION, LOGITS, Network, has_layer

Tensor = Any
Layer = Any

_PASSED_OVER = (layers.Dropout, layers.InputLayer)
_POOLING = (layers.Flatten, layers.GlobalAveragePooling2D)
_TINY = 1e-12


def with_score_map(network: Network) -> Network | None:
    """Return the network with a second output, its score map, or None where it can have none.

    In: as before. Out: (images, 1), the probability of tumor, and (images, rows, columns, 1) in
    [0, 1]: what each place adds to the tumor's logit, scaled so that the largest is the
    probability; what speaks against a tumor is 0. Weights are those of this moment. Where places
    are weighed by attention, the map is how much each counts, scaled alike.
    """
    if has_layer(network, ATTENTION):
        places = network.get_layer(ATTENTION).output.shape[1:]
        share = next(x for x in reversed(network.layers) if isinstance(x, layers.Softmax))
        inner = keras.Model(network.input, [network.output, share.output])
        image = keras.Input(network.input_shape[1:], name="image")
        probability, shares = inner(image)  # within, for names of saved layers may be ours, too
        of_largest = shares / ops.max(shares, axis=1, keepdims=True)
        score_map = ops.reshape(of_largest, (-1, *places)) * ops.reshape(probability, (-1, 1, 1, 1))
        return keras.Model(image, [probability, score_map], name=network.name)
    if has_layer(network, LOGITS):
        score_map = ops.sigmoid(network.get_layer(LOGITS).output)
        return keras.Model(network.input, [network.output, score_map], name=network.name)
    pooling = [layer for layer in network.layers if isinstance(layer, _POOLING)]
    if len(pooling) != 1:
        return None
    position = network.layers.index(pooling[0])
    head = [x for x in network.layers[position + 1 :] if not isinstance(x, _PASSED_OVER)]
    features = pooling[0].input
    if len(features.shape) != 4 or not _is_understood(head):  # noqa: PLR2004
        return None
    if pooling[0].data_format != "channels_last":
        return None
    gradient = _gradient(head)
    rows, columns, channels = features.shape[1:]
    pooled = isinstance(pooling[0], layers.GlobalAveragePooling2D)
    spread = (-1, 1, 1, channels) if pooled else (-1, rows, columns, channels)
    shares = ops.sum(features * ops.reshape(gradient, spread), axis=-1, keepdims=True)
    towards = ops.relu(shares)
    largest = ops.max(towards, axis=(1, 2, 3), keepdims=True)
    probability = ops.reshape(network.output, (-1, 1, 1, 1))
    score_map = probability * towards / (largest + _TINY)
    return keras.Model(network.input, [network.output, score_map], name=network.name)


def _is_understood(head: list[Layer]) -> bool:
    """Tell whether the head is dense layers, normalisations and ReLUs that end in one sigmoid."""
    if not head or not isinstance(head[-1], layers.Dense):
        return False
    *inner, last = head
    ends_well = last.units == 1 and last.activation is keras.activations.sigmoid
    return ends_well and all(map(_is_linear_once_known, inner))


def _is_linear_once_known(layer: Layer) -> bool:
    if isinstance(layer, layers.Dense | layers.Activation):
        return layer.activation in (keras.activations.relu, keras.activations.linear)
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return isinstance(layer, layers.BatchNormalization)


def _gradient(head: list[Layer]) -> Tensor:
    """Return the gradient of the logit by the head's input, (images or 1, features).

    It is carried as (features, images), which needs no copy of a kernel turned round.
    """
    gradient = ops.ones((1, 1))
    for layer in reversed(head):
        rectified = getattr(layer, "activation", None) is keras.activations.relu
        if rectified or isinstance(layer, layers.ReLU):
            gradient = gradient * ops.transpose(ops.cast(layer.output > 0, "float32"))
        if isinstance(layer, layers.Dense):
            gradient = ops.matmul(_constant(layer.kernel), gradient)
        elif isinstance(layer, layers.BatchNormalization):
            scale = 1 / ops.sqrt(_constant(layer.moving_variance) + layer.epsilon)
            scale = scale * _constant(layer.gamma) if layer.scale else scale
            gradient = gradient * ops.reshape(scale, (-1, 1))
    return ops.transpose(gradient)


def _constant(weight: Tensor) -> Tensor:
    return ops.convert_to_tensor(ops.convert_to_numpy(weight))
