import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from mammolens.errors import ImageError
from mammolens.images.image import MAX_PIXELS
from mammolens.images.reading import read_image

Write = Callable[..., Path]


def gradient(dtype: type = np.uint8, height: int = 24, width: int = 32) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.linspace(0, top, height * width).reshape(height, width).astype(dtype)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "bmp"])
def test_eight_bit_pixels_come_back_divided_by_255(png: Write, suffix: str) -> None:
    pixels = gradient()
    image = read_image(png(pixels, f"image.{suffix}"))
    assert image.pixels.dtype == np.float32
    assert image.bit_depth == 8
    np.testing.assert_array_equal(image.pixels, pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_pixels_come_back_divided_by_65535(png: Write, suffix: str) -> None:
    pixels = gradient(np.uint16)
    image = read_image(png(pixels, f"image.{suffix}"))
    assert image.bit_depth == 16
    np.testing.assert_allclose(image.pixels, pixels / 65535, atol=1e-7)


def test_sixteen_bit_pgm_is_big_endian(tmp_path: Path) -> None:
    pixels = gradient(np.uint16)
    path = tmp_path / "image.pgm"
    path.write_bytes(b"P5\n32 24\n65535\n" + pixels.astype(">u2").tobytes())
    image = read_image(path)
    assert image.bit_depth == 16
    np.testing.assert_allclose(image.pixels, pixels / 65535, atol=1e-7)


def test_twelve_bits_in_sixteen_are_not_stretched(png: Write) -> None:
    image = read_image(png(gradient(np.uint16) // 16))
    assert image.pixels.max() == pytest.approx(4095 / 65535)


@pytest.mark.parametrize(("suffix", "options"), [("jpg", {"quality": 95}), ("webp", {})])
def test_lossy_formats_come_back_close(png: Write, suffix: str, options: dict[str, int]) -> None:
    pixels = gradient()
    image = read_image(png(pixels, f"image.{suffix}", **options))
    np.testing.assert_allclose(image.pixels, pixels / 255, atol=0.06)
    assert not image.colour


def test_grey_stored_as_rgb_or_with_transparency_is_not_colour(png: Write) -> None:
    grey = gradient()
    for channels in ([grey] * 3, [grey] * 3 + [np.full_like(grey, 255)]):
        image = read_image(png(np.stack(channels, axis=2)))
        assert not image.colour
        np.testing.assert_array_equal(image.pixels, grey.astype(np.float32) / np.float32(255))


def test_colour_is_turned_to_luma_and_reported(png: Write) -> None:
    red = np.zeros((24, 32, 3), np.uint8)
    red[..., 0] = 200
    image = read_image(png(red))
    assert image.colour
    assert image.warnings == ("colour image: turned to grey",)
    np.testing.assert_allclose(image.pixels, 0.299 * 200 / 255, atol=1 / 255)


def test_exif_orientation_is_applied_and_reported(png: Write) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to stand upright
    pixels = gradient()
    image = read_image(png(pixels, exif=exif))
    assert image.exif_orientation == 6
    np.testing.assert_array_equal(image.pixels, np.rot90(pixels, -1).astype(np.float32) / 255)


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.png", tmp_path / "text.png"
    empty.touch()
    text.write_text("not a picture")
    for path, said in [
        (tmp_path / "missing.png", "no such file"),
        (tmp_path / "missing" / "a.png", "no such file"),
        (tmp_path / ("x" * 300 + ".png"), "File name too long"),
        (tmp_path / "a\0b.png", "no such file"),
        (tmp_path, "is a folder; one image was expected. Name a file in it"),
        (Path("/dev/null"), "is a pipe or a device; a file was expected"),
        (empty, "the file is empty"),
        (text, "not an image"),
    ]:
        with pytest.raises(ImageError, match=said) as caught:
            read_image(path)
        assert str(path).replace("\0", "\\x00") in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "pgm"])
def test_truncated_files_are_refused(png: Write, suffix: str) -> None:
    generator = np.random.default_rng(0)
    path = png(generator.integers(0, 255, (64, 64), dtype=np.uint8), f"image.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"damaged or cut short|not an image"):
        read_image(path)


def test_a_file_that_is_not_what_its_name_says_is_refused(png: Write) -> None:
    path = png(gradient(), "image.jpg")
    mislabelled = path.rename(path.with_suffix(".png"))
    with pytest.raises(ImageError, match=r"named \.png but holds a JPEG.*image\.jpg"):
        read_image(mislabelled)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_animated_and_multi_page_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    frames = [Pillow.fromarray(gradient()), Pillow.fromarray(255 - gradient())]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="holds 2 pictures"):
        read_image(path)


@pytest.mark.parametrize("side", [9_200, 14_000, 70_000])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    assert side**2 > MAX_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_header(side))
    with pytest.raises(ImageError, match="over the limit of 80,000,000 pixels"):
        read_image(path)


def _png_header(side: int) -> bytes:
    """A PNG that claims side × side pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64))


def test_an_image_too_small_for_anything_is_refused(png: Write) -> None:
    with pytest.raises(ImageError, match="too small"):
        read_image(png(gradient(height=8)))


def test_float_pixels_have_no_white_level(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Pillow.fromarray(np.ones((24, 32), np.float32)).save(path)
    with pytest.raises(ImageError, match="no known white level"):
        read_image(path)


def test_arbitrary_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for suffix in ("png", "jpg", "tif", "bmp", "webp"):
        stream = io.BytesIO()
        Pillow.fromarray(gradient()).save(stream, "tiff" if suffix == "tif" else _format(suffix))
        whole = bytearray(stream.getvalue())
        for _ in range(40):
            damaged = whole.copy()
            for place in generator.integers(4, len(whole), 6):
                damaged[place] = generator.integers(256)
            path = tmp_path / f"damaged.{suffix}"
            path.write_bytes(damaged)
            with suppress(ImageError):
                read_image(path)


def _format(suffix: str) -> str:
    return "jpeg" if suffix == "jpg" else suffix


def test_real_mammograms_are_grey(rsna_breast: Path) -> None:
    for path in sorted((rsna_breast / "test" / "1").iterdir())[:10]:
        image = read_image(path)
        assert image.pixels.shape == (640, 640)
        assert (image.format, image.bit_depth, image.colour) == ("JPEG", 8, False)


def test_a_file_that_may_not_be_read_is_not_called_damaged(locked: Path) -> None:
    path = locked / "a.png"
    path.write_bytes(b"P2 1 1 1 1")
    path.chmod(0)
    with pytest.raises(ImageError, match=r"may not be read by this user \(permission denied\)"):
        read_image(path)
    path.chmod(0o600)
    locked.chmod(0)
    with pytest.raises(ImageError, match=r"may not be read by this user \(permission denied\)"):
        read_image(path)


def test_links_that_lead_nowhere_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("gone.png")
    (tmp_path / "round.png").symlink_to("round.png")
    with pytest.raises(ImageError, match=r"a\.png: is a link to gone\.png, which is not there"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is a link that leads back to itself"):
        read_image(tmp_path / "round.png")
