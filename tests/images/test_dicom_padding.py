"""Padding is black, also where lossy compression has smeared it; what is not padding stays."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from test_dicom import mammogram, save, save_compressed, save_frame
from test_dicom_frames import jpeg_2000_of

from mammolens.images.dicom.lut import smeared
from mammolens.images.reading import read_image


def breast(height: int = 200, width: int = 160) -> np.ndarray:
    """A half ellipse of grainy tissue at the left with a bright mass; 12 bits, 0 around."""
    y, x = np.mgrid[:height, :width] / np.asarray([height, width]).reshape(2, 1, 1)
    radius = ((y - 0.5) / 0.42) ** 2 + (x / 0.75) ** 2
    tissue = 0.1 + 0.5 * np.clip(1 - radius, 0, None) ** 0.4
    tissue += 0.3 * np.exp(-(((y - 0.45) / 0.05) ** 2) - ((x - 0.3) / 0.05) ** 2)
    tissue += np.random.default_rng(0).normal(0, 0.01, tissue.shape)
    shades = np.where(radius < 1, np.clip(tissue, 0.02, 0.98), 0)
    return np.asarray(np.rint(shades * 4095).astype("u2"))


BREAST = breast()
AROUND = BREAST == 0
PADDED = np.where(AROUND, 0, 4095 - BREAST).astype("u2")
"""As MONOCHROME1: air is dark where it is 4095, and padding of 0 would be white."""


def assert_black_around(path: Path, allowed: float) -> None:
    pixels = read_image(path).pixels
    assert pixels[AROUND].max() == 0
    shown = BREAST / 4095
    inside = ~AROUND & (shown > 0.2)
    assert (pixels[inside] == 0).mean() < 0.005  # next to the skin, at low quality
    assert np.abs(pixels - shown).mean() < allowed


@pytest.mark.parametrize("rate", [4, 10, 20, 40])
def test_jpeg_2000(tmp_path: Path, rate: int) -> None:
    options: dict[str, Any] = {
        "irreversible": True,
        "quality_mode": "rates",
        "quality_layers": [rate],
    }
    dataset = mammogram(PADDED, 12, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    frame = jpeg_2000_of(PADDED, **options)
    assert_black_around(save_frame(tmp_path / "a.dcm", dataset, JPEG2000, frame), 0.03)
    white = np.where(AROUND, 4095, BREAST).astype("u2")
    dataset = mammogram(white, 12, PixelPaddingValue=4095)
    frame = jpeg_2000_of(white, **options)  # some of which comes out above 4095
    assert_black_around(save_frame(tmp_path / "b.dcm", dataset, JPEG2000, frame), 0.03)


@pytest.mark.parametrize("quality", [95, 75, 50, 25])
def test_jpeg_and_what_was_made_of_it(tmp_path: Path, quality: int) -> None:
    eight, stream = (PADDED >> 4).astype("u1"), io.BytesIO()
    Pillow.fromarray(eight).save(stream, "jpeg", quality=quality)
    known: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    path = tmp_path / "image.dcm"
    save_frame(path, mammogram(eight, **known), JPEGBaseline8Bit, stream.getvalue())
    assert_black_around(path, 0.03)
    decoded = np.asarray(Pillow.open(stream))
    save(path, mammogram(decoded, **known, LossyImageCompression="01"))
    assert_black_around(path, 0.03)
    save(path, mammogram(decoded, **known))  # the value itself is all that is known
    np.testing.assert_array_equal(read_image(path).pixels == 0, (decoded == 0) | (decoded == 255))


def test_lossless_pixels_are_told_by_their_value_alone(tmp_path: Path) -> None:
    near = PADDED + AROUND * (np.indices(PADDED.shape).sum(0) % 2).astype("u2")
    dataset = mammogram(near, 12, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    pixels = read_image(save(tmp_path / "image.dcm", dataset)).pixels
    np.testing.assert_array_equal(pixels[AROUND] == 0, near[AROUND] == 0)


def test_padding_that_is_dark_anyhow_costs_no_skin(tmp_path: Path) -> None:
    frame = jpeg_2000_of(BREAST, irreversible=True, quality_mode="rates", quality_layers=[5])
    path, dataset = tmp_path / "image.dcm", mammogram(BREAST, 12)
    expected = read_image(save_frame(path, dataset, JPEG2000, frame)).pixels
    dataset.PixelPaddingValue = 0
    pixels = read_image(save_frame(path, dataset, JPEG2000, frame)).pixels
    np.testing.assert_array_equal(pixels, expected)


def test_bright_tissue_inside_is_no_padding() -> None:
    picture = np.full((80, 80), 3000)
    picture[:, 60:] = 5
    picture[30:40, 20:30] = 12  # as white as padding, but in the breast
    picture[50:52, 55:57] = 700  # a bright speck behind the skin
    expected = np.zeros((80, 80), dtype=bool)
    expected[:, 60:] = True
    np.testing.assert_array_equal(smeared(picture, (0, 0), 4096), expected)
    assert not smeared(np.full((20, 20), 3000), (0, 0), 4096).any()
    assert smeared(np.zeros((20, 20)), (0, 0), 4096).all()
    np.testing.assert_array_equal(smeared(picture - 4096, (-4096, -4092), 4096), expected)


@pytest.mark.parametrize(
    "told",
    [
        *({"LossyImageCompression": value} for value in ("01", "1", "YES")),
        {"LossyImageCompressionRatio": 9},
    ],
)
def test_however_earlier_compression_is_told(tmp_path: Path, told: dict[str, Any]) -> None:
    stream = io.BytesIO()
    Pillow.fromarray((PADDED >> 4).astype("u1")).save(stream, "jpeg", quality=60)
    known: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    decoded = np.asarray(Pillow.open(stream))
    assert_black_around(save(tmp_path / "image.dcm", mammogram(decoded, **known, **told)), 0.03)
    known |= {"LossyImageCompression": "00", "LossyImageCompressionRatio": None}
    path = save(tmp_path / "other.dcm", mammogram(decoded, **known))
    assert read_image(path).pixels[AROUND].max() > 0.9


@pytest.mark.parametrize("written", [65535, 63536, -2000, 0x1000])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_padding_that_bits_stored_cannot_hold(tmp_path: Path, syntax: UID, written: int) -> None:
    """It is told by all bits, and pixels that are white or look alike without these stay."""
    stored = np.where(AROUND, written % 2**16, BREAST).astype("u2")
    stored[:9, :9] = written % 4096
    dataset = mammogram(stored, 12)
    dataset.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    path = tmp_path / "image.dcm"
    if syntax == JPEG2000Lossless:
        save_frame(path, dataset, syntax, jpeg_2000_of(stored))
    elif syntax == RLELossless:
        save_compressed(path, dataset, syntax)
    else:
        save(path, dataset)
    expected = BREAST / 4095
    expected[:9, :9] = written % 4096 / 4095
    np.testing.assert_allclose(read_image(path).pixels, expected, atol=1e-6)


def test_signed_padding_that_bits_stored_cannot_hold(tmp_path: Path) -> None:
    stored = np.where(AROUND, -(2**15), BREAST.astype("i2") - 2048).astype("i2")
    dataset = mammogram(stored, 12, PixelPaddingValue=-(2**15))
    pixels = read_image(save(tmp_path / "image.dcm", dataset)).pixels
    np.testing.assert_allclose(pixels, BREAST / 4095, atol=1e-6)
