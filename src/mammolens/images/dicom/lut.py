"""How a DICOM image's stored values look: modality LUT, VOI LUT or window, MONOCHROME1, each once; padding is black.

A stored value has 16 bits at most: how it looks is worked out once for every value there can be, in
double precision, and looked up for each pixel.
"""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammolens.images.dicom.header import number, numbers, text, values_of
from mammolens.images.image import DamageError, Unwindowed, Window
from mammolens.records import ImageWarning, Warned, warnings_that_hold

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Integers = NDArray[np.integer[Any]]
Ends = tuple[int, int]
_Values = NDArray[np.float64]

_RESCALING = ("RescaleSlope", "RescaleIntercept")
_TABLES = ("ModalityLUTSequence", "VOILUTSequence")
_FUNCTIONS = ("LINEAR", "LINEAREXACT", "SIGMOID")

_BLOCK = 2**15
"""Pixels that are looked up at a time."""

_CLOSE = 64
"""Values nearer than this part of all there can be are alike, after lossy compression."""

_DARK = 2 / _CLOSE

_SAMPLES = 1025
"""Places of a VOI LUT that a window keeps."""

_REACH = 12
"""How many pixels from an edge lossy compression smears visibly: a block of JPEG and a half."""

_LOSSY = frozenset({
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"),
    *("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"),
})  # fmt: skip
"""JPEG Baseline and Extended, JPEG-LS Near-Lossless, JPEG 2000 and HTJ2K."""


def shown(dataset: "Dataset", stored: Integers) -> NDArray[np.float32]:
    """Return how a grey image looks: (height, width) in [0, 1]."""
    levels = _levels(dataset)
    looks = _windowed(dataset, *_modality(dataset, levels))
    return _looking(dataset, stored, levels, looks)


def unwindowed(dataset: "Dataset", stored: Integers) -> Unwindowed | None:
    """Return a grey image before any window, and every window of its file; None where there is no choice.

    Of a VOI LUT, which goes before windows, the shades over the whole range are sampled.
    """
    values, least, largest = _modality(dataset, _levels(dataset))
    span, table = largest - least, table_of(dataset, "VOILUTSequence")
    windows = [_share(one, least, span) for one in filter(None, windows_of(dataset))]
    if span <= 0 or len(windows) + (table is not None) < 2:  # noqa: PLR2004 - one of them is heeded
        return None
    if not all(math.isfinite(end) for window in windows for end in window[:2]):
        return None
    heeded = windows[0]
    if table is not None:
        shades, white = _looked_up(dataset, table, np.linspace(least, largest, _SAMPLES))
        heeded = Window(0, 1, tuple((shades / white).round(5).tolist()))
    if _is_inverse(dataset):
        heeded, windows = heeded.inverted(), [one.inverted() for one in windows]
    pixels = _looking(dataset, stored, _levels(dataset), (values - least) / span)
    return Unwindowed(pixels, heeded, dict(zip(_explanations(dataset), windows, strict=True)))


def _share(window: tuple[str, float, float], least: float, span: float) -> Window:
    """Return a window (function, center, width) as shares of a range."""
    function, center, width = window
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-9)
    low, high = ((center + side * width / 2 - least) / span for side in (-1, 1))
    return Window(low, high, "sigmoid" if function == "SIGMOID" else "linear")


def _explanations(dataset: "Dataset") -> list[str]:
    """Return what to call each valid window: its explanation, else its center and width; never two alike."""
    said = dataset.get("WindowCenterWidthExplanation") or ()
    said = [said] if isinstance(said, str) else list(said)
    names: list[str] = []
    for place, window in enumerate(windows_of(dataset)):
        if window is None:
            continue
        name = str(said[place]).strip() if place < len(said) else ""
        numeric = f"center {window[1]:g}, width {window[2]:g}"
        name = f"{name} ({numeric})" if name in names else name or numeric
        names.append(f"{name} {place + 1}" if name in names else name)
    return names


def _levels(dataset: "Dataset") -> _Values:
    """Return every stored value there can be, ascending."""
    span = 2**dataset.BitsStored
    least = -span // 2 if dataset.PixelRepresentation else 0
    return np.arange(least, least + span, dtype=np.float64)


def _is_inverse(dataset: "Dataset") -> bool:
    inverse = text(dataset, "PresentationLUTShape") == "INVERSE"
    return bool(inverse or dataset.PhotometricInterpretation == "MONOCHROME1")


def _looking(dataset: "Dataset", stored: Integers, levels: _Values, looks: _Values) -> NDArray[np.float32]:
    """Return what stored pixels look like, where each of `levels` looks like `looks`; padding is black."""
    span, least = len(levels), int(levels[0])
    if _is_inverse(dataset):
        looks = 1 - looks
    if not np.isfinite(looks).all():
        raise DamageError("the rescaling or the window is out of all proportion")
    if (ends := padding_of(dataset)) is None:
        return _taken(looks, stored, least)
    away = distance(levels, ends)
    pixels = _taken(np.where(away, looks, 0), stored, least)
    if beyond(dataset):
        pixels[distance(stored, ends) == 0] = 0
    stands_out = looks[away <= span // _CLOSE].max(initial=0) > _DARK
    if stands_out and is_lossy(dataset):
        pixels[smeared(stored, ends, span)] = 0
    return pixels


def _taken(looks: _Values, stored: Integers, least: int) -> NDArray[np.float32]:
    """Look stored values up, the first of `looks` being of `least`: a few rows at a time, as caches hold them."""
    shades, pixels = looks.astype(np.float32), np.empty(stored.shape, dtype=np.float32)
    height = max(1, _BLOCK // stored.shape[1])
    for top in range(0, len(stored), height):
        places = np.subtract(stored[top : top + height], least, dtype=np.intp)
        shades.take(places, out=pixels[top : top + height], mode="clip")
    return pixels


def _modality(dataset: "Dataset", levels: _Values) -> tuple[_Values, float, float]:
    """Return the modality values of stored `levels`, and the least and the largest there can be."""
    if table := table_of(dataset, "ModalityLUTSequence"):
        values, white = _looked_up(dataset, table, levels)
        return values, 0, white
    # Some files write 0 for a slope that they do not mean: it would leave nothing to see.
    slope, intercept = (number(dataset, each, 0) for each in _RESCALING)
    values = levels * (slope or 1) + intercept
    return values, float(values.min()), float(values.max())


def _windowed(dataset: "Dataset", values: _Values, least: float, largest: float) -> _Values:
    """Return modality values as shades in [0, 1], before any inversion (PS3.3 C.11.2.1)."""
    if table := table_of(dataset, "VOILUTSequence"):
        shades, white = _looked_up(dataset, table, values)
        return shades / white
    window = next(filter(None, windows_of(dataset)), None)
    if window is None:
        return (values - least) / (largest - least)
    function, center, width = window
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    # A width of nothing is a step, at which the value itself still counts as black.
    return np.clip((values - (center - width / 2)) / max(width, 1e-9), 0, 1)


def ignored(dataset: "Dataset") -> tuple[Warned, ...]:
    """Return what the header says of shades that cannot be meant and is not heeded."""
    windows, heeded = windows_of(dataset), table_of(dataset, "VOILUTSequence") is None
    said = values_of(dataset, "WindowCenter") or values_of(dataset, "WindowWidth")
    items = [dataset[each][0] for each in _TABLES if dataset.get(each)]
    counts = [len(values_of(dataset, f"Window{each}")) for each in ("Center", "Width")]
    used = [table for each in _TABLES if (table := table_of(dataset, each))]
    rescaling = [value for each in _RESCALING for value in values_of(dataset, each)]
    return warnings_that_hold(
        {
            ImageWarning.TABLE_EMPTY: not all(map(_is_table, items)),
            ImageWarning.TABLE_SHORT: any(len(entries_of(dataset, each)[0]) < _entry_count(each) for each in used),
            ImageWarning.RESCALING: np.isnan(rescaling).any(),
            ImageWarning.WINDOW: heeded and said and not any(windows[:1]),
            ImageWarning.WINDOWS.about(*counts): heeded and any(windows) and counts[0] != counts[1],
            ImageWarning.VOI_FUNCTION: heeded and any(windows) and _function(dataset) not in _FUNCTIONS,
        }
    )


def windows_of(dataset: "Dataset") -> list[tuple[str, float, float] | None]:
    """Return (function, center, width) of each window, None for each that is not valid."""
    function = _function(dataset) if _function(dataset) in _FUNCTIONS else "LINEAR"
    least = 1 if function == "LINEAR" else 5e-324
    centers, widths = values_of(dataset, "WindowCenter"), values_of(dataset, "WindowWidth")
    return [
        (function, center, width) if np.isfinite(center) and least <= width < np.inf else None
        for center, width in zip(centers, widths, strict=False)
    ]


def _function(dataset: "Dataset") -> str:
    """Return the first VOI LUT Function in capital letters, and nothing else than letters."""
    named = re.findall(r"[A-Z][A-Z _-]*", (text(dataset, "VOILUTFunction") or "").upper())
    return re.sub(r"[^A-Z]", "", next(iter(named), "LINEAR"))


def table_of(dataset: "Dataset", sequence: str) -> "Dataset | None":
    """Return the first table of a sequence. An item without one counts as absent."""
    return next(filter(_is_table, dataset.get(sequence) or ()), None)


def _is_table(item: "Dataset") -> bool:
    described = len(numbers(item, "LUTDescriptor")) == len(("entries", "first value", "bits"))
    return described and item.get("LUTData") not in (None, "", b"", [])


def _looked_up(dataset: "Dataset", table: "Dataset", values: _Values) -> tuple[_Values, float]:
    """Return what a table makes of `values`, and the table's white.

    Where entries exceed the bits that they are said to have, the largest is white (PS3.3 C.11.1.1.1
    and C.11.2.1.1). Where there are fewer than the table says, those count, as for DCMTK.
    """
    entries, bits = entries_of(dataset, table)
    first, count = int(numbers(table, "LUTDescriptor")[1]), len(entries)
    places = np.clip(np.rint(values) - _first_value(first, count, values), 0, count - 1)
    white = 2.0**bits - 1 if 0 < bits <= 16 else 1  # noqa: PLR2004
    return entries[places.astype(np.intp)], max(white, float(entries.max()))


def _entry_count(table: "Dataset") -> int:
    """Return how many entries a table says that it has."""
    return int(numbers(table, "LUTDescriptor")[0]) % 2**16 or 2**16


def entries_of(dataset: "Dataset", table: "Dataset") -> tuple[_Values, int]:
    """Return a table's entries, and how many bits they have.

    Entries of 8 bits may lie two in a word, the earlier in its low byte: so they do where there are
    half as many words as entries, or where words are too few and hold more than 8 bits.
    """
    count, bits, data = _entry_count(table), int(numbers(table, "LUTDescriptor")[2]), table.LUTData
    if isinstance(data, bytes):
        order = "<u2" if dataset.original_encoding[1] else ">u2"
        data = np.frombuffer(data + b"\0" * (len(data) % 2), order)
    words = np.atleast_1d(data).astype("<u2")
    over = bits <= 8 and words.max() > 255  # noqa: PLR2004
    if len(words) < count and (over or len(words) == (count + 1) // 2):
        return words.view(np.uint8)[:count].astype(np.float64), min(bits, 8)
    return words[:count].astype(np.float64), bits


def _first_value(written: int, count: int, values: _Values) -> int:
    """Return the first value that a table maps, signed or not: as it meets most of `values`.

    Which it is depends on the values (PS3.3 C.11.2.1.1), and files get it wrong: DCMTK goes by the
    values alone, pydicom by what is written.
    """
    low, high = values.min(), values.max()
    meanings = (written, written % 2**16, written % 2**16 - 2**16)
    return max(meanings, key=lambda first: min(first + count - 1, high) - max(first, low))


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
    close = away <= span // _CLOSE
    edge = ndimage.maximum_filter(close, window) & (2 * away < ndimage.maximum_filter(away, window))
    parts, _ = ndimage.label(close | edge)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    outside = np.zeros(parts.max() + 1, dtype=bool)
    outside[border] = True
    outside[0] = False
    return np.asarray(outside[parts])
