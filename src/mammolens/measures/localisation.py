"""Where it looked, against boxes: score maps beside what a radiologist outlined, and chance.

Pure functions of arrays and boxes; knows no network. A map is as `Prediction.score_map` has it:
float32 (rows, columns) in [0, 1] over the whole picture, coarser than it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage, stats

from mammolens.errors import DataError
from mammolens.images.breast import Mask, Pixels, anatomy
from mammolens.measures.metrics import Estimate, estimate, mean_of, patient_weights, share_of
from mammolens.records import LABEL_NAMES, Box

_Floats = NDArray[np.float64]


class Localisation(BaseModel):
    """How often and how well maps meet boxes. By image; intervals are 95 %, by patient.

    Attributes:
        images: with at least one box and a map.
        patients: they belong to this many.
        hit_rate: share of images whose map has its maximum in a box (`pointing_hit`).
        chance_rate: what a place drawn evenly from the breast would hit (mean of `chance_rate`).
        iou: mean over images of `iou`.
        by_label: the same for images with a tumor and for those whose boxes are all benign, by
            `LABEL_NAMES`; empty unless both have boxes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    images: int
    patients: int
    hit_rate: Estimate
    chance_rate: float
    iou: Estimate
    by_label: dict[str, "Localisation"] = Field(default_factory=dict)


def localised(
    hits: ArrayLike, chances: ArrayLike, ious: ArrayLike, labels: ArrayLike, patients: Sequence[str]
) -> Localisation:
    """Return the figures of a list of images with boxes.

    Args:
        hits: (images,) of `pointing_hit`.
        chances: (images,) of `chance_rate`, with the same tolerance.
        ious: (images,) of `iou`.
        labels: (images,) of 0 or 1; other labels count in the whole alone.
        patients: the patient of each image.

    Raises:
        DataError: there are no images.
    """
    if not len(patients):
        raise DataError("no image has both a box and a score map: nothing to localise.")
    figures = np.stack([np.asarray(values, np.float64) for values in (hits, chances, ious)])
    label, patient = np.asarray(labels), np.asarray(patients)
    groups = {name: label == number for number, name in enumerate(LABEL_NAMES)}
    whole = _localised(figures, patient)
    if not all(group.any() for group in groups.values()):
        return whole
    parts = {name: _localised(figures[:, group], patient[group]) for name, group in groups.items()}
    return whole.model_copy(update={"by_label": parts})


def pointing_hit(score_map: Pixels, boxes: Sequence[Box], shape: tuple[int, int], tolerance_px: float = 0) -> bool:
    """Tell whether the map's maximum lies in a box: the pointing game.

    Zhang et al. 2018, IJCV 126:1084. Where several pixels share the maximum, it is the centre of
    the largest piece that they form. A map of one value points nowhere: no hit.

    Args:
        score_map: (rows, columns) over the whole picture.
        boxes: at least one, in pixels of the picture.
        shape: (height, width) of the picture.
        tolerance_px: how far outside a box still counts, in pixels of the picture.

    Raises:
        ValueError: no box.
    """
    _check(boxes)
    if score_map.min() == score_map.max():
        return False
    pieces, _ = ndimage.label(score_map == score_map.max())
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    row, column = ndimage.center_of_mass(pieces == largest)
    height, width = shape
    rows, columns = score_map.shape
    y, x = np.array([(row + 0.5) * height / rows]), np.array([(column + 0.5) * width / columns])
    return bool(_near(x, y, boxes, tolerance_px).item())


def breast_mask(pixels: Pixels) -> Mask:
    """Return where the breast is, bool, on the thumbnail of a picture in either polarity.

    All of it is True where no breast is found, as `Preprocess` then takes the whole picture.

    Args:
        pixels: float32 (height, width) in [0, 1].
    """
    return anatomy(pixels).breast.or_everything().mask


def chance_rate(pixels: Pixels, boxes: Sequence[Box], tolerance_px: float = 0) -> float:
    """Return how often a place drawn evenly from the breast would be a `pointing_hit`, in [0, 1].

    Args:
        pixels: the picture, float32 (height, width) in [0, 1].
        boxes: at least one, in its pixels.
        tolerance_px: as for `pointing_hit`.

    Raises:
        ValueError: no box.
    """
    _check(boxes)
    mask = breast_mask(pixels)
    return float(_covered(mask.shape, boxes, pixels.shape, tolerance_px)[mask].mean())


def iou(score_map: Pixels, boxes: Sequence[Box], shape: tuple[int, int], threshold: float = 0.5) -> float:
    """Return the intersection over union of the map's hot area and all boxes, in [0, 1].

    Judged on the pixels of the map, by their centres. A map of zeros has no hot area: 0.

    Args:
        score_map: (rows, columns) over the whole picture.
        boxes: at least one, in pixels of the picture.
        shape: (height, width) of the picture.
        threshold: share of the map's own maximum from which a place is hot.

    Raises:
        ValueError: no box.
    """
    _check(boxes)
    hot = (score_map >= threshold * score_map.max()) & (score_map > 0)
    outlined = _covered(score_map.shape, boxes, shape)
    union = int((hot | outlined).sum())
    return int((hot & outlined).sum()) / union if union else 0.0


def rank_correlation(before: Sequence[Pixels], after: Sequence[Pixels], inside: Sequence[Mask] | None = None) -> float:
    """Return the mean Spearman correlation of maps before and after weights were randomised.

    The sanity check of Adebayo et al. 2018 (NeurIPS, arXiv:1810.03292): near 1 says that a map
    shows the picture, not what the network learnt. Of two maps, one of a single value correlates
    with nothing (0); two of them rank alike (1).

    Args:
        before: maps of the network.
        after: of the randomised network, the same pictures in the same order and shapes.
        inside: where to compare, such as `breast_mask`, of any shape over the whole picture.
            Outside the breast both maps are 0 whatever the weights: left in, it raises the figure.

    Raises:
        ValueError: lists or maps differ in size, or there are none.
    """
    if not before:
        raise ValueError("no maps to compare")
    masks = [np.ones(m.shape, dtype=bool) for m in before] if inside is None else inside
    pairs = zip(before, after, masks, strict=True)
    return float(np.mean([_spearman(one, other, mask) for one, other, mask in pairs]))


def _localised(figures: _Floats, patients: NDArray[np.str_]) -> Localisation:
    hits, chances, ious = figures
    weights = patient_weights(patients.tolist())
    return Localisation(
        images=len(patients),
        patients=len(set(patients.tolist())),
        hit_rate=estimate(share_of(hits), weights),
        chance_rate=float(chances.mean()),
        iou=estimate(mean_of(ious), weights),
    )


def _check(boxes: Sequence[Box]) -> None:
    if not boxes:
        raise ValueError("no box: such an image can neither be hit nor missed; leave it out")


def _near(x: _Floats, y: _Floats, boxes: Sequence[Box], tolerance: float) -> Mask:
    """Tell which places are at most `tolerance` away from any box; x and y broadcast."""
    near = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for box in boxes:
        across = np.maximum(np.maximum(box.x - x, x - box.x - box.width), 0)
        down = np.maximum(np.maximum(box.y - y, y - box.y - box.height), 0)
        near |= np.hypot(across, down) <= tolerance
    return near


def _covered(grid: tuple[int, ...], boxes: Sequence[Box], shape: tuple[int, ...], tolerance: float = 0) -> Mask:
    """Tell which cells of a grid over a picture of `shape` have their centres near a box."""
    y, x = ((np.arange(cells) + 0.5) * side / cells for cells, side in zip(grid, shape, strict=True))
    return _near(x, y[:, np.newaxis], boxes, tolerance)


def _spearman(one: Pixels, other: Pixels, mask: Mask) -> float:
    if one.shape != other.shape:
        raise ValueError(f"maps of one picture differ in shape: {one.shape} and {other.shape}")
    rows, columns = ((np.arange(n) + 0.5) / n for n in one.shape)
    row, column = (rows * mask.shape[0]).astype(int), (columns * mask.shape[1]).astype(int)
    chosen = mask[np.ix_(row, column)]
    ranks = stats.rankdata(np.stack([one[chosen], other[chosen]]), axis=1)
    flat = np.ptp(ranks, axis=1) == 0
    if flat.any():
        return float(flat.all())
    return float(np.corrcoef(ranks)[0, 1])
