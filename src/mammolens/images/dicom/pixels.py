"""Pixel Data of DICOM → integers as stored. Every check of size comes before a pixel is decoded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammolens.errors import ImageError
from mammolens.images.dicom.frames import Frame, joined, jpeg, jpeg_2000, run_lengths
from mammolens.images.dicom.header import text, whole
from mammolens.images.dicom.lut import Integers, beyond, distance, is_lossy
from mammolens.images.image import check_size
from mammolens.records import ImageWarning, Warned, warnings_that_hold
from mammolens.workers.crew import apart

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3}
_SAMPLES |= {"YBR_ICT": 3, "YBR_RCT": 3}

_REFUSED = ("PALETTE COLOR", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")

_DEEPEST = 16

_OVERSHOOT = 1 / 4
"""How far lossy compression carries values over the largest, as a part of all: beyond are bits.

And how many of the pixels next to those are bright at least."""


def check_storage(path: Path, head: "Dataset") -> None:
    """Refuse pixels that are too many, or stored in an unknown way (PS3.3 C.7.6.3, PS3.5 8.1.1).

    Raises:
        ImageError: says which.
    """
    check_size(path, whole(head, "Rows", 0), whole(head, "Columns", 0))
    allocated, stored = whole(head, "BitsAllocated", 0), whole(head, "BitsStored", 0)
    if allocated not in (8, 16) or not 0 < stored <= allocated or _low_bits(head) < 0:
        raise _unreadable(path, head)
    photometric = str(text(head, "PhotometricInterpretation"))
    samples = head.SamplesPerPixel
    if _SAMPLES.get(photometric) != samples:
        named = photometric if photometric in (*_SAMPLES, *_REFUSED) else "that is not known"
        raise ImageError(
            f"{path}: pixels of {samples} samples in photometric interpretation {named} "
            f"cannot be read; expected one of {', '.join(_SAMPLES)}. Export it as MONOCHROME2."
        )


def _unreadable(path: Path, head: "Dataset") -> ImageError:
    stored = whole(head, "BitsStored", 0)
    return ImageError(
        f"{path}: pixels of {stored} bits in {whole(head, 'BitsAllocated', 0)}, up to bit "
        f"{whole(head, 'HighBit', stored - 1)}, cannot be read; at most {_DEEPEST} bits in "
        f"{_DEEPEST} were expected, up to bit {min(stored, _DEEPEST) - 1}. Export it anew."
    )


def _low_bits(head: "Dataset") -> int:
    """Return how many bits of a pixel lie below those stored, or -1 where High Bit cannot be."""
    stored, allocated = whole(head, "BitsStored", 0), whole(head, "BitsAllocated", 0)
    high = whole(head, "HighBit", stored - 1)
    return high + 1 - stored if high < allocated else -1


def stored_pixels(path: Path, dataset: "Dataset", syntax: "UID") -> tuple[Integers, tuple[Warned, ...]]:
    """Return the pixels as stored, (rows, columns) or (rows, columns, 3) as RGB, and any doubts.

    Bits above Bits Stored, where old files keep overlays, are no pixels: they are left out in
    every encoding, and signed values get their sign from the highest bit stored (PS3.5 8.1.1).
    Where a codestream has deeper pixels than Bits Allocated can hold, its own depth counts.

    Raises:
        ImageError: Pixel Data is too short, too long or contradicts the header.
        ValueError: it cannot be decoded.
    """
    from pydicom import pixels, uid  # noqa: PLC0415

    if not syntax.is_encapsulated and _is_in_fragments(dataset):
        dataset.PixelData = joined(dataset.PixelData)
    _check_length(path, dataset, native=not syntax.is_encapsulated)
    if syntax.is_encapsulated and syntax != uid.RLELossless:
        return _decoded(path, dataset, syntax)
    if syntax == uid.RLELossless:
        stored = _unpacked(dataset)
    else:
        stored = pixels.utils.pixel_array(dataset, index=0, correct_unused_bits=False)
    low = _low_bits(dataset)
    if low and (stored & (2**low - 1)).any():  # High Bit is wrong, or they are not pixels alone
        raise _unreadable(path, dataset)
    return _pixels(dataset, stored, low), ()


def _is_in_fragments(head: "Dataset") -> bool:
    return "PixelData" in head and bool(head["PixelData"].is_undefined_length)


def _pixels(head: "Dataset", stored: Integers, low: int = 0) -> Integers:
    """Return the bits that are pixels. Padding of a value that these cannot hold keeps all bits."""
    masked, ends = _masked(stored, head.BitsStored, low), beyond(head)
    if ends is None or low or stored.ndim > 2:  # noqa: PLR2004 - colour has no padding
        return masked
    return np.where(distance(stored, ends), masked, stored)


def _masked(stored: Integers, bits: int, low: int = 0) -> Integers:
    """Return values of `bits` bits, of which `low` others lie below."""
    spare = max(8 * stored.dtype.itemsize - bits, 0)
    return stored << max(spare - low, 0) >> spare if spare else stored


def _clipped(stored: Integers, bits: int, *, exact: bool) -> Integers:
    """Return values that lossy compression may have carried somewhat over what `bits` can hold.

    A reversible transform (`exact`) may be cut short all the same. Then values over the largest are
    overlays unless the pixels next to them are bright.
    """
    span = 2**bits
    low = -span // 2 if stored.dtype.kind == "i" else 0
    over = max(low - int(stored.min()), int(stored.max()) - (low + span - 1))
    clear = not 0 < over < span * _OVERSHOOT or (exact and not _next_to_white(stored, low, span))
    return stored if clear else stored.clip(low, low + span - 1)


def _next_to_white(stored: Integers, low: int, span: int) -> bool:
    """Tell whether what `span` values from `low` on cannot hold lies next to the end of them."""
    from scipy import ndimage  # noqa: PLC0415 - few images need it

    below, above = stored < low, stored >= low + span
    beyond = below | above
    around = stored[ndimage.binary_dilation(beyond) & ~beyond]
    far = around < low + span // 2 if below.sum() > above.sum() else around >= low + span // 2
    return bool(far.size and far.mean() > _OVERSHOOT)


def _check_length(path: Path, head: "Dataset", *, native: bool) -> None:
    """Refuse fewer bytes of pixels than the header asks for, or enough for many frames."""
    half = head.PhotometricInterpretation == "YBR_FULL_422"  # pixels share two of three samples
    samples = 2 if half else head.SamplesPerPixel
    expected = head.Rows * head.Columns * samples * head.BitsAllocated // 8
    found = len(head.get("PixelData") or b"")
    if not (expected if native else 1) <= found < 2 * expected + (0 if native else 2**16):
        raise ImageError(
            f"{path}: holds {found:,} bytes of pixels where the header asks for {expected:,}: "
            "it is cut short or contradicts itself. Copy or export it anew."
        )


def _options(head: "Dataset", **others: object) -> dict[str, Any]:
    """Return what decoders need to know of the header."""
    return {
        "rows": int(head.Rows),
        "columns": int(head.Columns),
        "samples_per_pixel": head.SamplesPerPixel,
        "bits_allocated": int(head.BitsAllocated),
        "bits_stored": int(head.BitsStored),
        "pixel_representation": head.PixelRepresentation,
        "photometric_interpretation": text(head, "PhotometricInterpretation"),
        "planar_configuration": head.PlanarConfiguration,
    } | others


def _unpacked(head: "Dataset") -> Integers:
    """Decode run lengths without the decoders at hand, which set no limit to what they unpack."""
    from pydicom import uid  # noqa: PLC0415

    options = _options(head, planar_configuration=1)
    bytes_ = options["bits_allocated"] // 8
    size, samples = options["rows"] * options["columns"], options["samples_per_pixel"]
    data = run_lengths(joined(head.PixelData), size, bytes_, samples)
    return decoded(data, uid.ExplicitVRLittleEndian, options)


def _decoded(path: Path, head: "Dataset", syntax: "UID") -> tuple[Integers, tuple[Warned, ...]]:
    """Decode a codestream of the header's shape; decoders ask nobody else for it."""
    from pydicom import uid  # noqa: PLC0415

    data = joined(head.PixelData)
    frame = jpeg_2000(data) if syntax in uid.JPEG2000TransferSyntaxes else jpeg(data)
    if frame is None:
        # Nobody knows of what size it is: apart also where a program has it in memory.
        return _pixels(head, apart(decoded, data, syntax=str(syntax), options=_options(head))), ()
    _check_frame(path, head, frame)
    said = warnings_that_hold(
        {
            ImageWarning.DEEP.about(frame.bits, head.BitsAllocated): frame.bits > head.BitsAllocated,
            ImageWarning.NO_END: not frame.ended,
        }
    )
    if frame.bits > head.BitsAllocated:
        head.BitsStored = frame.bits
    allocated = 8 if frame.bits <= 8 else _DEEPEST  # noqa: PLR2004
    options = _options(head, bits_allocated=allocated, bits_stored=frame.bits)
    stored = decoded(frame.data, syntax, options)
    if not frame.exact:
        head.LossyImageCompression = "01"
    if is_lossy(head):
        stored = _clipped(stored, head.BitsStored, exact=frame.exact)
    return _pixels(head, stored), said


def _check_frame(path: Path, head: "Dataset", frame: Frame) -> None:
    """Refuse a codestream that is not what the header tells of."""
    expected = (head.Rows, head.Columns, head.SamplesPerPixel)
    if frame.shape != expected or frame.bits > _DEEPEST:
        raise ImageError(
            f"{path}: the header tells of (rows, columns, samples) = {expected}, the encoded "
            f"picture itself of {frame.shape}, with {frame.bits} bits. Export it anew."
        )
    if frame.bits > head.BitsStored and _low_bits(head):
        raise _unreadable(path, head)


def decoded(data: bytes, syntax: str, options: dict[str, Any]) -> NDArray[Any]:
    """Decode the one frame `data`, here and now.

    Args:
        data: the codestream, or plain pixels where that is the transfer syntax.
        syntax: the transfer syntax, as a UID.
        options: of `pydicom.pixels.Decoder.as_array`: what the header says of the pixels.

    Returns:
        (rows, columns) or (rows, columns, 3), with the bits above Bits Stored as they are.
    """
    from pydicom import encaps, pixels, uid  # noqa: PLC0415 - takes 0.2 s

    decoder = pixels.get_decoder(uid.UID(syntax))  # type: ignore[attr-defined]
    source = encaps.encapsulate([data]) if decoder.is_encapsulated else data
    fixed = {"number_of_frames": 1, "pixel_keyword": "PixelData", "pixel_vr": "OB"}
    known: Any = {**fixed, "correct_unused_bits": False, **options}
    return np.asarray(decoder.as_array(source, index=0, **known)[0])
