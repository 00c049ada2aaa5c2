"""Graphs that would run code, read other files, fill the memory or never end: refused, or stopped with one error."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from corpus import bundle_record, model
from onnx import TensorProto, helper, numpy_helper

from mammolens.errors import BundleError
from mammolens.model.bundle import MODEL, RECORD, open_bundle
from mammolens.serving import predictor
from mammolens.serving.predictor import Predictor

SHOWN = np.zeros((16, 16), np.uint16)


def array(name: str, value: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def network(*nodes: onnx.NodeProto, weights: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["images", 16, 16, 1])
    answer = helper.make_tensor_value_info("probability", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "network", [image], [answer], list(weights))
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def bundled(folder: Path, content: onnx.ModelProto | bytes) -> Path:
    content = content if isinstance(content, bytes) else content.SerializeToString()
    (folder / MODEL).write_bytes(content)
    (folder / RECORD).write_bytes(bundle_record(content))
    return folder


def test_an_honest_graph_answers(tmp_path: Path) -> None:
    assert Predictor.load(bundled(tmp_path, model())).score(SHOWN)[0] == 0.5


def test_an_operator_that_is_not_of_onnx_is_refused(tmp_path: Path) -> None:
    mine = helper.make_node("Mine", ["image"], ["probability"], domain="mine")
    with pytest.raises(BundleError, match="cannot be opened"):
        Predictor.load(bundled(tmp_path, network(mine)))


@pytest.mark.parametrize("place", ["../secret", "secret", "{folder}/secret", "/proc/self/environ"])
def test_weights_in_other_files_are_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    for folder in (tmp_path, tmp_path / "bundle"):
        (folder / "secret").write_bytes(bytes(99))
    monkeypatch.chdir(tmp_path / "bundle")
    weight = array("weight", np.zeros(1, np.float32))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place.format(folder=tmp_path), "offset": "0", "length": "4"}.items():
        weight.external_data.add(key=key, value=value)
    told = network(helper.make_node("Mul", ["image", "weight"], ["probability"]), weights=(weight,))
    with pytest.raises(BundleError, match="cannot be opened"):
        Predictor.load(bundled(tmp_path / "bundle", told))


def test_a_graph_that_asks_for_100_gib_is_stopped(tmp_path: Path) -> None:
    filled = helper.make_node("ConstantOfShape", ["size"], ["filled"])
    answer = helper.make_node("ReduceSum", ["filled"], ["probability"], keepdims=0)
    opened = Predictor.load(bundled(tmp_path, network(filled, answer, weights=(array("size", [25 * 2**30]),))))
    with pytest.raises(BundleError, match=r"its network fails .*memory"):
        opened.score(SHOWN)


def test_a_graph_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "SECONDS", 0.1)
    i, go, on = (helper.make_tensor_value_info(*end, []) for end in (("i", 7), ("go", 9), ("on", 9)))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["x"], ["y"])],
        "body",
        [i, go, x],
        [on, y],
    )
    loop = helper.make_node("Loop", ["turns", "always", "image"], ["probability"], body=body)
    endless = network(loop, weights=(array("turns", 2**62), array("always", True)))
    with pytest.raises(BundleError, match=r"its network fails .*terminate"):
        Predictor.load(bundled(tmp_path, endless)).score(SHOWN)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 2])
def test_what_is_no_probability_is_no_answer(value: float, tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0)]
    nodes += [helper.make_node("Add", ["mean", "value"], ["probability"])]
    opened = Predictor.load(bundled(tmp_path, network(*nodes, weights=(array("value", np.float32(value)),))))
    with pytest.raises(BundleError, match="one number from 0 to 1"):
        opened.score(SHOWN)


def test_more_answers_than_one_are_no_answer(tmp_path: Path) -> None:
    same = network(helper.make_node("Identity", ["image"], ["probability"]))
    with pytest.raises(BundleError, match="one number from 0 to 1"):
        Predictor.load(bundled(tmp_path, same)).score(SHOWN)


def test_a_device_is_no_network(tmp_path: Path) -> None:
    bundled(tmp_path, model())
    for name in (MODEL, RECORD):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(BundleError, match=f"{name}: is no file"):
            open_bundle(tmp_path)
