"""DICOM → `Image`: modality LUT, VOI LUT or window, then MONOCHROME1, in this order, once.

Nothing is decoded before its header is checked.
"""

import zlib
from copy import copy, deepcopy
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mammolens.errors import ImageError
from mammolens.images.dicom.header import MODALITIES, add_frame_groups, complete, header_of, image_type, text, whole
from mammolens.images.dicom.lut import Integers, ignored, shown, unwindowed
from mammolens.images.dicom.pixels import check_storage, stored_pixels
from mammolens.images.image import FAINT, MAX_BYTES, DamageError, Header, Image, damage_told, grey_of, open_bounded
from mammolens.records import ImageWarning, View, Warned, warnings_that_hold

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})

_Pixels = NDArray[np.float32]

PREAMBLE = 128
"""Bytes before ``DICM`` (PS3.10 7.1)."""

OURS = "mammolens"
"""Who makes results, by their Manufacturer: they are no mammograms, though some show one."""

_META, _PIXEL_DATA = 0x0002, 0x7FE00010
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # 0002 or 0008; the last is big endian
_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
_SYNTHETIC = "GENERATED_2D"

_DAMAGED = "the DICOM data is damaged or of an unknown form ({}). Copy the file anew, or export it uncompressed."
_UNTOLD = (None, "OT")
_RADIOGRAPHS = ("CR", "DX", "RG")
_CONTRADICTIONS = {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}
_LEARNT = {None, View.CC, View.MLO}


def is_dicom(name: str, start: bytes) -> bool:
    """Tell whether a file is meant as DICOM: by its suffix, or by its first bytes."""
    return Path(name).suffix.lower() in DICOM_SUFFIXES or holds_dicom(start)


def holds_dicom(start: bytes) -> bool:
    """Tell from the first bytes of a file whether it is DICOM: ``DICM`` is at byte 128 (PS3.10 7.1)."""
    return start.startswith(b"DICM", PREAMBLE)


def read_dicom(path: Path, *, windows: bool = False) -> Image:
    """Read one mammogram as it is meant to be looked at, by the steps of PS3.4 N.2 in their order.

    1. Modality: the Modality LUT Sequence, else Rescale Slope and Intercept (PS3.3 C.11.1).
    2. VOI: the first table of the VOI LUT Sequence, which says more than a window where there are
       both, else the first valid window by its VOI LUT Function, LINEAR if none is known (PS3.3
       C.11.2); items without a table count as absent. Without either, black and white are the
       least and the largest value that Bits Stored can hold, after step 1: as in a PNG, and never
       the extremes of the one image.
    3. Presentation: MONOCHROME1 (PS3.3 C.7.6.3.1.2) and a Presentation LUT Shape of INVERSE
       (PS3.3 C.11.6) describe one thing: for either or both, black and white change places once.

    Pixels at the Pixel Padding Value, or from it to its Range Limit, come out black; they are told
    by what is stored (PS3.3 C.7.5.1.1.2), and after lossy compression by `values.smeared`
    as well, where they would not be dark anyhow. Colour becomes luma (ITU-R BT.601) without these
    steps, which are defined for grey alone. Overlays are not drawn. The bit depth is Bits Stored.

    The image's warnings say what of the header is not heeded, and whether this is no standard view
    of a whole breast.

    Args:
        path: the file.
        windows: whether `Image.unwindowed` is wanted, where the file offers windows to choose from.

    Raises:
        ImageError: the file is not DICOM, damaged, cut short, over a limit or encoded in a way that
            cannot be decoded here; or it shows something other than one mammogram: another
            modality, tomosynthesis, several frames, no picture at all.
    """
    with damage_told(path, _DAMAGED):
        return _shown(*_from_file(path), windows=windows)


def read_stored(path: Path) -> tuple[Image, "Dataset", Integers]:
    """Read one mammogram as `read_dicom` does; return its header without oddities and its pixels as stored, too.

    These are (rows, columns), or RGB of (rows, columns, 3).

    Raises:
        ImageError: as `read_dicom`.
    """
    with damage_told(path, _DAMAGED):
        dataset, stored, doubts = _from_file(path)
        return _shown(dataset, stored, doubts), dataset, stored


def image_of_dataset(dataset: "Dataset", name: Path) -> Image:
    """Take a dataset, with its pixels still encoded, as `read_dicom` takes a file; it stays as it is.

    Raises:
        ImageError: as for a file.
    """
    with damage_told(name, _DAMAGED):
        return _shown(*_from_memory(dataset, name))


def _shown(dataset: "Dataset", stored: Integers, doubts: tuple[Warned, ...], *, windows: bool = False) -> Image:
    header, before = header_of(dataset), None
    if header.photometric.startswith("MONOCHROME"):
        pixels, colour = shown(dataset, stored), False
        before = unwindowed(dataset, stored) if windows else None
    else:
        pixels, colour = grey_of(stored, 2**dataset.BitsStored - 1)
    said = doubts + _warnings(dataset, header, pixels, colour=colour)
    return Image(pixels, "DICOM", dataset.BitsStored, colour, header=header, warnings=said, unwindowed=before)


def read_header(path: Path) -> "Dataset":
    """Read what stands before the pixels of any DICOM, as it is.

    Raises:
        ImageError: it is damaged, or no DICOM.
    """
    with damage_told(path, _DAMAGED), open_bounded(path) as file:
        return _head(path, file)[0]


def _from_file(path: Path) -> tuple["Dataset", Integers, tuple[Warned, ...]]:
    """Read and check the header, and only then read, check and decode the pixels as stored."""
    with open_bounded(path) as file:
        dataset, named, source = _head(path, file)
        syntax = _checked(path, dataset, named)
        _add_pixel_data(dataset, source)
    return dataset, *stored_pixels(path, dataset, syntax)


def _head(path: Path, file: BufferedReader) -> tuple["Dataset", str | None, BinaryIO]:
    """Return the header, the transfer syntax that the file names, and the file, inflated where it is deflated."""
    # Whoever reads PNG files need not wait 0.2 s for this import, most of what theirs take.
    from pydicom import filereader, uid  # noqa: PLC0415

    bare = filereader.read_preamble(file, force=True) is None
    if bare and file.peek(2)[:2] not in _FIRST_GROUPS:
        raise ImageError(f"{path}: not DICOM, whatever its name says. Name it as what it is.")
    meta = filereader.read_dataset(file, False, True, None, lambda tag, *_: tag.group != _META)
    named = meta.get("TransferSyntaxUID")
    source = _inflate(path, file) if named == uid.DeflatedExplicitVRLittleEndian else file
    source.seek(0)
    return filereader.read_partial(source, lambda tag, *_: tag >= _PIXEL_DATA, force=True), named, source


def _from_memory(given: "Dataset", name: Path) -> tuple["Dataset", Integers, tuple[Warned, ...]]:
    from pydicom.dataset import FileMetaDataset  # noqa: PLC0415

    dataset = deepcopy(given[:_PIXEL_DATA])
    dataset.file_meta = deepcopy(getattr(given, "file_meta", None) or FileMetaDataset())
    if None in given.original_encoding:
        dataset.set_original_encoding(is_implicit_vr=True, is_little_endian=True)
    syntax = _checked(name, dataset, dataset.file_meta.get("TransferSyntaxUID"))
    if "PixelData" in given:
        dataset["PixelData"] = copy(given["PixelData"])
    return dataset, *stored_pixels(name, dataset, syntax)


def _checked(path: Path, dataset: "Dataset", named: str | None) -> "UID":
    """Tidy and check a header without pixels; return how the pixels are encoded."""
    from pydicom import pixels, uid  # noqa: PLC0415

    implicit, little = dataset.original_encoding
    explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    syntax = uid.UID(named or (uid.ImplicitVRLittleEndian if implicit else explicit))
    add_frame_groups(dataset)
    complete(dataset)
    _check_kind(path, dataset)
    check_storage(path, dataset)
    try:
        pixels.get_decoder(syntax)  # type: ignore[attr-defined]
    except NotImplementedError as error:
        named = "its unknown transfer syntax" if syntax.name == syntax else syntax.name
        raise DamageError(f"{named} is not decoded here") from error
    dataset.file_meta.TransferSyntaxUID = syntax
    return syntax


def _add_pixel_data(dataset: "Dataset", source: BinaryIO) -> None:
    """Add Pixel Data, and nothing else that was not checked."""
    from pydicom import filereader  # noqa: PLC0415

    source.seek(0)
    again = filereader.read_partial(source, lambda tag, *_: tag > _PIXEL_DATA, force=True)
    if not again.get("PixelData"):  # the delimiter after the last fragment may be missing
        source.seek(0)
        ended = BytesIO(source.read() + _DELIMITER)
        again = filereader.read_partial(ended, lambda tag, *_: tag > _PIXEL_DATA, force=True)
    if "PixelData" in again:
        dataset["PixelData"] = again["PixelData"]


def _inflate(path: Path, file: BinaryIO) -> BytesIO:
    """Return the data set that follows in deflated form (PS3.5 A.5): pydicom would set no limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflate.decompress(file.read(), MAX_BYTES)
    if inflate.unconsumed_tail:
        raise ImageError(f"{path}: unpacks to over the limit of {MAX_BYTES // 2**20} MiB a file.")
    if data[:2] not in _FIRST_GROUPS[1:] or data[PREAMBLE:].startswith(b"DICM"):
        raise DamageError("it does not unpack to a data set")
    return BytesIO(data)


def _check_kind(path: Path, head: "Dataset") -> None:
    """Refuse what is no picture, no mammogram, or more than one."""
    kind = head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID")
    named = getattr(kind, "name", kind)
    name = "of no known kind" if named == kind else named  # nothing else of a header is quoted
    if "Rows" not in head or "Columns" not in head:
        raise ImageError(f"{path}: holds no picture ({name}), or is cut short before it.")
    if text(head, "Manufacturer") == OURS:
        raise ImageError(f"{path}: is itself a result of {OURS}. Give the mammogram that it is of.")
    modality, part = text(head, "Modality"), text(head, "BodyPartExamined") or ""
    radiograph = modality in _RADIOGRAPHS and "BREAST" in part.upper()
    if not (modality == "MG" or modality in _UNTOLD or radiograph):
        said = f"modality {modality}" if modality in MODALITIES else "of another modality"
        raise ImageError(
            f"{path}: not a mammogram: {said}{', not of a breast' if modality in _RADIOGRAPHS else ''} ({name}). "
            "Modality MG was expected, or CR, DX or RG of a BREAST."
        )
    frames = whole(head, "NumberOfFrames", 1)
    synthetic = _SYNTHETIC in image_type(head)
    if frames > 1 or (kind == _TOMOSYNTHESIS and not synthetic):
        raise ImageError(
            f"{path}: holds tomosynthesis or the like, in {frames} frames ({name}); one picture "
            "was expected. Give the 2-D or synthetic 2-D mammogram of the same examination."
        )


def _warnings(dataset: "Dataset", header: Header, pixels: _Pixels, *, colour: bool) -> tuple[Warned, ...]:
    ends = (header.photometric, text(dataset, "PresentationLUTShape"))
    kinds = [*header.special, *({header.view} - _LEARNT)]
    return warnings_that_hold(
        {
            ImageWarning.RAW: header.for_processing,
            ImageWarning.MODALITY: text(dataset, "Modality") in _UNTOLD,
            ImageWarning.VIEW.about(", ".join(map(str, kinds))): kinds,
            ImageWarning.COLOUR: colour,
            **dict.fromkeys(() if colour else ignored(dataset), True),
            ImageWarning.WHITE: ends in _CONTRADICTIONS,
            ImageWarning.FAINT: np.ptp(pixels) < FAINT,
        }
    )
