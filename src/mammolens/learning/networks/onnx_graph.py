"""An ONNX graph made simpler: normalisations and padding go into the convolutions beside them.

PyTorch's exporter spells both out, each between casts of what is cast already, and ONNX Runtime does
not put them together again: that takes half of an answer's time.
"""

from collections import defaultdict

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

_NORMALISATION = ("Sub", "Mul", "Add")  # mean, scale, shift, each one number a channel


def simplify(model: onnx.ModelProto) -> None:
    """Make the graph of `model` simpler, in place. Answers change by the rounding of 32-bit floats alone.

    One with graphs within its nodes, loops and branches, stays as it is.
    """
    if any(each.g.node or each.graphs for node in model.graph.node for each in node.attribute):
        return
    _without_casts(model)
    _pad_in_convolutions(model)
    _normalise_in_convolutions(model.graph)
    _without_the_unused(model.graph)


def _without_casts(model: onnx.ModelProto) -> None:
    """Take out nodes that hand on what they get."""
    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    ends = {end.name for end in graph.output}
    same: dict[str, str] = {}
    for node in list(graph.node):
        node.input[:] = [same.get(name, name) for name in node.input]
        to = _attribute(node, "to") if node.op_type == "Cast" else None
        idle = node.op_type == "Identity" or (to is not None and types.get(node.input[0]) == to.i)
        if idle and node.output[0] not in ends:
            same[node.output[0]] = node.input[0]
            graph.node.remove(node)


def _pad_in_convolutions(model: onnx.ModelProto) -> None:
    """Have convolutions pad with zeros themselves, where a node before them does."""
    graph, users = model.graph, _users(model.graph)
    pads = [node for node in graph.node if node.op_type == "Pad" and _is_of_zeros(node)]
    if not pads:
        return
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    names = sorted({node.input[1] for node in pads})
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    (end,) = graph.input
    shape = [size.dim_value or 1 for size in end.type.tensor_type.shape.dim]
    opened = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    widths = dict(zip(names, opened.run(names, {end.name: np.zeros(shape, np.float32)}), strict=True))
    for pad in pads:
        before, after = np.split(widths[pad.input[1]], 2)
        convolutions = [_attribute(user, "pads") for user in users[pad.output[0]] if user.op_type == "Conv"]
        unpadded = [own for own in convolutions if own is not None and not any(own.ints)]
        of_places = len(before) == 4 and not any((*before[:2], *after[:2]))  # noqa: PLR2004 - images, channels, places
        of_places = of_places and min(*before, *after) >= 0  # less than nothing cuts off
        if of_places and len(unpadded) == len(users[pad.output[0]]):
            for own, convolution in zip(unpadded, users[pad.output[0]], strict=True):
                own.ints[:] = [*before[2:].tolist(), *after[2:].tolist()]
                convolution.input[0] = pad.input[0]


def _is_of_zeros(pad: onnx.NodeProto) -> bool:
    mode = _attribute(pad, "mode")
    return (mode is None or mode.s == b"constant") and not any(pad.input[2:])


def _normalise_in_convolutions(graph: onnx.GraphProto) -> None:
    """Put the normalisation after a convolution into its kernel and bias.

    The kernel is multiplied by a node, which ONNX Runtime does once, when it opens the network: so it can be stored
    as it is, in 16 bits, too.
    """
    users, constants = _users(graph), _constants(graph)
    scaled: dict[tuple[str, ...], tuple[str, str]] = {}
    for node in [node for node in graph.node if node.op_type == "Conv" and len(node.input) == 2]:  # noqa: PLR2004
        chain = _chain(node, users, constants)
        if len(chain) != len(_NORMALISATION):
            continue
        key = (node.input[1], *(one.input[1] for one in chain))
        mean, scale, shift = (constants[name].astype(np.float64).ravel() for name in key[1:])
        if key not in scaled:
            name = f"{node.input[1]}_{len(scaled)}"
            factor, bias = scale.reshape(-1, 1, 1, 1).astype(np.float32), (shift - mean * scale).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(factor, f"{name}_scale"))
            graph.initializer.append(numpy_helper.from_array(bias, f"{name}_shift"))
            product = helper.make_node("Mul", [node.input[1], f"{name}_scale"], [f"{name}_scaled"])
            graph.node.insert(list(graph.node).index(node), product)
            scaled[key] = (f"{name}_scaled", f"{name}_shift")
        node.input[1:] = scaled[key]
        node.output[0] = chain[-1].output[0]
        for one in chain:
            graph.node.remove(one)


def _chain(
    node: onnx.NodeProto, users: dict[str, list[onnx.NodeProto]], constants: dict[str, NDArray[np.generic]]
) -> list[onnx.NodeProto]:
    """Return the nodes of a normalisation that follow, one after the other, as far as they do."""
    found: list[onnx.NodeProto] = []
    along = (1, len(constants.get(node.input[1], ())), 1, 1)
    for kind in _NORMALISATION:
        following = users[(found[-1] if found else node).output[0]]
        if len(following) != 1 or following[0].op_type != kind:
            break
        number = constants.get(following[0].input[1])
        if number is None or number.shape != along:
            break
        found.append(following[0])
    return found


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    """Return weights by name, those that are widened from 16 bits included."""
    known = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in known]
    return known | {node.output[0]: known[node.input[0]] for node in casts}


def _users(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    for end in graph.output:
        users[end.name].append(onnx.NodeProto())  # who asks the network
    return users


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((one for one in node.attribute if one.name == name), None)


def _without_the_unused(graph: onnx.GraphProto) -> None:
    """Take out what no output rests on."""
    wanted = {end.name for end in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
    for weight in [weight for weight in graph.initializer if weight.name not in wanted]:
        graph.initializer.remove(weight)
