"""Pixels of DICOM files against pixels computed here, by the standard's words, in plain NumPy."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)
from test_dicom import LOCAL, gradient, mammogram, save, save_compressed, save_frame

from mammolens.images.dicom.reader import read_dicom
from mammolens.images.raster import read_raster
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import View

Depth = tuple[int, int, bool]
"""Bits allocated, bits stored, and whether values are signed."""

DEPTHS = [(8, 8, False), (8, 8, True), (16, 8, False), (16, 10, False), (16, 12, False)]
DEPTHS += [(16, 12, True), (16, 14, False), (16, 16, False), (16, 16, True)]
ALLOWED = 1e-6


def stored_in(allocated: int, bits: int, signed: bool = False) -> np.ndarray:
    return gradient(bits, signed=signed).astype(f"{'i' if signed else 'u'}{allocated // 8}")


def ends_of(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def whole_range(stored: np.ndarray, bits: int) -> np.ndarray:
    low, high = ends_of(bits, stored.dtype.kind == "i")
    return np.asarray((stored - float(low)) / (high - low))


def assert_shown(folder: Path, dataset: Dataset, expected: np.ndarray, syntax: str = ExplicitVRLittleEndian) -> None:
    image = read_dicom(save(folder / "image.dcm", dataset, syntax))
    assert image.pixels.dtype == np.float32
    assert (image.format, image.bit_depth) == ("DICOM", dataset.BitsStored)
    np.testing.assert_allclose(image.pixels, expected, atol=ALLOWED)


# PS3.3 C.11.2.1.2.1, C.11.2.1.3.2 and C.11.2.1.3.1, word for word, with y from 0 to 1.
def linear(x: np.ndarray, c: float, w: float) -> np.ndarray:
    inside = (x - (c - 0.5)) / (w - 1) + 0.5 if w > 1 else x
    above = np.where(x > c - 0.5 + (w - 1) / 2, 1, inside)
    return np.where(x <= c - 0.5 - (w - 1) / 2, 0, above)


def linear_exact(x: np.ndarray, c: float, w: float) -> np.ndarray:
    above = np.where(x > c + w / 2, 1, (x - c) / w + 0.5)
    return np.where(x <= c - w / 2, 0, above)


def sigmoid(x: np.ndarray, c: float, w: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-4 * (x - c) / w)))


WINDOWS: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "": linear,
    "LINEAR": linear,
    "LINEAR_EXACT": linear_exact,
    "SIGMOID": sigmoid,
}


def table(entries: Iterable[int], first: int, bits: int) -> list[Dataset]:
    """A sequence of one look-up table."""
    item, values = Dataset(), list(entries)
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values) % 2**16, first, bits])
    item.add_new("LUTData", "OW", np.asarray(values, "<u2").tobytes())
    return [item]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("depth", DEPTHS, ids=str)
@pytest.mark.parametrize("voi", ["none", "two windows", "table", *WINDOWS])
def test_every_way_to_shades(tmp_path: Path, voi: str, depth: Depth, photometric: str) -> None:
    _, bits, signed = depth
    stored, (low, high) = stored_in(*depth), ends_of(bits, signed)
    dataset = mammogram(stored, bits, PhotometricInterpretation=photometric)
    center, width = round(low + 0.4 * (high - low), 1), round(0.5 * (high - low), 1)
    if voi == "none":
        expected = whole_range(stored, bits)
    elif voi == "table":
        entries = np.arange(100) ** 2 * 4095 // 99**2
        dataset.VOILUTSequence = table(entries, low + 20, 12)
        expected = entries[np.clip(stored.astype(int) - (low + 20), 0, 99)] / 4095
    elif voi == "two windows":
        dataset.WindowCenter, dataset.WindowWidth = [center, 1], [width, 2]
        expected = linear(stored.astype(float), center, width)
    else:
        dataset.WindowCenter, dataset.WindowWidth = center, width
        dataset.VOILUTFunction = voi
        expected = WINDOWS[voi](stored.astype(float), center, width)
    assert_shown(tmp_path, dataset, 1 - expected if photometric == "MONOCHROME1" else expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(100.5, 1), (100, 1), (100.5, 2), (100, 1.5)])
def test_narrow_windows(tmp_path: Path, center: float, width: float, function: str) -> None:
    stored = stored_in(8, 8)
    dataset = mammogram(stored, VOILUTFunction=function, WindowCenter=center, WindowWidth=width)
    assert_shown(tmp_path, dataset, WINDOWS[function](stored.astype(float), center, width))


@pytest.mark.parametrize(("slope", "intercept", "falls"), [(2.5, 7, False), (-2.5, 7, True), (0, 9, False)])
def test_rescaling(tmp_path: Path, slope: float, intercept: float, falls: bool) -> None:
    stored = stored_in(16, 12)
    dataset = mammogram(stored, 12, RescaleSlope=slope, RescaleIntercept=intercept)
    rising = stored / 4095
    assert_shown(tmp_path, dataset, 1 - rising if falls else rising)
    dataset.WindowCenter, dataset.WindowWidth = 900, 1000
    assert_shown(tmp_path, dataset, linear(stored * (slope or 1) + intercept, 900, 1000))


def test_the_range_is_what_bits_stored_can_hold(tmp_path: Path) -> None:
    stored = stored_in(16, 11)
    assert_shown(tmp_path, mammogram(stored, 12), stored / 4095)


def test_a_modality_table_replaces_rescaling(tmp_path: Path) -> None:
    stored, entries = stored_in(16, 12), 1023 - np.arange(1000)
    dataset = mammogram(stored, 12, RescaleSlope=9, RescaleIntercept=9)
    dataset.ModalityLUTSequence = table(entries, 30, 10)
    values = entries[np.clip(stored.astype(int) - 30, 0, 999)]
    assert_shown(tmp_path, dataset, values / 1023)
    dataset.WindowCenter, dataset.WindowWidth = 500, 600
    assert_shown(tmp_path, dataset, linear(values, 500, 600))
    dataset.VOILUTSequence = table(np.arange(1024) ** 2 // 1023, 0, 10)  # and a table a window
    assert_shown(tmp_path, dataset, values**2 // 1023 / 1023)


def test_tables_of_all_writings(tmp_path: Path) -> None:
    stored, falling = stored_in(8, 8), range(255, -1, -1)
    numbers, packed, swapped = table(falling, 0, 8), table(falling, 0, 8), table(falling, 0, 12)
    numbers[0].pop("LUTData")
    numbers[0].add_new("LUTData", "US", list(falling))
    packed[0].LUTData = bytes(falling)
    swapped[0].LUTData = (16 * np.asarray(falling)).astype(">u2").tobytes()
    for item in (numbers, packed):
        assert_shown(tmp_path, mammogram(stored, VOILUTSequence=item), 1 - stored / 255)
    dataset = mammogram(stored, VOILUTSequence=swapped)
    dataset["PixelData"].VR = "OB"
    assert_shown(tmp_path, dataset, (255.0 - stored) * 16 / 4095, ExplicitVRBigEndian)

    deep = stored_in(16, 16)
    largest = table(range(65535, -1, -1), 0, 16)
    assert largest[0].LUTDescriptor[0] == 0  # this is how 65536 is written
    assert_shown(tmp_path, mammogram(deep, VOILUTSequence=largest), 1 - deep / 65535)
    overfull = table(range(4096), 0, 10)
    twelve = stored_in(16, 12)
    assert_shown(tmp_path, mammogram(twelve, 12, VOILUTSequence=overfull), twelve / 4095)


@pytest.mark.parametrize("shape", ["", "IDENTITY", "INVERSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_black_and_white_change_places_once(tmp_path: Path, photometric: str, shape: str) -> None:
    stored = stored_in(8, 8)
    inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    dataset = mammogram(stored, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert_shown(tmp_path, dataset, 1 - stored / 255 if inverted else stored / 255)
    said = " ".join(read_dicom(tmp_path / "image.dcm").warnings)
    odd = {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}
    assert ("contradicts itself" in said) == ((photometric, shape) in odd)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("ends", [(200,), (200, 240), (240, 200), (0,)], ids=str)
def test_padding_is_black_after_everything(tmp_path: Path, ends: tuple[int, ...], photometric: str) -> None:
    stored = stored_in(16, 8)
    dataset = mammogram(stored, 8, PhotometricInterpretation=photometric)
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, 1000  # which padding knows nothing of
    dataset.PixelPaddingValue = ends[0]
    if ends[1:]:
        dataset.PixelPaddingRangeLimit = ends[1]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    shades = stored / 255 if photometric == "MONOCHROME2" else 1 - stored / 255
    assert_shown(tmp_path, dataset, np.where(padding, 0, shades))


@pytest.mark.parametrize(("written", "kind"), [(-2048, "SS"), (2**16 - 2048, "US")])
def test_signed_padding_however_written(tmp_path: Path, written: int, kind: str) -> None:
    stored = stored_in(16, 12, signed=True)
    dataset = mammogram(stored, 12, PhotometricInterpretation="MONOCHROME1")
    dataset.add_new("PixelPaddingValue", kind, written)
    shades = 1 - whole_range(stored, 12)
    assert_shown(tmp_path, dataset, np.where(stored == -2048, 0, shades))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", "table"])
def test_pydicom_finds_the_same(tmp_path: Path, function: str, rescaled: bool, signed: bool) -> None:
    dataset = mammogram(stored_in(16, 12, signed=signed), 12)
    slope, intercept = (2, -300) if rescaled else (1, 0)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    low, high = (end * slope + intercept for end in ends_of(12, signed))
    if function == "table":
        dataset.VOILUTSequence = table(np.arange(1000) * 4, -100, 12)
        low, high = 0, 4095
    else:
        dataset.WindowCenter, dataset.WindowWidth = 321.5, 900
        dataset.VOILUTFunction = function
    values = apply_modality_lut(dcmread(save(tmp_path / "a.dcm", dataset)).pixel_array, dataset)
    if function == "table":
        values = values.astype(int)  # as pydicom wishes
    theirs = (apply_voi_lut(values, dataset).astype(np.float64) - low) / (high - low)
    assert_shown(tmp_path, dataset, theirs)


# Encoders that no package here has, after ISO/IEC 10918-1 Annexes B, F and H. Differences are coded
# by how many bits they need, in codes of five bits each.
def difference(value: int) -> str:
    size = abs(value).bit_length()
    low = value if value > 0 else value + 2**size - 1
    return f"{size:05b}" + (f"{low:0{size}b}" if 0 < size < 16 else "")


def codestream(shape: tuple[int, ...], bits: int, frame: int, scan: bytes, code: str) -> bytes:
    code += "1" * (-len(code) % 8)
    data = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\x00")
    size = bytes([bits, *shape[0].to_bytes(2, "big"), *shape[1].to_bytes(2, "big")])
    sizes = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])  # 17 codes of 5 bits
    end_of_block = bytes([0x10, 1, *[0] * 15, 0])  # one code of 1 bit
    segments = [(0xDB, bytes([0, *[1] * 64])), (frame, size + bytes([1, 1, 0x11, 0]))]
    segments += [(0xC4, sizes), (0xC4, end_of_block), (0xDA, bytes([1, 1, 0]) + scan)]
    parts = [bytes([0xFF, kind, 0, len(each) + 2]) + each for kind, each in segments]
    return b"\xff\xd8" + b"".join(parts) + data + b"\xff\xd9"


def jpeg_lossless(stored: np.ndarray, bits: int, predictor: int) -> bytes:
    """Process 14 with predictor 1 (left), 2 (above), 4 (plane) or 7 (mean) of Table H.1."""
    x = stored.astype(np.int64) & (2**bits - 1)
    left, above, corner = np.roll(x, 1, 1), np.roll(x, 1, 0), np.roll(x, 1, (0, 1))
    guess = {1: left, 2: above, 4: left + above - corner, 7: (left + above) // 2}[predictor].copy()
    guess[0], guess[:, 0] = left[0], above[:, 0]
    guess[0, 0] = 2 ** (bits - 1)
    wrapped = (x - guess + 2**15 - 1) % 2**16 - (2**15 - 1)
    code = "".join(difference(int(each)) for each in wrapped.ravel())
    return codestream(x.shape, bits, 0xC3, bytes([predictor, 0, 0]), code)


def jpeg_blocks(blocks: np.ndarray, bits: int) -> bytes:
    """Process 4, sequential DCT, of blocks of 8 × 8 pixels alike: exact, for all is in DC."""
    levels = 8 * (blocks.astype(np.int64).ravel() - 2 ** (bits - 1))
    code = "".join(difference(int(each)) + "0" for each in np.diff(levels, prepend=0))
    shape = tuple(8 * side for side in blocks.shape)
    return codestream(shape, bits, 0xC1, bytes([0, 63, 0]), code)


@pytest.mark.parametrize("depth", DEPTHS, ids=str)
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLosslessSV1,
        JPEGLossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_lossless_encodings(tmp_path: Path, syntax: UID, depth: Depth) -> None:
    stored, bits = stored_in(*depth), depth[1]
    dataset, path = mammogram(stored, bits), tmp_path / "image.dcm"
    if syntax in (JPEGLosslessSV1, JPEGLossless):
        precision = depth[0] if depth[2] or bits == 8 else bits
        for predictor in [1] if syntax == JPEGLosslessSV1 else [2, 4, 7]:
            save_frame(path, dataset, syntax, jpeg_lossless(stored, precision, predictor))
            np.testing.assert_allclose(read_dicom(path).pixels, whole_range(stored, bits), atol=ALLOWED)
    elif syntax.is_compressed:
        if (syntax, *depth) == (RLELossless, 16, 8, False):
            pytest.skip("pydicom cannot encode it")
        save_compressed(path, dataset, syntax)
    else:
        if syntax == ExplicitVRBigEndian:  # in words of 16 bits, even if each holds two pixels
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        save(path, dataset, syntax)
    image = read_dicom(path)
    np.testing.assert_allclose(image.pixels, whole_range(stored, bits), atol=ALLOWED)
    assert image.header is not None
    assert image.header.transfer_syntax == syntax.name


def test_lossy_encodings(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    blocks = np.random.default_rng(0).integers(0, 4096, (5, 7), dtype="u2")
    stored, frame = np.kron(blocks, np.ones((8, 8), "u2")), jpeg_blocks(blocks, 12)
    save_frame(path, mammogram(stored, 12), JPEGExtended12Bit, frame)
    np.testing.assert_allclose(read_dicom(path).pixels, stored / 4095, atol=ALLOWED)

    phantom = draw_view(draw_patient(1, seed=2).left, View.MLO, size=128).pixels
    stream = io.BytesIO()
    Pillow.fromarray(phantom).save(stream, "jpeg", quality=95)
    save_frame(path, mammogram(phantom), JPEGBaseline8Bit, stream.getvalue())
    decoded = np.asarray(Pillow.open(stream)) / 255
    np.testing.assert_allclose(read_dicom(path).pixels, decoded, atol=1.01 / 255)

    deep = phantom.astype("u2") * 16
    save_compressed(path, mammogram(deep, 12), JPEG2000, j2k_cr=[8])
    assert path.stat().st_size < deep.nbytes / 4
    np.testing.assert_allclose(read_dicom(path).pixels, deep / 4095, atol=0.05)


SAME = ["MR_small", "MR_small_implicit", "MR_small_bigendian", "MR_small_RLE"]
SAME += ["MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"]
SAME_IN_COLOUR = ["SC_rgb_rle", "SC_rgb_rle_16bit", "SC_rgb_gdcm_KY", "SC_rgb_jls_lossy_line"]
SAME_IN_COLOUR += ["SC_rgb_dcmtk_+eb+cr", "SC_rgb_dcmtk_+eb+cy+np", "SC_ybr_full_422_uncompressed"]


@pytest.mark.parametrize("name", [*SAME, *SAME_IN_COLOUR])
def test_one_picture_in_many_encodings(tmp_path: Path, name: str) -> None:
    def pixels(name: str) -> np.ndarray:
        dataset = dcmread(LOCAL / f"{name}.dcm")
        dataset.Modality = "MG"
        dataset.save_as(tmp_path / "image.dcm")
        return read_dicom(tmp_path / "image.dcm").pixels

    if name in SAME:
        raw = dcmread(LOCAL / "MR_small.dcm")
        stored = np.frombuffer(raw.PixelData, "<i2").reshape(64, 64).astype(float)
        expected = linear(stored, float(raw.WindowCenter), float(raw.WindowWidth))
        np.testing.assert_allclose(pixels(name), expected, atol=ALLOWED)
    else:
        assert np.abs(pixels(name) - pixels("SC_rgb_jpeg_gdcm")).mean() < 0.003


def test_colour_becomes_luma(tmp_path: Path) -> None:
    generator, weights = np.random.default_rng(1), np.asarray([0.299, 0.587, 0.114])
    for kind, white in (("u1", 255), ("u2", 65535)):
        rgb = generator.integers(0, white, (40, 56, 3)).astype(kind)
        planes = np.moveaxis(rgb, 2, 0).tobytes()
        assert_shown(tmp_path, mammogram(rgb), rgb @ weights / white)
        dataset = mammogram(rgb, PlanarConfiguration=1, PixelData=planes)
        assert_shown(tmp_path, dataset, rgb @ weights / white)
        assert read_dicom(tmp_path / "image.dcm").warnings == ("colour image: turned to grey",)
    near = np.stack([gradient(16) // 2 + shift for shift in (0, 99, 0)], axis=2)
    assert_shown(tmp_path, mammogram(near), near @ weights / 65535)
    assert not read_dicom(tmp_path / "image.dcm").colour
    ybr = generator.integers(100, 150, (40, 56, 3)).astype("u1")
    save(tmp_path / "image.dcm", mammogram(ybr, PhotometricInterpretation="YBR_FULL"))
    pixels = read_dicom(tmp_path / "image.dcm").pixels
    np.testing.assert_allclose(pixels, ybr[..., 0] / 255, atol=1.01 / 255)


def test_a_real_mammogram_is_what_its_jpeg_is(tmp_path: Path, rsna_breast: Path) -> None:
    for path in sorted((rsna_breast / "test" / "1").iterdir())[:3]:
        expected = read_raster(path).pixels
        rgb = np.asarray(Pillow.open(path))
        assert_shown(tmp_path, mammogram(np.asarray(Pillow.open(path).convert("L"))), expected)
        dataset = mammogram(rgb, PhotometricInterpretation="YBR_FULL_422")
        save_frame(tmp_path / "image.dcm", dataset, JPEGBaseline8Bit, path.read_bytes())
        pixels = read_dicom(tmp_path / "image.dcm").pixels
        np.testing.assert_allclose(pixels, expected, atol=2.01 / 255)
