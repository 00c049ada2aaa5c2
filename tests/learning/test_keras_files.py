"""Files of Keras 2, as TensorFlow 2.15 wrote them (`keras_2/make.py`), and changes to them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from mammolens.errors import BundleError
from mammolens.learning.export import Card, export_file
from mammolens.learning.keras_files import in_keras_3, open_keras
from mammolens.serving.predictor import Predictor

FILES = Path(__file__).parent / "keras_2"
ANSWERS = json.loads((FILES / "answers.json").read_text(encoding="utf-8"))

Config = dict[str, Any]


def shown() -> np.ndarray:
    return np.random.default_rng(0).random((3, 16, 16, 1), np.float32)


def answers(path: Path) -> np.ndarray:
    return np.asarray(open_keras(path).predict(shown(), verbose=0))[:, 0]


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", ANSWERS)
def test_it_answers_as_with_tensorflow(name: str, suffix: str) -> None:
    np.testing.assert_allclose(answers(FILES / f"{name}{suffix}"), ANSWERS[name], atol=1e-6)


@pytest.mark.parametrize("name", ["transfer.keras", "sequence.h5"])
def test_colour_and_layers_within_layers_have_a_heatmap(name: str, tmp_path: Path) -> None:
    """And the folder may be called like a file of Keras."""
    made = export_file(FILES / name, tmp_path / "bundle.h5", Card("mine"))
    assert made.record.outputs.score_map == "score_map"
    assert Predictor.load(tmp_path / "bundle.h5").bundle.record == made.record


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Give a layer of a file of Keras 2 other arguments, or another kind; return the path."""

    def change(kind: str, **others: object) -> Path:
        path = tmp_path / "changed.h5"
        shutil.copy(FILES / "sequence.h5", path)
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            layer = next(x for x in config["config"]["layers"] if x["class_name"] == kind)
            layer["class_name"] = others.pop("class_name", kind)
            layer["config"] |= others
            file.attrs["model_config"] = json.dumps(config)
        return path

    return change


@pytest.mark.parametrize(
    ("kind", "others", "said"),
    [
        ("Conv2D", {"activation": "hard_sigmoid"}, "another function than in Keras 3"),
        ("Conv2D", {"activation": "mine"}, "mine is not a function of Keras"),
        (
            "LeakyReLU",
            {"class_name": "Lambda", "function": ["4wEA", None, None]},
            "'leaky_re_lu' of kind Lambda is Python code.*Replace it",
        ),
        ("LeakyReLU", {"class_name": "Custom>Mine"}, "kind Custom>Mine is not one of Keras 3"),
        ("LeakyReLU", {"class_name": "LocallyConnected2D"}, "is not one of Keras 3"),
        (
            "LeakyReLU",
            {"class_name": "Resizing", "interpolation": "bicubic"},
            "interpolation = bicubic, computed otherwise",
        ),
    ],
)
def test_what_would_answer_otherwise_is_refused_with_the_remedy(
    changed: Callable[..., Path], kind: str, others: Config, said: str
) -> None:
    with pytest.raises(BundleError, match=said) as raised:
        open_keras(changed(kind, **others))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        ("LeakyReLU", {"dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}}}),
        ("ThresholdedReLU", {"dtype": {"class_name": "Policy", "config": {"name": "float32"}}}),
        ("Conv2D", {"kernel_initializer": {"class_name": "MyOwn", "config": {}}}),
        ("LeakyReLU", {"name": "block/relu"}),
        ("Conv2D", {"activation": {"class_name": "function", "config": "linear"}}),
    ],
)
def test_what_does_not_concern_answers_does_not_matter(changed: Callable[..., Path], kind: str, others: Config) -> None:
    found = answers(changed(kind, **others))
    np.testing.assert_allclose(found, ANSWERS["sequence"], atol=1e-6)


def operation(function: str, *call: object) -> Config:
    layer: Config = {"class_name": "TFOpLambda", "config": {"name": "tf.op", "function": function}}
    layer = layer | {"name": "tf.op", "inbound_nodes": [list(call)]}
    image = {"name": "image", "batch_input_shape": [None, 16, 16, 1]}
    entry = {"class_name": "InputLayer", "config": image, "name": "image", "inbound_nodes": []}
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [["tf.op", 0, 0]]}
    return {"class_name": "Model", "config": {"name": "m", "layers": [entry, layer], **ends}}


@pytest.mark.parametrize(
    ("function", "call", "expected"),
    [
        ("__operators__.add", ["image", 0, 0, {"y": 2.0}], lambda x: x + 2),
        ("math.subtract", ["image", 0, 0, {"y": 2.0, "name": None}], lambda x: x - 2),
        ("math.subtract", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["image", 0, 0]}], lambda x: 2 - x),
        ("math.multiply", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["image", 0, 0]}], lambda x: 2 * x),
        ("math.truediv", ["image", 0, 0, {"y": [4.0]}], lambda x: x / 4),
        ("math.multiply", ["image", 0, 0, {"y": ["image", 0, 0]}], lambda x: x * x),
        ("nn.relu", ["image", 0, 0, {"name": None}], lambda x: np.maximum(x, 0)),
    ],
)
def test_arithmetic_of_tensorflow_is_done_by_layers(
    function: str, call: list[object], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    network = keras.saving.deserialize_keras_object(in_keras_3(operation(function, *call)))
    pixels = shown() - 0.5
    np.testing.assert_allclose(network.predict(pixels, verbose=0), expected(pixels), atol=1e-6)


@pytest.mark.parametrize("function", ["math.truediv", "math.reduce_mean", "nn.relu"])
def test_other_operations_of_tensorflow_are_refused(function: str) -> None:
    call = ["_CONSTANT_VALUE", -1, 2.0, {"y": ["image", 0, 0]}]
    with pytest.raises(ValueError, match=f"tf.{function}, is an operation of TensorFlow's"):
        in_keras_3(operation(function, *call))


def test_a_list_of_layers_without_an_input_is_read(tmp_path: Path) -> None:
    """As Keras 2.2 and older wrote it."""
    path = tmp_path / "older.h5"
    shutil.copy(FILES / "sequence.h5", path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"] = config["config"]["layers"][1:]
        assert "batch_input_shape" in config["config"][0]["config"]
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = b"2.1.6"
    np.testing.assert_allclose(answers(path), ANSWERS["sequence"], atol=1e-6)


def test_weights_without_layers_and_folders_of_tensorflow_name_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    shutil.copy(FILES / "sequence.h5", path)
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
    with pytest.raises(BundleError, match=r"weights and no layers.*model\.save\('x\.keras'\)"):
        open_keras(path)
    for name, why in (("none.h5", "no such file"), ("t.keras", "neither HDF5 nor a .keras")):
        with pytest.raises(BundleError, match=rf"{name}: .*{why}"):
            open_keras(tmp_path / name)
        (tmp_path / "t.keras").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "saved_model.pb").touch()
    with pytest.raises(BundleError, match=r"a SavedModel.*\.save\('folder\.h5'\)"):
        open_keras(tmp_path / "folder")
