"""What is read of a DICOM header, and what is refused. `test_dicom_golden.py` proves the pixels."""

import io
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom import dcmread
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import JPEG2000LosslessDecoder
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from mammolens.errors import ImageError
from mammolens.images.dicom import reader
from mammolens.images.dicom.reader import is_dicom
from mammolens.images.image import Image
from mammolens.images.reading import read_image

LOCAL = Path(DATA_ROOT) / "test_files"
"""Files that pydicom's own tests use, as far as the package brings them along."""

FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"


def gradient(bits: int, *, signed: bool = False, height: int = 40, width: int = 56) -> np.ndarray:
    """Every value from the least to the largest that `bits` can hold, as far as there is room."""
    least = -(2 ** (bits - 1)) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    values = np.linspace(least, least + 2**bits - 1, height * width)
    return np.rint(values).reshape(height, width).astype(kind)


def mammogram(stored: np.ndarray, bits: int = 0, **attributes: Any) -> Dataset:
    """A data set as a mammography unit writes it, in the bits of the array if no others."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = FOR_PRESENTATION, "1.2.3.4"
    dataset.Modality = "MG"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.add_new("PixelData", "OW", stored.astype(stored.dtype.newbyteorder("<")).tobytes())
    with warnings.catch_warnings(action="ignore"):  # pydicom remarks on what should not be written
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
    return dataset


def save(path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set, its pixels as they are, with preamble and transfer syntax."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_frame(path: Path, dataset: Dataset, syntax: str, frame: bytes) -> Path:
    """Write a data set with one frame that is already encoded."""
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return save(path, dataset, syntax)


def save_compressed(path: Path, dataset: Dataset, syntax: str, **options: Any) -> Path:
    """Write a data set with its pixels encoded by pydicom."""
    save(path, dataset)
    dataset.compress(UID(syntax), generate_instance_uid=False, **options)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_content_or_suffix_tells_dicom(tmp_path: Path) -> None:
    path = save(tmp_path / "1.2.840.99", mammogram(gradient(8)))
    start = path.read_bytes()[:512]
    assert is_dicom(path.name, start)
    assert is_dicom("missing.DCM", b"")
    assert not is_dicom("missing", b"")
    assert not is_dicom("image", start[1:])


def test_png_users_do_not_wait_for_pydicom() -> None:
    script = "import sys, mammolens.images.reading; print('pydicom' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout.strip() == b"False"


def read(tmp_path: Path, **attributes: Any) -> Image:
    return read_image(save(tmp_path / "image.dcm", mammogram(gradient(12), 12, **attributes)))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "made for software, not for reading"),
        ({"Modality": "OT"}, "does not say that it is a mammogram"),
        ({"Modality": ""}, "does not say that it is a mammogram"),
        ({"WindowCenter": 9, "WindowWidth": 0}, "window in the file is not valid"),
        ({"VOILUTFunction": "LOG", "WindowCenter": 2e3, "WindowWidth": 3e3}, "linear is used"),
        ({"WindowCenter": 99999, "WindowWidth": 2e6}, "faint"),
    ],
)
def test_doubts_are_said(tmp_path: Path, attributes: dict[str, Any], said: str) -> None:
    (warning,) = read(tmp_path, **attributes).warnings
    assert said in warning


def test_radiographs_of_the_breast_are_mammograms(tmp_path: Path) -> None:
    for modality in ("CR", "DX", "RG"):
        assert read(tmp_path, Modality=modality, BodyPartExamined="BREAST").warnings == ()
        with pytest.raises(ImageError, match=f"modality {modality}, not of a breast"):
            read(tmp_path, Modality=modality, BodyPartExamined="CHEST")


TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
SYNTHETIC = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"SOPClassUID": TOMOSYNTHESIS, "NumberOfFrames": 1},
        {"SOPClassUID": TOMOSYNTHESIS},
        {"NumberOfFrames": 1},
        {"ImageType": ["DERIVED", "PRIMARY", "", "generated_2d "]},
    ],
)
def test_one_synthetic_picture_is_a_mammogram(tmp_path: Path, attributes: dict[str, Any]) -> None:
    image = read(tmp_path, **{"ImageType": SYNTHETIC} | attributes)
    assert image.warnings == ()
    with pytest.raises(ImageError, match="in 9 frames"):
        read(tmp_path, **{"ImageType": SYNTHETIC} | attributes | {"NumberOfFrames": 9})


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"SOPClassUID": TOMOSYNTHESIS}, "tomosynthesis .* 2-D mammogram"),
        ({"NumberOfFrames": 2}, "in 2 frames"),
        ({"BitsAllocated": 32}, "pixels of 12 bits in 32"),
        ({"HighBit": 15}, "up to bit 15, cannot be read; .* up to bit 11"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": "RGB"}, "1 samples in photometric interpretation RGB"),
        ({"PixelData": b"\0" * 100}, "holds 100 bytes of pixels where the header asks for 4,480"),
        ({"PixelData": b"\0" * 8960}, "holds 8,960 bytes of pixels"),
        ({"Rows": 8, "Columns": 280}, "280 x 8 pixels is too small"),
        ({"RescaleSlope": "1e306", "RescaleIntercept": 0}, "out of all proportion"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        read(tmp_path, **attributes)
    assert str(tmp_path / "image.dcm") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CT_small", "not a mammogram: modality CT"),
        ("test-SR", r"holds no picture \(Comprehensive SR Storage\)"),
        ("dicomdirtests/DICOMDIR", r"holds no picture \(Media Storage Directory Storage\)"),
    ],
)
def test_real_files_of_other_kinds_are_refused(name: str, said: str) -> None:
    path = LOCAL / (name if "/" in name else f"{name}.dcm")
    with pytest.raises(ImageError, match=said):
        read_image(path)


def test_an_encapsulated_pdf_holds_no_picture(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.3"
    with pytest.raises(ImageError, match="Encapsulated PDF Storage"):
        read_image(save(tmp_path / "report.dcm", dataset))


def test_another_format_by_the_name_of_dicom_is_refused(png: Callable[..., Path]) -> None:
    path = png(gradient(8), "image.png")
    with pytest.raises(ImageError, match="not DICOM, whatever its name says"):
        read_image(path.rename(path.with_suffix(".dcm")))


def test_a_picture_that_contradicts_the_header_is_refused(tmp_path: Path) -> None:
    path, stream = tmp_path / "image.dcm", io.BytesIO()
    Pillow.new("L", (1500, 1000)).save(stream, "jpeg")
    save_frame(path, mammogram(gradient(8)), JPEGBaseline8Bit, stream.getvalue())
    with pytest.raises(ImageError, match=r"\(40, 56, 1\), the .* of \(1000, 1500, 1\)"):
        read_image(path)
    save_compressed(path, mammogram(gradient(8)), JPEG2000Lossless)
    dataset = dcmread(path)
    dataset.Rows = 39
    dataset.save_as(path)
    with pytest.raises(ImageError, match=r"\(39, 56, 1\), the .* of \(40, 56, 1\)"):
        read_image(path)


def test_a_second_picture_cannot_slip_in(tmp_path: Path) -> None:
    path = save_compressed(tmp_path / "a.dcm", mammogram(gradient(8)), JPEG2000Lossless)
    dataset = dcmread(path)
    frame = get_frame(dataset.PixelData, 0)
    dataset.PixelData = encapsulate([frame, b"\xff\x4f\xff\x51"], has_bot=False)
    dataset.ExtendedOffsetTable = (len(frame) + 8).to_bytes(8, "little")  # the other one
    dataset.ExtendedOffsetTableLengths = (4).to_bytes(8, "little")
    dataset.save_as(path)
    np.testing.assert_allclose(read_image(path).pixels, gradient(8) / 255, atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, ExplicitVRLittleEndian])
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path, syntax: str) -> None:
    read_image(save(tmp_path / "warm.dcm", mammogram(gradient(8))))  # imports take memory as well
    dataset = mammogram(gradient(12), 12, Rows=65535, Columns=65535, PixelData=bytes(2**24))
    path = save(tmp_path / "bomb.dcm", dataset)
    if syntax != ExplicitVRLittleEndian:
        save_frame(path, dataset, syntax, bytes(2**24))
    tracemalloc.start()
    with pytest.raises(ImageError, match="65535 x 65535 is over the limit"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = gradient(12, height=1000, width=1000)
    path = save(tmp_path / "a.dcm", mammogram(stored, 12), DeflatedExplicitVRLittleEndian)
    assert read_image(path).pixels.shape == (1000, 1000)
    monkeypatch.setattr(reader, "MAX_BYTES", 2**20)
    with pytest.raises(ImageError, match="unpacks to over the limit of 1 MiB"):
        read_image(path)
    whole = path.read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    nested = zlib.compress(b"\x08" + bytes(127) + b"DICM", wbits=-15)
    path.write_bytes(whole[:start] + nested)
    with pytest.raises(ImageError, match="does not unpack to a data set"):
        read_image(path)


def test_a_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_frame(tmp_path / "a.dcm", mammogram(gradient(8)), MPEG2MPML, b"\0\0")
    with pytest.raises(ImageError, match="MPEG2 Main Profile"):
        read_image(path)
    save_compressed(path, mammogram(gradient(8)), JPEG2000Lossless)
    for plugin in ("pylibjpeg", "pillow"):
        monkeypatch.setitem(JPEG2000LosslessDecoder._unavailable, plugin, ("some package",))
        monkeypatch.delitem(JPEG2000LosslessDecoder._available, plugin)
    with pytest.raises(ImageError, match=r"JPEG 2000 .* missing dependencies.*some package"):
        read_image(path)


def test_odd_files_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    expected = read_image(save(path, mammogram(gradient(12), 12)))
    whole = path.read_bytes()
    start, middle = whole.index(b"\x08\x00\x16\x00UI"), whole.index(b"\x28\x00\x02\x00US")
    group_length = b"\x08\x00\x00\x00UL\x04\x00\xff\xff\x00\x00"  # and a wrong one
    syntax = whole.index(b"\x02\x00\x10\x00UI")
    for name, content in {
        "group length": whole[:start] + group_length + whole[start:],
        "wrong meta length": whole[:140] + b"\x99\x99\0\0" + whole[144:],
        "malformed age": whole[:middle] + b"\x10\x00\x10\x10DS\x04\x00old " + whole[middle:],
        "no preamble": whole[132:],
        "no preamble, no meta": whole[start:],
        "no transfer syntax": whole[:syntax] + whole[syntax + 8 + whole[syntax + 6] :],
        "trailing bytes": whole + b"\0" * 5,
        "cut short after the pixels": whole + b"\xe1\x7f\x10\x00OB\0\0\xff\xff\xff\xff",
        "other header after the pixels": whole + b"\x28\x00\x10\x00US\x02\x00\xff\xff",
    }.items():
        path.write_bytes(content)
        image = read_image(path)
        np.testing.assert_array_equal(image.pixels, expected.pixels, err_msg=name)
        assert image.header == expected.header


ENCODED = ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "image_dfl"]
ENCODED += ["SC_rgb_jpeg_gdcm", "SC_rgb_dcmtk_+eb+cy+np", "JPGExtended", "MR_small_bigendian"]


@pytest.mark.parametrize("name", ENCODED)
def test_damage_ends_in_an_image_or_an_image_error(tmp_path: Path, name: str) -> None:
    dataset = dcmread(LOCAL / f"{name}.dcm")
    dataset.Modality = "MG"
    path = tmp_path / "damaged.dcm"
    dataset.save_as(path)
    intact, generator = path.read_bytes(), np.random.default_rng(0)
    for number in range(32):
        damaged = bytearray(intact)
        if number % 4 == 0:
            del damaged[generator.integers(len(intact)) :]
        else:
            for place in generator.integers(0, min(len(intact), 200 * number), 4):
                damaged[place] = generator.integers(256)
        path.write_bytes(damaged or b"\0")
        with suppress(ImageError):
            pixels = read_image(path).pixels
            assert pixels.dtype == np.float32
            assert pixels.min() >= 0
            assert pixels.max() <= 1
