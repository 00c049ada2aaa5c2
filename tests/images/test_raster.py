"""Layouts of PNG, JPEG, PNM, BMP and WebP that Pillow reads in part, or that look like others."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from mammolens.errors import ImageError
from mammolens.images.reading import read_image

HEIGHT, WIDTH = 20, 33
LUMA = np.array([0.299, 0.587, 0.114])


def shades(bits: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    stored = np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    stored[0, :2] = [[0], [2**bits - 1]]
    return stored


def png(path: Path, stored: np.ndarray, bits: int, kind: int, **chunks: bytes) -> Path:
    """Write a PNG by hand (PNG 3rd edition): no filter, samples packed, the upper bit first."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    rows = []
    for row in stored.reshape(len(stored), -1).tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        rows.append(b"\0" + int(text, 2).to_bytes(len(text) // 8))
    header = struct.pack(">IIBBBBB", stored.shape[1], stored.shape[0], bits, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(name.encode(), data) for name, data in chunks.items())
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_with_one_transparent_shade(tmp_path: Path, bits: int) -> None:
    """tRNS names a shade in the stored bits: white, here, so that background would be white."""
    stored, white = shades(bits), 2**bits - 1
    image = read_image(png(tmp_path / "a.png", stored, bits, 0, tRNS=struct.pack(">H", white)))
    expected = np.where(stored == white, 0, stored)[..., 0] / white
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert image.warnings[0] == "transparent parts: taken as black background"


@pytest.mark.parametrize("bits", [8, 16])
def test_coloured_png_with_one_transparent_shade(tmp_path: Path, bits: int) -> None:
    white = 2**bits - 1
    stored = np.repeat(shades(bits), 3, axis=2)
    stored[2:5] = white
    image = read_image(png(tmp_path / "a.png", stored, bits, 2, tRNS=struct.pack(">3H", *[white] * 3)))
    expected = np.where(stored == white, 0, stored)[..., 0] / white
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [4, 6])
def test_png_with_alpha_keeps_its_bits_and_lies_on_black(tmp_path: Path, bits: int, kind: int) -> None:
    grey, alpha = shades(bits), shades(bits, seed=1)
    channels = [grey] * (1 if kind == 4 else 3) + [alpha]
    image = read_image(png(tmp_path / "a.png", np.concatenate(channels, 2), bits, kind))
    expected = (grey * alpha)[..., 0] / (2**bits - 1) ** 2
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert (image.bit_depth, image.colour) == (bits, False)


def test_sixteen_bits_of_colour_are_kept(tmp_path: Path) -> None:
    stored = shades(16, 3)
    image = read_image(png(tmp_path / "a.png", stored, 16, 2))
    np.testing.assert_allclose(image.pixels, stored @ LUMA / 65535, atol=1e-6)
    assert (image.bit_depth, image.colour) == (16, True)


def test_palettes_with_alpha(tmp_path: Path) -> None:
    stored = shades(2)
    palette, alpha = bytes([9] * 3 + [90] * 3 + [200] * 3 + [255] * 3), bytes([255, 128, 255, 0])
    image = read_image(png(tmp_path / "a.png", stored, 2, 3, PLTE=palette, tRNS=alpha))
    looks = np.array([9, 90 * 128 / 255, 200, 0]) / 255
    np.testing.assert_allclose(image.pixels, looks[stored[..., 0]], atol=1e-6)


def test_what_is_transparent_all_over_is_taken_as_it_is(tmp_path: Path) -> None:
    grey = shades(8)
    stored = np.concatenate([grey] * 3 + [np.zeros_like(grey)], 2)
    image = read_image(png(tmp_path / "a.png", stored, 8, 6))
    np.testing.assert_allclose(image.pixels, grey[..., 0] / 255, atol=1e-6)
    assert image.warnings == ("transparent all over: taken as if it were not",)


def test_webp_with_alpha_lies_on_black(tmp_path: Path) -> None:
    grey = np.full((32, 32), 255, np.uint8)
    alpha = np.zeros_like(grey)
    alpha[:, :16] = 255
    Pillow.fromarray(np.dstack([grey] * 3 + [alpha])).save(tmp_path / "a.webp", lossless=True, exact=True)
    image = read_image(tmp_path / "a.webp")
    np.testing.assert_array_equal(image.pixels, alpha / np.float32(255))


def test_twelve_bits_in_sixteen_are_said_to_be_faint(tmp_path: Path) -> None:
    image = read_image(png(tmp_path / "a.png", shades(12), 16, 0, sBIT=b"\x0c"))
    assert image.pixels.max() == pytest.approx(4095 / 65535)
    assert image.warnings == ("faint: less than a sixteenth of the grey scale is used",)


@pytest.mark.parametrize("white", [1, 100, 255, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_pgm_is_divided_by_the_white_that_it_names(tmp_path: Path, white: int, *, plain: bool) -> None:
    stored = np.random.default_rng(0).integers(0, white + 1, (HEIGHT, WIDTH))
    body = stored.astype(np.uint8 if white < 256 else ">u2").tobytes()
    if plain:
        body = " ".join(map(str, stored.ravel().tolist())).encode()
    head = f"P{2 if plain else 5}\n# drawn\n{WIDTH} {HEIGHT}\n{white}\n".encode()
    (tmp_path / "a.pgm").write_bytes(head + body)
    image = read_image(tmp_path / "a.pgm")
    tolerance = 0.002 if white < 255 else 1e-5
    np.testing.assert_allclose(image.pixels, stored / white, atol=tolerance)


@pytest.mark.parametrize("plain", [False, True])
def test_in_a_bitmap_one_is_black(tmp_path: Path, *, plain: bool) -> None:
    stored = shades(1)[..., 0]
    rows = np.packbits(stored.astype(bool), axis=1).tobytes()
    body = " ".join(map(str, stored.ravel().tolist())).encode() if plain else rows
    (tmp_path / "a.pbm").write_bytes(f"P{1 if plain else 4}\n{WIDTH} {HEIGHT}\n".encode() + body)
    np.testing.assert_array_equal(read_image(tmp_path / "a.pbm").pixels, 1 - stored)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_palette_that_exchanges_black_and_white_is_looked_up(tmp_path: Path, suffix: str) -> None:
    stored = shades(8)[..., 0].astype(np.uint8)
    picture = Pillow.fromarray(stored, "L").convert("P")
    picture.putpalette([255 - value for value in range(256) for _ in range(3)])
    indices = np.asarray(picture)
    picture.save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(image.pixels, (255 - indices) / 255, atol=1e-6)


def test_of_a_phone_s_jpeg_the_first_picture_is_read(tmp_path: Path) -> None:
    first = np.full((32, 48), 200, np.uint8)
    pictures = [Pillow.fromarray(first), Pillow.fromarray(first[:16, :16] // 4)]
    path = tmp_path / "a.jpg"
    pictures[0].save(path, "MPO", save_all=True, append_images=pictures[1:])
    image = read_image(path)
    np.testing.assert_allclose(image.pixels, 200 / 255, atol=0.01)
    assert image.pixels.shape == first.shape
    assert (image.format, image.warnings) == (
        "JPEG",
        ("the file holds 2 pictures: the first was read",),
    )


def test_inks_of_a_jpeg_are_black_where_there_is_much_of_them(tmp_path: Path) -> None:
    ink = np.zeros((32, 32, 4), np.uint8)
    ink[:, :16, 3] = 255
    Pillow.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels[:, :12].max() < 0.05
    assert image.pixels[:, 20:].min() > 0.95


def jpeg(frame: int, bits: int) -> bytes:
    """A JPEG's start: which process, and how many bits a sample."""
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((32, 32), np.uint8)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = frame, bits
    return bytes(data)


UNREAD = {
    "JPEG of 12 bits": jpeg(0xC1, 12),
    "lossless JPEG of 16 bits": jpeg(0xC3, 16),
    "JPEG-LS of 8 bits": jpeg(0xF7, 8),
}


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_what_a_file_is_that_is_not_read_is_named(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(UNREAD[name])
    with pytest.raises(ImageError, match=f"this is {name}.*not an image.*Save it as") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_shared_transparent_background_is_black(cases: Path) -> None:
    folder = cases / "transparent_png"
    found, right = read_image(folder / "transparent.png"), read_image(folder / "ok.png")
    np.testing.assert_allclose(found.pixels, right.pixels, atol=1e-6)
