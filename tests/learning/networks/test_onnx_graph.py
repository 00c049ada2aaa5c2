"""A graph made simpler answers the same, with less to do."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mammolens.learning.networks.onnx_graph import simplify

CHANNELS = 6


def weight(name: str, *shape: int, half: bool = False) -> onnx.TensorProto:
    values = np.random.default_rng(len(name)).uniform(0.5, 1.5, shape)
    return numpy_helper.from_array(values.astype(np.float16 if half else np.float32), name)


def model(**changed: str) -> onnx.ModelProto:
    """Padding, a convolution by a kernel of 16 bits, and its normalisation, as PyTorch's exporter spells them out."""
    along = (1, CHANNELS, 1, 1)
    pads = numpy_helper.from_array(np.array([0, 0, 0, 1, 0, 0, 1, 2]), "widths")
    made = helper.make_node
    nodes = [
        made("Cast", ["kernel_half"], ["kernel"], to=TensorProto.FLOAT),
        made("Cast", ["shift_half"], ["shift"], to=TensorProto.FLOAT),
        made("Cast", ["image"], ["same"], to=TensorProto.FLOAT),
        made("Identity", ["widths"], ["pads"]),
        made("Pad", ["same", "pads"], ["wide"], mode=changed.get("mode", "constant")),
        made("Conv", ["wide", "kernel"], ["convolved"], pads=[0, 0, 0, 0], strides=[2, 2], kernel_shape=[3, 3]),
        made("Cast", ["convolved"], ["cast"], to=TensorProto.FLOAT),
        made("Sub", ["cast", "mean"], ["centred"]),
        made("Mul", ["centred", changed.get("scale", "scale")], ["scaled"]),
        made("Add", ["scaled", changed.get("shift", "shift")], ["shifted"]),
        made("Clip", ["shifted", "", "six"], ["answer"]),
    ]
    weights = [
        weight("kernel_half", CHANNELS, 2, 3, 3, half=True),
        weight("mean", *along),
        weight("scale", *along),
        weight("everywhere", 1, 1, 1, 5),
        weight("shift_half", *along, half=True),
        numpy_helper.from_array(np.array(6, np.float32), "six"),
        pads,
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["images", *shape])
        for name, shape in (("image", (2, 8, 8)), ("answer", (CHANNELS, 4, 5)))
    ]
    graph = helper.make_graph(nodes, "tried", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def answered(tried: onnx.ModelProto) -> NDArray[np.float32]:
    onnx.checker.check_model(tried)
    opened = onnxruntime.InferenceSession(tried.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    return np.asarray(opened.run(None, {"image": image})[0])


def kinds(tried: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in tried.graph.node)


def test_padding_and_normalisation_go_into_the_convolution() -> None:
    tried = model()
    before = answered(tried)
    simplify(tried)
    assert kinds(tried) == {"Cast": 1, "Mul": 1, "Conv": 1, "Clip": 1}  # of the kernel, twice: done where it is opened
    np.testing.assert_allclose(answered(tried), before, rtol=0, atol=1e-5)
    assert before.std() > 0.1


@pytest.mark.parametrize(
    ("changed", "left"),
    [({"mode": "reflect"}, "Pad"), ({"scale": "everywhere"}, "Sub"), ({"shift": "convolved"}, "Sub")],
)
def test_what_is_no_padding_with_zeros_or_no_normalisation_stays(changed: dict[str, str], left: str) -> None:
    tried = model(**changed)
    before = answered(tried)
    simplify(tried)
    assert kinds(tried)[left] == 1
    np.testing.assert_allclose(answered(tried), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", ["mean", "shift_half"])
def test_convolutions_of_one_kernel_and_scale_keep_means_and_shifts_of_their_own(other: str) -> None:
    tried, made = model(), helper.make_node
    own = {"mean": "mean", "scale": "scale", "shift_half": "shift_half", other: "another"}
    tried.graph.initializer.append(weight("another", 1, CHANNELS, 1, 1))
    del tried.graph.node[-1]
    tried.graph.node.extend([
        made("Conv", ["wide", "kernel"], ["convolved_2"], pads=[0, 0, 0, 0], strides=[2, 2], kernel_shape=[3, 3]),
        made("Sub", ["convolved_2", own["mean"]], ["centred_2"]),
        made("Mul", ["centred_2", own["scale"]], ["scaled_2"]),
        made("Cast", [own["shift_half"]], ["cast_2"], to=TensorProto.FLOAT),
        made("Add", ["scaled_2", "cast_2"], ["shifted_2"]),
        made("Sub", ["shifted", "shifted_2"], ["answer"]),
    ])  # fmt: skip
    before = answered(tried)
    simplify(tried)
    assert kinds(tried)["Add"] == 0
    np.testing.assert_allclose(answered(tried), before, rtol=0, atol=1e-5)
    assert np.abs(before).max() > 0.1


def test_what_is_asked_for_between_a_convolution_and_its_normalisation_is_answered() -> None:
    tried = model()
    tried.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["images", CHANNELS, 4, 5]))
    before = answered(tried)
    simplify(tried)
    np.testing.assert_allclose(answered(tried), before, rtol=0, atol=1e-5)


def test_one_number_for_all_channels_is_no_normalisation() -> None:
    tried = model()
    for known in [known for known in tried.graph.initializer if known.name in {"mean", "scale", "shift_half"}]:
        tried.graph.initializer.remove(known)
        tried.graph.initializer.append(weight(known.name, 1, 1, 1, 1, half=known.name == "shift_half"))
    before = answered(tried)
    simplify(tried)
    np.testing.assert_allclose(answered(tried), before, rtol=0, atol=1e-5)


def test_padding_by_less_than_nothing_stays() -> None:
    tried = model()
    tried.graph.initializer.remove(next(known for known in tried.graph.initializer if known.name == "widths"))
    widths = np.array([0, 0, 2, -1, 0, 0, 0, 4])
    tried.graph.initializer.append(numpy_helper.from_array(widths, "widths"))
    before = answered(tried)
    simplify(tried)
    assert kinds(tried)["Pad"] == 1
    np.testing.assert_allclose(answered(tried), before, rtol=0, atol=1e-5)


def test_a_cast_is_told_by_what_it_casts_to() -> None:
    tried = model()
    cast = helper.make_node("Cast", ["shifted"], ["rounded"], saturate=1, to=TensorProto.INT32)
    cast.attribute.sort(key=lambda each: each.name)
    tried.graph.node.insert(len(tried.graph.node) - 1, cast)
    tried.graph.node.insert(len(tried.graph.node) - 1, helper.make_node("Cast", ["rounded"], ["f"], to=1))
    tried.graph.node[-1].input[0] = "f"
    before = answered(tried)
    simplify(tried)
    np.testing.assert_allclose(answered(tried), before, rtol=0, atol=1e-5)
    assert not (before % 1).any()
