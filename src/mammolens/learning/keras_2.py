"""What Keras 2 wrote of a network, in the words of Keras 3. Knows no files, and runs no code.

Both say the same of layers that both have; what differs stands in the tables. After
https://keras.io/guides/migrating_to_keras_3/ and what TensorFlow 2.15 writes. Only what concerns
answers is kept: how weights were drawn, regularised or constrained is not.
"""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

Config = dict[str, Any]

KINDS = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Model": "Functional",
    "SyncBatchNormalization": "BatchNormalization",
    "ThresholdedReLU": "ReLU",
    # Random changes are for training alone. Keras 3 lacks some of the layers.
    "RandomBrightness": "Identity",
    "RandomContrast": "Identity",
    "RandomFlip": "Identity",
    "RandomHeight": "Identity",
    "RandomRotation": "Identity",
    "RandomTranslation": "Identity",
    "RandomWidth": "Identity",
    "RandomZoom": "Identity",
}
"""What kind of layer does today what another did."""

RENAMED = {
    "InputLayer": {"batch_input_shape": "batch_shape"},
    "LeakyReLU": {"alpha": "negative_slope"},
    "ThresholdedReLU": {"theta": "threshold"},
}
"""By kind: an argument's name then and now."""

GONE = {
    "Conv2DTranspose": {"groups"},
    "DepthwiseConv2D": {"groups"},
    "InputLayer": {"ragged"},
    "SeparableConv2D": {"groups"},
    "SpatialDropout2D": {"noise_shape", "trainable"},
}
"""By kind: arguments that had no effect and are unknown now. Of those of `KINDS` all but a few."""

GONE_EVERYWHERE = re.compile("batch_input_shape|.*(initializer|regularizer|constraint)")

OF_EVERY_LAYER = {"name", "trainable", "dtype"}
"""What every layer takes."""

WITH_A_NUMBER: Mapping[str, Callable[[Any], tuple[Any, Any]]] = {
    "__operators__.add": lambda y: (1.0, y),
    "math.add": lambda y: (1.0, y),
    "math.multiply": lambda y: (y, 0.0),
    "math.subtract": lambda y: (1.0, -y),
    "math.truediv": lambda y: (1 / y, 0.0),
    "nn.bias_add": lambda y: (1.0, y),
}
"""TensorFlow's arithmetic of a tensor and a number, as scale and offset of a `Rescaling`."""

OF_TENSORS = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.multiply": "Multiply",
    "math.subtract": "Subtract",
}
"""The same of two tensors, as layers."""

FUNCTIONS = {
    "math.sigmoid": "sigmoid",
    "math.tanh": "tanh",
    "nn.elu": "elu",
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "nn.silu": "silu",
    "nn.softmax": "softmax",
    "nn.swish": "silu",
}
"""TensorFlow's functions of one tensor, as activations."""

OTHERWISE = {
    "hard_sigmoid": "another function than in Keras 3. Replace it by a sigmoid, and train on",
    "bicubic": "computed otherwise in Keras 3. Take it out: --set preprocess.height= does it",
}
"""Values of arguments that would be read without complaint, and answer otherwise."""

_CONTAINERS = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
"""As Keras 3 itself writes them."""


def in_keras_3(network: Mapping[str, Any]) -> Config:
    """Return what `keras.saving.deserialize_keras_object` makes a network of, without weights.

    Args:
        network: `model_config` of a `.h5` file, or `config.json` of a `.keras` file.

    Raises:
        ValueError: a layer is code, is not of Keras, or has no like in Keras 3. It is named.
    """
    return _layer(network)


def _layer(layer: Mapping[str, Any]) -> Config:
    was, config = layer["class_name"], layer["config"]
    kind = KINDS.get(was, was)
    if kind in _CONTAINERS:
        made = _sequential(config) if kind == "Sequential" else _functional(config)
        return _made(kind, made, _CONTAINERS[kind])
    if was in {"Lambda", "TFOpLambda", "SlicingOpLambda"}:
        raise ValueError(f"its layer '{config['name']}' of kind {was} is {_WHY[was]}")
    if not hasattr(keras.layers, kind):
        raise ValueError(
            f"its layer '{config['name']}' of kind {was} is not one of Keras 3. If it is of your "
            "own making, build the network anew from layers of Keras, and set its weights"
        )
    arguments = _arguments(was, config)
    if kind == "AveragePooling2D" and config["padding"] == "same":
        within = _made("MeanOfThere", arguments, "mammolens.learning.keras_files")
        return within | {"registered_name": "mammolens>MeanOfThere"}
    return _made(kind, arguments)


_WHY = {
    "Lambda": "Python code, which a file may not bring along. Replace it by layers of Keras",
    "TFOpLambda": "an operation of TensorFlow's. Replace it by layers of Keras, such as Rescaling",
    "SlicingOpLambda": "a slice of a tensor. Do before the network what it does",
}


def _made(kind: str, config: Config, module: str = "keras.layers") -> Config:
    return {
        "module": module,
        "class_name": kind,
        "config": config,
        "registered_name": None,
    }


def _arguments(was: str, config: Mapping[str, Any]) -> Config:
    renamed = RENAMED.get(was, {})
    kept = {
        renamed.get(name, name): value
        for name, value in config.items()
        if name in renamed or not (name in GONE.get(was, ()) or GONE_EVERYWHERE.fullmatch(name))
    }
    if KINDS.get(was) == "Identity":
        kept = {name: value for name, value in kept.items() if name in OF_EVERY_LAYER}
    for name, value in kept.items():
        if why := OTHERWISE.get(str(value)):
            raise ValueError(f"its layer '{config['name']}' has {name} = {value}, {why}")
        kept[name] = IN_OTHER_WORDS[name](value) if name in IN_OTHER_WORDS else value
    if KINDS.get(was, was) == "BatchNormalization" and isinstance(kept.get("axis"), list):
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


IN_OTHER_WORDS: Mapping[str, Callable[[Any], Any]] = {
    "activation": _activation,
    "backward_layer": lambda layer: layer and _layer(layer),
    "dtype": _dtype,
    "layer": _layer,
    "name": _name,
    "recurrent_activation": _activation,
}
"""By argument, of any layer: what it takes now."""


def _sequential(given: Config | list[Any]) -> Config:
    config: Config = {"name": "sequential"}
    config |= given if isinstance(given, dict) else {"layers": given}
    first, *_ = config["layers"]
    shape = first["config"].get("batch_input_shape") if isinstance(first["config"], dict) else None
    layers = list(map(_layer, config["layers"]))
    if first["class_name"] != "InputLayer" and shape:
        image = {"batch_shape": shape, "name": f"{_name(first['config']['name'])}_input"}
        layers.insert(0, _made("InputLayer", image))
    told = ("name", "trainable", "build_input_shape")
    return {name: config[name] for name in told if name in config} | {"layers": layers}


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
    config, kind = layer["config"], KINDS.get(layer["class_name"], layer["class_name"])
    if kind not in _CONTAINERS:
        return False
    layers = config["layers"] if isinstance(config, Mapping) else config
    return bool(layers[0]["class_name"] == "InputLayer")


def _tensor(tensor: Sequence[Any], called: Set[str]) -> list[Any]:
    """Return a reference [layer, call, output, ...]."""
    name, call, *rest = tensor
    return [_name(name), call - (name in called), *rest]


def _placed(layer: Mapping[str, Any], called: Set[str]) -> Config:
    """Return a layer of a graph, with its calls: lists of [layer, call, output, arguments]."""
    calls = layer["inbound_nodes"]
    if layer["class_name"] == "TFOpLambda":
        (call,) = calls
        made, calls = _operation(layer["config"], call)
    else:
        made = _layer(layer)
    calls = [[_tensor(tensor, called) for tensor in call] for call in calls]
    return made | {"name": _name(layer["name"]), "inbound_nodes": calls}


def _operation(config: Mapping[str, Any], call: list[Any]) -> tuple[Config, list[Any]]:
    """Return a layer that does what an operation of TensorFlow did, and the call of it."""
    function, name = config["function"], _name(config["name"])
    source, node, tensor, arguments = call
    other = arguments.get("y", arguments.get("bias"))
    if source == "_CONSTANT_VALUE" and function in OF_TENSORS and _is_tensor(other):
        scale, offset = WITH_A_NUMBER[function](np.array(tensor, float))
        if function == "math.subtract":  # a number minus a tensor
            scale, offset = -1.0, np.array(tensor, float)
        return _rescaling(name, scale, offset), [[[*other, {}]]]
    here = [source, node, tensor, {}]
    if function in OF_TENSORS and _is_tensor(other):
        return _made(OF_TENSORS[function], {"name": name}), [[here, [*other, {}]]]
    if other is not None and not _is_tensor(other) and function in WITH_A_NUMBER:
        return _rescaling(name, *WITH_A_NUMBER[function](np.array(other, float))), [[here]]
    if other is None and function in FUNCTIONS:
        return _made("Activation", {"name": name, "activation": FUNCTIONS[function]}), [[here]]
    raise ValueError(f"its layer '{name}', tf.{function}, is {_WHY['TFOpLambda']}")


def _is_tensor(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _rescaling(name: str, scale: ArrayLike, offset: ArrayLike) -> Config:
    numbers = {"scale": np.asarray(scale).tolist(), "offset": np.asarray(offset).tolist()}
    return _made("Rescaling", {"name": name, **numbers})
