"""Raster files → `Image`: PNG, JPEG, TIFF, PNM, BMP and WebP, by Pillow."""

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageChops, UnidentifiedImageError

from mammolens.errors import ImageError
from mammolens.images.image import FAINT, MAX_PIXELS, Image, check_size
from mammolens.images.tiff import read_tiff
from mammolens.records import ImageWarning, Warned, warnings_that_hold

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
_LUMA = np.asarray((0.299, 0.587, 0.114), dtype=np.float32)
_WHITE = np.float32(65535)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_FRAMES = {0xC3: "lossless JPEG", 0xF7: "JPEG-LS"} | dict.fromkeys(
    (0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF), "hierarchical or lossless JPEG"
)
"""JPEG that is not for viewers, by its start of frame (ISO/IEC 10918-1 table B.1, 14495-1 C.1)."""
_HEAD = 2**16  # bytes that it is looked for in


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
    try:
        # Pillow remarks on odd tags of files that it reads all the same; the rest raises.
        with warnings.catch_warnings(action="ignore"):
            with path.open("rb") as file:
                start = file.read(4)
            image = _read_tiff(path) if start in _TIFF_STARTS else _read_others(path)
    except ImageError:
        raise
    except Exception as error:  # parsers raise whatever they trip over
        raise ImageError(f"{path}: the image data is damaged or cut short ({error}). Copy the file anew.") from error
    faint = image.bit_depth > 8 and np.ptp(image.pixels) < FAINT  # noqa: PLR2004 - such as 12 in 16
    said = warnings_that_hold({ImageWarning.COLOUR: image.colour, ImageWarning.FAINT: faint})
    return replace(image, warnings=(*image.warnings, *said))


def _read_tiff(path: Path) -> Image:
    _check_name(path, "TIFF")
    tiff = read_tiff(path)
    if tiff.samples is None:
        return _read_others(path)
    white = np.float32(2**tiff.bits - 1)
    colour = tiff.samples.shape[2] > 1 and _differ(tiff.samples, white)
    if tiff.samples.shape[2] == 1:
        pixels = tiff.samples[..., 0].astype(np.float32) / white
    else:
        pixels = np.clip(tiff.samples @ (_LUMA / white), 0, 1)
    pixels, said = _on_black(pixels, tiff.alpha)
    return Image(
        _upright(pixels, tiff.orientation),
        "TIFF",
        tiff.bits,
        colour,
        tiff.orientation,
        warnings=(*tiff.warnings, *said),
    )


def _read_others(path: Path) -> Image:
    with _open(path) as picture:
        said = _check_header(path, picture)
        stored_format = "JPEG" if picture.format == "MPO" else str(picture.format)
        orientation = int(picture.getexif().get(_EXIF_ORIENTATION, 1))
        orientation = orientation if orientation in range(1, 9) else 1
        if stored_format == "PNG" and _png_kind(path)[0] == 16 and picture.mode != "I;16":  # noqa: PLR2004
            pixels, alpha, colour = _wide_grey(path, picture)
            bit_depth = 16
        else:
            pixels, bit_depth, colour = _to_grey(path, picture)
            alpha = _alpha(path, picture)
        pixels, more = _on_black(pixels, alpha)
    if stored_format != "TIFF":  # Pillow turns those itself
        pixels = _upright(pixels, orientation)
    return Image(pixels, stored_format, bit_depth, colour, orientation, warnings=(*said, *more))


def _open(path: Path) -> Pillow.Image:
    # Pillow warns of huge headers and refuses gigantic ones; both end in the same clear error.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return Pillow.open(path, formats=tuple(SUFFIXES_BY_FORMAT))
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


def _check_header(path: Path, picture: Pillow.Image) -> tuple[Warned, ...]:
    """Refuse what should not be decoded, by the header alone; return what is passed over."""
    further = picture.format == "MPO"
    _check_name(path, "JPEG" if further else str(picture.format))
    width, height = picture.size
    check_size(path, height, width)
    frames = getattr(picture, "n_frames", 1)
    if further:
        return (ImageWarning.PICTURES.about(frames),)
    if frames > 1 and picture.format != "TIFF":  # whose copies and masks were told apart
        raise ImageError(
            f"{path}: holds {frames} pictures (animated or multi-page); one was expected. "
            "Save each as a file of its own."
        )
    return ()


def _upright(pixels: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Apply an EXIF or TIFF orientation, 1 to 8 (TIFF 6.0 section 8)."""
    if orientation > 4:  # noqa: PLR2004 - rows and columns change places
        pixels = pixels.T
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _on_black(
    pixels: NDArray[np.float32], alpha: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], tuple[Warned, ...]]:
    """Lay what is transparent on black, which is background, and say so."""
    if alpha is None or alpha.min() == 1:
        return pixels, ()
    if alpha.max() == 0:  # nothing would be left: some writers leave the channel empty
        return pixels, (ImageWarning.EMPTY_ALPHA,)
    return pixels * alpha, (ImageWarning.ALPHA,)


def _alpha(path: Path, picture: Pillow.Image) -> NDArray[np.float32] | None:
    """Return how opaque each pixel is, in [0, 1], or None where all are."""
    transparent = picture.info.get("transparency")
    if "A" in picture.getbands() or (picture.mode == "P" and transparent is not None):
        alpha = picture.convert("RGBA").getchannel("A")
        return np.asarray(alpha, dtype=np.float32) / np.float32(255)
    if transparent is None or picture.format != "PNG":
        return None
    bits = _png_kind(path)[0]
    if bits < 8:  # noqa: PLR2004 - Pillow spreads the pixels over 8 bits, but not this value
        transparent = bool(transparent) if bits == 1 else transparent * (255 // (2**bits - 1))
    return _unlike(np.asarray(picture), transparent)


def _unlike(stored: NDArray[Any], transparent: int | tuple[int, ...]) -> NDArray[np.float32]:
    same = stored == np.asarray(transparent)
    return np.asarray(~(same.all(axis=-1) if np.ndim(transparent) else same), dtype=np.float32)


def _wide_grey(path: Path, picture: Pillow.Image) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, bool]:
    """Return grey, alpha and whether colour is real of a PNG with several channels of 16 bits.

    Pillow keeps the upper bytes of these. What it takes for the upper bytes of the other order are
    the lower ones; and two channels of 16 bits are stored as four of 8.
    """
    kind = _png_kind(path)[1]
    if kind == 4:  # noqa: PLR2004 - grey with alpha
        quarters = _unpacked(path, "RGBA").astype(np.float32)
        grey, alpha = np.moveaxis(quarters[..., ::2] * 256 + quarters[..., 1::2], 2, 0) / _WHITE
        return grey, alpha, False
    mode = "RGB" if kind == 2 else "RGBA"  # noqa: PLR2004
    upper, lower = (_unpacked(path, f"{mode};16{end}") for end in "BL")
    stored = upper.astype(np.uint16) * np.uint16(256) + lower
    grey = np.clip(stored[..., :3] @ (_LUMA / _WHITE), 0, 1)
    if "transparency" in picture.info:
        alpha = _unlike(stored, picture.info["transparency"])
    else:
        alpha = stored[..., 3].astype(np.float32) / _WHITE if mode == "RGBA" else None
    return grey, alpha, _differ(stored[..., :3], _WHITE)


def _unpacked(path: Path, rawmode: str) -> NDArray[np.uint8]:
    """Let Pillow unpack a PNG in another way than its header says."""
    with Pillow.open(path, formats=("PNG",)) as picture:
        tile = picture.tile[0]
        picture.tile = [tile._replace(args=rawmode)]
        picture.info.pop("transparency", None)
        return np.asarray(picture)


def _png_kind(path: Path) -> tuple[int, int]:
    """Return the bit depth and the colour type of a PNG (PNG 3rd edition, 11.2.1)."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[24], head[25]


def _to_grey(path: Path, picture: Pillow.Image) -> tuple[NDArray[np.float32], int, bool]:
    """Return pixels (height, width) in [0, 1], the stored bit depth, and whether colour is real."""
    if picture.mode in _BITS_BY_MODE:
        bits = _BITS_BY_MODE[picture.mode]
        return np.asarray(picture, dtype=np.float32) / np.float32(2**bits - 1), bits, False
    if picture.mode == "F":
        raise ImageError(f"{path}: floating-point pixels have no known white level. Save it as 16-bit PNG.")
    if picture.mode == "L":
        return np.asarray(picture, dtype=np.float32) / np.float32(255), 8, False
    rgb = picture.convert("RGB")
    return np.asarray(rgb.convert("L"), dtype=np.float32) / np.float32(255), 8, _is_colour(rgb)


def _differ(samples: NDArray[np.uint16], white: np.float32) -> bool:
    """Tell whether the channels of RGB differ by more than noise, in 1 % of pixels."""
    spread = samples.max(axis=2) - samples.min(axis=2)
    return bool((spread > white * (COLOUR_TOLERANCE / 255)).mean() > COLOUR_SHARE)


def _is_colour(rgb: Pillow.Image) -> bool:
    """Tell whether channels differ by more than compression makes them, in 1 % of pixels."""
    red, green, blue = rgb.reduce(2).split()  # four pixels as one: noise goes, colour stays
    spread = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
    counts = spread.histogram()
    return sum(counts[COLOUR_TOLERANCE + 1 :]) > COLOUR_SHARE * sum(counts)
