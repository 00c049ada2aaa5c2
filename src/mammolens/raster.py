"""Raster files → `Image`: PNG, JPEG, TIFF, PNM, BMP and WebP, by Pillow."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageChops, ImageOps, UnidentifiedImageError

from mammolens.errors import ImageError
from mammolens.images import MAX_PIXELS, Image, check_size

COLOUR_TOLERANCE = 24
"""Channels of a grey image that JPEG stored as colour differ by less than this (of 255)."""

COLOUR_SHARE = 0.01
"""Of pixels that must differ more than that in an image whose colour is real."""

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
_BITS_BY_MODE = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 16}


def read_raster(path: Path) -> Image:
    """Read a PNG, JPEG, TIFF, PNM, BMP or WebP file as one grey image.

    Pixels are divided by the largest value of the stored depth (255 or 65535), never by the
    image's own maximum. Colour becomes luma (ITU-R BT.601).

    Raises:
        ImageError: the file is too large or small, truncated, animated, not an image, or its
            content contradicts its name.
    """
    try:
        # Pillow remarks on odd tags of files that it reads all the same; the rest raises.
        with warnings.catch_warnings(action="ignore"), _open(path) as picture:
            _check_header(path, picture)
            orientation = int(picture.getexif().get(_EXIF_ORIENTATION, 1))
            stored_format = str(picture.format)
            picture.load()
            upright = picture if orientation == 1 else ImageOps.exif_transpose(picture)
            pixels, bit_depth, colour = _to_grey(path, upright)
    except ImageError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they trip over
        raise ImageError(
            f"{path}: the image data is damaged or cut short ({error}). Copy the file anew."
        ) from error
    said = ("colour image: turned to grey",) if colour else ()
    return Image(pixels, stored_format, bit_depth, colour, orientation, warnings=said)


def _open(path: Path) -> Pillow.Image:
    # Pillow warns of huge headers and refuses gigantic ones; both end in the same clear error.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return Pillow.open(path, formats=tuple(SUFFIXES_BY_FORMAT))
    except UnidentifiedImageError as error:
        expected = ", ".join(SUFFIXES_BY_FORMAT)
        raise ImageError(
            f"{path}: not an image that can be read; expected one of {expected}."
        ) from error
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path}: over the limit of {MAX_PIXELS:,} pixels. Scale the image down."
        ) from error


def _check_header(path: Path, picture: Pillow.Image) -> None:
    """Refuse what should not be decoded, by the header alone."""
    suffixes = SUFFIXES_BY_FORMAT[str(picture.format)]
    suffix = path.suffix.lower()
    if suffix and suffix not in suffixes:
        raise ImageError(
            f"{path}: named {suffix} but holds a {picture.format} image. "
            f"Rename it to {path.stem}{suffixes[0]} if that is what it should be."
        )
    width, height = picture.size
    check_size(path, height, width)
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ImageError(
            f"{path}: holds {frames} pictures (animated or multi-page); one was expected. "
            "Save each as a file of its own."
        )


def _to_grey(path: Path, picture: Pillow.Image) -> tuple[NDArray[np.float32], int, bool]:
    """Return pixels (height, width) in [0, 1], the stored bit depth, and whether colour is real."""
    if picture.mode in _BITS_BY_MODE:
        bits = _BITS_BY_MODE[picture.mode]
        return np.asarray(picture, dtype=np.float32) / np.float32(2**bits - 1), bits, False
    if picture.mode == "F":
        raise ImageError(
            f"{path}: floating-point pixels have no known white level. Save it as 16-bit PNG."
        )
    if picture.mode == "L":
        return np.asarray(picture, dtype=np.float32) / np.float32(255), 8, False
    rgb = picture.convert("RGB")
    return np.asarray(rgb.convert("L"), dtype=np.float32) / np.float32(255), 8, _is_colour(rgb)


def _is_colour(rgb: Pillow.Image) -> bool:
    """Tell whether channels differ by more than compression makes them, in 1 % of pixels."""
    red, green, blue = rgb.reduce(2).split()  # four pixels as one: noise goes, colour stays
    spread = ImageChops.lighter(
        ImageChops.difference(red, green), ImageChops.difference(green, blue)
    )
    counts = spread.histogram()
    return sum(counts[COLOUR_TOLERANCE + 1 :]) > COLOUR_SHARE * sum(counts)
