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
from mammolens.images.image import check_size
from mammolens.records import ImageWarning, Warned

Tags = dict[int, tuple[int, ...]]
Numbers = NDArray[np.uint16]

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_PHOTOMETRIC, _FILL_ORDER, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS = 262, 266, 273, 274, 277, 278
_STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOUR_MAP = 279, 284, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _INK_SET = 322, 323, 324, 325, 332
_EXTRA, _FORMAT = 338, 339

_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # whole numbers without a sign
_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}  # white is 0, black is 0, RGB, palette, CMYK
_OTHERS = {4: "a transparency mask", 6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*"}
_OTHERS |= {10: "ITU L*a*b*", 32803: "a colour filter array", 32844: "LogL", 32845: "LogLuv"}
_KINDS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_BYTEWISE = {1: "none", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}
_BYTEWISE |= {34925: "LZMA", 50000: "Zstandard"}
_WHOLE = {2: "CCITT", 3: "CCITT", 4: "CCITT", 7: "JPEG"}  # of pictures rather than of bytes
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_LOOSE = 2  # alpha that is not associated: colour has not been multiplied by it
_MAX_BITS, _MAX_SAMPLES, _MAX_PAGES = 16, 16, 1000


@dataclass(frozen=True, eq=False)
class Tiff:
    """One picture of a TIFF file.

    Attributes:
        samples: uint16 of (height, width, channels), channels being 1 (grey, 0 is black) or 3
            (RGB); or None where Pillow decodes the picture rightly, as a whole.
        alpha: float32 of (height, width) in [0, 1], 0 where nothing is to be seen, or None.
        bits: bits a sample: the largest value there can be is 2^bits - 1.
        orientation: 1 (upright) to 8.
        warnings: what was passed over.
    """

    samples: Numbers | None
    alpha: NDArray[np.float32] | None
    bits: int
    orientation: int
    warnings: tuple[Warned, ...] = ()


def read_tiff(path: Path) -> Tiff:
    """Read the one picture of a TIFF or BigTIFF file by its tags.

    Grey of 1 to 16 bits with either end white, RGB, palettes and CMYK; in strips or tiles, in one
    plane or several, in either order of bytes and bits; packed, or each sample in a word of its
    own, as some write. Reduced copies and masks beside the picture are passed over (NewSubfileType,
    section 8). MinSampleValue and MaxSampleValue are for statistics only, and are not looked at.

    Raises:
        ImageError: there are more pictures than one, the tags do not say which numbers are black
            and white, or it is compressed in a way that cannot be undone here.
    """
    with path.open("rb") as file:
        order, pages = _pages(path, file)
        pictures = [page for page in pages if not _is_aside(page)] or pages
        if len(pictures) != 1:
            raise ImageError(
                f"{path}: holds {len(pictures)} pictures (animated or multi-page); one was "
                "expected. Save each as a file of its own."
            )
        page = pictures[0]
        check_size(path, _one(page, _HEIGHT, 0), _one(page, _WIDTH, 0))
        _check_meaning(path, page)
        turned = _one(page, _ORIENTATION, 1)
        orientation = turned if turned in range(1, 9) else 1
        if _as_a_whole(path, page):
            if page is not pages[0]:
                raise ImageError(f"{path}: its picture comes after a copy. Save it alone, as PNG.")
            return Tiff(None, None, page.get(_BITS, (1,))[0], orientation)
        return _meaning(page, _samples(path, file, page, order), orientation)


def _one(page: Tags, tag: int, default: int) -> int:
    return page.get(tag, (default,))[0]


def _pages(path: Path, file: BinaryIO) -> tuple[str, list[Tags]]:
    """Return the order of bytes, and the tags of each directory of a file (section 2)."""
    start = file.read(16).ljust(16, b"\0")
    order = "<" if start[:2] == b"II" else ">"
    big = struct.unpack(order + "H", start[2:4])[0] == 43  # noqa: PLR2004 - BigTIFF
    offset = struct.unpack_from(order + ("Q" if big else "I"), start, 8 if big else 4)[0]
    pages: list[Tags] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(pages) < _MAX_PAGES:
        seen.add(offset)
        tags, offset = _directory(file, offset, order, big=big)
        pages.append(tags)
    if not pages:
        raise ImageError(f"{path}: the file is cut short before its picture. Copy it anew.")
    return order, pages


def _directory(file: BinaryIO, offset: int, order: str, *, big: bool) -> tuple[Tags, int]:
    """Return the tags that are whole numbers, and where the next directory is."""
    count_form, entry_form, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    file.seek(offset)
    count = struct.unpack(order + count_form, file.read(struct.calcsize(order + count_form)))[0]
    size = struct.calcsize(order + entry_form) + room
    raw = file.read(min(count, 4096) * size)
    following = file.read(room)
    tags: Tags = {}
    for start in range(0, len(raw), size):
        tag, kind, length = struct.unpack_from(order + entry_form, raw, start)
        if kind not in _TYPES or not 0 < length < 2**24:
            continue
        form = f"{order}{length}{_TYPES[kind]}"
        values = raw[start + size - room : start + size]
        if struct.calcsize(form) > room:
            file.seek(struct.unpack(order + ("Q" if big else "I"), values)[0])
            values = file.read(struct.calcsize(form))
        tags.setdefault(tag, struct.unpack_from(form, values))
    return tags, struct.unpack(order + ("Q" if big else "I"), following)[0]


def _is_aside(page: Tags) -> bool:
    """Tell a reduced copy or a mask from a picture: bits 0 and 2 of NewSubfileType (section 8)."""
    return bool(_one(page, _SUBFILE, 0) & 0b101) or _one(page, _OLD_SUBFILE, 1) == 2  # noqa: PLR2004


def _check_meaning(path: Path, page: Tags) -> None:
    """Refuse numbers of which the tags do not say, or not in a known way, what is black."""
    if wrong := _wrong_numbers(page) or _wrong_colours(page):
        raise ImageError(f"{path}: {wrong}. Save it as 8- or 16-bit grey PNG.")


def _wrong_numbers(page: Tags) -> str | None:
    bits = page.get(_BITS, (1,))
    kind = next((_KINDS[each] for each in page.get(_FORMAT, ()) if each in _KINDS), None)
    if kind == "floating-point":
        return "floating-point pixels have no known white level"
    if kind:
        return f"{kind} pixels have no known black level"
    if len(set(bits)) > 1 or not 0 < bits[0] <= _MAX_BITS:
        return f"pixels of {max(bits)} bits have no known white level: at most 16 were expected"
    return None


def _wrong_colours(page: Tags) -> str | None:
    photometric, samples = _one(page, _PHOTOMETRIC, -1), _one(page, _SAMPLES, 1)
    if photometric == -1:
        return "it does not say whether zero is black or white (PhotometricInterpretation)"
    if photometric not in _CHANNELS and not (photometric == 6 and _is_jpeg(page)):  # noqa: PLR2004
        return f"pixels as {_OTHERS.get(photometric, f'colour space {photometric}')} are not read"
    if photometric == 5 and _one(page, _INK_SET, 1) != 1:  # noqa: PLR2004
        return "its inks are not cyan, magenta, yellow and black"
    if samples not in range(_CHANNELS.get(photometric, 3), _MAX_SAMPLES + 1):
        return f"{samples} samples a pixel contradict its colour space"
    return None


def _is_jpeg(page: Tags) -> bool:
    return _one(page, _COMPRESSION, 1) == 7  # noqa: PLR2004


def _as_a_whole(path: Path, page: Tags) -> bool:
    """Tell whether Pillow is to decode the picture: its bytes mean nothing by themselves."""
    compression, bits = _one(page, _COMPRESSION, 1), _one(page, _BITS, 1)
    wanted = 8 if compression == 7 else 1  # noqa: PLR2004
    if compression in _WHOLE and bits == wanted and _one(page, _PHOTOMETRIC, 1) in (0, 1, 2, 6):
        return True
    if compression not in _BYTEWISE:
        known = ", ".join(dict.fromkeys([*_BYTEWISE.values(), *_WHOLE.values()]))
        raise ImageError(
            f"{path}: {_WHOLE.get(compression, f'compression {compression}')} of {bits} bits "
            f"cannot be read in TIFF; expected one of {known}. Save it as PNG."
        )
    return False


def _samples(path: Path, file: BinaryIO, page: Tags, order: str) -> Numbers:
    """Put strips or tiles together (sections 3 and 15): (height, width, samples)."""
    height, width = _one(page, _HEIGHT, 0), _one(page, _WIDTH, 0)
    samples = _one(page, _SAMPLES, 1)
    tiled = _TILES in page
    tall = _one(page, _TILE_HEIGHT, 0) if tiled else min(_one(page, _ROWS, height), height)
    wide = _one(page, _TILE_WIDTH, 0) if tiled else width
    planes = samples if _one(page, _PLANAR, 1) == 2 else 1  # noqa: PLR2004
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
        data = file.read(length or rows * -(-wide * each * _one(page, _BITS, 1) // 8))
        block = _block(path, page, data, (rows, wide, each), order)
        chosen = slice(plane, plane + 1) if planes > 1 else slice(None)
        into = picture[top : top + rows, left : left + wide, chosen]
        into[:] = block[: into.shape[0], : into.shape[1]]
    return picture


def _block(path: Path, page: Tags, data: bytes, shape: tuple[int, int, int], order: str) -> Numbers:
    """Return the numbers of one strip or tile.

    Samples of 12 bits are packed, by section 3; some write them in words of 16 all the same. How
    many bytes there are tells.
    """
    rows, wide, each = shape
    bits, compression = _one(page, _BITS, 1), _one(page, _COMPRESSION, 1)
    if _one(page, _FILL_ORDER, 1) == 2:  # noqa: PLR2004
        data = data.translate(_REVERSED)
    word = 1 if bits <= 8 else 2  # noqa: PLR2004
    packed = -(-wide * each * bits // 8)
    in_words = _bytes(data, compression, (rows, wide * each * word))
    if in_words is not None:
        numbers = in_words.view(np.uint8 if word == 1 else f"{order}u2").astype(np.uint16)
    elif (lines := _bytes(data, compression, (rows, packed))) is not None:
        numbers = _unpacked(lines, wide * each, bits)
    else:
        raise ImageError(f"{path}: the image data is damaged or cut short. Copy the file anew.")
    if _one(page, _PREDICTOR, 1) == 2:  # noqa: PLR2004
        steps = numbers.reshape(rows, wide, each)
        numbers = np.cumsum(steps, axis=1, dtype=np.uint16) & np.uint16(2**bits - 1)
    if numbers.size and numbers.max() >= 2**bits:
        raise ImageError(f"{path}: has values of more than its {bits} bits. Save it as 16-bit PNG.")
    return numbers.reshape(shape)


def _bytes(data: bytes, compression: int, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return (rows, bytes a row), or None where there are not as many bytes."""
    rows, across = shape
    size = rows * across
    if compression in (8, 32946):
        data = zlib.decompressobj().decompress(data, size)
    elif compression != 1:
        return _by_libtiff(data, compression, shape)
    if len(data) < size:
        return None
    return np.frombuffer(data, np.uint8, size).reshape(shape)


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


def _unpacked(lines: NDArray[np.uint8], count: int, bits: int) -> Numbers:
    """Return `count` numbers a row, of `bits` bits each, the upper first; rows are padded."""
    first = np.arange(count) * bits
    place, shift = first // 8, (24 - bits - first % 8).astype(np.uint32)
    padded = np.pad(lines, ((0, 0), (0, 2)))
    values = np.zeros((len(lines), count), dtype=np.uint32)
    for step in range(3):
        values = values << np.uint32(8) | padded[:, place + step]
    return np.asarray((values >> shift) & np.uint32(2**bits - 1), dtype=np.uint16)


def _meaning(page: Tags, stored: Numbers, orientation: int) -> Tiff:
    """Turn stored numbers into grey with black at 0, or RGB, and alpha."""
    bits, photometric = _one(page, _BITS, 1), _one(page, _PHOTOMETRIC, 1)
    white = np.uint16(2**bits - 1)
    channels = _CHANNELS[photometric]
    colour, extra = stored[..., :channels], stored[..., channels:]
    kinds = (*page.get(_EXTRA, ()), *(0,) * extra.shape[2])[: extra.shape[2]]
    # What is associated with its alpha lies on black already (section 18).
    loose = kinds.index(_LOOSE) if _LOOSE in kinds else None
    alpha = None if loose is None else extra[..., loose].astype(np.float32) / np.float32(white)
    said = (ImageWarning.CHANNELS,) if 0 in kinds else ()
    if photometric == 0:
        colour = white - colour
    if photometric == 5:  # noqa: PLR2004 - CMYK without a profile
        ink = colour.astype(np.float32) / white
        colour = np.rint((1 - ink[..., :3]) * (1 - ink[..., 3:]) * white).astype(np.uint16)
    if photometric == 3:  # noqa: PLR2004
        table = np.array(page[_COLOUR_MAP], dtype=np.uint16).reshape(3, -1)
        if table.max() < 256 or not (table % 256).any():  # noqa: PLR2004 - entries of 8 bits
            table = (table + table // 256) % 256 * np.uint16(257)
        colour, bits = table.T[colour[..., 0]], 16
        grey = bool((colour[..., :1] == colour).all())
        colour = colour[..., :1] if grey else colour
    return Tiff(np.asarray(colour, dtype=np.uint16), alpha, bits, orientation, said)
