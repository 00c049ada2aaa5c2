"""How a DICOM image's stored values look: modality LUT, VOI LUT or window, then MONOCHROME1, once.

A stored value has 16 bits at most: how it looks is worked out once for every value there can be, in
double precision, and looked up for each pixel.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammolens.dicom_header import numbers, text
from mammolens.raster import COLOUR_SHARE, COLOUR_TOLERANCE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Integers = NDArray[np.integer[Any]]
_Pixels = NDArray[np.float32]
_Values = NDArray[np.float64]

_LUMA = (0.299, 0.587, 0.114)


def shown(dataset: "Dataset", stored: Integers) -> _Pixels:
    """Return how a grey image looks: (height, width) in [0, 1]."""
    span = 2**dataset.BitsStored
    least = -span // 2 if dataset.PixelRepresentation else 0
    levels = np.arange(least, least + span, dtype=np.float64)
    looks = _voi(dataset, *_modality(dataset, levels))
    inverse = text(dataset, "PresentationLUTShape") == "INVERSE"
    if inverse or dataset.PhotometricInterpretation == "MONOCHROME1":
        looks = 1 - looks
    looks = np.where(_padding(dataset, levels), 0, looks)
    if not np.isfinite(looks).all():
        raise ValueError("the rescaling or the window is out of all proportion")
    places = np.subtract(stored, least, dtype=np.intp)
    return looks.astype(np.float32).take(places, mode="clip")


def luma(stored: Integers, white: int) -> tuple[_Pixels, bool]:
    """Return an RGB image (height, width, 3) as luma in [0, 1], and whether colour is real."""
    red, green, blue = np.moveaxis(stored, 2, 0)
    pixels = stored @ (np.asarray(_LUMA, dtype=np.float32) / np.float32(white))
    spread = [np.maximum(one, green) - np.minimum(one, green) for one in (red, blue)]
    differs = np.maximum(*spread) > COLOUR_TOLERANCE / 255 * white
    return np.clip(pixels, 0, 1), bool(differs.mean() > COLOUR_SHARE)


def _modality(dataset: "Dataset", levels: _Values) -> tuple[_Values, float, float]:
    """Return the modality values of stored `levels`, and the least and the largest there can be."""
    if dataset.get("ModalityLUTSequence"):
        values, white = _looked_up(dataset, "ModalityLUTSequence", levels)
        return values, 0, white
    # Some files write 0 for a slope that they do not mean: it would leave nothing to see.
    slope, intercept = dataset.get("RescaleSlope") or 1, dataset.get("RescaleIntercept") or 0
    values = levels * float(slope) + float(intercept)
    return values, float(values.min()), float(values.max())


def _voi(dataset: "Dataset", values: _Values, least: float, largest: float) -> _Values:
    """Return modality values as shades in [0, 1], before any inversion (PS3.3 C.11.2.1)."""
    if dataset.get("VOILUTSequence"):
        shades, white = _looked_up(dataset, "VOILUTSequence", values)
        return shades / white
    if (window := valid_window(dataset)) is None:
        return (values - least) / (largest - least)
    function, center, width = window
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    # A width of nothing is a step, at which the value itself still counts as black.
    return np.clip((values - (center - width / 2)) / max(width, 1e-9), 0, 1)


def valid_window(dataset: "Dataset") -> tuple[str, float, float] | None:
    """Return (function, center, width) of the first window, or None without a valid one."""
    center, width = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    if not center or not width or width[0] <= 0 or (function == "LINEAR" and width[0] < 1):
        return None
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"VOI LUT Function {function} is not known")
    return function, center[0], width[0]


def _looked_up(dataset: "Dataset", sequence: str, values: _Values) -> tuple[_Values, float]:
    """Return what the first table of a sequence makes of `values`, and the table's white.

    Entries of 8 bits may lie two in a word, the earlier in its low byte. Where entries exceed the
    bits that they are said to have, the largest is white (PS3.3 C.11.1.1.1 and C.11.2.1.1).
    """
    item = dataset[sequence][0]
    count, first, bits = item.LUTDescriptor
    count, data = count or 2**16, item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if dataset.original_encoding[1] else ">u2")
    words = np.atleast_1d(data).astype("<u2")
    packed = bits == 8 and len(words) < count  # noqa: PLR2004
    entries = (words.view(np.uint8) if packed else words)[:count].astype(np.float64)
    if len(entries) < count:
        raise ValueError(f"a look-up table has {len(entries)} entries of {count}")
    places = np.clip(np.rint(values) - first, 0, count - 1)
    return entries[places.astype(np.intp)], max(2.0**bits - 1, float(entries.max()))


def _padding(dataset: "Dataset", levels: _Values) -> NDArray[np.bool_]:
    """Tell which stored `levels` are background, ends included (PS3.3 C.7.5.1.1.2)."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(levels.shape, dtype=bool)
    # A value written as unsigned where pixels are signed, or the other way round, is mended.
    span = 2**dataset.BitsAllocated
    least = -span // 2 if dataset.PixelRepresentation else 0
    ends = [(each - least) % span + least for each in (value, value if limit is None else limit)]
    return np.asarray((levels >= min(ends)) & (levels <= max(ends)))
