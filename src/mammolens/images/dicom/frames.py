"""Encoded pictures inside DICOM: fragments, boxes and markers, read before any decoder sees them.

What is handed on is tidied: a decoder finds the one picture that was read here and no other.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mammolens.images.image import DamageError

_ITEM = b"\xfe\xff\x00\xe0"

_JPEG_START, _JPEG_2000_START = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_ALONE = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTn and a second SOI: no length follows
_FRAMES = {*range(0xC0, 0xD0), 0xDE, 0xF7, 0xF9} - {0xC4, 0xC8, 0xCC}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xF8, 0xFE}
_EXACT = {0xC3, 0xC7, 0xCB, 0xCF}
_JPEG_LS, _HIERARCHY, _SCAN, _END = 0xF7, 0xDE, 0xDA, 0xD9
_CODING, _TILE_PART, _FINISH = 0x52, b"\xff\x90", b"\xff\xd9"


@dataclass(frozen=True)
class Frame:
    """One encoded picture and what its own header says.

    Attributes:
        data: the codestream, from its start marker on.
        shape: (rows, columns, samples).
        bits: of a sample: the largest of all samples.
        exact: whether it is coded without loss, as far as its header tells.
        ended: whether the marker of its end is there. Decoders of JPEG ask for none, those of JPEG
            2000 do: it is added.
    """

    data: bytes
    shape: tuple[int, int, int]
    bits: int
    exact: bool
    ended: bool = True


def joined(data: bytes) -> bytes:
    """Return the one frame that the fragments of encapsulated Pixel Data make up (PS3.5 A.4).

    Offset tables are not asked: where there is one frame, it is all fragments together.
    """
    fragments, place = [], 0
    while (place := _next_item(data, place)) >= 0:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        fragments.append(data[place + 8 : place + 8 + length])
        place += 8 + length
    return b"".join(fragments[1:] or fragments) if fragments else data


def _next_item(data: bytes, place: int) -> int:
    """Return where an item starts, at `place` or after one byte that evens an odd fragment out."""
    return next((each for each in (place, place + 1) if data[each : each + 4] == _ITEM), -1)


def jpeg(data: bytes) -> Frame | None:
    """Read a picture of ISO/IEC 10918-1 (JPEG) or 14495-1 (JPEG-LS) up to its first scan.

    Fill bytes, markers that stand alone, reserved ones, empty segments and bytes between segments
    are left out (10918-1 B.1.1). None where the size is not told before the scan: no frame header,
    several as in a hierarchy, or a height that follows later (DNL, B.2.5; LSE, 14495-1 C.2.4.1.4).
    """
    parts, head, kind = [b"\xff\xd8"], b"", 0
    place = data.find(_JPEG_START) + 2
    while place > 1 and (found := _MARKER.search(data, place)):
        marker, start = found[1][0], found.start()
        place = found.end()
        if marker in _ALONE:
            continue
        if marker == _SCAN:
            return _jpeg_frame(b"".join(parts), kind, head, data[start:])
        place += max(int.from_bytes(data[place : place + 2]), 2)
        if marker in (_END, _HIERARCHY) or (marker in _FRAMES and head):
            break
        if marker in _FRAMES:
            kind, head = marker, data[found.end() + 2 : place]
        if marker in _FRAMES | _TABLES and place > found.end() + 2:
            parts.append(data[start:place])
    return None


def _jpeg_frame(before: bytes, kind: int, head: bytes, scan: bytes) -> Frame | None:
    """Read a frame header (10918-1 B.2.2, 14495-1 C.2.2), and how near a scan of JPEG-LS comes."""
    if len(head) < struct.calcsize(">BHHB"):
        return None
    bits, *shape = struct.unpack_from(">BHHB", head)
    near = scan[5 + 2 * int.from_bytes(scan[4:5]) :][:1]
    exact = near == b"\0" if kind == _JPEG_LS else kind in _EXACT
    size = (shape[0], shape[1], shape[2])
    return Frame(before + scan, size, bits, exact, _FINISH in scan) if all(shape) else None


def jpeg_2000(data: bytes) -> Frame | None:
    """Read a picture of ISO/IEC 15444-1 (JPEG 2000) or 15444-15 (HTJ2K), in a JP2 wrapper or bare.

    The wrapper is left out: its role is that of the DICOM header (PS3.5 A.4.4).
    """
    streams = [data, *_codestreams(data)]
    bare = next((each for each in streams if each.startswith(_JPEG_2000_START)), None)
    if bare is None and (place := data.find(_JPEG_2000_START)) > 0:
        bare = data[place:]
    return _jpeg_2000_frame(bare) if bare else None


def _codestreams(data: bytes) -> Iterator[bytes]:
    """Yield what the contiguous codestream boxes of a file hold (15444-1 I.4 and I.5.4)."""
    place = 0
    while place + 8 <= len(data):
        length, kind, head = *struct.unpack_from(">I4s", data, place), 8
        if length == 1 and place + 16 <= len(data):
            length, head = struct.unpack_from(">Q", data, place + 8)[0], 16
        end = place + length if length else len(data)
        if end < place + head:
            return
        if kind == b"jp2c":
            yield data[place + head : end]
        place = end


def _jpeg_2000_frame(data: bytes) -> Frame | None:
    """Read the SIZ segment (15444-1 A.5.1): its largest component is the picture."""
    right, bottom, left, top, samples = struct.unpack_from(">8x4I16xH", data.ljust(42))
    listed = data[42 : 42 + 3 * samples]
    components = list(struct.iter_unpack("3B", listed)) if len(listed) == 3 * samples else []
    if not components or not all(x and y for _, x, y in components):
        return None
    rows = max(-(-bottom // y) + (-top // y) for _, _, y in components)
    columns = max(-(-right // x) + (-left // x) for _, x, _ in components)
    bits = max(1 + (depth & 0x7F) for depth, _, _ in components)
    ended = _FINISH in data
    whole = data if ended else _tile_parts(data) + _FINISH
    return Frame(whole, (rows, columns, samples), bits, _is_reversible(data), ended)


def _tile_parts(data: bytes) -> bytes:
    """Return a codestream up to where its last tile-part says that it ends (15444-1 A.4.2)."""
    place = data.find(_TILE_PART)
    while data[place : place + 2] == _TILE_PART:
        place += int.from_bytes(data[place + 6 : place + 10]) or len(data)
    return data[:place]


def _is_reversible(data: bytes) -> bool:
    """Tell whether the COD segment names the 5-3 reversible transform (15444-1 A.6.1)."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 14 <= len(data):
        if data[place + 1] == _CODING:
            return data[place + 13] == 1
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return False


def run_lengths(data: bytes, size: int, width: int, samples: int) -> bytes:
    """Decode an RLE frame (PS3.5 Annex G): one plane a sample, little endian.

    No more is unpacked than is asked for, however much the frame holds.

    Args:
        data: the frame.
        size: rows × columns.
        width: bytes a sample; of each sample, the segment with the highest byte comes first.
        samples: of a pixel.

    Raises:
        ValueError: it has another number of segments, or one of them is cut short.
    """
    count, *starts = struct.unpack_from("<16L", data.ljust(64, b"\0"))
    if count != width * samples:
        raise DamageError(f"{count} segments of run lengths; {width * samples} are expected")
    ends = [*starts[1:count], len(data)]
    planes = [_unpacked(data[a:b], size) for a, b in zip(starts, ends, strict=False)]
    if min(map(len, planes)) < size:
        raise DamageError("a segment of run lengths is cut short")
    stacked = np.frombuffer(b"".join(planes), np.uint8).reshape(samples, width, size)
    return stacked[:, ::-1].transpose(0, 2, 1).tobytes()


def _unpacked(data: bytes, size: int) -> bytes:
    """Return the first `size` bytes of one segment (PS3.5 G.3.2)."""
    out, place = bytearray(), 0
    while len(out) < size and place + 1 < len(data):
        head = data[place]
        if head < 128:  # noqa: PLR2004 - so many bytes and one more, as they are
            out += data[place + 1 : place + 2 + head]
            place += 2 + head
        elif head > 128:  # noqa: PLR2004 - one byte, over and over
            out += data[place + 1 : place + 2] * (257 - head)
            place += 2
        else:
            place += 1
    return bytes(out[:size])
