"""Which bits are pixels, in every encoding, and how deep they are."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from test_dicom import mammogram, save, save_compressed, save_frame
from test_dicom_frames import FRAMES, OF_JPEG_2000, jpeg_2000_of, of, read
from test_dicom_golden import ALLOWED, assert_shown, jpeg_lossless, linear, stored_in, whole_range

from mammolens.errors import ImageError
from mammolens.images.dicom.reader import read_dicom

OVERLAY = np.where(np.arange(56) % 2, 0x8000, 0).astype("u2") | np.where(np.arange(56) % 3, 0x2000, 0).astype("u2")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEG2000,
        JPEGLosslessSV1,
    ],
    ids=lambda syntax: syntax.name,
)
def test_bits_above_the_stored_ones_are_left_out(tmp_path: Path, syntax: UID, signed: bool) -> None:
    stored, path = stored_in(16, 12, signed=signed), tmp_path / "image.dcm"
    clear = (stored.view("u2") & 0x0FFF).view(stored.dtype)  # the sign is not carried upwards
    for each in (clear, clear | OVERLAY.view(stored.dtype)):
        dataset = mammogram(each, 12)
        dataset.add_new(0x60000100, "US", 16)  # as was usual until 2004
        dataset.add_new(0x60000102, "US", 15)
        if syntax == JPEGLosslessSV1:
            save_frame(path, dataset, syntax, jpeg_lossless(each, 16, 1))
        elif syntax in (JPEG2000, JPEG2000Lossless):
            stream = io.BytesIO()
            Pillow.fromarray(each.view("u2")).save(stream, "JPEG2000", no_jp2=True)
            save_frame(path, dataset, syntax, stream.getvalue())
        elif syntax == RLELossless:
            save_compressed(path, dataset, syntax)
        else:
            if syntax == ExplicitVRBigEndian:
                dataset.PixelData = each.astype(">u2").tobytes()
            save(path, dataset, syntax)
        pixels = read_dicom(path).pixels
        np.testing.assert_allclose(pixels, whole_range(stored, 12), atol=ALLOWED)


@pytest.mark.parametrize("signed", [False, True])
def test_pixels_that_end_at_another_bit(tmp_path: Path, signed: bool) -> None:
    stored = stored_in(16, 12, signed=signed)
    assert_shown(tmp_path, mammogram(stored << 4, 12, HighBit=15), whole_range(stored, 12))
    overlaid = (stored << 2) & 0x3FFF | 0x4000
    assert_shown(tmp_path, mammogram(overlaid, 12, HighBit=13), whole_range(stored, 12))
    for high in (10, 15, 16, 99):  # where pixels do not end, or more than pixels is below them
        with pytest.raises(ImageError, match=f"up to bit {high}, cannot be read"):
            assert_shown(tmp_path, mammogram(stored, 12, HighBit=high), stored)


def test_depths_that_contradict_the_header(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"

    def shown(stored: np.ndarray, **attributes: int) -> np.ndarray:
        dataset = mammogram(np.zeros((40, 56), "u2"), 12, **attributes)
        stream = io.BytesIO()
        Pillow.fromarray(stored).save(stream, "JPEG2000", no_jp2=True)
        save_frame(path, dataset, JPEG2000Lossless, stream.getvalue())
        return read_dicom(path).pixels

    eight, twelve = stored_in(8, 8), stored_in(16, 12)
    np.testing.assert_allclose(shown(eight), eight / 4095, atol=ALLOWED)
    np.testing.assert_allclose(shown(twelve, HighBit=11), twelve / 4095, atol=ALLOWED)
    small = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    np.testing.assert_allclose(shown(twelve, **small), twelve / 65535, atol=ALLOWED)
    assert "16 bits a pixel where the header has room for 8" in read_dicom(path).warnings
    with pytest.raises(ImageError, match="up to bit 15"):
        shown(twelve, HighBit=15)
    stream = io.BytesIO()
    Pillow.fromarray(eight).save(stream, "jpeg", quality=100)
    save_frame(path, mammogram(twelve, 12), JPEGExtended12Bit, stream.getvalue())
    np.testing.assert_allclose(read_dicom(path).pixels, eight / 4095, atol=2 / 4095)


def test_the_cases(cases: Path) -> None:
    def pixels(name: str) -> np.ndarray:
        return read_dicom(cases / f"{name}.dcm").pixels

    for odd, right in {
        "jpeg2000_in_jp2/jp2": "jpeg2000_in_jp2/codestream_ok",
        "jpeg2000_overlay_bits/overlay_j2k": "jpeg2000_overlay_bits/native_ok",
        "jpeg_fill_bytes/fill_after_soi": "jpeg_fill_bytes/ok",
        "jpeg_fill_bytes/fill_before_sof": "jpeg_fill_bytes/ok",
        "empty_lut_items/empty_voi": "jpeg2000_in_jp2/codestream_ok",
        "empty_lut_items/empty_modality": "jpeg2000_in_jp2/codestream_ok",
    }.items():
        np.testing.assert_array_equal(pixels(odd), pixels(right), err_msg=odd)
    stored = np.rint(pixels("jpeg2000_in_jp2/codestream_ok") * 4095)
    windowed = pixels("empty_lut_items/empty_item_with_window")
    np.testing.assert_allclose(windowed, linear(stored, 2048, 4096), atol=ALLOWED)
    padded = pixels("lossy_padding/lossy_padding")
    assert padded[stored == 0].max() == 0
    np.testing.assert_allclose(padded, stored / 4095, atol=0.04)


@pytest.mark.parametrize("irreversible", [False, True])
def test_what_lossy_compression_carries_over_the_ends(tmp_path: Path, irreversible: bool) -> None:
    """Values over the largest are white, whichever transform; bits over darkness are none."""
    grain = np.random.default_rng(0).normal(0, 60, (160, 160))
    shades = np.kron([[0, 2000], [4000, 4095]], np.ones((80, 80))) + grain
    stored = shades.clip(0, 4095).astype("u2")
    how: dict[str, Any] = {"irreversible": irreversible, "quality_mode": "rates"}
    frame = jpeg_2000_of(stored, **how, quality_layers=[20])
    assert np.asarray(Pillow.open(io.BytesIO(frame))).max() > 4095
    path = save_frame(tmp_path / "image.dcm", mammogram(stored, 12), JPEG2000, frame)
    np.testing.assert_allclose(read_dicom(path).pixels, stored / 4095, atol=0.2)
    dark = stored // 6
    dark[20:60, 20:60] |= 0x1000
    for syntax in (JPEG2000, JPEG2000Lossless):
        save_frame(path, mammogram(dark, 12), syntax, jpeg_2000_of(dark))
        expected = (dark & 0x0FFF) / 4095
        np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=ALLOWED)


def test_plain_pixels_in_fragments(tmp_path: Path) -> None:
    """An encapsulation where there should be none (PS3.5 A.4) is no part of the picture."""
    stored, path = stored_in(16, 12), tmp_path / "image.dcm"
    dataset = mammogram(stored, 12)
    whole = save(path, dataset).read_bytes()
    start = whole.index(b"\xe0\x7f\x10\x00OW")
    fragments = encapsulate([stored.astype("<u2").tobytes()])
    path.write_bytes(whole[: start + 8] + b"\xff" * 4 + fragments + b"\xfe\xff\xdd\xe0\0\0\0\0")
    np.testing.assert_allclose(read_dicom(path).pixels, stored / 4095, atol=ALLOWED)


@pytest.mark.parametrize("syntax", OF_JPEG_2000, ids=of)
def test_a_codestream_without_an_end_is_doubted(tmp_path: Path, syntax: UID) -> None:
    frame = FRAMES[syntax][2]
    expected = read(tmp_path, syntax, frame).pixels
    size = frame.index(b"\xff\x90") + 6
    endless = frame[:size] + bytes(4) + frame[size + 4 :]  # the last tile-part need not say
    for odd in (frame[:-2], frame[:-1], frame[:-2] + bytes(3), endless[:-2]):
        image = read(tmp_path, syntax, odd)
        np.testing.assert_array_equal(image.pixels, expected)
        assert "last rows may be missing" in image.warnings[0]
    with pytest.raises(ImageError, match="damaged"):
        read(tmp_path, syntax, frame[: int(0.9 * len(frame))])
