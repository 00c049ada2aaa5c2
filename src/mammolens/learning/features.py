"""What frozen stages make of images: they learn nothing, so ONNX Runtime may run them.

There a convolution, its normalisation and its activation are one step: the first four stages of
Lite0 take a sixth of the time that Keras needs for them on PyTorch.
"""

import keras
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mammolens.images.breast import Pixels
from mammolens.learning.efficientnet_lite import STAGES, layers_by_stage
from mammolens.learning.networks import Network
from mammolens.learning.onnx_model import INPUT, to_onnx


class Frozen:
    """The first stages of a network, as a function of pixels.

    Args:
        stages: the network.
        threads: to compute with; 0 is as many as there are cores.
    """

    def __init__(self, stages: Network, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait by spinning would take the cores from the stages that learn.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(to_onnx(stages), options, providers)
        self._channels_first = _is_channels_first(stages)

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        """Take (images, height, width, 1); return activations as the rest of the network wants."""
        made = self._session.run(None, {INPUT: images})[0]
        # With PyTorch below, channels come first by name, and last in memory, which is faster.
        last = np.moveaxis(made, 1, -1) if self._channels_first else made
        kept = np.ascontiguousarray(last, dtype=np.float32)
        return np.moveaxis(kept, -1, 1) if self._channels_first else kept


def cut(network: Network, stages: int) -> tuple[Network, Network]:
    """Return the first `stages` of `STAGES` and the rest of a network; they share its layers.

    The first input of `network` is pixels; all others go into the rest.
    """
    last = layers_by_stage(network)[STAGES[stages - 1]][-1]
    pixels, *others = network.inputs
    frozen = keras.Model(pixels, last.output, name="frozen")
    inputs = [last.output, *others] if others else last.output
    return frozen, keras.Model(inputs, network.output, name=network.name)


def _is_channels_first(network: Network) -> bool:
    return any(getattr(layer, "data_format", "") == "channels_first" for layer in network.layers)
