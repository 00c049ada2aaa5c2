"""What is taken over of odd headers, and of encoded files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless
from studies import errors, made_of, mammogram, save, stored

from mammolens.dicom_results.results import Results
from mammolens.records import Laterality
from mammolens.serving.predictor import Predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("phantom")


def test_what_cannot_be_referred_to_gets_a_reason(predictor: Predictor, tmp_path: Path) -> None:
    pixels = stored(0, Laterality.LEFT)
    nameless = save(mammogram(pixels, StudyInstanceUID=None, SOPInstanceUID=None), tmp_path / "nameless.dcm")
    Pillow.fromarray((pixels // 16).astype(np.uint8)).save(tmp_path / "picture.png")
    made = made_of(predictor, [nameless, tmp_path / "picture.png"], tmp_path / "results")
    assert (made.results.written, made.results.foreign) == ({}, 1)
    (why,) = made.results.left_out
    assert why == f"{nameless}: its header has no SOPInstanceUID, StudyInstanceUID: no DICOM result can refer to it."


ODD: dict[str, dict[str, Any]] = {
    "no side": {"ImageLaterality": None},
    "no patient": {"PatientID": None, "PatientName": None, "PatientBirthDate": None, "PatientSex": None},
    "old dates": {"PatientBirthDate": "1960.02.03", "StudyDate": "2026.01.02", "StudyTime": "10:11:12"},
    "an unknown sex": {"PatientSex": "X"},
    "a frame of reference": {"FrameOfReferenceUID": "1.2.3.4", "PositionReferenceIndicator": ""},
    "no orientation": {"PatientOrientation": None},
    "no study but its UID": {"StudyDate": None, "StudyTime": None, "StudyID": None, "AccessionNumber": None},
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
    "Greek": {"SpecificCharacterSet": "ISO_IR 126", "PatientName": "Διονυσιος"},
    "UTF-8": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Wang^XiaoDong=王^小东"},
    "an unknown character set": {"SpecificCharacterSet": "KLINGON", "PatientName": "Doe"},
    "computed radiography": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "Modality": "CR",
        "BodyPartExamined": "BREAST",
    },
    "one frame": {"NumberOfFrames": 1},
    "no spacing": {"ImagerPixelSpacing": None},
    "odd spacing": {"ImagerPixelSpacing": [0, 0]},
    "one spacing": {"ImagerPixelSpacing": 0.07},
    "long spacing": {"ImagerPixelSpacing": ["0.0941176470588", "0.09411764705882"]},
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_headers(predictor: Predictor, tmp_path: Path, odd: str) -> None:
    one = mammogram(stored(0, Laterality.RIGHT), Laterality.RIGHT, **ODD[odd])
    made = made_of(predictor, save(one, tmp_path / "odd.dcm"), tmp_path / "results")
    assert made.results.left_out == []
    assert len(made.files) == 3
    for result in made.files:
        assert str(result.get("PatientName") or "") == str(one.get("PatientName") or "")
        assert result.PatientID == (one.get("PatientID") or "")
    assert [error for path in made.results.written for error in errors(path)] == []


def test_uids_with_zeros_are_taken_over_and_remarked_on_nowhere(
    predictor: Predictor, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    uids: dict[str, Any] = {"SOPInstanceUID": "1.2.03.4", "SeriesInstanceUID": "1.2.03", "StudyInstanceUID": "1.02"}
    one = save(mammogram(stored(0, Laterality.RIGHT), **uids), tmp_path / "odd.dcm")
    results = made_of(predictor, one, tmp_path / "results").results
    assert (len(results.written), results.left_out) == (3, [])
    assert [str(remark.message) for remark in recwarn] == []


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
def test_encoded_pictures(predictor: Predictor, tmp_path: Path, syntax: Any) -> None:
    plain = mammogram(stored(0, Laterality.RIGHT), Laterality.RIGHT)
    one = mammogram(stored(0, Laterality.RIGHT), Laterality.RIGHT)
    if syntax == JPEG2000Lossless:
        one.compress(syntax, generate_instance_uid=False)
    one.file_meta.TransferSyntaxUID = syntax
    first = made_of(predictor, save(plain, tmp_path / "plain.dcm"), tmp_path / "first")
    again = made_of(predictor, save(one, tmp_path / "encoded.dcm"), tmp_path / "again")
    assert [path.name for path in again.results.written] == [path.name for path in first.results.written]
    assert [file.get("PixelData") for file in again.files] == [file.get("PixelData") for file in first.files]


def test_a_name_that_is_too_long_is_taken_over_as_it_is(predictor: Predictor, tmp_path: Path) -> None:
    one = mammogram(stored(0, Laterality.RIGHT), PatientName="X" * 90)
    results = Results.begin(tmp_path, predictor)
    list(predictor.answers([save(one, tmp_path / "one.dcm")], also=results.add))
    results.finish()
    assert results.left_out == []
    assert all(b"X" * 90 in path.read_bytes() for path in results.written)
