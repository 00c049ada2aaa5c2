"""TensorFlow in an environment of its own, which `make bench` builds: what is held against it, started there."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

from benchmarks.measuring import ran

PYTHON = Path("build/tensorflow/bin/python")

WAY: list[str | Path] = [PYTHON, "-P", "benchmarks/keras_way.py"]

QUIET: dict[str, Any] = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}

_SAVED = """
import mammolens.learning.training, keras, sys
from pathlib import Path
from mammolens.learning.networks.builders import build
from mammolens.learning.networks.efficientnet_lite import efficientnet_lite
from mammolens.learning.networks.heads import score_map_network
from mammolens.learning.runs import save_network
from mammolens.model.recipe import read_recipe
recipe = read_recipe(sys.argv[1], sys.argv[3:])
network = build(recipe)
if recipe.network != "baseline_cnn":
    # Channels come last on TensorFlow; the weights fit both.
    body = efficientnet_lite(0, *recipe.preprocess.shape, data_format="channels_last")
    network, learnt = score_map_network(body, recipe.pooling, recipe.dense_dropout), network.get_weights()
    network.set_weights(learnt)
save_network(network, Path(sys.argv[2]))
"""


def installed() -> bool:
    """Tell whether it is there; say so where it is not."""
    there = PYTHON.parents[1].joinpath(".installed").is_file()
    if not there:
        print("no TensorFlow here: what is held against it is left out (make bench installs it)")
    return there


def save_network(path: Path, recipe: str, *options: str) -> Path:
    """Write the network of a recipe that TensorFlow is to open, a `.h5` file: in a process of its own.

    Keras' random numbers, and PyTorch's threads, stay out of what is measured here.
    """
    ran([sys.executable, "-c", _SAVED, recipe, path, *options])
    return path


def seconds_to_import() -> float:
    """Return how long a fresh Python takes to import TensorFlow, and to end."""
    return ran([PYTHON, "-c", "import tensorflow"], **QUIET).seconds


@contextmanager
def answering(network: Path, pixels: Path) -> Iterator[Callable[[int], float]]:
    """Hold a process that answers with Keras' `predict`, warm; yield what makes so many answers: seconds for one.

    Args:
        network: see `save_network`.
        pixels: a `.npy` file of float32 (images, height, width, 1) in [0, 1]: what one `predict` is asked for, such
            as a picture and its mirror images.
    """
    command = [*WAY, "answer", network, pixels]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=environ | QUIET, **pipes) as process:

        def seconds(answers: int) -> float:
            print(answers, file=process.stdin, flush=True)
            return float(next(iter(process.stdout or ())))

        seconds(1)
        yield seconds
        process.communicate()  # and so ends what it reads
