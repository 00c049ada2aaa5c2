"""What a warm answer of the network that ships takes, mirror images included: the network alone, no decoding.

    python -m benchmarks.answering

Held against Keras' `predict` on TensorFlow and PyTorch as one writes it by hand, each of the same network and of all
mirror images as one batch, and OpenVINO on the very file that ships.
"""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
from numpy.typing import NDArray

from benchmarks.measuring import Row, alternate, each_of, keep
from benchmarks.tensorflow_environment import answering, installed, save_network
from mammolens.images.preprocess import as_float
from mammolens.model.recipe import read_recipe
from mammolens.parallel import cores
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import View
from mammolens.serving.predictor import Predictor

REPEATS, ANSWERS = 9, 5

OPENVINO = Path("build/openvino")  # pip install --target
IN_32_BITS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}

Levels = NDArray[np.uint16]


def levels(predictor: Predictor) -> Levels:
    """Return one picture as the network is shown it."""
    drawn = draw_view(draw_patient(0, 0).left, View.CC, size=1024).pixels
    prepared = predictor.bundle.record.preprocess(drawn.astype(np.float32) / np.float32(255))
    return prepared.pixels


def mirrored(shown: Levels) -> NDArray[np.float32]:
    """Return the picture and its mirror images, (4, height, width, 1): all that one answer rests on."""
    pixels = as_float(shown)
    images = [pixels[::down, ::across] for down in (1, -1) for across in (1, -1)]
    return np.ascontiguousarray(np.stack(images)[..., np.newaxis])


def by_pytorch(images: NDArray[np.float32]) -> Callable[[], object]:
    """Return what answers in plain PyTorch: float32, channels last, the mirror images as one batch."""
    network = EfficientNet.from_name("efficientnet-lite0", num_classes=1).eval().to(memory_format=torch.channels_last)
    colour = torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    shown = colour.contiguous(memory_format=torch.channels_last)

    def answer() -> object:
        with torch.inference_mode():
            return network(shown).sigmoid().mean()

    return answer


def by_openvino(model: bytes, shown: NDArray[np.float32]) -> Callable[[], object] | None:
    """Return what answers by OpenVINO, set for one answer after the other, in 32 bits; None where it is not.

    By itself it takes 16 bits where the processor multiplies such, and a probability moves by up to 0.025.
    """
    if OPENVINO.is_dir():
        sys.path.append(str(OPENVINO))
    try:
        import openvino  # type: ignore[import-not-found]  # noqa: PLC0415 - no dependency
    except ImportError:
        print("no OpenVINO here: what is held against it is left out")
        return None
    core = openvino.Core()
    opened = core.compile_model(core.read_model(model), "CPU", IN_32_BITS)

    def answer() -> object:
        return opened(shown)[0].item()

    return answer


def profile(predictor: Predictor, shown: Levels, folder: Path) -> str:
    """Say which operations take most of an answer, and how long its arithmetic alone takes in 32 bits."""
    from benchmarks.training import operations, speeds  # noqa: PLC0415 - Keras stays out of what is measured

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(predictor.bundle.model, options, providers=["CPUExecutionProvider"])
    for _ in range(ANSWERS):
        session.run(None, {session.get_inputs()[0].name: as_float(shown)[np.newaxis, ..., np.newaxis]})
    took: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")):
        if event["name"].endswith("_kernel_time"):
            took[event["args"]["op_name"]] += event["dur"]
    most = ", ".join(f"{name} {100 * spent / took.total():.0f} %" for name, spent in took.most_common(4))
    work, speed = operations(read_recipe("accurate", ["initial_weights=none"]), 4, learning=False), speeds()
    fastest = 1e9 * speed["convolutions, float32"]
    return (
        f"where it goes: {most}; its {work / 1e9:.1f} GFLOP alone take {1000 * work / fastest:.0f} ms at the speed of "
        f"a large convolution in float32 ({fastest / 1e9:.0f} GFLOP/s)"
    )


def main() -> None:
    """Answer in turn, and keep the rows."""
    predictor = Predictor.load("accurate")
    shown = levels(predictor)
    images = mirrored(shown)
    answers: dict[str, Callable[[], object]] = {
        "ours": partial(predictor.score, shown),
        "PyTorch, eager, the same network, float32, channels last": by_pytorch(images),
    }
    if openvino := by_openvino(predictor.bundle.model, images[:1]):
        answers["OpenVINO on the same ONNX file, float32"] = openvino
    for answer in answers.values():
        answer()
    ways = {name: partial(each_of, ANSWERS, answer) for name, answer in answers.items()}
    targets = {"PyTorch": 2.0, "OpenVINO": 0.9, "Keras": 4.0}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        if installed():
            pixels = Path(scratch, "pixels.npy")
            np.save(pixels, images)
            network = save_network(Path(scratch, "accurate.h5"), "accurate", "initial_weights=imagenet")
            ways["Keras `predict` on TensorFlow"] = partial(stack.enter_context(answering(network, pixels)), ANSWERS)
        took = alternate(ways, REPEATS)
        where = profile(predictor, shown, Path(scratch))
    work = "a warm answer of `accurate`: the network and its four mirror images, no decoding"
    ours = took.pop("ours")
    rows = [Row(work, ours, name, theirs, targets[name.split()[0].strip(",")]) for name, theirs in took.items()]
    keep("answering", [replace(rows[0], note=where), *rows[1:]])


if __name__ == "__main__":
    main()
