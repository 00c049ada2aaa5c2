"""Keras files that anybody wrote, of Keras 2 or 3 → networks of ours. Runs no code of theirs."""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from mammolens.errors import BundleError, reason
from mammolens.files import why_not_opened
from mammolens.learning.keras_2 import in_keras_3
from mammolens.learning.networks import Network


@keras.saving.register_keras_serializable("mammolens")
class MeanOfThere(keras.layers.AveragePooling2D):  # type: ignore[misc]  # Keras ships no types
    """Average pooling, padding "same", of what is there: as TensorFlow has it, and PyTorch not."""

    def call(self, inputs: Any) -> Any:  # noqa: ANN401 - tensors
        """Take (images, rows, columns, channels)."""
        sizes, window, strides = inputs.shape[1:3], self.pool_size, self.strides
        counts = [-(-size // step) for size, step in zip(sizes, strides, strict=True)]
        lacking = [
            max((count - 1) * step + extent - size, 0)
            for size, count, step, extent in zip(sizes, counts, strides, window, strict=True)
        ]
        pads = [(total // 2, total - total // 2) for total in lacking]
        padded = keras.ops.pad(inputs, [(0, 0), *pads, (0, 0)])
        means = keras.ops.average_pool(padded, window, strides, "valid", self.data_format)
        there = np.pad(np.ones((1, *sizes, 1), np.float32), [(0, 0), *pads, (0, 0)])
        share = keras.ops.average_pool(there, window, strides, "valid", self.data_format)
        return means / share


def open_keras(path: Path) -> Network:
    """Open a `.h5` or `.keras` file as a network of ours: grey in, one probability out.

    Keras' safe mode is on: a file that holds Python code is refused. Three input channels get the
    grey pixels each; of two softmax outputs the second is taken as tumor.

    Raises:
        BundleError: it cannot be opened safely, or its input or output is of another kind.
    """
    check_not_saved_model(path)
    try:
        path.open("rb").close()
    except (OSError, ValueError) as error:
        why = why_not_opened(path, error, "a .h5 or .keras file")
        raise BundleError(f"{path}: {why}") from error
    try:
        loaded = _loaded(path)
    except Exception as error:  # Keras raises whatever it trips over
        raise BundleError(f"{path}: cannot be opened as a Keras model in safe mode ({reason(error)}).") from error
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


def _loaded(path: Path) -> Network:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
            config = json.loads(archive.read("config.json"))
    elif h5py.is_hdf5(path):
        with h5py.File(path) as file:
            version, config = _text(file.attrs.get("keras_version")), file.attrs.get("model_config")
        if config is None:
            raise ValueError(
                "it holds weights and no layers: build the network, load them into it, and model.save('x.keras')"
            )
        config = json.loads(_text(config))
    else:
        raise ValueError("it is neither HDF5 nor a .keras archive")
    if int(version.partition(".")[0] or 2) >= 3:  # noqa: PLR2004 - of Keras
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    network = keras.saving.deserialize_keras_object(in_keras_3(config), safe_mode=True)
    network.load_weights(path)
    return network


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
