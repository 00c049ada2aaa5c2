"""Keras files that anybody wrote, of Keras 2 or 3 → networks of ours. Runs no code of theirs.

What Keras 2 wrote is put into the words of Keras 3 (`keras_2.toml`); only what concerns answers is
kept: how weights were drawn, regularised or constrained is not.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence, Set
from importlib import resources
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from mammolens.errors import BundleError, reason
from mammolens.files import why_not_opened
from mammolens.learning.networks.folded import Network, same_padding
from mammolens.learning.networks.saved import open_saved

Config = dict[str, Any]

_WORDS = tomllib.loads((resources.files("mammolens.learning") / "keras_2.toml").read_text(encoding="utf-8"))
_OF_NO_CONCERN = re.compile("batch_input_shape|.*(initializer|regularizer|constraint)")
_OF_EVERY_LAYER = {"name", "trainable", "dtype"}


@keras.saving.register_keras_serializable("mammolens")
class MeanOfThere(keras.layers.AveragePooling2D):  # type: ignore[misc]  # Keras ships no types
    """Average pooling, padding "same", of what is there: as TensorFlow has it, and PyTorch not."""

    def call(self, inputs: Any) -> Any:  # noqa: ANN401 - tensors
        """Take (images, rows, columns, channels)."""
        sizes, window, strides = inputs.shape[1:3], self.pool_size, self.strides
        pads = [(0, 0), *map(same_padding, sizes, window, strides), (0, 0)]
        there = np.pad(np.ones((1, *sizes, 1), np.float32), pads)
        means, share = (
            keras.ops.average_pool(padded, window, strides, "valid", self.data_format)
            for padded in (keras.ops.pad(inputs, pads), there)
        )
        return means / share


def open_keras(path: Path) -> Network:
    """Open a `.h5` or `.keras` file as a network of ours: grey in, one probability out.

    A file that is of more than plain layers of Keras, and may bring code along, is refused. Three
    input channels get the grey pixels each; of two softmax outputs the second is taken as tumor.

    Raises:
        BundleError: it cannot be opened safely, or its input or output is of another kind.
    """
    check_not_saved_model(path)
    try:
        path.open("rb").close()
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {why_not_opened(path, error, 'a .h5 or .keras file')}") from error
    try:
        loaded = open_saved(path, in_keras_3)
    except BundleError:
        raise
    except Exception as error:  # Keras raises whatever it trips over
        why = reason(error)
        raise BundleError(f"{path}: cannot be opened as a Keras model ({why}).") from error
    shapes: list[Any] = [getattr(loaded, f"{end}_shape", None) for end in ("input", "output")]
    if not all(isinstance(shape, tuple) for shape in shapes):
        raise BundleError(f"{path}: expected one input and one output.")
    (_, *size), (_, *units) = shapes
    if len(size) != 3 or None in size or size[-1] not in {1, 3} or units not in ([1], [2]):  # noqa: PLR2004
        raise BundleError(
            f"{path}: expected pixels (height, width, 1 or 3) in and 1 or 2 probabilities out; "
            f"found {tuple(size)} and {tuple(units)}."
        )
    network = keras.Model(loaded.inputs[0], loaded.outputs[0], name=loaded.name)
    return _seen_grey(network if units == [1] else _of_tumor(network))


def _of_tumor(network: Network) -> Network:
    """Return a network with the second of two outputs: as one logit, where they are a softmax."""
    last = network.layers[-1]
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    if not isinstance(last, keras.layers.Dense) or not softmax or last.output is not network.output:
        return keras.Model(network.input, network.output[:, 1:], name=network.name)
    alone = keras.layers.Dense(1, "sigmoid", use_bias=last.use_bias, name=f"{last.name}_of_tumor")
    answer = alone(last.input)
    # A softmax of two is a sigmoid of their difference.
    alone.set_weights([weight[..., 1:] - weight[..., :1] for weight in last.get_weights()])
    return keras.Model(network.input, answer, name=network.name)


def _seen_grey(network: Network) -> Network:
    """Return a copy of a network that takes one channel, and shows it as all it had."""
    height, width, channels = network.input_shape[1:]
    if channels == 1:
        return network
    image = keras.Input((height, width, 1), name="image")
    grey = keras.layers.Concatenate(name="grey_as_colour")([image] * channels)

    def called(layer: Any, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401 - as Keras has it
        shown = keras.tree.map_structure(lambda x: grey if x is image else x, inputs)
        return layer(*shown, **options)

    # Layer by layer, and not as a whole: so the map sees what comes before the last pooling.
    copy = keras.models.clone_model(network, input_tensors=image, call_function=called)
    copy.set_weights(network.get_weights())
    return copy


def check_not_saved_model(path: Path) -> None:
    """Refuse, with what to do, a folder that TensorFlow wrote.

    Raises:
        BundleError: it is one.
    """
    if (path / "saved_model.pb").is_file():
        raise BundleError(
            f"{path}: a SavedModel, which only TensorFlow opens. Open it with the TensorFlow that "
            f"wrote it, and save it as one file: tf.keras.models.load_model('{path.name}')"
            f".save('{path.name}.h5')."
        )


def in_keras_3(layer: Mapping[str, Any]) -> Config:
    """Return what `keras.saving.deserialize_keras_object` makes a network of, without weights.

    Args:
        layer: a network, or a layer of one: `model_config` of a `.h5` file, or `config.json` of a
            `.keras` file.

    Raises:
        ValueError: a layer is code, is not of Keras, or has no like in Keras 3. It is named.
    """
    was, config = layer["class_name"], layer["config"]
    kind = _kind(layer)
    if kind == "Sequential":
        return _made(kind, _sequential(config))
    if kind == "Functional":
        return _made(kind, _functional(config))
    if why := _WORDS["refused"].get(was):
        raise ValueError(f"its layer '{config['name']}' of kind {was} is {why}")
    if not hasattr(keras.layers, kind):
        raise ValueError(
            f"its layer '{config['name']}' of kind {was} is not one of Keras 3. If it is of your "
            "own making, build the network anew from layers of Keras, and set its weights"
        )
    arguments = _arguments(was, config)
    if kind == "AveragePooling2D" and config["padding"] == "same":
        return _made("MeanOfThere", arguments) | {"module": __name__, "registered_name": "mammolens>MeanOfThere"}
    return _made(kind, arguments)


def _kind(layer: Mapping[str, Any]) -> str:
    return str(_WORDS["kinds"].get(layer["class_name"], layer["class_name"]))


def _made(kind: str, config: Config) -> Config:
    module = _WORDS["containers"].get(kind, "keras.layers")
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def _arguments(was: str, config: Mapping[str, Any]) -> Config:
    kind, renamed = _WORDS["kinds"].get(was, was), _WORDS["renamed"].get(was, {})
    kept: Config = {}
    for name, value in config.items():
        if name not in renamed and (name in _WORDS["gone"].get(was, ()) or _OF_NO_CONCERN.fullmatch(name)):
            continue
        if kind == "Identity" and name not in _OF_EVERY_LAYER:
            continue
        now = renamed.get(name, name)
        if why := _WORDS["otherwise"].get(str(value)):
            raise ValueError(f"its layer '{config['name']}' has {now} = {value}, {why}")
        kept[now] = _IN_OTHER_WORDS[now](value) if now in _IN_OTHER_WORDS else value
    if kind == "BatchNormalization" and isinstance(kept.get("axis"), list):
        (kept["axis"],) = kept["axis"]
    return kept


def _name(name: str) -> str:
    """Return a layer's name without slashes, which Keras 3 does not allow."""
    return name.replace("/", "_")


def _dtype(dtype: str | Mapping[str, Any]) -> str:
    """Return the type of numbers. Half precision was for speed: weights are 32-bit floats."""
    name = dtype["config"]["name"] if isinstance(dtype, Mapping) else dtype
    return "float32" if name.startswith("mixed_") else str(name)


def _activation(activation: str | Mapping[str, Any] | None) -> str | None:
    name = activation.get("config") if isinstance(activation, Mapping) else activation
    if name is not None and not hasattr(keras.activations, str(name)):
        raise ValueError(f"its activation {activation} is not a function of Keras")
    return None if name is None else str(name)


# By argument, of any layer: what it takes now.
_IN_OTHER_WORDS: Mapping[str, Callable[[Any], Any]] = {
    "activation": _activation,
    "backward_layer": lambda layer: layer and in_keras_3(layer),
    "dtype": _dtype,
    "layer": in_keras_3,
    "name": _name,
    "recurrent_activation": _activation,
}


def _sequential(given: Config | list[Any]) -> Config:
    config: Config = {"name": "sequential"} | (given if isinstance(given, dict) else {"layers": given})
    first, *_ = config["layers"]
    shape = first["config"].get("batch_input_shape") if isinstance(first["config"], dict) else None
    layers = list(map(in_keras_3, config["layers"]))
    if first["class_name"] != "InputLayer" and shape:
        name = f"{_name(first['config']['name'])}_input"
        layers.insert(0, _made("InputLayer", {"batch_shape": shape, "name": name}))
    told = {name: config[name] for name in ("name", "trainable", "build_input_shape") if name in config}
    return told | {"layers": layers}


def _functional(config: Mapping[str, Any]) -> Config:
    made = {name: config[name] for name in ("name", "trainable") if name in config}
    # In Keras 2 a network with an input came with a call of itself, which was counted.
    called = {layer["name"] for layer in config["layers"] if _has_input(layer)}
    made["layers"] = [_placed(layer, called) for layer in config["layers"]]
    for end in ("input_layers", "output_layers"):
        named = [_tensor(tensor, called) for tensor in config[end]]
        made[end] = named[0] if len(named) == 1 else named
    return made


def _has_input(layer: Mapping[str, Any]) -> bool:
    if _kind(layer) not in _WORDS["containers"]:
        return False
    config = layer["config"]
    layers = config["layers"] if isinstance(config, Mapping) else config
    return bool(layers[0]["class_name"] == "InputLayer")


def _tensor(tensor: Sequence[Any], called: Set[str]) -> list[Any]:
    """Return a reference [layer, call, output, ...]."""
    name, call, *rest = tensor
    return [_name(name), call - (name in called), *rest]


def _placed(layer: Mapping[str, Any], called: Set[str]) -> Config:
    """Return a layer of a graph, with its calls: lists of [layer, call, output, arguments]."""
    if layer["class_name"] == "TFOpLambda":
        (call,) = layer["inbound_nodes"]
        made, calls = _operation(layer["config"], call)
    else:
        made, calls = in_keras_3(layer), layer["inbound_nodes"]
    calls = [[_tensor(tensor, called) for tensor in call] for call in calls]
    return made | {"name": _name(layer["name"]), "inbound_nodes": calls}


# TensorFlow's arithmetic of a tensor and a number, as scale and offset of a `Rescaling`.
_WITH_A_NUMBER: Mapping[str, Callable[[Any], tuple[Any, Any]]] = {
    "__operators__.add": lambda y: (1.0, y),
    "math.add": lambda y: (1.0, y),
    "math.multiply": lambda y: (y, 0.0),
    "math.subtract": lambda y: (1.0, -y),
    "math.truediv": lambda y: (1 / y, 0.0),
    "nn.bias_add": lambda y: (1.0, y),
}


def _operation(config: Mapping[str, Any], call: list[Any]) -> tuple[Config, list[Any]]:
    """Return a layer that does what an operation of TensorFlow did, and the call of it."""
    function, name = config["function"], _name(config["name"])
    source, node, tensor, arguments = call
    other = arguments.get("y", arguments.get("bias"))
    here, there = [source, node, tensor, {}], [*other, {}] if _is_tensor(other) else None
    if there and source == "_CONSTANT_VALUE" and function in _WORDS["of_tensors"]:
        number = np.array(tensor, float)
        turned = function == "math.subtract"  # a number minus a tensor
        return _rescaling(name, *((-1.0, number) if turned else _WITH_A_NUMBER[function](number))), [[there]]
    if there and function in _WORDS["of_tensors"]:
        return _made(_WORDS["of_tensors"][function], {"name": name}), [[here, there]]
    if other is not None and not there and function in _WITH_A_NUMBER:
        return _rescaling(name, *_WITH_A_NUMBER[function](np.array(other, float))), [[here]]
    if other is None and function in _WORDS["functions"]:
        return _made("Activation", {"name": name, "activation": _WORDS["functions"][function]}), [[here]]
    raise ValueError(f"its layer '{name}', tf.{function}, is {_WORDS['refused']['TFOpLambda']}")


def _is_tensor(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _rescaling(name: str, scale: ArrayLike, offset: ArrayLike) -> Config:
    numbers = {"scale": np.asarray(scale).tolist(), "offset": np.asarray(offset).tolist()}
    return _made("Rescaling", {"name": name, **numbers})
