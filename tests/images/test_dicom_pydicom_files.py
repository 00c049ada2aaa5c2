"""Every DICOM file that pydicom brings along: read as pydicom reads it, or refused for a reason."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mammolens.errors import ImageError
from mammolens.images.dicom.reader import holds_dicom
from mammolens.images.reading import read_image

ROOT = Path(DATA_ROOT)
OTHERS = {".py", ".pyc", ".json", ".md", ".txt", ".gz", ".dump", ".icc"}
FILES = {
    path.relative_to(ROOT).as_posix(): path
    for path in sorted(ROOT.rglob("*"))
    if path.is_file() and path.suffix not in OTHERS and path.name != "README"
}

NO_PICTURE = "holds no picture"
NO_MAMMOGRAM = "not a mammogram: modality"
MANY = "holds tomosynthesis or the like, in"
SMALL = "pixels is too small for a mammogram"
DEPTH = "cannot be read; at most 16 bits in 16 were expected"
PALETTE = "photometric interpretation PALETTE COLOR cannot be read"
CUT = "it is cut short or contradicts itself"
CONTRADICTION = "the header tells of (rows, columns, samples)"
DAMAGED = "the DICOM data is damaged or of an unknown form"
NOT_DICOM = "not DICOM, whatever its name says"
REASONS = (NO_PICTURE, NO_MAMMOGRAM, MANY, SMALL, DEPTH, PALETTE, CUT, CONTRADICTION, DAMAGED)

REFUSED = {
    "JPEG-lossy": DAMAGED,  # a scan of no process that there is: pydicom cannot decode it either
    "JPEG2000-embedded-sequence-delimiter": CONTRADICTION,  # nor this: the delimiter overwrote SIZ
    "JPEGLSNearLossless_08": SMALL,
    "JPEGLSNearLossless_16": SMALL,
    "MR_truncated": CUT,
    "SC_rgb_rle_16bit_2frame": MANY,
    "SC_rgb_rle_2frame": MANY,
    "SC_rgb_rle_32bit": DEPTH,
    "SC_rgb_rle_32bit_2frame": MANY,
    "SC_rgb_small_odd": SMALL,
    "SC_rgb_small_odd_big_endian": SMALL,
    "SC_rgb_small_odd_jpeg": SMALL,
    "badVR": SMALL,
    "examples_palette": PALETTE,
    "examples_ybr_color": MANY,
    **dict.fromkeys(["chrJapMulti", "chrJapMultiExplicitIR6", "chrKoreanMulti"], CUT),
    "liver_1frame": DEPTH,
    "liver_expb_1frame": DEPTH,
    "meta_missing_tsyntax": NO_PICTURE,
    "nested_priv_SQ": NO_PICTURE,
    "no_meta": NOT_DICOM,
    "rtdose": MANY,
    "rtdose_1frame": SMALL,
    "rtdose_expb": MANY,
    "rtdose_expb_1frame": SMALL,
    "rtdose_rle": MANY,
    "rtdose_rle_1frame": SMALL,
}
"""What is refused even if it says that it is a mammogram; files without pixels need no line."""

_MODALITY = re.compile(rb"(?s)\x08\x00\x60\x00(?:CS(.)\x00|UN\0\0(.)\0\0\0|(.)\0\0\0)|\x00\x08\x00\x60CS\x00(.)")


def as_mammogram(content: bytes) -> bytes:
    """The same file, byte for byte, but for a modality of MG."""
    found = _MODALITY.search(content)
    if found is None:
        return content
    length = next(filter(None, found.groups()))[0]
    return content[: found.end()] + b"MG".ljust(length) + content[found.end() + length :]


def shown_by_pydicom(dataset: Dataset) -> np.ndarray:
    """What pydicom decodes and its functions make of it, from black to white as 0 to 1."""
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    stored, bits = pixel_array(dataset, index=0), dataset.BitsStored
    if stored.ndim == 3:
        return np.asarray(stored @ np.asarray([0.299, 0.587, 0.114]) / (2**bits - 1))
    ends = np.asarray([0, 2**bits - 1]) - (2 ** (bits - 1) if dataset.PixelRepresentation else 0)
    slope, intercept = dataset.get("RescaleSlope") or 1, dataset.get("RescaleIntercept") or 0
    low, high = ends * float(slope) + float(intercept)
    shades = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float64)
    shades = (shades - low) / (high - low)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shades = 1 - shades
    if "PixelPaddingValue" in dataset:
        shades[stored == dataset.PixelPaddingValue] = 0
    return np.asarray(shades)


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_it_is_is_read_or_refused_for_a_reason(name: str) -> None:
    path = FILES[name]
    if not (path.suffix == ".dcm" or holds_dicom(path.read_bytes()[:132])):
        pytest.skip("by name and content, this is not DICOM")
    try:
        assert read_image(path).pixels.ndim == 2
    except ImageError as error:
        assert any(each in str(error) for each in (*REASONS, NOT_DICOM))  # noqa: PT017


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_a_mammogram_is_what_pydicom_makes_of_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(as_mammogram(FILES[name].read_bytes()))
    with warnings.catch_warnings(action="ignore"):
        dataset = dcmread(path, force=True)
        reason = REFUSED.get(Path(name).stem)
        if reason is None and "PixelData" not in dataset:
            reason = NO_PICTURE
        if reason is not None:
            with pytest.raises(ImageError, match=re.escape(reason)):
                read_image(path)
            return
        expected = shown_by_pydicom(dataset)
    np.testing.assert_allclose(read_image(path).pixels, expected, atol=1e-6)
