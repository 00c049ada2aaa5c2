"""A network as it is served: with a map of where it looked, as ONNX, proven to answer as in Keras.

The map needs no gradient engine: for a convolutional body with a head of dense layers, the share of
each place in the tumor's logit is an exact product of known weights, because such a head is linear
once its ReLUs are known (HiResCAM: Draelos & Carin 2020, arXiv:2011.08891; with pooling, CAM: Zhou
et al. 2016, CVPR).
"""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
from keras import layers, ops
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mammolens.errors import BundleError
from mammolens.images.breast import Pixels
from mammolens.images.cache import CachedPixels
from mammolens.learning.networks.builders import ensemble, with_flips
from mammolens.learning.networks.folded import Network, Tensor, without_gradients
from mammolens.learning.networks.heads import ATTENTION, LOGITS, has_layer
from mammolens.learning.networks.onnx_graph import simplify
from mammolens.model.recipe import Recipe

INPUT, OUTPUTS = "image", ("probability", "score_map")

PARITY = 1e-4  # largest difference between Keras and ONNX Runtime that is let pass, in any output
HALF_PARITY = 1e-3  # the same where weights were rounded to 16 bits after normalisations went into them

_LARGE = 1024  # numbers in a weight that is worth halving
_TINY = 1e-12
_TOGETHER = 4  # images that are compared at once: with mirror images, 0.5 GB of Lite0 at 512 x 320

Layer = Any


@dataclass(frozen=True, eq=False)
class Served:
    """Networks as they answer together: as Keras has them, and the same as an ONNX file's bytes.

    Attributes:
        network: float32 (images, height, width, 1) in; (images, 1) probability of tumor and, where
            it can be had, (images, rows, columns, 1) map out.
        model: ONNX.
        half: whether large weights are 16-bit floats.
    """

    network: Network
    model: bytes
    half: bool


def as_served(networks: Sequence[Network], recipe: Recipe, *, half: bool = False) -> Served:
    """Make of networks one that answers: with a map where all can have one, and mirror images.

    With `half`, the weights of `networks` are rounded first, so that the one that is judged is the
    one that ships.
    """
    if half:
        for network in networks:
            round_weights(network)
    together = ensemble([with_score_map(network) or network for network in networks])
    served = with_flips(together, recipe.augment) if recipe.test_time_flips else together
    return Served(served, to_onnx(served, half=half), half)


def to_onnx(network: Network, *, half: bool = False) -> bytes:
    """Return the network as an ONNX file's bytes: input and outputs named, batch size free.

    With `half`, large weights are stored as 16-bit floats: half the size.
    """
    network(np.zeros((1, *network.input_shape[1:]), np.float32))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        path = Path(folder) / "model.onnx"
        network.export(path, format="onnx", verbose=False)
        model = onnx.load(path)
    graph = model.graph
    ends = [*graph.input, *graph.output]
    renamed = dict(zip([end.name for end in ends], [INPUT, *OUTPUTS], strict=False))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.doc_string = ""
    for end in ends:
        end.name = renamed[end.name]
        end.type.tensor_type.shape.dim[0].dim_param = "images"
    _share_weights(graph)
    simplify(model)
    if half:
        _halve(graph)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _share_weights(graph: onnx.GraphProto) -> None:
    """Keep one copy of weights that stand in the graph twice, once for the map."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        values = numpy_helper.to_array(node.attribute[0].t)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    kept: dict[tuple[tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        key = (values.shape, values.dtype.str.encode() + values.tobytes())
        if kept.setdefault(key, weight.name) != weight.name:
            same[weight.name] = kept[key]
            graph.initializer.remove(weight)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def _halve(graph: onnx.GraphProto) -> None:
    """Store large weights as 16-bit floats; ONNX Runtime widens them once, when it opens them."""
    casts = []
    for weight in list(graph.initializer):
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= _LARGE:
            values = numpy_helper.to_array(weight).astype(np.float16)
            graph.initializer.remove(weight)
            graph.initializer.append(numpy_helper.from_array(values, f"{weight.name}_half"))
            casts.append(helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def round_weights(network: Network) -> None:
    """Round large weights to 16 bits."""
    for weight in network.weights:
        values = ops.convert_to_numpy(weight)
        if values.size >= _LARGE:
            weight.assign(values.astype(np.float16).astype(np.float32))


def session(model: bytes, options: onnxruntime.SessionOptions | None = None) -> onnxruntime.InferenceSession:
    """Open a network, to be run on the processor: the same answers everywhere."""
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def scores_by(model: bytes, pixels: CachedPixels) -> NDArray[np.float64]:
    """Return what ONNX Runtime makes of each image alone: scores in [0, 1], (images,)."""
    opened = session(model)
    shown = (pixels.take([index])[..., np.newaxis] for index in range(len(pixels)))
    return np.array([opened.run([OUTPUTS[0]], {INPUT: image})[0].item() for image in shown], np.float64)


def parity(served: Served, pixels: Pixels) -> float:
    """Return the largest difference between Keras and ONNX Runtime in any output.

    Args:
        served: what is compared.
        pixels: (images, height, width) to compare on.

    Raises:
        BundleError: it is over `PARITY`, or `HALF_PARITY`, or the first output is no probability.
    """
    limit = HALF_PARITY if served.half else PARITY
    opened = session(served.model)
    batches = [pixels[start : start + _TOGETHER, ..., np.newaxis] for start in range(0, len(pixels), _TOGETHER)]
    expected = [_answers(served.network, batch) for batch in batches]
    lowest, highest = (extreme([extreme(first) for first, *_ in expected]) for extreme in (np.min, np.max))
    if lowest < 0 or highest > 1:
        raise BundleError(
            f"the network answers from {lowest:.3g} to {highest:.3g} where "
            "probabilities were expected. End it in a sigmoid or softmax. Nothing was written."
        )
    found = [opened.run(None, {INPUT: batch}) for batch in batches]
    pairs = [pair for ours, theirs in zip(expected, found, strict=True) for pair in zip(ours, theirs, strict=True)]
    # NumPy's maximum, unlike Python's, is NaN where any is NaN: that is no agreement.
    worst = float(np.max([np.abs(ours - theirs).max() for ours, theirs in pairs]))
    if not worst <= limit:
        raise BundleError(
            f"Keras and ONNX Runtime differ by {worst:.1e} on the same pixels; at most "
            f"{limit:.0e} is let pass. Nothing was written."
        )
    return worst


def _answers(network: Network, batch: Pixels) -> list[NDArray[np.float32]]:
    """Return all outputs for images of shape (images, height, width, 1)."""
    with without_gradients():
        answers = network(batch, training=False)
    return [ops.convert_to_numpy(one) for one in (answers if isinstance(answers, list | tuple) else [answers])]


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
    score_map = ops.sigmoid(network.get_layer(LOGITS).output) if has_layer(network, LOGITS) else _shares(network)
    return None if score_map is None else keras.Model(network.input, [network.output, score_map], name=network.name)


def _shares(network: Network) -> Tensor | None:
    """Return what each place adds to the logit, where a body ends in one pooling and dense layers."""
    pooling = [x for x in network.layers if isinstance(x, layers.Flatten | layers.GlobalAveragePooling2D)]
    if len(pooling) != 1 or pooling[0].data_format != "channels_last":
        return None
    above = network.layers[network.layers.index(pooling[0]) + 1 :]
    head = [x for x in above if not isinstance(x, layers.Dropout | layers.InputLayer)]
    features = pooling[0].input
    if len(features.shape) != 4 or not _is_understood(head):  # noqa: PLR2004
        return None
    rows, columns, channels = features.shape[1:]
    spread = (rows, columns, channels) if isinstance(pooling[0], layers.Flatten) else (1, 1, channels)
    towards = ops.relu(ops.sum(features * ops.reshape(_gradient(head), (-1, *spread)), axis=-1, keepdims=True))
    largest = ops.max(towards, axis=(1, 2, 3), keepdims=True)
    return ops.reshape(network.output, (-1, 1, 1, 1)) * towards / (largest + _TINY)


def _is_understood(head: Sequence[Layer]) -> bool:
    """Tell whether the head is dense layers, normalisations and ReLUs that end in one sigmoid."""
    *inner, last = head or [None]
    is_sigmoid = isinstance(last, layers.Dense) and last.activation is keras.activations.sigmoid
    return is_sigmoid and last.units == 1 and all(map(_is_linear_once_known, inner))


def _is_linear_once_known(layer: Layer) -> bool:
    if isinstance(layer, layers.Dense | layers.Activation):
        return layer.activation in (keras.activations.relu, keras.activations.linear)
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return isinstance(layer, layers.BatchNormalization)


def _gradient(head: Sequence[Layer]) -> Tensor:
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
