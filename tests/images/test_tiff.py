"""TIFF by its tags. Files are written here, byte by byte: nothing that reads them wrote them."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from mammolens.errors import ImageError
from mammolens.images.image import Image
from mammolens.images.reading import read_image

Tags = dict[int, int | tuple[int, ...]]
HEIGHT, WIDTH = 20, 33  # odd: rows of packed samples end within a byte


def shades(bits: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    stored = generator.integers(0, 2**bits, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    stored[0, :2] = [[0], [2**bits - 1]]
    return stored


def packed(stored: np.ndarray, bits: int, order: str = "<") -> bytes:
    """Rows of samples of `bits` bits, the upper bit first, rows filled up to whole bytes."""
    rows = stored.reshape(len(stored), -1)
    if bits == 16:
        return rows.astype(f"{order}u2").tobytes()
    text = ("".join(f"{value:0{bits}b}" for value in row) for row in rows.tolist())
    return b"".join(int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8)) for row in text)


def directory(tags: Tags, order: str, at: int, following: int, *, big: bool = False) -> bytes:
    count, entry, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    kind, unit = (16, "Q") if big else (4, "I")
    size = struct.calcsize(order + count) + len(tags) * (struct.calcsize("<" + entry) + room) + room
    head, tail = struct.pack(order + count, len(tags)), b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, tuple) else (value,)
        data = struct.pack(f"{order}{len(values)}{unit}", *values)
        head += struct.pack(order + entry, tag, kind, len(values))
        if len(data) > room:
            head, tail = head + struct.pack(order + unit, at + size + len(tail)), tail + data
        else:
            head += data.ljust(room, b"\0")
    return head + struct.pack(order + unit, following) + tail


def tiff(
    path: Path,
    blocks: list[bytes],
    tags: Tags | None = None,
    order: str = "<",
    *,
    big: bool = False,
    tiled: bool = False,
) -> Path:
    """Write a TIFF of one picture: its strips or tiles, and then its directory."""
    start = 16 if big else 8
    offsets = tuple(start + sum(map(len, blocks[:i])) for i in range(len(blocks)))
    where = {324: offsets, 325: tuple(map(len, blocks))}
    if not tiled:
        where = {273: offsets, 279: tuple(map(len, blocks))}
    whole: Tags = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, **where}
    whole |= tags or {}
    end = start + sum(map(len, blocks))
    name = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, end) if big else struct.pack(order + "HI", 42, end)
    path.write_bytes(name + head + b"".join(blocks) + directory(whole, order, end, 0, big=big))
    return path


def close(image: Image, expected: np.ndarray) -> None:
    np.testing.assert_allclose(image.pixels, expected, atol=2e-6)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "image.tif"


@given(
    bits=st.integers(1, 16),
    order=st.sampled_from("<>"),
    photometric=st.sampled_from([0, 1]),
    fill=st.sampled_from([1, 2]),
    deflate=st.booleans(),
    rows=st.integers(1, HEIGHT),
    seed=st.integers(0, 9),
)
def test_grey_of_any_layout_is_divided_by_its_own_white(
    tmp_path_factory: pytest.TempPathFactory, **layout: Any
) -> None:
    bits, order, rows = layout["bits"], layout["order"], layout["rows"]
    stored = shades(bits, seed=layout["seed"])
    blocks = [packed(stored[top : top + rows], bits, order) for top in range(0, HEIGHT, rows)]
    if layout["deflate"]:
        blocks = [zlib.compress(block) for block in blocks]
    if layout["fill"] == 2:
        turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
        blocks = [block.translate(turned) for block in blocks]
    tags: Tags = {258: bits, 262: layout["photometric"], 266: layout["fill"], 278: rows}
    tags |= {259: 8 if layout["deflate"] else 1}
    image = read_image(tiff(tmp_path_factory.mktemp("t") / "a.tif", blocks, tags, order))
    expected = stored[..., 0] / (2**bits - 1)
    close(image, expected if layout["photometric"] else 1 - expected)
    assert (image.format, image.bit_depth, image.colour) == ("TIFF", bits, False)
    assert image.warnings == ()


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
@pytest.mark.parametrize("compress", [bytes, zlib.compress])
def test_samples_in_words_of_their_own_are_told_by_the_number_of_bytes(
    place: Path, bits: int, compress: Callable[[bytes], bytes]
) -> None:
    stored = shades(bits)
    words = stored.astype(np.uint8 if bits < 8 else "<u2").tobytes()
    tags: Tags = {258: bits, 259: 1 if compress is bytes else 8}
    close(read_image(tiff(place, [compress(words)], tags)), stored[..., 0] / (2**bits - 1))


def test_words_that_hold_more_than_they_should_are_refused(place: Path) -> None:
    words = np.full((HEIGHT, WIDTH), 4096, "<u2").tobytes()
    with pytest.raises(ImageError, match="values of more than its 12 bits"):
        read_image(tiff(place, [words], {258: 12}))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_bytes_are_those_that_libtiff_wrote(place: Path, compression: str, dtype: type) -> None:
    stored: np.ndarray = shades(8 * np.dtype(dtype).itemsize)[..., 0].astype(dtype)
    Pillow.fromarray(stored).save(place, compression=compression)
    close(read_image(place), stored / np.iinfo(dtype).max)


@pytest.mark.parametrize(("bits", "order"), [(8, "<"), (16, "<"), (16, ">")])
@pytest.mark.parametrize("channels", [1, 3])
def test_differences_are_summed(place: Path, bits: int, order: str, channels: int) -> None:
    stored = shades(bits, channels)
    steps = np.diff(stored.astype(int), axis=1, prepend=0) % 2**bits
    tags: Tags = {258: (bits,) * channels, 277: channels, 317: 2, 259: 8}
    tags |= {262: 1 if channels == 1 else 2}
    block = zlib.compress(packed(steps.astype(np.uint16), bits, order))
    close(read_image(tiff(place, [block], tags, order)), luma(stored, bits))


def luma(stored: np.ndarray, bits: int) -> np.ndarray:
    if stored.shape[2] == 1:
        return np.asarray(stored[..., 0] / (2**bits - 1))
    return np.asarray(stored[..., :3] @ np.array([0.299, 0.587, 0.114]) / (2**bits - 1))


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("planes", [1, 2])
def test_colour_keeps_all_its_bits_in_one_plane_or_three(place: Path, bits: int, planes: int) -> None:
    stored = shades(bits, 3)
    blocks = [stored] if planes == 1 else [stored[..., i : i + 1] for i in range(3)]
    tags: Tags = {258: (bits,) * 3, 277: 3, 262: 2, 284: planes}
    image = read_image(tiff(place, [packed(block, bits) for block in blocks], tags))
    close(image, luma(stored, bits))
    assert (image.bit_depth, image.colour) == (bits, True)


@pytest.mark.parametrize(("bits", "order"), [(8, "<"), (12, "<"), (16, ">")])
def test_tiles_are_put_together(place: Path, bits: int, order: str) -> None:
    stored = shades(bits)
    wide = np.pad(stored, ((0, 32 - HEIGHT), (0, 48 - WIDTH), (0, 0)))
    tiles = [wide[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16, 32)]
    tags: Tags = {258: bits, 322: 16, 323: 16}
    blocks = [packed(tile, bits, order) for tile in tiles]
    close(read_image(tiff(place, blocks, tags, order, tiled=True)), luma(stored, bits))


@pytest.mark.parametrize("order", ["<", ">"])
def test_bigtiff(place: Path, order: str) -> None:
    stored = shades(16)
    path = tiff(place, [packed(stored, 16, order)], {258: 16}, order, big=True)
    close(read_image(path), luma(stored, 16))


@pytest.mark.parametrize("scale", [1, 257])
@pytest.mark.parametrize("bits", [4, 8])
def test_palettes_are_looked_up(place: Path, bits: int, scale: int) -> None:
    stored = shades(bits)
    ramp = np.linspace(255, 0, 2**bits).astype(int)  # a palette that exchanges black and white
    tags: Tags = {258: bits, 262: 3, 320: tuple((ramp * scale).tolist() * 3)}
    image = read_image(tiff(place, [packed(stored, bits)], tags))
    close(image, ramp[stored[..., 0]] / 255)
    assert not image.colour


def test_black_ink_alone_is_grey(place: Path) -> None:
    ink = shades(8)
    stored = np.concatenate([np.zeros((HEIGHT, WIDTH, 3), np.uint16), ink], axis=2)
    image = read_image(tiff(place, [packed(stored, 8)], {258: (8,) * 4, 277: 4, 262: 5}))
    close(image, 1 - ink[..., 0] / 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_what_is_transparent_is_black(place: Path, channels: int, bits: int, extra: int) -> None:
    grey, alpha = shades(bits), shades(bits, seed=1)
    stored = np.concatenate([grey] * channels + [alpha], axis=2)
    tags: Tags = {258: (bits,) * (channels + 1), 277: channels + 1, 338: extra}
    tags |= {262: 1 if channels == 1 else 2}
    image = read_image(tiff(place, [packed(stored, bits)], tags))
    share = alpha[..., 0] / (2**bits - 1) if extra == 2 else 1
    close(image, luma(grey, bits) * share)
    said = {0: "further channels of the file are not looked at", 1: None}
    said |= {2: "transparent parts: taken as black background"}
    assert image.warnings == ((said[extra],) if said[extra] else ())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = np.zeros((24, 32), np.uint8)
    stored[:8, :8], stored[:8, 8:] = 255, 100
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }[orientation]
    path = tmp_path / f"image.{suffix}"
    exif = Pillow.Exif()
    exif[274] = orientation
    options: dict[str, Any] = {"tiffinfo": {274: orientation}} if suffix == "tif" else {"exif": exif}
    Pillow.fromarray(stored).save(path, **options)
    image = read_image(path)
    np.testing.assert_allclose(image.pixels, upright / 255, atol=0.02)
    assert image.exif_orientation == orientation


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({339: 2}, "signed pixels have no known black level"),
        ({258: 16, 339: 2}, "signed"),
        ({258: 32}, "32 bits have no known white level"),
        ({258: 32, 339: 3}, "floating-point pixels have no known white level"),
        ({258: 24}, "24 bits"),
        ({262: 4}, "transparency mask"),
        ({262: 6, 277: 3, 258: (8, 8, 8)}, "YCbCr"),
        ({262: 8, 277: 3, 258: (8, 8, 8)}, "CIE"),
        ({262: 32803}, "colour filter array"),
        ({262: 2, 277: 3, 258: (5, 6, 5)}, "bits"),
        ({262: 2}, "contradict its colour space"),
        ({262: 5, 277: 4, 258: (8,) * 4, 332: 2}, "inks"),
        ({259: 34712}, "compression 34712"),
        ({259: 7, 258: 12}, "JPEG of 12 bits"),
    ],
)
def test_numbers_without_known_black_and_white_are_refused(place: Path, tags: Tags, said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        read_image(tiff(place, [bytes(HEIGHT * WIDTH * 4)], tags))
    assert str(place) in str(caught.value)
    assert "PNG" in str(caught.value)


def test_a_file_that_does_not_say_which_end_is_white_is_refused(place: Path) -> None:
    path = tiff(place, [bytes(HEIGHT * WIDTH)])
    path.write_bytes(path.read_bytes().replace(struct.pack("<HH", 262, 4), b"\xff\xff\4\0"))
    with pytest.raises(ImageError, match="whether zero is black or white"):
        read_image(path)


@pytest.mark.parametrize("tag", [{254: 1}, {254: 4}, {255: 2}])
@pytest.mark.parametrize("first", [True, False])
def test_a_reduced_copy_or_a_mask_beside_the_picture_is_passed_over(place: Path, tag: Tags, *, first: bool) -> None:
    stored = shades(8)
    two_pages(place, stored, {256: 16, 257: 16, **tag}, first=first)
    close(read_image(place), stored[..., 0] / 255)


@pytest.mark.parametrize("tag", [{}, {254: 0}, {254: 2}])
def test_pages_are_pictures(place: Path, tag: Tags) -> None:
    two_pages(place, shades(8), tag, first=False)
    with pytest.raises(ImageError, match="holds 2 pictures"):
        read_image(place)


def two_pages(path: Path, stored: np.ndarray, aside: Tags, *, first: bool) -> None:
    """Write the picture and, before or after it, another one that has further tags."""
    data = packed(stored, 8)
    page: Tags = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, 273: 8, 279: len(data)}
    other = page | {279: 256} | aside
    pages = [other, page] if first else [page, other]
    start = 8 + len(data)
    size = len(directory(pages[0], "<", start, 0))
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, start)
        + data
        + directory(pages[0], "<", start, start + size)
        + directory(pages[1], "<", start + size, 0)
    )


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["jpeg", "group4"])
def test_pictures_compressed_as_a_whole_keep_their_black(place: Path, compression: str, photometric: int) -> None:
    stored = np.zeros((64, 64), np.uint8)
    stored[:, :20] = 255
    mode = "L" if compression == "jpeg" else "1"
    options = {"tiffinfo": {262: photometric}, "compression": compression}
    Pillow.fromarray(stored).convert(mode).save(place, **options)  # type: ignore[arg-type]
    with Pillow.open(place) as written:
        assert written.tag_v2[262] == photometric  # type: ignore[attr-defined]
    image = read_image(place)
    assert image.pixels[:, :16].mean() == pytest.approx(1, abs=0.02)
    assert image.pixels[:, 24:].mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("keep", [9, 40, 300])
def test_a_file_cut_short_is_refused(place: Path, keep: int) -> None:
    path = tiff(place, [packed(shades(16), 16)], {258: 16})
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(ImageError, match=r"damaged or cut short|cut short before"):
        read_image(path)


def test_shared_cases_look_alike_or_are_refused(cases: Path) -> None:
    folder = cases / "tiff_values"
    right = read_image(folder / "ok.png").pixels
    for name in ("u16_miniswhite.tif", "packed12.tif"):
        np.testing.assert_allclose(read_image(folder / name).pixels, right, atol=2e-5)
    for name in ("i16.tif", "u32.tif"):
        with pytest.raises(ImageError, match="no known"):
            read_image(folder / name)
