"""DICOM → `Image`: modality LUT, VOI LUT or window, then MONOCHROME1, in this order, once.

Nothing is decoded before its header is checked.
"""

import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mammolens.dicom_header import header_of, numbers, text, whole
from mammolens.dicom_shades import Integers, luma, shown, valid_window
from mammolens.errors import ImageError, reason
from mammolens.images import MAX_BYTES, Header, Image, check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})

_Pixels = NDArray[np.float32]

PREAMBLE = 128
"""Bytes before ``DICM`` (PS3.10 7.1)."""

_META, _PIXEL_DATA = 0x0002, 0x7FE00010
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # 0002 or 0008; the last is big endian
_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"

_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3}
_SAMPLES |= {"YBR_ICT": 3, "YBR_RCT": 3}
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xDE, 0xF7} - {0xC4, 0xC8, 0xCC}
_UNTOLD = (None, "OT")
_CONTRADICTIONS = {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}
_RAW = "raw pixels ('for processing'), made for software, not for reading: answers are less sure"
_FAINT = 1 / 16


def is_dicom(path: Path) -> bool:
    """Tell whether a file is meant as DICOM: by its suffix, or ``DICM`` at byte 128 (PS3.10 7.1).

    Never raises: a file that is missing or cannot be read goes by its suffix alone.
    """
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        if not path.is_file():  # to open a pipe would be to wait for ever
            return False
        with path.open("rb") as file:
            return holds_dicom(file.read(PREAMBLE + 4))
    except OSError:
        return False


def holds_dicom(start: bytes) -> bool:
    """Tell from the first `PREAMBLE` + 4 bytes of a file whether it is DICOM."""
    return start[PREAMBLE:] == b"DICM"


def read_dicom(path: Path) -> Image:
    """Read one mammogram as it is meant to be looked at, by the steps of PS3.4 N.2 in their order.

    1. Modality: the Modality LUT Sequence, else Rescale Slope and Intercept (PS3.3 C.11.1).
    2. VOI: the first item of the VOI LUT Sequence, which says more than a window where there are
       both, else the first window by its VOI LUT Function, LINEAR if none is named (PS3.3 C.11.2).
       Without either, black and white are the least and the largest value that Bits Stored can
       hold, after step 1: as in a PNG, and never the extremes of the one image.
    3. Presentation: MONOCHROME1 (PS3.3 C.7.6.3.1.2) and a Presentation LUT Shape of INVERSE
       (PS3.3 C.11.6) describe one thing: for either or both, black and white change places once.

    Pixels at the Pixel Padding Value, or from it to its Range Limit, come out black; they are told
    by what is stored (PS3.3 C.7.5.1.1.2). Colour becomes luma (ITU-R BT.601) without these steps,
    which are defined for grey alone. Overlays are not drawn. The bit depth is Bits Stored.

    Raises:
        ImageError: the file is not DICOM, damaged, cut short, over a limit or encoded in a way that
            cannot be decoded here; or it shows something other than one mammogram: another
            modality, tomosynthesis, several frames, no picture at all.
    """
    try:
        # pydicom remarks on odd values of files that it reads all the same; the rest raises.
        with warnings.catch_warnings(action="ignore"):
            dataset, stored = _read(path)
            header = header_of(dataset)
            if header.photometric.startswith("MONOCHROME"):
                pixels, colour = shown(dataset, stored), False
            else:
                pixels, colour = luma(stored, 2**dataset.BitsStored - 1)
            said = _warnings(dataset, header, pixels, colour=colour)
    except ImageError:
        raise
    except Exception as error:  # pydicom and its decoders raise whatever they trip over
        raise ImageError(
            f"{path}: the DICOM data is damaged or of an unknown form ({reason(error)}). "
            "Copy the file anew, or export it uncompressed."
        ) from error
    return Image(pixels, "DICOM", dataset.BitsStored, colour, header=header, warnings=said)


def _read(path: Path) -> tuple["Dataset", Integers]:
    """Read and check the header, and only then read, check and decode the pixels as stored."""
    # Whoever reads PNG files need not wait 0.2 s for this import, most of what theirs take.
    from pydicom import encaps, filereader, pixels, uid  # noqa: PLC0415

    with path.open("rb") as file:
        bare = filereader.read_preamble(file, force=True) is None
        if bare and file.peek(2)[:2] not in _FIRST_GROUPS:
            raise ImageError(f"{path}: not DICOM, whatever its name says. Name it as what it is.")
        meta = filereader.read_dataset(file, False, True, None, lambda tag, *_: tag.group != _META)
        named = meta.get("TransferSyntaxUID")
        source = _inflate(path, file) if named == uid.DeflatedExplicitVRLittleEndian else file
        source.seek(0)
        dataset = filereader.read_partial(source, lambda tag, *_: tag >= _PIXEL_DATA, force=True)
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        syntax = uid.UID(named or (uid.ImplicitVRLittleEndian if implicit else explicit))
        _check_kind(path, dataset)
        _check_storage(path, dataset)
        pixels.get_decoder(syntax)  # type: ignore[attr-defined]  # raises where there is none
        source.seek(0)
        again = filereader.read_partial(source, lambda tag, *_: tag > _PIXEL_DATA, force=True)
    _check_length(path, dataset, again.get("PixelData") or b"", native=not syntax.is_encapsulated)
    dataset["PixelData"] = again["PixelData"]  # and nothing else that was not checked
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated and syntax != uid.RLELossless:
        dataset.pop("ExtendedOffsetTable", None)  # one frame is all fragments together
        _check_frame(path, dataset, encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
    # What pylibjpeg says of damaged RLE is no Exception in Python, but a panic in Rust.
    plugin = "pydicom" if syntax == uid.RLELossless else ""
    return dataset, pixels.utils.pixel_array(dataset, index=0, decoding_plugin=plugin)


def _inflate(path: Path, file: BinaryIO) -> BytesIO:
    """Return the data set that follows in deflated form (PS3.5 A.5): pydicom would set no limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflate.decompress(file.read(), MAX_BYTES)
    if inflate.unconsumed_tail:
        raise ImageError(f"{path}: unpacks to over the limit of {MAX_BYTES // 2**20} MiB a file.")
    if data[:2] not in _FIRST_GROUPS[1:] or data[PREAMBLE:].startswith(b"DICM"):
        raise ValueError("it does not unpack to a data set")
    return BytesIO(data)


def _check_kind(path: Path, head: "Dataset") -> None:
    """Refuse what is no picture, no mammogram, or more than one."""
    kind = head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID")
    name = getattr(kind, "name", "of no known kind")
    if "Rows" not in head or "Columns" not in head:
        raise ImageError(f"{path}: holds no picture ({name}), or is cut short before it.")
    modality, part = text(head, "Modality"), text(head, "BodyPartExamined") or "unknown"
    radiograph = modality in ("CR", "DX", "RG") and "BREAST" in part.upper()
    if not (modality == "MG" or modality in _UNTOLD or radiograph):
        raise ImageError(
            f"{path}: not a mammogram: modality {modality}, body part {part} ({name}). "
            "Modality MG was expected, or CR, DX or RG of a BREAST."
        )
    frames = whole(head, "NumberOfFrames", 1)
    if kind == _TOMOSYNTHESIS or frames > 1:
        raise ImageError(
            f"{path}: holds tomosynthesis or the like, in {frames} frames ({name}); one picture "
            "was expected. Give the 2-D or synthetic 2-D mammogram of the same examination."
        )


def _check_storage(path: Path, head: "Dataset") -> None:
    """Refuse pixels that are too many, or stored in an unknown way (PS3.3 C.7.6.3, PS3.5 8.1.1)."""
    check_size(path, whole(head, "Rows", 0), whole(head, "Columns", 0))
    allocated, stored = whole(head, "BitsAllocated", 0), whole(head, "BitsStored", 0)
    high = whole(head, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 0 < stored <= allocated or high != stored - 1:
        raise ImageError(
            f"{path}: pixels of {stored} bits in {allocated}, up to bit {high}, cannot be read; at "
            f"most 16 bits in 16 were expected, up to bit {stored - 1}. Export it anew."
        )
    photometric = str(text(head, "PhotometricInterpretation"))
    samples = whole(head, "SamplesPerPixel", 1)
    if _SAMPLES.get(photometric) != samples:
        raise ImageError(
            f"{path}: pixels of {samples} samples in photometric interpretation {photometric} "
            f"cannot be read; expected one of {', '.join(_SAMPLES)}. Export it as MONOCHROME2."
        )


def _check_length(path: Path, head: "Dataset", data: bytes, *, native: bool) -> None:
    """Refuse fewer bytes of pixels than the header asks for, or enough for many frames."""
    half = head.PhotometricInterpretation == "YBR_FULL_422"  # pixels share two of three samples
    samples = 2 if half else whole(head, "SamplesPerPixel", 1)
    expected = head.Rows * head.Columns * samples * head.BitsAllocated // 8
    if not (expected if native else 1) <= len(data) < 2 * expected + (0 if native else 2**16):
        raise ImageError(
            f"{path}: holds {len(data):,} bytes of pixels where the header asks for {expected:,}: "
            "it is cut short or contradicts itself. Copy or export it anew."
        )


def _check_frame(path: Path, head: "Dataset", frame: bytes) -> None:
    """Refuse an encoded picture that is not of the header's shape; decoders ask nobody else."""
    expected = (head.Rows, head.Columns, whole(head, "SamplesPerPixel", 1))
    found = _coded_shape(frame)
    if found != expected:
        raise ImageError(
            f"{path}: the header tells of (rows, columns, samples) = {expected}, the encoded "
            f"picture itself of {found or 'none'}. Export it anew."
        )


def _coded_shape(frame: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, samples) by a codestream's own header, or None where it has none.

    ISO/IEC 15444-1 A.5.1 (JPEG 2000), 10918-1 B.2.2 and B.3.2 (JPEG), 14495-1 C.2.2 (JPEG-LS).
    """
    if frame.startswith(b"\xff\x4f\xff\x51"):
        right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
        return bottom - top, right - left, struct.unpack_from(">H", frame, 40)[0]
    place = 2 if frame.startswith(b"\xff\xd8") else len(frame)
    while frame[place : place + 1] == b"\xff":
        marker, length, _, rows, columns, samples = struct.unpack_from(">BHBHHB", frame, place + 1)
        if marker in _START_OF_FRAME:
            return rows, columns, samples
        place += 2 + length
    return None


def _warnings(
    dataset: "Dataset", header: Header, pixels: _Pixels, *, colour: bool
) -> tuple[str, ...]:
    window = not colour and not dataset.get("VOILUTSequence") and numbers(dataset, "WindowWidth")
    ends = (header.photometric, text(dataset, "PresentationLUTShape"))
    doubts = {
        _RAW: header.for_processing,
        "the file does not say that it is a mammogram": text(dataset, "Modality") in _UNTOLD,
        "colour image: turned to grey": colour,
        "the window in the file is not valid: ignored": window and valid_window(dataset) is None,
        "the file contradicts itself on which end of the scale is white": ends in _CONTRADICTIONS,
        "faint: less than a sixteenth of the grey scale is used": np.ptp(pixels) < _FAINT,
    }
    return tuple(doubt for doubt, holds in doubts.items() if holds)
