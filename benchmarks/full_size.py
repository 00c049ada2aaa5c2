"""DICOM files as large as mammography units write them, made of small mammograms: nothing here is a real file's.

A picture is enlarged, gets the noise that a detector has, and is written with 12 bits, uncompressed, as JPEG
Lossless (ISO/IEC 10918-1 process 14) and as JPEG 2000 without loss.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
)

Stored = NDArray[np.uint16]

SIZES = ((3328, 2560), (4096, 3328))
"""(rows, columns) of 24 × 29 cm detectors of two makers."""

BITS = 12
_NOISE = 0.12  # of the square root of a level: quanta


def enlarged(picture: Path, shape: tuple[int, int], seed: int) -> Stored:
    """Return a picture in 12 bits at another size, with noise as far as it is bright, its background clean."""
    with Pillow.open(picture) as small:
        large = small.convert("L").convert("F").resize(shape[::-1], Pillow.Resampling.BICUBIC)
    levels = np.clip(np.asarray(large), 0, 255) * ((2**BITS - 1) / 255)
    levels[levels < 2**BITS / 64] = 0
    noise = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.sqrt(levels) * np.float32(8 * _NOISE)
    stored: Stored = np.clip(np.rint(levels + noise), 0, 2**BITS - 1).astype(np.uint16)
    return stored


def plain(stored: Stored) -> bytes:
    """Return pixels as they are."""
    return stored.astype("<u2").tobytes()


def jpeg_2000(stored: Stored) -> bytes:
    """Return pixels as a codestream of JPEG 2000 with the reversible transform."""
    return encapsulate([encode_array(stored, bits_stored=BITS)])


def jpeg_lossless(stored: Stored) -> bytes:
    """Return pixels as JPEG process 14: each less the one to its left, in Huffman codes of 5 bits (H.1)."""
    x = stored.astype(np.int32)
    guess = np.empty_like(x)
    guess[:, 1:], guess[1:, 0], guess[0, 0] = x[:, :-1], x[:-1, 0], 2 ** (BITS - 1)
    apart = (x - guess).ravel()
    category = np.ceil(np.log2(np.abs(apart) + 1)).astype(np.int32)  # bits of the magnitude, exact below 2**16
    low = np.where(apart < 0, apart - 1, apart) & ((1 << category) - 1)
    lengths = 5 + category
    ends = np.cumsum(lengths)
    bits = np.zeros(-(-int(ends[-1]) // 8) * 8, np.uint8)
    bits[int(ends[-1]) :] = 1
    codes = (category << category) | low
    for place in range(int(lengths.max())):
        has = lengths > place
        bits[ends[has] - 1 - place] = codes[has] >> place & 1
    data = np.packbits(bits).tobytes().replace(b"\xff", b"\xff\0")
    height, width = (side.to_bytes(2, "big") for side in stored.shape)
    frame, tables, scan = (
        bytes([BITS]) + height + width + b"\1\1\x11\0",
        b"\0" * 5 + b"\x11" + b"\0" * 11,
        b"\1\1\0\1\0\0",
    )
    segments = ((0xC3, frame), (0xC4, tables + bytes(range(17))), (0xDA, scan))
    head = b"".join(bytes([0xFF, kind, 0, len(told) + 2]) + told for kind, told in segments)
    return encapsulate([b"\xff\xd8" + head + data + b"\xff\xd9"])


ENCODINGS: dict[str, tuple[UID, Callable[[Stored], bytes]]] = {
    "uncompressed": (ExplicitVRLittleEndian, plain),
    "JPEG lossless": (JPEGLosslessSV1, jpeg_lossless),
    "JPEG 2000": (JPEG2000Lossless, jpeg_2000),
}
"""By what they are called: the transfer syntax, and what encodes."""


def write_dicom(path: Path, shape: tuple[int, int], encoding: str, encoded: bytes, number: int) -> None:
    """Write one mammogram, as a unit would; `number` is its own."""
    syntax = ENCODINGS[encoding][0]
    dataset, dataset.file_meta = Dataset(), FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number + 1}")
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.PatientID, dataset.StudyInstanceUID = f"{number}", f"1.2.3.{number + 1}.1"
    dataset.ImageLaterality, dataset.ViewPosition = "L", "CC"
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, BITS, BITS - 1, 0
    dataset.PixelData = encoded
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def full_size(pictures: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Write `count` DICOM files into `folder`, made of the pictures in turn, sizes and encodings in turn, too.

    No two are alike: what has the same pixels differs in its header.
    """
    made = []
    for number, picture in enumerate(pictures):
        encoding = list(ENCODINGS)[number % len(ENCODINGS)]
        shape = SIZES[number // len(ENCODINGS) % len(SIZES)]
        made.append((shape, encoding, ENCODINGS[encoding][1](enlarged(picture, shape, number))))
    paths = [folder / f"{number:04d}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        write_dicom(path, *made[number % len(made)], number)
    return paths
