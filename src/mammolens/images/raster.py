"""Grids of samples → `Image`: PNG, JPEG, TIFF, PNM, BMP and WebP files, by Pillow; its pictures, and arrays."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageChops, UnidentifiedImageError

from mammolens.errors import ImageError
from mammolens.images.image import (
    COLOUR_SHARE,
    COLOUR_TOLERANCE,
    FAINT,
    MAX_PIXELS,
    Image,
    check_size,
    damage_told,
    grey_of,
    open_bounded,
)
from mammolens.images.tiff import SIGNATURES, read_tiff
from mammolens.records import ImageWarning, Warned, warnings_that_hold

SUFFIXES_BY_FORMAT = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm", ".pnm", ".pbm"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
}
RASTER_SUFFIXES = frozenset(suffix for group in SUFFIXES_BY_FORMAT.values() for suffix in group)

# Memory that one picture was decoded in serves the next: asking the system for it anew takes twice
# as long as decoding does.
Pillow.core.set_blocks_max(8)  # type: ignore[attr-defined]  # Pillow's, but not typed

_EXIF_ORIENTATION = 0x0112
_BITS_BY_MODE = {"1": 1, "L": 8, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 16}
_TURNS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""Steps through rows and columns that undo an orientation."""

_FRAMES = {0xC3: "lossless JPEG", 0xF7: "JPEG-LS"} | dict.fromkeys(
    (0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF), "hierarchical or lossless JPEG"
)
"""JPEG that is not for viewers, by its start of frame (ISO/IEC 10918-1 table B.1, 14495-1 C.1)."""
_HEAD = 2**16  # bytes that it is looked for in

_DAMAGED = "the image data is damaged or cut short ({}). Copy the file anew."

_Grey = NDArray[np.float32]


def read_raster(path: Path) -> Image:
    """Read a PNG, JPEG, TIFF, PNM, BMP or WebP file as one grey image.

    Pixels are divided by the largest value that the stored depth can hold (255, 65535, or what a
    PNM header names), never by the image's own maximum: 12 bits in a file of 16 stay dark, with a
    warning where that leaves less than a sixteenth of the scale. Colour becomes luma (ITU-R
    BT.601); profiles and gamma are not applied. What is transparent is background: black. Of a
    phone's JPEG with further pictures inside (CIPA DC-007), the first is read.

    Raises:
        ImageError: the file is too large or small, truncated, animated, not an image, of numbers
            without a known black and white, or its content contradicts its name.
    """
    with damage_told(path, _DAMAGED):
        with path.open("rb") as file:
            start = file.read(4)
        return _warned(_read_tiff(path) if start in SIGNATURES else _read_others(path))


def image_of_picture(picture: Pillow.Image, name: Path) -> Image:
    """Take a Pillow picture as one grey image, as `read_raster` takes a file.

    Raises:
        ImageError: it is too large or small, damaged, animated, or of numbers without a known black and white.
    """
    with damage_told(name, _DAMAGED):
        said = _check_frames(name, picture)
        return _warned(_assembled(picture, *_to_grey(name, picture), _alpha(picture), said))


def image_of_array(array: NDArray[Any], name: Path) -> Image:
    """Take an array as one grey image.

    Args:
        array: (height, width), or RGB of (height, width, 3): uint8, uint16, bool, or float in [0, 1].
        name: what it is called in errors.

    Raises:
        ImageError: it is something else, or too large or small.
    """
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    whole = kind == "u" and bits <= 16  # noqa: PLR2004 - in either byte order
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not (whole or kind in "bf"):
        raise ImageError(
            f"{name}: an array of {array.dtype} and shape {array.shape}; expected (height, width) or "
            "(height, width, 3) of uint8, uint16, bool, or float in [0, 1]."
        )
    check_size(name, *array.shape[:2])
    if array.ndim == 3 and bits == 8 and whole:  # noqa: PLR2004 - so that luma is rounded as of a file
        return image_of_picture(Pillow.fromarray(array), name)
    # A NaN is in no range.
    if not (whole or (array.min() >= 0 and array.max() <= 1)):
        raise ImageError(f"{name}: an array with values outside [0, 1]: scale it, or give uint8 or uint16.")
    samples = array if whole else array.astype(np.float32)
    pixels, colour = grey_of(samples, 2**bits - 1 if whole else 1)
    return _warned(Image(pixels, "array", bits if whole else 1 if kind == "b" else 16, colour))


def _warned(image: Image) -> Image:
    faint = image.bit_depth > 8 and np.ptp(image.pixels) < FAINT  # noqa: PLR2004 - such as 12 in 16
    said = warnings_that_hold({ImageWarning.COLOUR: image.colour, ImageWarning.FAINT: faint})
    return replace(image, warnings=(*image.warnings, *said))


def _read_tiff(path: Path) -> Image:
    _check_name(path, "TIFF")
    tiff = read_tiff(path)
    if tiff is None:
        return _read_others(path)
    pixels, colour = grey_of(tiff.samples, 2**tiff.bits - 1)
    pixels, said = _on_black(pixels, tiff.alpha)
    upright = _upright(pixels, tiff.orientation)
    return Image(upright, "TIFF", tiff.bits, colour, tiff.orientation, warnings=(*tiff.warnings, *said))


def _read_others(path: Path) -> Image:
    with _opened(path) as picture:
        _check_name(path, _format(picture))
        said = _check_frames(path, picture, read_by_tags=picture.format == "TIFF")
        bits = _png_kind(path)[0] if picture.format == "PNG" else 8
        if bits == 16 and picture.mode != "I;16":  # noqa: PLR2004
            pixels, alpha, colour = _wide_grey(path, picture)
            return _assembled(picture, pixels, bits, colour, alpha, said)
        return _assembled(picture, *_to_grey(path, picture), _alpha(picture, bits), said)


def _assembled(
    picture: Pillow.Image, pixels: _Grey, bits: int, colour: bool, alpha: _Grey | None, said: tuple[Warned, ...]
) -> Image:
    """Lay pixels on black and turn them upright."""
    pixels, more = _on_black(pixels, alpha)
    orientation = int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    orientation = orientation if orientation in range(1, 9) else 1
    if picture.format != "TIFF":  # Pillow turns those itself
        pixels = _upright(pixels, orientation)
    return Image(pixels, _format(picture), bits, colour, orientation, warnings=(*said, *more))


def _format(picture: Pillow.Image) -> str:
    return "JPEG" if picture.format == "MPO" else picture.format or "picture"


@contextmanager
def _opened(path: Path) -> Iterator[Pillow.Image]:
    with open_bounded(path) as file, _open(path, file) as picture:
        yield picture


def _open(path: Path, file: BinaryIO) -> Pillow.Image:
    # Pillow warns of huge headers and refuses gigantic ones; both end in the same clear error.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return Pillow.open(file, formats=tuple(SUFFIXES_BY_FORMAT))
    except UnidentifiedImageError as error:
        expected = ", ".join(SUFFIXES_BY_FORMAT)
        found = _kind_of_jpeg(path)
        remedy = " Save it as PNG or TIFF, without loss." if found else ""
        raise ImageError(
            f"{path}: {f'this is {found}, ' if found else ''}not an image that can be read; "
            f"expected one of {expected}, or DICOM.{remedy}"
        ) from error
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: over the limit of {MAX_PIXELS:,} pixels. Scale the image down.") from error


def _kind_of_jpeg(path: Path) -> str | None:
    """Say what is special about a JPEG that Pillow does not read, by its start of frame."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.startswith(b"\xff\xd8"):
        return None
    for found in re.finditer(rb"\xff([\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7])..(.)", head, re.DOTALL):
        marker, bits = found[1][0], found[2][0]
        if marker in _FRAMES:
            return f"{_FRAMES[marker]} of {bits} bits"
        if bits != 8:  # noqa: PLR2004
            return f"JPEG of {bits} bits"
    return None


def _check_name(path: Path, stored_format: str) -> None:
    suffixes = SUFFIXES_BY_FORMAT[stored_format]
    suffix = path.suffix.lower()
    if suffix and suffix not in suffixes:
        raise ImageError(
            f"{path}: named {suffix} but holds a {stored_format} image. "
            f"Rename it to {path.stem}{suffixes[0]} if that is what it should be."
        )


def _check_frames(path: Path, picture: Pillow.Image, *, read_by_tags: bool = False) -> tuple[Warned, ...]:
    """Refuse what should not be decoded, by the header alone; return what is passed over."""
    check_size(path, picture.height, picture.width)
    frames = getattr(picture, "n_frames", 1)
    if picture.format == "MPO":
        return (ImageWarning.PICTURES.about(frames),)
    if frames > 1 and not read_by_tags:  # which tell copies and masks apart
        raise ImageError(
            f"{path}: holds {frames} pictures (animated or multi-page); one was expected. "
            "Save each as a file of its own."
        )
    return ()


def _upright(pixels: _Grey, orientation: int) -> _Grey:
    """Apply an EXIF or TIFF orientation, 1 to 8 (TIFF 6.0 section 8)."""
    if orientation > 4:  # noqa: PLR2004 - rows and columns change places
        pixels = pixels.T
    rows, columns = _TURNS.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _on_black(pixels: _Grey, alpha: _Grey | None) -> tuple[_Grey, tuple[Warned, ...]]:
    """Lay what is transparent on black, which is background, and say so."""
    if alpha is None or alpha.min() == 1:
        return pixels, ()
    if alpha.max() == 0:  # nothing would be left: some writers leave the channel empty
        return pixels, (ImageWarning.EMPTY_ALPHA,)
    return pixels * alpha, (ImageWarning.ALPHA,)


def _alpha(picture: Pillow.Image, bits: int = 8) -> _Grey | None:
    """Return how opaque each pixel is, in [0, 1], or None where all are."""
    transparent = picture.info.get("transparency")
    if picture.getbands()[-1] in "Aa" or (picture.mode == "P" and transparent is not None):
        return np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.float32) / np.float32(255)
    if transparent is None or picture.format != "PNG":
        return None
    if bits < 8:  # noqa: PLR2004 - Pillow spreads the pixels over 8 bits, but not this value
        transparent = bool(transparent) if bits == 1 else transparent * (255 // (2**bits - 1))
    return _unlike(np.asarray(picture), transparent)


def _unlike(stored: NDArray[Any], transparent: int | tuple[int, ...]) -> _Grey:
    same = stored == np.asarray(transparent)
    return np.asarray(~(same.all(axis=-1) if np.ndim(transparent) else same), dtype=np.float32)


def _wide_grey(path: Path, picture: Pillow.Image) -> tuple[_Grey, _Grey | None, bool]:
    """Return grey, alpha and whether colour is real of a PNG with several channels of 16 bits.

    Pillow keeps the upper bytes of these. What it takes for the upper bytes of the other order are
    the lower ones; and two channels of 16 bits are stored as four of 8.
    """
    kind, white = _png_kind(path)[1], np.float32(65535)
    if kind == 4:  # noqa: PLR2004 - grey with alpha
        quarters = _unpacked(path, "RGBA").astype(np.float32)
        grey, alpha = np.moveaxis(quarters[..., ::2] * 256 + quarters[..., 1::2], 2, 0) / white
        return grey, alpha, False
    mode = "RGB" if kind == 2 else "RGBA"  # noqa: PLR2004
    upper, lower = (_unpacked(path, f"{mode};16{end}") for end in "BL")
    stored = upper.astype(np.uint16) * np.uint16(256) + lower
    grey, colour = grey_of(stored[..., :3], 65535)
    if "transparency" in picture.info:
        return grey, _unlike(stored, picture.info["transparency"]), colour
    return grey, stored[..., 3].astype(np.float32) / white if mode == "RGBA" else None, colour


def _unpacked(path: Path, rawmode: str) -> NDArray[np.uint8]:
    """Let Pillow unpack a PNG in another way than its header says."""
    with open_bounded(path) as file, Pillow.open(file, formats=("PNG",)) as picture:
        picture.tile = [picture.tile[0]._replace(args=rawmode)]
        picture.info.pop("transparency", None)
        return np.asarray(picture)


def _png_kind(path: Path) -> tuple[int, int]:
    """Return the bit depth and the colour type of a PNG (PNG 3rd edition, 11.2.1)."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[24], head[25]


def _to_grey(path: Path, picture: Pillow.Image) -> tuple[_Grey, int, bool]:
    """Return pixels (height, width) in [0, 1], the stored bit depth, and whether colour is real."""
    if picture.mode in _BITS_BY_MODE:
        bits = _BITS_BY_MODE[picture.mode]
        pixels = np.asarray(picture, dtype=np.float32) / np.float32(2**bits - 1)
        if picture.mode != "I" or (pixels.min() >= 0 and pixels.max() <= 1):
            return pixels, bits, False
    if picture.mode in ("F", "I"):
        kind = "floating-point pixels" if picture.mode == "F" else "pixels outside 0 to 65535"
        raise ImageError(f"{path}: {kind} have no known white level. Save it as 16-bit PNG.")
    rgb = picture.convert("RGB")
    return np.asarray(rgb.convert("L"), dtype=np.float32) / np.float32(255), 8, _is_colour(rgb)


def _is_colour(rgb: Pillow.Image) -> bool:
    """Tell whether channels differ by more than compression makes them, in 1 % of pixels."""
    red, green, blue = rgb.reduce(2).split()  # four pixels as one: noise goes, colour stays
    spread = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
    counts = spread.histogram()
    return sum(counts[COLOUR_TOLERANCE + 1 :]) > COLOUR_SHARE * sum(counts)
