"""Which pixels of a DICOM image are padding, also where lossy compression has smeared them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammolens.images.dicom.header import numbers, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Ends = tuple[int, int]

CLOSE = 64
"""Values nearer than this part of all there can be are alike, after lossy compression."""

_REACH = 12
"""How many pixels from an edge lossy compression smears visibly: a block of JPEG and a half."""

_LOSSY = frozenset({
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"),
    *("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"),
})  # fmt: skip
"""JPEG Baseline and Extended, JPEG-LS Near-Lossless, JPEG 2000 and HTJ2K."""


def padding_of(dataset: "Dataset") -> Ends | None:
    """Return the least and the largest stored value that is padding (PS3.3 C.7.5.1.1.2)."""
    values = numbers(dataset, "PixelPaddingValue")[:1]
    values += values and numbers(dataset, "PixelPaddingRangeLimit")[:1]
    # A value written as unsigned where pixels are signed, or the other way round, is mended.
    span = 2**dataset.BitsAllocated
    least = -span // 2 if dataset.PixelRepresentation else 0
    ends = [(int(each) - least) % span + least for each in values]
    return (min(ends), max(ends)) if ends else None


def beyond(dataset: "Dataset") -> Ends | None:
    """Return the ends of padding that lies outside of what Bits Stored can hold; None elsewhere."""
    ends, span = padding_of(dataset), 2**dataset.BitsStored
    least = -span // 2 if dataset.PixelRepresentation else 0
    return ends if ends and (ends[1] < least or ends[0] >= least + span) else None


def distance(values: NDArray[Any], ends: Ends) -> NDArray[Any]:
    """Return how far `values` are from padding: 0 within."""
    wide = values.astype(np.int32)
    return np.maximum(np.maximum(ends[0] - wide, wide - ends[1]), 0)


def is_lossy(dataset: "Dataset") -> bool:
    """Tell whether pixels may have changed in compression, now or earlier (PS3.3 C.7.6.1.1.5)."""
    told = (text(dataset, "LossyImageCompression") or "").upper().lstrip("0")
    flagged = told in ("1", "YES", "Y") or text(dataset, "LossyImageCompressionRatio") is not None
    return flagged or dataset.file_meta.TransferSyntaxUID in _LOSSY


def smeared(stored: NDArray[Any], ends: Ends, span: int) -> NDArray[np.bool_]:
    """Tell which pixels are padding that lossy compression has changed.

    The standard tells padding by its value, which no other pixel has (PS3.3 C.7.5.1.1.2, note 3),
    and does not say what is left of that after lossy compression. Here it is what is connected with
    the picture's border through values that are close to padding or, within reach of such, nearer
    to padding than to the farthest value around: bright tissue inside the breast stays.

    Args:
        stored: (height, width) as stored.
        ends: of padding.
        span: how many values a pixel can have.
    """
    from scipy import ndimage  # noqa: PLC0415 - few images need it

    away, window = distance(stored, ends), 2 * _REACH + 1
    close = away <= span // CLOSE
    edge = ndimage.maximum_filter(close, window) & (2 * away < ndimage.maximum_filter(away, window))
    parts, _ = ndimage.label(close | edge)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    outside = np.zeros(parts.max() + 1, dtype=bool)
    outside[border] = True
    outside[0] = False
    return np.asarray(outside[parts])
