"""Networks in files of Keras: of plain layers alone, and no larger than their weights. Checked before Keras sees them.

Keras' safe mode lists what it forbids, and was got round time and again; here is a list of what there may be.
"""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import Any

import keras

from mammolens.learning.networks.contents import contents
from mammolens.learning.networks.folded import Network
from mammolens.workers.crew import apart

Config = dict[str, Any]

_WORDS = tomllib.loads(Path(__file__).with_name("saved.toml").read_text(encoding="utf-8"))

_MOST_NUMBERS = 2**29  # of one layer's output, for one image

_CONTAINERS = frozenset({"Functional", "Model", "Sequential"})
_LAYERS = frozenset(_WORDS["layers"])
_OPERATIONS = frozenset(_WORDS["operations"])
_PARTS = frozenset(_WORDS["parts"])
_ALLOWED: Mapping[str | None, frozenset[str]] = {
    None: _CONTAINERS | _LAYERS | _PARTS,
    "keras": _CONTAINERS | _PARTS,
    "keras.layers": _LAYERS,
    "keras.models": _CONTAINERS,
    "keras.src.models.functional": _CONTAINERS,
    "keras.src.models.sequential": _CONTAINERS,
    **dict.fromkeys(("keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.regularizers"), _PARTS),
    **dict.fromkeys((f"keras.src.ops.{part}" for part in ("core", "math", "nn", "numpy")), _OPERATIONS),
    "mammolens.learning.keras_files": frozenset({"MeanOfThere", "mammolens>MeanOfThere"}),
}
"""Classes that a file may name, by the module that it names."""

_DATA = frozenset({"__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"})
_ACTIVATIONS = frozenset(dir(keras.activations)) - {"deserialize", "get", "serialize"}


def open_saved(path: Path, translated: Callable[[Config], Config] | None = None) -> Network:
    """Open a `.h5` or `.keras` file as a network, without its optimizer. Runs no code of its.

    Args:
        path: the file.
        translated: puts what Keras 2 wrote of layers into the words of Keras 3.

    Raises:
        BundleError: it is no such file, is damaged, has no layers, reaches for other files, or says that it is larger
            than it is.
        ImageError: to look through it takes too long or too much memory, or crashes the process that does so.
        ValueError: it may bring code along. Keras raises whatever else it trips over.
    """
    config, weights = checked_layers(path, translated)
    if keras.backend.backend() == "torch":  # has a device on which arrays take no memory
        with keras.device("meta"):
            _check_size(_built(config), weights)
    network = _built(config)
    network.load_weights(path)
    return network


def checked_layers(path: Path, translated: Callable[[Config], Config] | None = None) -> tuple[Config, int]:
    """Return what a file says of its layers, all of it allowed, and how many weights it has; builds nothing.

    Raises:
        ValueError: as of `open_saved`.
    """
    found = apart(contents, path)
    config = json.loads(found.config)
    if translated is not None and int(found.version.partition(".")[0] or 2) < 3:  # noqa: PLR2004 - of Keras
        config = translated(config)
    return _allowed(config), found.weights


def _allowed(node: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return a copy without what concerns training; whatever names a class or a function is on the list.

    Raises:
        ValueError: something is not. It is named.
    """
    if isinstance(node, list):
        return [_allowed(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "class_name" in node:
        _check_class(node)
    for name, value in node.items():
        if name.endswith("activation") and isinstance(value, str) and value not in _ACTIVATIONS:
            raise ValueError(f"its {name} {value} is not a function of Keras")
    return {name: _allowed(value) for name, value in node.items() if name not in ("compile_config", "optimizer")}


def _check_class(node: Config) -> None:
    kind, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
    config = node.get("config")
    if kind in _DATA and module is None:
        return
    if kind == "function":
        allowed = module in (None, "builtins", "keras.activations") and config in _ACTIVATIONS
    else:
        allowed = kind in _ALLOWED.get(module, ()) and registered in (None, kind, f"mammolens>{kind}")
    if not allowed:
        named = config.get("name") if isinstance(config, dict) else config
        raise ValueError(
            f"its layer '{node.get('name') or named}' of kind {f'{module}.' if module else ''}{kind} is not one of "
            "the plain layers of Keras, and may bring Python code along. Build the network anew of these, and set "
            "its weights"
        )


def _built(config: Config) -> Network:
    if config.get("module"):
        return keras.saving.deserialize_keras_object(deepcopy(config), safe_mode=True)
    kind = keras.Sequential if config["class_name"] == "Sequential" else keras.Model
    return kind.from_config(deepcopy(config["config"]))  # as HDF5 files have it


def _check_size(network: Network, weights: int) -> None:
    if (wanted := network.count_params()) > weights:
        raise ValueError(f"its layers have {wanted:,} weights, where the file holds {weights:,}")
    for name, shape in _outputs(network):
        if prod(size or 1 for size in shape) > _MOST_NUMBERS:
            raise ValueError(f"its layer '{name}' gives {shape} numbers for each image, which is too much")


def _outputs(network: Network) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    for layer in network.layers:
        for output in keras.tree.flatten(layer.output):
            yield layer.name, tuple(output.shape)
        if hasattr(layer, "layers"):
            yield from _outputs(layer)
