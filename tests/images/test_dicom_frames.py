"""Encoded pictures in every wrapping that files have: read alike, or refused before decoding."""

import base64
import io
import struct
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from test_dicom import LOCAL, gradient, mammogram, save, save_compressed, save_frame
from test_dicom_golden import jpeg_lossless

from mammolens.errors import ImageError
from mammolens.images.dicom.frames import Frame, joined, jpeg, jpeg_2000, run_lengths
from mammolens.images.image import Image
from mammolens.images.reading import read_image

STEPS = np.kron(np.rint(np.linspace(0, 4095, 20)).reshape(4, 5), np.ones((6, 8))).astype("u2")
"""What `HTJ2K` and `JPEG_LS` hold, encoded elsewhere, with a rectangle in a bit above these 12."""

HTJ2K = base64.b64decode(
    "/0//UQApQAAAAAAoAAAAGAAAAAAAAAAAAAAAKAAAABgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUE"
    "BEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAtwAAf+TwAAq"
    "AG3CSdwBQjQAwAATQAAVEAAEwBLMBId0AKqtHP4EgXQAqvwEh3QAwAAVkAAFZAABUMwTssUpw13vAUGUAAgSAy7E"
    "/gApwPY2ADiGzdQFAXQAwAAXRQAAXSwAAW+ApKATf9GK2gOIkkUnCAWy/N6Vrg9oPgHyAQXZwQfMgDOaAGwhvVFt"
    "Ty+Fe5CwA3cxA5NuUsnVM5FlIpMBgXBB7mULzHACnABGC1LS/E0vhKQoADAAwUmG6eRPAOACgIPc75TgALoAwAAX"
    "qcAAF69AABdccc2jSQPjd2NNfK7RxN+qsaBXh3ZE+8HsUWaMxujHwztoNPG5RjMPYXZoQEYDDo9YyPhDOzAPiAdo"
    "NO+4RvMB04fA7gwcIhADk+HwAAWWEMCZVQGGcN1tHkjIcL0STFwKhuT6RuAehFwTcm3ItSHXuQRDkEswDbuEeMUu"
    "IS6SS4gX5BKYArswtAtDuTCUC0Ouw22eoOf+E7oV1667dv0Avb76l7nXVwGiAQigCxBAE5MB/ejf+wN/44/8/T//"
    "AgAA+KN/8I/8AQDw9/9mv/f3PAFBZEB+M7KUoEcxgBpQAcAAL2OAAF9KwAAtkNdrtXq9VqsmzzVcDaG812u1Wg2o"
    "Bpj8Jn+1er1WA64BJj/KX71eq9eQawjKA+VxvVar1VAN17hGtXq9/ofwFOU4UKU5TkHIcpynKcpynKcpyTlOU4MR"
    "wYjgQLgQLgQLgQJ3AjWsYQ0h7wzdDOEM4QxlDa0hNazhDGc4wxnWsIY1rOEMZ5hhhhpqqKGGGWaYYYYaaqihhhlm"
    "mGGGGtawhtRQ5bXyXnlPeRF5a6iGNZzhDGc4wxrWsIY1/PyHlKBv3lKBv3lMBv3qSBv3nKBvrAAAClA9+ylA9+yl"
    "A9+ylA9+ylA9llKBv3lKBv3lOBv3qUBv3mKBvr4D/r//Y/8HAPj9Ek6EeARIHIA4IhEAcgBxAf/Z"
)
JPEG_LS = base64.b64decode(
    "/9j/6AAgU1BJRkYAAgAAAQAAABgAAAAoChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQABgAKAEBEQD/+AANAf//"
    "ABIAQwEUAED/2gAIAQEAAAAA/LXwAgCAIBAIBABWwAgCAIBAIBABXwKCgoKCgoIVcJCQkJCQkJ1ADMAXAFwDxALg"
    "FwC4DpATgJwE4DhAPATgJwOEB4E4E4GBGuJEhQoUKAAAAAAAAAP8oQoUKFChQA/k2FChQoUKAIGyhQoUKFFAIGyi"
    "iigggggBOBOBOBOBwgPAnAnA4QHgTgTg4QPBOCcHCB4JwTgwI0wQQQQQQACbIIIIIIIAQCgggggggEGwgggggggE"
    "GshCEIQhAGcE4JwTg4QPBOCcHCB4JwTg4QPBOCcHCB4JwTgwI1whCEIQAAAAAAAAD7y0IQhCEAUNcIQhCEAg1UIQ"
    "hCEBBqoREREQAU4JwTgnDhB4ThOHCDwnCcOEHhOE4cIPCcJwwP/Z"
)


def jpeg_2000_of(stored: np.ndarray, wrap: bool = False, **options: Any) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(stored).save(stream, "JPEG2000", no_jp2=not wrap, **options)
    return stream.getvalue()


def jpeg_of(stored: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(stored).save(stream, "JPEG", quality=90)
    return stream.getvalue()


DEEP = gradient(12)
FRAMES: dict[UID, tuple[np.ndarray, int, bytes]] = {
    JPEGBaseline8Bit: (gradient(8), 8, jpeg_of(gradient(8))),
    JPEGLosslessSV1: (DEEP, 12, jpeg_lossless(DEEP, 12, 1)),
    JPEGLSLossless: (STEPS, 12, JPEG_LS),
    JPEG2000Lossless: (DEEP, 12, jpeg_2000_of(DEEP)),
    HTJ2KLossless: (STEPS, 12, HTJ2K),
}
OF_JPEG = [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless]
OF_JPEG_2000 = [JPEG2000Lossless, HTJ2KLossless]


def of(syntax: UID) -> str:
    return syntax.name


def read(folder: Path, syntax: UID, frame: bytes, **attributes: Any) -> Image:
    stored, bits, _ = FRAMES[syntax]
    dataset = mammogram(stored, bits, **attributes)
    return read_image(save_frame(folder / "image.dcm", dataset, syntax, frame))


@pytest.mark.parametrize("syntax", FRAMES, ids=of)
def test_frames_as_the_standard_has_them(tmp_path: Path, syntax: UID) -> None:
    stored, bits, frame = FRAMES[syntax]
    assert (jpeg(frame) or jpeg_2000(frame)) == Frame(frame, (*stored.shape, 1), ANY, ANY)
    allowed = 0.02 if syntax == JPEGBaseline8Bit else 1e-6
    pixels = read(tmp_path, syntax, frame).pixels
    np.testing.assert_allclose(pixels, stored / (2**bits - 1), atol=allowed)


# JPEG: what may stand between segments, and what must not.
ODDITIES = {
    "fill bytes": b"\xff\xff\xff",
    "many fill bytes": b"\xff" * 9999,
    "TEM": b"\xff\x01",
    "restart": b"\xff\xd0",
    "second start": b"\xff\xd8",
    "comment": b"\xff\xfe\x00\x07hello",
    "application data": b"\xff\xe5\x00\x06\xff\xc0\x00\x11",
    "reserved": b"\xff\x02\x00\x04\xff\xd9",
    "reserved for extensions": b"\xff\xf0\x00\x03\x07",
    "empty": b"\xff\xfe\x00\x02",
    "bytes between": b"\0\x12\x34",
}


def segments(frame: bytes) -> list[int]:
    """Where the markers before the scan stand, that of the scan included."""
    places = [2]
    while frame[places[-1] + 1] != 0xDA:
        length = int.from_bytes(frame[places[-1] + 2 : places[-1] + 4])
        places.append(places[-1] + 2 + length)
    return places


@pytest.mark.parametrize("syntax", OF_JPEG, ids=of)
@pytest.mark.parametrize("name", ODDITIES)
def test_what_stands_between_segments_changes_nothing(tmp_path: Path, name: str, syntax: UID) -> None:
    frame = FRAMES[syntax][2]
    expected = read(tmp_path, syntax, frame).pixels
    for place in segments(frame)[1 if name == "bytes between" else 0 :]:
        odd = frame[:place] + ODDITIES[name] + frame[place:]
        np.testing.assert_array_equal(read(tmp_path, syntax, odd).pixels, expected)


@given(st.data())
def test_any_number_of_fill_bytes_anywhere(data: st.DataObject) -> None:
    whole = FRAMES[data.draw(st.sampled_from(OF_JPEG))][2]
    odd = whole
    for place in reversed(segments(whole)):
        odd = odd[:place] + b"\xff" * data.draw(st.integers(0, 5)) + odd[place:]
    assert jpeg(odd) == jpeg(whole)


def test_a_picture_within_application_data_is_not_the_picture() -> None:
    frame, small = FRAMES[JPEGBaseline8Bit][2], jpeg_of(gradient(8, height=16, width=16))
    thumbnail = b"\xff\xe1" + (len(small) + 2).to_bytes(2) + small
    found = jpeg(frame[:2] + thumbnail + frame[2:])
    assert found is not None
    assert found.shape == (40, 56, 1)


def height_after_scan(frame: bytes) -> bytes:
    """The same frame, with its height in a segment after the scan (DNL)."""
    place = next(each for each in segments(frame) if frame[each + 1] in (0xC0, 0xC3, 0xF7))
    lines = b"\xff\xdc\x00\x04" + frame[place + 5 : place + 7]
    end = frame.rindex(b"\xff\xd9")
    return frame[: place + 5] + b"\0\0" + frame[place + 7 : end] + lines + frame[end:]


def test_a_height_that_follows_the_scan_is_found_apart(tmp_path: Path) -> None:
    frame = FRAMES[JPEGBaseline8Bit][2]
    told = height_after_scan(frame)
    assert jpeg(told) is None
    expected = read(tmp_path, JPEGBaseline8Bit, frame).pixels
    np.testing.assert_array_equal(read(tmp_path, JPEGBaseline8Bit, told).pixels, expected)
    with pytest.raises(ImageError, match="damaged or of an unknown form"):
        read(tmp_path, JPEGBaseline8Bit, told, Rows=39)


# JPEG 2000: wrappers (ISO/IEC 15444-1 Annex I).
def box(kind: bytes, content: bytes, *, long: bool = False) -> bytes:
    if long:
        return struct.pack(">I4sQ", 1, kind, len(content) + 16) + content
    return struct.pack(">I4s", len(content) + 8, kind) + content


SIGNATURE = box(b"jP  ", b"\r\n\x87\n")
TYPE = box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
SIZE = box(b"ihdr", struct.pack(">IIHBBBB", 40, 56, 1, 11, 7, 0, 0))
GREY = box(b"colr", b"\x01\0\0" + (17).to_bytes(4))
HEAD = box(b"jp2h", SIZE + GREY)
LURE = b"\xff\x4f\xff\x51" + bytes(60)
PALETTE = box(b"pclr", struct.pack(">HB3B", 2, 3, 7, 7, 7) + bytes(6)) + box(b"cmap", b"\0\0\1\0\0\0\1\1\0\0\1\2")


def wrapped(code: bytes) -> dict[str, bytes]:
    """A codestream in wrappers of all kinds."""
    start, stream = SIGNATURE + TYPE, box(b"jp2c", code)
    return {
        "as usual": start + HEAD + stream,
        "length of 64 bits": start + HEAD + box(b"jp2c", code, long=True),
        "all the rest": start + HEAD + b"\0\0\0\0jp2c" + code,
        "an unknown box first": box(b"free", bytes(9)) + start + HEAD + stream,
        "long boxes": start + box(b"xml ", LURE, long=True) + stream,
        "a lure in a box": start + box(b"uuid", LURE) + HEAD + stream,
        "a lure in a superbox": start + box(b"res ", box(b"resc", LURE)) + stream,
        "no signature": HEAD + stream,
        "the codestream first": start + stream + HEAD,
        "two codestreams": start + HEAD + stream + box(b"jp2c", LURE),
        "a box that is too long": start + HEAD + b"\x7f" + stream[1:],
        "a box of no length": start + b"\0\0\0\x03free" + code,
        "sYCC": start + box(b"jp2h", SIZE + GREY.replace(b"\x11", b"\x12")) + stream,
        "palette": start + box(b"jp2h", SIZE + PALETTE) + stream,
        "bytes before": bytes(13) + code,
        "bytes after": start + HEAD + stream + bytes(99),
        "bare, bytes after": code + bytes(99),
    }


@pytest.mark.parametrize("syntax", OF_JPEG_2000, ids=of)
def test_wrappers_change_nothing(tmp_path: Path, syntax: UID) -> None:
    expected = read(tmp_path, syntax, FRAMES[syntax][2]).pixels
    for name, frame in wrapped(FRAMES[syntax][2]).items():
        pixels = read(tmp_path, syntax, frame).pixels
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


def test_wrapped_by_an_encoder(tmp_path: Path) -> None:
    whole, bare = (jpeg_2000_of(DEEP, wrap=each) for each in (True, False))
    assert whole.startswith(b"\0\0\0\x0cjP  ")
    assert jpeg_2000(whole) == jpeg_2000(bare)
    pixels = read(tmp_path, JPEG2000Lossless, whole).pixels
    np.testing.assert_allclose(pixels, DEEP / 4095, atol=1e-6)


# Fragments (PS3.5 A.4).
def item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=5), st.binary(max_size=12))
def test_fragments_are_joined_whatever_the_table_says(frame: bytes, cuts: list[int], offsets: bytes) -> None:
    ends = [0, *sorted(cuts), len(frame)]
    parts = [frame[start:end] for start, end in pairwise(ends)]
    assert joined(item(offsets) + b"".join(map(item, parts))) == frame


def test_fragments_that_are_not_as_they_should_be() -> None:
    assert joined(item(b"") + item(b"abc") + b"\0" + item(b"de")) == b"abcde"  # odd, then even
    assert joined(item(b"") + item(b"abcd")[:-2]) == b"ab"
    assert joined(item(b"abcd")) == b"abcd"  # no table at all
    assert joined(b"abcd") == b"abcd"  # no fragments at all
    assert joined(item(b"") + item(b"ab") + b"\xfe\xff\xdd\xe0\0\0\0\0") == b"ab"


@pytest.mark.parametrize("syntax", [*FRAMES, RLELossless], ids=of)
def test_offset_tables_that_contradict_the_frames(tmp_path: Path, syntax: UID) -> None:
    path = tmp_path / "image.dcm"
    if syntax == RLELossless:
        save_compressed(path, mammogram(DEEP, 12), syntax)
    else:
        stored, bits, frame = FRAMES[syntax]
        save_frame(path, mammogram(stored, bits), syntax, frame)
    expected, dataset = read_image(path).pixels, dcmread(path)
    frame = get_frame(dataset.PixelData, 0)
    half = len(frame) // 2
    for table in (b"", b"\0\0\0\0", b"\x08\0\0\0", b"\0\0\0\0" + half.to_bytes(4, "little"), b"ab"):
        for parts in ([frame], [b"", frame], [frame[:half], frame[half:]], [frame, b"\0\0"]):
            dataset.PixelData = item(table) + b"".join(map(item, parts))
            dataset.ExtendedOffsetTable = (2 * half).to_bytes(8, "little")
            dataset.ExtendedOffsetTableLengths = (7).to_bytes(8, "little")
            dataset.save_as(path)
            np.testing.assert_array_equal(read_image(path).pixels, expected)


def test_a_missing_delimiter(tmp_path: Path) -> None:
    path = save_frame(tmp_path / "a.dcm", mammogram(DEEP, 12), JPEG2000, jpeg_2000_of(DEEP))
    whole, expected = path.read_bytes(), read_image(path).pixels
    assert whole.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    for kept in (whole[:-8], whole[:-4], whole[:-6]):
        path.write_bytes(kept)
        np.testing.assert_array_equal(read_image(path).pixels, expected)
    path.write_bytes(whole[:-48])
    with pytest.raises(ImageError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize("syntax", OF_JPEG, ids=of)
def test_a_frame_without_an_end_is_doubted(tmp_path: Path, syntax: UID) -> None:
    frame = FRAMES[syntax][2]
    assert read(tmp_path, syntax, frame + bytes(999)).warnings == ()
    (said,) = read(tmp_path, syntax, frame[: int(0.9 * len(frame))]).warnings
    assert "last rows may be missing" in said


# The size is checked before anything is decoded.
def enlarged(syntax: UID, frame: bytes) -> bytes:
    """The same frame, said to have 60,000 rows and columns."""
    if syntax in OF_JPEG:
        place = next(each for each in segments(frame) if frame[each + 1] in (0xC0, 0xC3, 0xF7))
        return frame[: place + 5] + struct.pack(">HH", 60000, 60000) + frame[place + 9 :]
    return frame[:8] + struct.pack(">II", 60000, 60000) + frame[16:]


@pytest.mark.parametrize("syntax", FRAMES, ids=of)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, syntax: UID, hidden: bool) -> None:
    read(tmp_path, syntax, FRAMES[syntax][2])  # imports take memory as well
    bomb = enlarged(syntax, FRAMES[syntax][2])
    if hidden:
        filled = bomb[:2] + b"\xff\xff\xff" + bomb[2:]
        bomb = filled if syntax in OF_JPEG else wrapped(bomb)["length of 64 bits"]
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"the encoded picture itself of \(60000, 60000, 1\)"):
        read(tmp_path, syntax, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_the_largest_component_is_the_size() -> None:
    frame = FRAMES[JPEG2000Lossless][2]
    halved = frame[:43] + b"\x02\x02" + frame[45:]
    assert (found := jpeg_2000(halved)) is not None
    assert found.shape == (20, 28, 1)
    two = frame[:40] + b"\0\x02" + frame[42:43] + b"\x02\x02" + b"\x07\x01\x01" + frame[45:]
    assert (found := jpeg_2000(two)) is not None
    assert (found.shape, found.bits) == ((40, 56, 2), 16)
    for cut in range(len(frame[:45])):
        assert jpeg_2000(frame[:cut]) is None
    assert jpeg_2000(frame[:43] + b"\0\0" + frame[45:]) is None


def test_a_second_frame_header_is_no_answer() -> None:
    frame = FRAMES[JPEGBaseline8Bit][2]
    places = segments(frame)
    place = next(each for each in places if frame[each + 1] == 0xC0)
    header = frame[place : places[places.index(place) + 1]]
    assert jpeg(frame[:place] + header + frame[place:]) is None
    assert jpeg(frame[:place] + header.replace(b"\xc0", b"\xde", 1) + frame[place:]) is None
    assert jpeg(frame[:place] + frame[place + len(header) :]) is None
    assert jpeg(frame[:place]) is None
    assert jpeg(b"") is None


def test_how_a_frame_is_coded() -> None:
    def is_exact(found: Frame | None) -> bool:
        assert found is not None
        return found.exact

    assert not is_exact(jpeg(FRAMES[JPEGBaseline8Bit][2]))
    assert is_exact(jpeg(FRAMES[JPEGLosslessSV1][2]))
    assert is_exact(jpeg(JPEG_LS))
    near = get_frame(dcmread(LOCAL / "JPEGLSNearLossless_16.dcm").PixelData, 0)
    assert not is_exact(jpeg(near))
    assert is_exact(jpeg_2000(jpeg_2000_of(DEEP)))
    assert not is_exact(jpeg_2000(jpeg_2000_of(DEEP, irreversible=True)))
    assert is_exact(jpeg_2000(HTJ2K))


# Run lengths (PS3.5 Annex G).
def rle(*parts: bytes) -> bytes:
    starts = np.cumsum([64, *(len(each) for each in parts)])[:-1]
    return struct.pack("<16L", len(parts), *starts, *[0] * (15 - len(parts))) + b"".join(parts)


def test_run_lengths() -> None:
    high, low = b"\xff\x01\x80\x01\x02\x03", b"\x03\x0a\x0b\x0c\x0d\x00"  # and one byte of padding
    assert run_lengths(rle(high, low), 4, 2, 1) == bytes([10, 1, 11, 1, 12, 2, 13, 3])
    with pytest.raises(ValueError, match="1 segments of run lengths; 2 are expected"):
        run_lengths(rle(low), 4, 2, 1)
    with pytest.raises(ValueError, match="cut short"):
        run_lengths(rle(high, low), 5, 2, 1)
    with pytest.raises(ValueError, match="0 segments"):
        run_lengths(b"", 4, 2, 1)


def test_run_lengths_unpack_to_no_more_than_there_is(tmp_path: Path) -> None:
    size = 1000 * 1000
    bomb = b"\x81\x07" * (size // 2)  # 64 times what it should be
    stored = np.full((1000, 1000), 0x0707, "u2")
    path = save(tmp_path / "image.dcm", mammogram(stored, 12))
    read_image(path)
    save_frame(path, mammogram(stored, 12), RLELossless, rle(bomb, bomb))
    tracemalloc.start()
    pixels = read_image(path).pixels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(pixels, 0x707 / 4095, atol=1e-6)
    assert peak < 64 * 2**20
