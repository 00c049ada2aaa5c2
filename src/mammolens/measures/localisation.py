"""Where it looked, against boxes: score maps beside what a radiologist outlined, and chance.

Pure functions of arrays and boxes; knows no network. A map is as `Prediction.score_map` has it:
float32 (rows, columns) in [0, 1] over the whole picture, coarser than it.
"""

from collections.abc import Sequence

import numpy as np
import scipy  # which loads its parts where they are asked for
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mammolens.errors import DataError
from mammolens.images.breast import Mask, Pixels, anatomy
from mammolens.measures.intervals import Estimate, Figures, estimate, patient_weights
from mammolens.measures.metrics import mean_of, share_of
from mammolens.records import LABEL_NAMES, Box

_HOT = 0.5  # of a map's own maximum


class Localisation(Figures):
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
        chances: (images,) of `chance_rate`.
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
    if not all(group.any() for group in groups.values()):
        groups = {}
    parts = {name: _localised(figures[:, group], patient[group]) for name, group in groups.items()}
    return _localised(figures, patient).model_copy(update={"by_label": parts})


def pointing_hit(score_map: Pixels, boxes: Sequence[Box], shape: tuple[int, int]) -> bool:
    """Tell whether the map's maximum lies in a box: the pointing game.

    Zhang et al. 2018, IJCV 126:1084. Where several pixels share the maximum, it is the centre of
    the largest piece that they form. A map of one value points nowhere: no hit.

    Args:
        score_map: (rows, columns) over the whole picture.
        boxes: at least one, in pixels of the picture.
        shape: (height, width) of the picture.

    Raises:
        ValueError: no box.
    """
    if score_map.min() == score_map.max():
        return False
    pieces, _ = scipy.ndimage.label(score_map == score_map.max())
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    centre = scipy.ndimage.center_of_mass(pieces == largest)
    y, x = ((place + 0.5) * side / cells for place, side, cells in zip(centre, shape, score_map.shape, strict=True))
    return bool(_inside(np.array(x), np.array(y), boxes))


def breast_mask(pixels: Pixels) -> Mask:
    """Return where the breast is, bool, on the thumbnail of a picture in either polarity.

    All of it is True where no breast is found, as `Preprocess` then takes the whole picture.

    Args:
        pixels: float32 (height, width) in [0, 1].
    """
    return anatomy(pixels).breast.or_everything().mask


def chance_rate(pixels: Pixels, boxes: Sequence[Box]) -> float:
    """Return how often a place drawn evenly from the breast would be a `pointing_hit`, in [0, 1].

    Args:
        pixels: the picture, float32 (height, width) in [0, 1].
        boxes: at least one, in its pixels.

    Raises:
        ValueError: no box.
    """
    mask = breast_mask(pixels)
    return float(_outlined(mask.shape, boxes, pixels.shape)[mask].mean())


def iou(score_map: Pixels, boxes: Sequence[Box], shape: tuple[int, int]) -> float:
    """Return the intersection over union of the map's hot area and all boxes, in [0, 1].

    A place is hot from half of the map's own maximum. Judged on the pixels of the map, by their
    centres. A map of zeros has no hot area: 0.

    Args:
        score_map: (rows, columns) over the whole picture.
        boxes: at least one, in pixels of the picture.
        shape: (height, width) of the picture.

    Raises:
        ValueError: no box.
    """
    hot = (score_map >= _HOT * score_map.max()) & (score_map > 0)
    outlined = _outlined(score_map.shape, boxes, shape)
    union = int((hot | outlined).sum())
    return int((hot & outlined).sum()) / union if union else 0.0


def rank_correlation(before: Sequence[Pixels], after: Sequence[Pixels], inside: Sequence[Mask]) -> float:
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
    return float(np.mean([_spearman(*maps) for maps in zip(before, after, inside, strict=True)]))


def _localised(figures: NDArray[np.float64], patients: NDArray[np.str_]) -> Localisation:
    hits, chances, ious = figures
    weights = patient_weights(patients.tolist())
    return Localisation(
        images=len(patients),
        patients=len(set(patients.tolist())),
        hit_rate=estimate(share_of(hits), weights),
        chance_rate=float(chances.mean()),
        iou=estimate(mean_of(ious), weights),
    )


def _inside(x: NDArray[np.float64], y: NDArray[np.float64], boxes: Sequence[Box]) -> Mask:
    """Tell which places lie in any box, edges included; x and y broadcast."""
    if not boxes:
        raise ValueError("no box: such an image can neither be hit nor missed; leave it out")
    inside = [(x >= box.x) & (x - box.x <= box.width) & (y >= box.y) & (y - box.y <= box.height) for box in boxes]
    return np.asarray(np.any(inside, axis=0))


def _outlined(grid: tuple[int, ...], boxes: Sequence[Box], shape: tuple[int, ...]) -> Mask:
    """Tell which cells of a grid over a picture of `shape` have their centres in a box."""
    y, x = ((np.arange(cells) + 0.5) * side / cells for cells, side in zip(grid, shape, strict=True))
    return _inside(x, y[:, np.newaxis], boxes)


def _spearman(one: Pixels, other: Pixels, mask: Mask) -> float:
    rows, columns = ((np.arange(n) + 0.5) / n for n in one.shape)
    row, column = (rows * mask.shape[0]).astype(int), (columns * mask.shape[1]).astype(int)
    chosen = mask[np.ix_(row, column)]
    ranks = scipy.stats.rankdata(np.stack([one[chosen], other[chosen]]), axis=1)
    flat = np.ptp(ranks, axis=1) == 0
    if flat.any():
        return float(flat.all())
    return float(np.corrcoef(ranks)[0, 1])
