"""A bundle for tests whose every answer is known beforehand: how bright a picture is, and where."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mammolens.images.preprocess import Preprocess
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.model.bundle import Bundle, BundleRecord, Outputs, write_bundle
from mammolens.model.calibration import Calibration
from mammolens.model.decisions import OperatingPoint

HEIGHT, WIDTH = 48, 32


def brightness() -> bytes:
    """An honest small stand-in for a network: the mean of the pixels, and of each 8 × 8 of them."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["probability"], axes=[1, 2], keepdims=0),
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["first"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Transpose", ["pooled"], ["score_map"], perm=[0, 2, 3, 1]),
    ]
    shapes = {"image": (HEIGHT, WIDTH), "probability": (), "score_map": (HEIGHT // 8, WIDTH // 8)}
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["images", *shape, 1]) for name, shape in shapes.items()
    ]
    graph = helper.make_graph(nodes, "brightness", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def point(threshold: float) -> OperatingPoint:
    figure = Estimate(0.9, 0.8, 1.0)
    return OperatingPoint(threshold=threshold, sensitivity=figure, specificity=figure, subjects=9, patients=3)


def bundle(out: Path, **changes: Any) -> Bundle:
    """Write it into the new folder `out`, with `changes` to its record."""
    thresholds = {"balanced": 0.5, "sensitivity-90": 0.3, "specificity-90": 0.6}
    points = {name: point(threshold) for name, threshold in thresholds.items()}
    fields = {
        "name": "brightness",
        "created": "2026-01-01T00:00:00+00:00",
        "licence": "CC0-1.0",
        "training_data": None,
        "preprocess": Preprocess(height=HEIGHT, width=WIDTH),
        "outputs": Outputs(score_map="score_map"),
        "calibration": Calibration(),
        "operating_points": {
            Level.IMAGE: points,
            Level.BREAST: points | {"balanced": point(0.4)},
            Level.PATIENT: points | {"balanced": point(0.45)},
        },
        "default_operating_point": "balanced",
        "gate": None,
        "metrics": {},
        "parity": 0.0,
    }
    return write_bundle(BundleRecord.model_validate(fields | changes), brightness(), out)


def flat(level: int, *, height: int = 64, width: int = 48) -> NDArray[np.uint8]:
    """A picture of one grey."""
    return np.full((height, width), level, np.uint8)


def centre(score_map: NDArray[np.float32], height: int, width: int) -> tuple[float, float]:
    """Where the heat is, in pixels of the picture: (x, y)."""
    rows, columns = np.indices(score_map.shape) + 0.5
    total = score_map.sum()
    y, x = (rows * score_map).sum() / total, (columns * score_map).sum() / total
    return float(x * width / score_map.shape[1]), float(y * height / score_map.shape[0])
