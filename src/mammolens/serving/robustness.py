"""How much worse under mild changes of the picture, and whether maps depend on the weights at all.

Every change is a function of pixels, float32 (height, width) in [0, 1] as `read_image` gives them,
to pixels of the same shape, type and range. None draws from anything but its own fixed seed.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from mammolens.data.manifest import Manifest
from mammolens.errors import BundleError, DataError, ImageError
from mammolens.images.breast import Mask, Pixels, anatomy, dilated
from mammolens.images.preprocess import Preprocess, full_size
from mammolens.images.reading import read_image
from mammolens.judging.schema import Robustness
from mammolens.measures.intervals import estimate, patient_weights
from mammolens.measures.metrics import auc_difference, called, roc_auc, share_of
from mammolens.parallel import map_in_order, tracked
from mammolens.serving.predictor import Predictor

if TYPE_CHECKING:
    import onnx

Perturbation = Callable[[Pixels], Pixels]

UNCHANGED = "unchanged"
"""The name of the row that the others are compared with."""

_MARKER, _LETTERS = "L CC", 0.04  # and their height, as a share of the picture's shorter side
_MARGIN = 0.03  # between marker and corner, as a share of the shorter side
_SKIN = 3  # thumbnail pixels around the breast that a marker stays off
_BLUR = 1 / 512  # standard deviation as a share of the picture's longer side
_NOISE = 0.02  # standard deviation as a share of the picture's range
_WEIGHTED = {"Conv", "MatMul", "Gemm"}


def _rotated(pixels: Pixels, degrees: float) -> Pixels:
    """Turn anticlockwise about the centre; what comes in is background."""
    fill = float(pixels.max() if anatomy(pixels).polarity.inverted else pixels.min())
    turned = _picture(pixels).rotate(degrees, Pillow.Resampling.BILINEAR, fillcolor=fill)
    return _clipped(turned)


def _brightened(pixels: Pixels, factor: float) -> Pixels:
    return _clipped(pixels * np.float32(factor))


def _contrasted(pixels: Pixels, factor: float) -> Pixels:
    mean = np.float32(pixels.mean())
    return _clipped(mean + np.float32(factor) * (pixels - mean))


def _gamma(pixels: Pixels, exponent: float) -> Pixels:
    return _clipped(pixels ** np.float32(exponent))


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    """JPEG has 8 bits: they are spent on the picture's own range."""
    low, span = pixels.min(), max(np.ptp(pixels), np.float32(1e-6))
    levels = np.rint((pixels - low) / span * 255).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(levels).save(stream, "JPEG", quality=quality)
    with Pillow.open(stream) as decoded:
        return _clipped(low + np.asarray(decoded, dtype=np.float32) / np.float32(255) * span)


def _halved(pixels: Pixels) -> Pixels:
    height, width = pixels.shape
    small = _picture(pixels).resize(((width + 1) // 2, (height + 1) // 2), Pillow.Resampling.BOX)
    return _clipped(small.resize((width, height), Pillow.Resampling.BILINEAR))


def _blurred(pixels: Pixels) -> Pixels:
    return _clipped(ndimage.gaussian_filter(pixels, max(0.5, _BLUR * max(pixels.shape))))


def _noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(0).standard_normal(pixels.shape, dtype=np.float32)
    return _clipped(pixels + np.float32(_NOISE) * np.ptp(pixels) * noise)


def _marked(pixels: Pixels) -> Pixels:
    """Lay letters on the corner away from the chest wall, where less of the breast is; not on it.

    They have the picture's brightest level, or the darkest where grey levels are inverted.
    """
    seen = anatomy(pixels)
    breast = seen.breast
    mask = full_size(dilated(breast.mask, _SKIN), pixels.shape)
    marks = (_letters(pixels.shape, at_right=not breast.chest_wall_right, at_top=at_top) for at_top in (True, False))
    letters = min(marks, key=lambda ink: int((ink & mask).sum()))
    marked = pixels.copy()
    marked[letters & ~mask] = pixels.min() if seen.polarity.inverted else pixels.max()
    return marked


PERTURBATIONS: dict[str, Perturbation] = {
    "rotation +5 degrees": partial(_rotated, degrees=5),
    "rotation -5 degrees": partial(_rotated, degrees=-5),
    "brightness +10 %": partial(_brightened, factor=1.1),
    "brightness -10 %": partial(_brightened, factor=0.9),
    "contrast x 0.8": partial(_contrasted, factor=0.8),
    "contrast x 1.25": partial(_contrasted, factor=1.25),
    "gamma 0.8": partial(_gamma, exponent=0.8),
    "gamma 1.25": partial(_gamma, exponent=1.25),
    "JPEG quality 50": partial(_compressed, quality=50),
    "JPEG quality 25": partial(_compressed, quality=25),
    "half resolution": _halved,
    "blur": _blurred,
    "noise": _noisy,
    "marker": _marked,
}
"""Mild changes that leave the diagnosis as it was, by name.

Rotations bring in background. Contrast changes about the picture's mean. Blur and noise are
Gaussian: their standard deviations are 1/512 of the longer side and 0.02 of the picture's range;
the noise is the same on every picture of a shape. The idea is that of Hendrycks & Dietterich 2019
(ICLR, arXiv:1903.12261); these are fewer and milder.
"""


def auc_under(
    predictor: Predictor,
    manifest: Manifest,
    perturbations: Mapping[str, Perturbation] = PERTURBATIONS,
    *,
    limit: int | None = None,
    progress: bool = False,
) -> tuple[Robustness, ...]:
    """Return how good the answers are on pictures as they are, then under each perturbation.

    Each picture is read once; several processes change and prepare pictures, and what waits for
    the network are canvases, so that memory stays bounded.

    Args:
        predictor: what answers, by image.
        manifest: images to judge; those without a label, or that cannot be read, are left out.
        perturbations: functions of pixels, importable by name, by what to call them.
        limit: judge at most so many images, as `some_patients` chooses them.
        progress: show a bar.

    Raises:
        DataError: no labelled image can be read.
    """
    chosen = some_patients(manifest.labelled(), limit)
    record, threshold = predictor.bundle.record, predictor.threshold()
    prepare = partial(_canvases, preprocess=record.preprocess, changes=tuple(perturbations.values()))
    work = tracked(map_in_order(prepare, chosen.paths), "Changing", len(chosen), visible=progress)
    scores = {
        path: [predictor.score(levels)[0] for levels in canvases]
        for path, canvases in zip(chosen.paths, work, strict=True)
    }
    judged = chosen.where(lambda mammogram: bool(scores[mammogram.path]))
    if not len(judged):
        raise DataError("no labelled image of the data set can be read: nothing to judge.")
    probabilities = record.calibration(np.array([scores[path] for path in judged.paths], dtype=np.float64).T)
    before, labels, weights = probabilities[0], judged.labels.astype(np.float64), patient_weights(judged.patients)
    return tuple(
        Robustness(
            change=name,
            roc_auc=estimate(roc_auc(labels, after), weights),
            drop=auc_difference(labels, before, after, weights),
            decisions_changed=estimate(share_of(called(after, threshold) != called(before, threshold)), weights),
            images=len(judged),
            patients=len(set(judged.patients)),
        )
        for name, after in zip((UNCHANGED, *perturbations), probabilities, strict=True)
    )


def some_patients(manifest: Manifest, limit: int | None) -> Manifest:
    """Return as many whole patients, drawn always alike, as have `limit` images at most; None limits nothing.

    Images keep their order.
    """
    if limit is None or len(manifest) <= limit:
        return manifest
    names, counts = np.unique(np.asarray(manifest.patients), return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    running = zip(names[order], np.cumsum(counts[order]), strict=True)
    kept = {str(name) for name, total in takewhile(lambda pair: pair[1] <= limit, running)}
    return manifest.where(lambda mammogram: mammogram.patient_key in kept)


def randomised(model: bytes) -> bytes:
    """Return an ONNX model with kernels drawn anew: normal, with each kernel's mean and deviation.

    For the sanity check of Adebayo et al. 2018 (NeurIPS, arXiv:1810.03292): see
    `localisation.rank_correlation`. Biases and normalisations stay. Needs onnx.

    Args:
        model: the file's bytes.

    Raises:
        BundleError: the model has no kernel.
    """
    import onnx  # noqa: PLC0415 - serving does without it
    from onnx import numpy_helper  # noqa: PLC0415

    network = onnx.load_from_string(model)
    kernels = _kernels(network.graph)
    if not kernels:
        raise BundleError("the ONNX model has no kernel of a layer: nothing to randomise.")
    generator = np.random.default_rng(0)
    for weight in kernels:
        values = numpy_helper.to_array(weight)
        wide = values.astype(np.float64)
        drawn = generator.normal(wide.mean(), wide.std(), values.shape).astype(values.dtype)
        weight.CopyFrom(numpy_helper.from_array(drawn, weight.name))
    return bytes(network.SerializeToString())


def _kernels(graph: "onnx.GraphProto") -> "list[onnx.TensorProto]":
    """Return the kernels of layers in the order of their first use; casts are seen through."""
    weights = {weight.name: weight for weight in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    used = [name for node in graph.node if node.op_type in _WEIGHTED for name in node.input[:2]]
    names = dict.fromkeys(source.get(name, name) for name in used)
    return [weights[name] for name in names if name in weights]


def _canvases(path: Path, preprocess: Preprocess, changes: tuple[Perturbation, ...]) -> list[NDArray[np.uint16]]:
    """Return the canvas of a picture as it is and under each change; none if it cannot be read."""
    try:
        pixels = read_image(path).pixels
    except ImageError:
        return []
    return [preprocess(pixels).pixels, *(preprocess(change(pixels)).pixels for change in changes)]


def _letters(shape: tuple[int, ...], *, at_right: bool, at_top: bool) -> Mask:
    """Return where the marker's letters are in a corner of a picture of `shape`."""
    height, width = shape
    margin, font = _MARGIN * min(shape), ImageFont.load_default(max(8, _LETTERS * min(shape)))
    place = (width - margin if at_right else margin, margin if at_top else height - margin)
    sheet = Pillow.new("1", (width, height))
    anchor = ("r" if at_right else "l") + ("t" if at_top else "b")
    ImageDraw.Draw(sheet).text(place, _MARKER, fill=1, font=font, anchor=anchor)
    return np.asarray(sheet)


def _picture(pixels: Pixels) -> Pillow.Image:
    return Pillow.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))


def _clipped(pixels: Pixels | Pillow.Image) -> Pixels:
    return np.clip(np.asarray(pixels, dtype=np.float32), 0, 1)
