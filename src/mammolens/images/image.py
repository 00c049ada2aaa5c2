"""`Image`: one grey picture and what was learnt while reading it. The limits on untrusted input.

Knows nothing of breasts: what the pixels show is `breast.py`'s business.
"""

import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mammolens.errors import ImageError, reason
from mammolens.files import why_not_opened
from mammolens.records import Laterality, Special, View, Warned

MAX_BYTES = 512 * 2**20
"""Largest file that is opened; the largest mammograms are below 100 MB uncompressed."""

MAX_PIXELS = 80_000_000
"""Largest image that is decoded; a 24 × 30 cm mammogram at 50 µm has 29 million pixels."""

FAINT = 1 / 16
"""Of the grey scale: an image that uses less is warned of."""

MIN_SIDE = 16
"""Smallest height and width, in pixels, that can show anything of a breast."""

COLOUR_TOLERANCE = 24
"""Channels of a grey image that JPEG stored as colour differ by less than this (of 255)."""

COLOUR_SHARE = 0.01
"""Of pixels that must differ more than that in an image whose colour is real."""

_LUMA = np.asarray((0.299, 0.587, 0.114), dtype=np.float32)


@dataclass(frozen=True)
class Header:
    """What a DICOM header says of an image; unknown is None.

    Attributes:
        patient_id: (0010,0020) Patient ID.
        study_id: (0020,000D) Study Instance UID.
        laterality: (0020,0062) Image Laterality, or (0020,0060) Laterality.
        view: by (0054,0220) View Code Sequence, or (0018,5101) View Position.
        age: of the patient, in whole years: (0010,1010) Patient's Age, or by birth date and study date.
        manufacturer: (0008,0070), as far as it is a known maker's name, in capitals.
        spacing: (row, column) distance between pixels in mm, at the detector.
        for_processing: whether these are raw pixels, not meant to be looked at.
        photometric: (0028,0004), such as ``MONOCHROME2``.
        special: what makes this other than a standard view of a whole breast, if anything does.
        transfer_syntax: how the pixels are encoded, by its UID's name.
    """

    patient_id: str | None = None
    study_id: str | None = None
    laterality: Laterality | None = None
    view: View | None = None
    age: int | None = None
    manufacturer: str | None = None
    spacing: tuple[float, float] | None = None
    for_processing: bool = False
    photometric: str = "MONOCHROME2"
    special: tuple[Special, ...] = ()
    transfer_syntax: str = ""


class Window(NamedTuple):
    """A contrast window: what is black and what is white, as shares of the range of a picture's values.

    Attributes:
        low: what is black: 0 is the least value that there can be; outside of [0, 1] where the range is narrower.
        high: what is white.
        shape: what lies between: ``"linear"``, ``"sigmoid"`` (PS3.3 C.11.2.1.3.1), or shades in [0, 1] at equal steps.
    """

    low: float
    high: float
    shape: str | tuple[float, ...] = "linear"

    def inverted(self) -> "Window":
        """Return the window that shows an inverted picture as this one shows the picture, inverted."""
        shape = self.shape if isinstance(self.shape, str) else tuple(1 - shade for shade in self.shape[::-1])
        return Window(1 - self.high, 1 - self.low, shape)


@dataclass(frozen=True, eq=False)
class Unwindowed:
    """A picture before any window, and the windows that its file offers.

    Attributes:
        pixels: float32 of shape (height, width) in [0, 1]; 0 is black; the whole range of values there can be.
        heeded: the window by which the picture is read.
        windows: all of them by their explanation, in the file's order.
    """

    pixels: NDArray[np.float32]
    heeded: Window
    windows: Mapping[str, Window]


@dataclass(frozen=True, eq=False)
class Image:
    """One grey image and what was learnt while reading it.

    Attributes:
        pixels: float32 of shape (height, width) in [0, 1]; 0 is black.
        format: the file's format, such as ``"PNG"`` or ``"DICOM"``.
        bit_depth: bits a pixel and channel as stored, 1 to 16.
        colour: whether the channels really differ (a grey image stored as RGB is not colour).
        exif_orientation: the EXIF orientation that was applied, 1 (upright) to 8.
        header: what a DICOM header says, or None.
        warnings: what a user should know before trusting an answer about this image.
        unwindowed: where it was asked for, and the file offers windows to choose from; else None.
    """

    pixels: NDArray[np.float32]
    format: str
    bit_depth: int
    colour: bool = False
    exif_orientation: int = 1
    header: Header | None = None
    warnings: tuple[Warned, ...] = ()
    unwindowed: Unwindowed | None = None


def grey_of(samples: NDArray[Any], white: float) -> tuple[NDArray[np.float32], bool]:
    """Return samples as grey in [0, 1], and whether their colour is real.

    Args:
        samples: (height, width), (height, width, 1) or, as RGB, (height, width, 3), 0 is black.
            Colour becomes luma (ITU-R BT.601).
        white: the value of white.
    """
    if samples.ndim == 2 or samples.shape[2] == 1:  # noqa: PLR2004
        return samples.reshape(samples.shape[:2]).astype(np.float32) / np.float32(white), False
    red, green, blue = np.moveaxis(samples, 2, 0)
    spread = [np.maximum(one, green) - np.minimum(one, green) for one in (red, blue)]
    colour = (np.maximum(*spread) > COLOUR_TOLERANCE / 255 * white).mean() > COLOUR_SHARE
    return np.clip(samples @ (_LUMA / np.float32(white)), 0, 1), bool(colour)


class DamageError(ValueError):
    """What is wrong with a file's content, in words of ours: they never quote it."""


_PLAIN = re.compile(
    r"image file is truncated( \(\d+ bytes not processed\))?|Truncated File Read|Reached EOF while reading header"
    r"|(unrecognized|broken) data stream( contents)? when reading image file"
    r"|could not create decoder object|cannot load this image|Unable to decode"
    r"|Unable to decompress '[\w .()-]+' pixel data because all plugins are missing dependencies.*"
)
"""What libraries say that quotes nothing of a file."""


@contextmanager
def damage_told(path: Path, sentence: str) -> Iterator[None]:
    """Turn whatever a parser trips over into an ImageError: `sentence`, with the reason in its braces."""
    try:
        # Parsers remark on oddities of files that they read all the same, and may quote them; the rest raises.
        with warnings.catch_warnings(action="ignore"):
            yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{path}: {sentence.format(unquoted(error))}") from error


class _Bounded(BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(-1 if size is None else size, MAX_BYTES))


def open_bounded(path: Path) -> BufferedReader:
    """Open a file of which no more is asked at once than may be in it, whatever lengths it tells of."""
    return _Bounded(FileIO(os.fspath(path)))  # pydicom takes its name for text


def unquoted(error: Exception) -> str:
    """Return what an error says, or only of which kind it is where it might quote what it met in a file."""
    if isinstance(error, DamageError):
        return reason(error)
    plain = _PLAIN.match(reason(error))
    return plain[0] if plain else type(error).__name__


def check_file(path: Path) -> None:
    """Refuse a file that should not be opened.

    Raises:
        ImageError: it is missing, no file, locked, empty or too large.
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):  # to open a pipe would be to wait for ever
            os.close(os.open(path, os.O_RDONLY))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path}: {why_not_opened(path, error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: is a folder; one image was expected. Name a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: is a pipe or a device; a file was expected.")
    if status.st_size == 0:
        raise ImageError(f"{path}: the file is empty. Copy it anew.")
    if status.st_size > MAX_BYTES:
        raise ImageError(
            f"{path}: {status.st_size / 2**20:.0f} MiB is over the limit of {MAX_BYTES // 2**20} MiB a file."
        )


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse, by its size alone, an image that should not be decoded.

    Raises:
        ImageError: it has too many pixels or is too small.
    """
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{path}: {width} x {height} is over the limit of {MAX_PIXELS:,} pixels. Scale the image down."
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{path}: {width} x {height} pixels is too small for a mammogram; "
            f"at least {MIN_SIDE} x {MIN_SIDE} is expected."
        )
