"""A Keras network → ONNX, and the proof that the two give the same answers."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mammolens.errors import BundleError
from mammolens.images.breast import Pixels
from mammolens.images.cache import CachedPixels
from mammolens.learning.networks import Network

INPUT, OUTPUTS = "image", ("probability", "score_map")

PARITY = 1e-4
"""Largest difference between Keras and ONNX Runtime that is let pass, in any output."""

HALF_PARITY = 1e-3
"""The same where weights are 16-bit floats, rounded after normalisations went into them."""

_LARGE = 1024  # numbers in a weight that is worth halving


def to_onnx(network: Network, *, half: bool = False) -> bytes:
    """Return the network as an ONNX file's bytes: input and outputs named, batch size free.

    With `half`, large weights are stored as 16-bit floats: half the size.
    """
    names = OUTPUTS[: len(network.outputs)]
    network(np.zeros((1, *network.input_shape[1:]), np.float32))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        path = Path(folder) / "model.onnx"
        network.export(path, format="onnx", verbose=False)
        model = onnx.load(path)
    graph = model.graph
    renamed = {graph.input[0].name: INPUT}
    renamed |= {output.name: name for output, name in zip(graph.output, names, strict=True)}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "images"
    _share_weights(graph)
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
        if key in kept:
            same[weight.name] = kept[key]
            graph.initializer.remove(weight)
        else:
            kept[key] = weight.name
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
    """Round large weights to 16 bits, so that the network that is judged is the one that ships."""
    for weight in network.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.size >= _LARGE:
            weight.assign(values.astype(np.float16).astype(np.float32))


def scores_by(model: bytes, pixels: CachedPixels) -> NDArray[np.float64]:
    """Return what ONNX Runtime makes of each image alone: scores in [0, 1], (images,)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = [
        session.run([OUTPUTS[0]], {INPUT: pixels.take([index])[..., np.newaxis]})[0].item()
        for index in range(len(pixels))
    ]
    return np.array(scores, np.float64)


def parity(network: Network, model: bytes, pixels: Pixels, *, half: bool = False) -> float:
    """Return the largest difference between Keras and ONNX Runtime in any output.

    Args:
        network: as Keras has it.
        model: the same as ONNX.
        pixels: (images, height, width) to compare on.
        half: whether the weights in `model` are 16-bit floats.

    Raises:
        BundleError: it is over `PARITY`, or `HALF_PARITY`, or the first output is no probability.
    """
    limit = HALF_PARITY if half else PARITY
    answers = network(pixels[..., np.newaxis], training=False)
    listed = answers if isinstance(answers, list | tuple) else [answers]
    expected = [keras.ops.convert_to_numpy(answer) for answer in listed]
    if expected[0].min() < 0 or expected[0].max() > 1:
        raise BundleError(
            f"the network answers from {expected[0].min():.3g} to {expected[0].max():.3g} where "
            "probabilities were expected. End it in a sigmoid or softmax. Nothing was written."
        )
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(None, {INPUT: pixels[..., np.newaxis]})
    # NumPy's maximum, unlike Python's, is NaN where any is NaN: that is no agreement.
    worst = float(np.max([np.abs(a - b).max() for a, b in zip(expected, found, strict=True)]))
    if not worst <= limit:
        raise BundleError(
            f"Keras and ONNX Runtime differ by {worst:.1e} on the same pixels; at most "
            f"{limit:.0e} is let pass. Nothing was written."
        )
    return worst
