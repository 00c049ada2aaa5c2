"""TIFF → shades: what the tags say that stored numbers mean (TIFF 6.0, 1992).

Pillow takes unusual layouts for usual ones. So the tags are read here, Pillow is asked for nothing
but bytes, and what is not understood is refused.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.errors import ImageError
from mammolens.images.image import MAX_PIXELS, check_size, open_bounded
from mammolens.records import ImageWarning, Warned

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF."""

_Numbers = NDArray[np.uint16]

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_PHOTOMETRIC, _FILL_ORDER, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS = 262, 266, 273, 274, 277, 278
_STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOUR_MAP = 279, 284, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _INK_SET = 322, 323, 324, 325, 332
_EXTRA, _FORMAT = 338, 339

_USUAL = {_WIDTH: 0, _HEIGHT: 0, _TILE_WIDTH: 0, _TILE_HEIGHT: 0, _SUBFILE: 0, _PHOTOMETRIC: -1}
"""What a tag that is not there means; 1 for all others."""

_WHITE_IS_0, _PALETTE, _CMYK, _YCBCR = 0, 3, 5, 6
_CHANNELS = {_WHITE_IS_0: 1, 1: 1, 2: 3, _PALETTE: 1, _CMYK: 4}
_OTHERS = {4: "a transparency mask", _YCBCR: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*"}
_OTHERS |= {32803: "a colour filter array", 32844: "LogL", 32845: "LogLuv"}
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # whole numbers without a sign
_KINDS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_BYTEWISE = {1: "none", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}
_BYTEWISE |= {34925: "LZMA", 50000: "Zstandard"}
_JPEG = 7
_WHOLE = {2: "CCITT", 3: "CCITT", 4: "CCITT", _JPEG: "JPEG"}  # of pictures rather than of bytes
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BIG, _SECOND = 43, 2  # version of BigTIFF; planes, bits and differences that are not the usual ones
_LOOSE = 2  # alpha that is not associated: colour has not been multiplied by it
_MAX_BITS, _MAX_SAMPLES, _MAX_PAGES = 16, 16, 1000
_MOST_NUMBERS = 2 * MAX_PIXELS


class _Page(dict[int, tuple[int, ...]]):
    """The tags of one directory that are whole numbers."""

    def one(self, tag: int) -> int:
        return self.get(tag, (_USUAL.get(tag, 1),))[0]


@dataclass(frozen=True, eq=False)
class Tiff:
    """One picture of a TIFF file.

    Attributes:
        samples: uint16 of (height, width, channels), channels being 1 (grey, 0 is black) or 3 (RGB).
        alpha: float32 of (height, width) in [0, 1], 0 where nothing is to be seen, or None.
        bits: bits a sample: the largest value there can be is 2^bits - 1.
        orientation: 1 (upright) to 8.
        warnings: what was passed over.
    """

    samples: _Numbers
    alpha: NDArray[np.float32] | None
    bits: int
    orientation: int
    warnings: tuple[Warned, ...]


def read_tiff(path: Path) -> Tiff | None:
    """Read the one picture of a TIFF or BigTIFF file by its tags; None where Pillow decodes it rightly, as a whole.

    Grey of 1 to 16 bits with either end white, RGB, palettes and CMYK; in strips or tiles, in one
    plane or several, in either order of bytes and bits; packed, or each sample in a word of its
    own, as some write. Reduced copies and masks beside the picture are passed over (NewSubfileType,
    section 8). MinSampleValue and MaxSampleValue are for statistics only, and are not looked at.

    Raises:
        ImageError: there are more pictures than one, the tags do not say which numbers are black
            and white, or it is compressed in a way that cannot be undone here.
    """
    with open_bounded(path) as file:
        order, pages = _pages(path, file)
        pictures = [page for page in pages if not _is_aside(page)] or pages
        if len(pictures) != 1:
            raise ImageError(
                f"{path}: holds {len(pictures)} pictures (animated or multi-page); one was "
                "expected. Save each as a file of its own."
            )
        page = pictures[0]
        check_size(path, page.one(_HEIGHT), page.one(_WIDTH))
        if page.one(_HEIGHT) * page.one(_WIDTH) * page.one(_SAMPLES) > _MOST_NUMBERS:
            raise ImageError(
                f"{path}: {page.one(_SAMPLES)} samples a pixel are too many for its size. Save it as grey PNG."
            )
        if wrong := _wrong_numbers(page) or _wrong_colours(page):
            raise ImageError(f"{path}: {wrong}. Save it as 8- or 16-bit grey PNG.")
        if not _is_whole(path, page):
            return _meaning(page, _samples(path, file, page, order))
        if page is not pages[0]:
            raise ImageError(f"{path}: its picture comes after a copy. Save it alone, as PNG.")
        return None


def _pages(path: Path, file: BinaryIO) -> tuple[str, list[_Page]]:
    """Return the order of bytes, and the tags of each directory of a file (section 2)."""
    start = file.read(16).ljust(16, b"\0")
    order = "<" if start[:2] == b"II" else ">"
    big = struct.unpack(order + "H", start[2:4])[0] == _BIG
    offset = struct.unpack_from(order + ("Q" if big else "I"), start, 8 if big else 4)[0]
    pages: dict[int, _Page] = {}
    while offset and offset not in pages and len(pages) < _MAX_PAGES:
        pages[offset], offset = _directory(file, offset, order, big=big)
    if not pages:
        raise ImageError(f"{path}: the file is cut short before its picture. Copy it anew.")
    return order, list(pages.values())


def _directory(file: BinaryIO, offset: int, order: str, *, big: bool) -> tuple[_Page, int]:
    """Return the tags of a directory, and where the next one is."""
    count_form, entry_form, place_form = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    room = struct.calcsize(place_form)
    file.seek(offset)
    count = struct.unpack(order + count_form, file.read(struct.calcsize(order + count_form)))[0]
    size = struct.calcsize(order + entry_form) + room
    raw = file.read(min(count, 4096) * size)
    following = struct.unpack(order + place_form, file.read(room))[0]
    page = _Page()
    for start in range(0, len(raw), size):
        tag, kind, length = struct.unpack_from(order + entry_form, raw, start)
        if kind not in _TYPES or not 0 < length < 2**24:
            continue
        form = f"{order}{length}{_TYPES[kind]}"
        values = raw[start + size - room : start + size]
        if struct.calcsize(form) > room:
            file.seek(struct.unpack(order + place_form, values)[0])
            values = file.read(struct.calcsize(form))
        page.setdefault(tag, struct.unpack_from(form, values))
    return page, following


def _is_aside(page: _Page) -> bool:
    """Tell a reduced copy or a mask from a picture: bits 0 and 2 of NewSubfileType (section 8)."""
    return bool(page.one(_SUBFILE) & 0b101) or page.one(_OLD_SUBFILE) == 2  # noqa: PLR2004


def _wrong_numbers(page: _Page) -> str | None:
    """Say why the tags do not tell which numbers are black and white, if so."""
    bits = page.get(_BITS, (1,))
    kind = next((_KINDS[each] for each in page.get(_FORMAT, ()) if each in _KINDS), None)
    if kind:
        return f"{kind} pixels have no known {'white' if kind == 'floating-point' else 'black'} level"
    if len(set(bits)) > 1 or not 0 < bits[0] <= _MAX_BITS:
        return f"pixels of {max(bits)} bits have no known white level: at most 16 were expected"
    return None


def _wrong_colours(page: _Page) -> str | None:
    photometric, samples = page.one(_PHOTOMETRIC), page.one(_SAMPLES)
    if photometric == -1:
        return "it does not say whether zero is black or white (PhotometricInterpretation)"
    if photometric not in _CHANNELS and not (photometric == _YCBCR and page.one(_COMPRESSION) == _JPEG):
        return f"pixels as {_OTHERS.get(photometric, f'colour space {photometric}')} are not read"
    if photometric == _CMYK and page.one(_INK_SET) != 1:
        return "its inks are not cyan, magenta, yellow and black"
    if samples not in range(_CHANNELS.get(photometric, 3), _MAX_SAMPLES + 1):
        return f"{samples} samples a pixel contradict its colour space"
    return None


def _is_whole(path: Path, page: _Page) -> bool:
    """Tell whether Pillow is to decode the picture: its bytes mean nothing by themselves."""
    compression, bits = page.one(_COMPRESSION), page.one(_BITS)
    wanted = 8 if compression == _JPEG else 1
    if compression in _WHOLE and bits == wanted and page.one(_PHOTOMETRIC) in (0, 1, 2, _YCBCR):
        return True
    if compression not in _BYTEWISE:
        known = ", ".join(dict.fromkeys([*_BYTEWISE.values(), *_WHOLE.values()]))
        raise ImageError(
            f"{path}: {_WHOLE.get(compression, f'compression {compression}')} of {bits} bits "
            f"cannot be read in TIFF; expected one of {known}. Save it as PNG."
        )
    return False


def _samples(path: Path, file: BinaryIO, page: _Page, order: str) -> _Numbers:
    """Put strips or tiles together (sections 3 and 15): (height, width, samples)."""
    height, width, samples = page.one(_HEIGHT), page.one(_WIDTH), page.one(_SAMPLES)
    tiled = _TILES in page
    tall, wide = min(page.get(_ROWS, (height,))[0], height), width
    if tiled:
        tall, wide = page.one(_TILE_HEIGHT), page.one(_TILE_WIDTH)
    planes = samples if page.one(_PLANAR) == _SECOND else 1
    places = [
        (plane, top, left)
        for plane in range(planes)
        for top in range(0, height, max(tall, 1))
        for left in range(0, width, max(wide, 1))
    ]
    offsets = page.get(_TILES if tiled else _STRIPS, ())
    lengths = page.get(_TILE_BYTES if tiled else _STRIP_BYTES, (0,) * len(offsets))
    if not min(tall, wide) > 0 or wide > 2 * width + 2**12 or len(offsets) < len(places):
        raise ImageError(f"{path}: has fewer strips than its size asks for. Copy it anew.")
    picture = np.empty((height, width, samples), dtype=np.uint16)
    each = samples // planes
    for (plane, top, left), offset, length in zip(places, offsets, lengths, strict=False):
        file.seek(offset)
        rows = tall if tiled else min(tall, height - top)
        data = file.read(length or rows * -(-wide * each * page.one(_BITS) // 8))
        block = _block(path, page, data, (rows, wide, each), order)
        chosen = slice(plane, plane + 1) if planes > 1 else slice(None)
        into = picture[top : top + rows, left : left + wide, chosen]
        into[:] = block[: into.shape[0], : into.shape[1]]
    return picture


def _block(path: Path, page: _Page, data: bytes, shape: tuple[int, int, int], order: str) -> _Numbers:
    """Return the numbers of one strip or tile.

    Samples of 12 bits are packed, by section 3; some write them in words of 16 all the same. How
    many bytes there are tells.
    """
    rows, wide, each = shape
    bits, compression = page.one(_BITS), page.one(_COMPRESSION)
    if page.one(_FILL_ORDER) == _SECOND:
        data = data.translate(_REVERSED)
    word = np.dtype(np.uint8 if bits <= 8 else f"{order}u2")  # noqa: PLR2004
    in_words = _bytes(data, compression, (rows, wide * each * word.itemsize))
    if in_words is not None:
        numbers = in_words.view(word).astype(np.uint16)
    elif (lines := _bytes(data, compression, (rows, -(-wide * each * bits // 8)))) is not None:
        numbers = _unpacked(lines, wide * each, bits)
    else:
        raise ImageError(f"{path}: the image data is damaged or cut short. Copy the file anew.")
    if page.one(_PREDICTOR) == _SECOND:
        steps = numbers.reshape(rows, wide, each)
        numbers = np.cumsum(steps, axis=1, dtype=np.uint16) & np.uint16(2**bits - 1)
    if numbers.size and numbers.max() >= 2**bits:
        raise ImageError(f"{path}: has values of more than its {bits} bits. Save it as 16-bit PNG.")
    return numbers.reshape(shape)


def _bytes(data: bytes, compression: int, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return (rows, bytes a row), or None where there are not as many bytes."""
    size = shape[0] * shape[1]
    if compression in (8, 32946):
        data = zlib.decompressobj().decompress(data, size)
    elif compression != 1:
        return _by_libtiff(data, compression, shape)
    return np.frombuffer(data, np.uint8, size).reshape(shape) if len(data) >= size else None


def _by_libtiff(data: bytes, compression: int, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Let Pillow's libtiff undo what works on bytes: it is told of a grey picture of 8 bits."""
    rows, across = shape
    tags = {_WIDTH: across, _HEIGHT: rows, _BITS: 8, _COMPRESSION: compression, _PHOTOMETRIC: 1}
    tags |= {_STRIPS: 8, _SAMPLES: 1, _ROWS: rows, _STRIP_BYTES: len(data)}
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = BytesIO(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    try:
        with Pillow.open(file, formats=("TIFF",)) as picture:
            return np.asarray(picture)
    except OSError:  # too few bytes
        return None


def _unpacked(lines: NDArray[np.uint8], count: int, bits: int) -> _Numbers:
    """Return `count` numbers a row, of `bits` bits each, the upper first; rows are padded."""
    first = np.arange(count) * bits
    place, shift = first // 8, (24 - bits - first % 8).astype(np.uint32)
    padded = np.pad(lines, ((0, 0), (0, 2)))
    values = np.zeros((len(lines), count), dtype=np.uint32)
    for step in range(3):
        values = values << np.uint32(8) | padded[:, place + step]
    return np.asarray((values >> shift) & np.uint32(2**bits - 1), dtype=np.uint16)


def _meaning(page: _Page, stored: _Numbers) -> Tiff:
    """Turn stored numbers into grey with black at 0, or RGB, and alpha."""
    bits, photometric = page.one(_BITS), page.one(_PHOTOMETRIC)
    white = np.uint16(2**bits - 1)
    colour, extra = np.split(stored, [_CHANNELS[photometric]], axis=2)
    kinds = (*page.get(_EXTRA, ()), *(0,) * extra.shape[2])[: extra.shape[2]]
    # What is associated with its alpha lies on black already (section 18).
    alpha = extra[..., kinds.index(_LOOSE)].astype(np.float32) / np.float32(white) if _LOOSE in kinds else None
    if photometric == _WHITE_IS_0:
        colour = white - colour
    if photometric == _CMYK:  # without a profile
        ink = colour.astype(np.float32) / white
        colour = np.rint((1 - ink[..., :3]) * (1 - ink[..., 3:]) * white).astype(np.uint16)
    if photometric == _PALETTE:
        table = np.array(page[_COLOUR_MAP], dtype=np.uint16).reshape(3, -1)
        if table.max() < 256 or not (table % 256).any():  # noqa: PLR2004 - entries of 8 bits
            table = (table + table // 256) % 256 * np.uint16(257)
        colour, bits = table.T[colour[..., 0]], 16
        grey = bool((colour[..., :1] == colour).all())
        colour = colour[..., :1] if grey else colour
    turned = page.one(_ORIENTATION)
    said = (ImageWarning.CHANNELS,) if 0 in kinds else ()
    return Tiff(np.asarray(colour, np.uint16), alpha, bits, turned if turned in range(1, 9) else 1, said)
