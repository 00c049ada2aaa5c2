"""What a header says of a mammogram: side, view and age, and what is no standard view."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sr import _snomed_dict
from pydicom.sr.codedict import codes
from test_dicom import FOR_PRESENTATION, SYNTHETIC, TOMOSYNTHESIS, gradient, mammogram, read, save
from test_dicom_shades import insert

from mammolens.images.image import Header
from mammolens.images.reading import read_image
from mammolens.records import Laterality, Special, View


def header(tmp_path: Path, **attributes: Any) -> Header:
    found = read(tmp_path, **attributes).header
    assert found is not None
    return found


def test_a_bare_header_leaves_everything_unknown(tmp_path: Path) -> None:
    assert header(tmp_path) == Header(transfer_syntax="Explicit VR Little Endian")
    empty = dict.fromkeys(["PatientID", "PatientAge", "ImageLaterality", "ViewPosition"], "")
    assert header(tmp_path, **empty, PixelSpacing=None) == header(tmp_path)


def test_a_full_header_is_read(tmp_path: Path) -> None:
    assert header(
        tmp_path,
        PatientID="P 7 ",
        StudyInstanceUID="1.2.3",
        ImageLaterality="R",
        Laterality="L",
        ViewPosition="MLO",
        PatientAge="057Y",
        Manufacturer="HOLOGIC, Inc.",
        ImagerPixelSpacing=[0.07, 0.065],
        PixelSpacing=[1, 1],
        PhotometricInterpretation="MONOCHROME1",
    ) == Header(
        patient_id="P 7",
        study_id="1.2.3",
        laterality=Laterality.RIGHT,
        view=View.MLO,
        age=57,
        manufacturer="HOLOGIC",
        spacing=(0.07, 0.065),
        photometric="MONOCHROME1",
        transfer_syntax="Explicit VR Little Endian",
    )


@pytest.mark.parametrize(
    ("attributes", "field", "expected"),
    [
        ({"Laterality": "L"}, "laterality", Laterality.LEFT),
        ({"ImageLaterality": "B", "Laterality": "L"}, "laterality", None),
        ({"PatientAge": "018M"}, "age", 1),
        ({"PatientAge": "Y045"}, "age", None),
        ({"PatientAge": "063Y", "PatientBirthDate": "19000101", "StudyDate": "20200101"}, "age", 63),
        ({"PatientAge": "090Y"}, "age", 90),
        ({"PatientAge": "000Y", "PatientBirthDate": "19580203", "StudyDate": "20200203"}, "age", 62),
        ({"PatientBirthDate": "19580203", "StudyDate": "20200202", "AcquisitionDate": "20210101"}, "age", 61),
        ({"PatientBirthDate": "1958.02.03", "AcquisitionDate": "20210101"}, "age", 62),
        ({"PatientBirthDate": "19600229", "StudyDate": "20210228"}, "age", 60),
        ({"PatientBirthDate": "19580203"}, "age", None),
        ({"PatientBirthDate": "19580230", "StudyDate": "20200202"}, "age", None),
        ({"PatientBirthDate": "20200203", "StudyDate": "20200202"}, "age", None),
        ({"PixelSpacing": [0.1, 0.2]}, "spacing", (0.1, 0.2)),
        ({"PixelSpacing": [0.1, 0]}, "spacing", None),
        ({"ViewPosition": "cc"}, "view", View.CC),
        ({"ViewPosition": "XCCL"}, "view", None),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for_processing", True),
        ({"SOPClassUID": FOR_PRESENTATION + ".1"}, "for_processing", True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.5"}, "for_processing", True),
    ],
)
def test_single_values(tmp_path: Path, attributes: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(header(tmp_path, **attributes), field) == expected


def code(value: str, meaning: str = "?", modifier: str = "") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodeMeaning = value, meaning
    item.ViewModifierCodeSequence = [code(modifier)] if modifier else []
    return item


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("CranioCaudal", View.CC),
        ("MedioLateralObliqueProjection", View.MLO),
        ("MedioLateralProjection", View.ML),
        ("LateroMedial", View.LM),
        ("LateroMedialOblique", View.LMO),
        ("CranioCaudalExaggeratedLaterally", None),
        ("CaudoCranial", None),
    ],
)
def test_view_codes_are_those_of_the_standard(tmp_path: Path, name: str, view: View | None) -> None:
    entry = codes.cid4014.concepts[name]
    retired = _snomed_dict.mapping["SCT"][entry.value]
    for item in (code(entry.value), code(retired), code("X", entry.meaning)):
        assert header(tmp_path, ViewCodeSequence=[item]).view is view


def test_view_modifiers(tmp_path: Path) -> None:
    modifiers = codes.cid4015.concepts
    for name, view in (("AxillaryTail", View.AT), ("Magnification", View.MLO)):
        item = code("399368009", modifier=modifiers[name].value)
        assert header(tmp_path, ViewCodeSequence=[item]).view is view
    assert header(tmp_path, ViewCodeSequence=[code("X")], ViewPosition="LM").view is View.LM


SPECIAL = {
    Special.MAGNIFICATION: "Magnification",
    Special.SPOT_COMPRESSION: "SpotCompression",
    Special.IMPLANT_DISPLACED: "ImplantDisplaced",
    Special.TANGENTIAL: "Tangential",
    Special.CLEAVAGE: "Cleavage",
    Special.ANTERIOR_COMPRESSION: "AnteriorCompression",
    Special.NIPPLE_IN_PROFILE: "NippleInProfile",
    Special.INFRAMAMMARY_FOLD: "InfraMammaryFold",
    Special.AXILLARY_TISSUE: "AxillaryTissue",
}
KINDS = [("cid4015", name, kind) for kind, name in SPECIAL.items()]
KINDS += [("cid4015", f"Rolled{side}", Special.ROLLED) for side in ("Lateral", "Medial")]
KINDS += [("cid4015", f"Rolled{side}", Special.ROLLED) for side in ("Inferior", "Superior")]
KINDS += [
    ("cid4014", "TissueSpecimenFromBreast", Special.SPECIMEN),
    ("cid4014", "CranioCaudalExaggeratedLaterally", Special.EXAGGERATED),
    ("cid4014", "CranioCaudalExaggeratedMedially", Special.EXAGGERATED),
    ("cid4014", "CaudoCranial", Special.OTHER_PROJECTION),
    ("cid4014", "SuperolateralToInferomedialOblique", Special.OTHER_PROJECTION),
    ("cid4014", "InferomedialToSuperolateralOblique", Special.OTHER_PROJECTION),
]


@pytest.mark.parametrize(("table", "name", "kind"), KINDS)
def test_special_views_by_the_codes_of_the_standard(tmp_path: Path, table: str, name: str, kind: Special) -> None:
    entry = getattr(codes, table).concepts[name]
    retired = _snomed_dict.mapping["SCT"][entry.value]
    for value, meaning in ((entry.value, "?"), (retired, "?"), ("X", entry.meaning)):
        part = code(value, meaning)
        item = part if table == "cid4014" else code("399368009")
        if table == "cid4015":
            item.ViewModifierCodeSequence = [code("", ""), part]
        image = read(tmp_path, ViewCodeSequence=[item])
        assert image.header is not None
        assert image.header.special == (kind,)
        (said,) = image.warnings
        assert said.startswith(f"not a standard view: {kind}; models learn CC and MLO")


def test_no_code_of_a_view_is_forgotten(tmp_path: Path) -> None:
    known = {name for _, name, _ in KINDS}
    plain = {"CranioCaudal", "MedioLateralObliqueProjection", "MedioLateralProjection"}
    plain |= {"LateroMedial", "LateroMedialOblique", "AxillaryTail"}
    assert known | plain == {*codes.cid4014.concepts, *codes.cid4015.concepts}
    for view in View:
        warned = any(f": {view};" in each for each in read(tmp_path, ViewPosition=view).warnings)
        assert warned == (view not in (View.CC, View.MLO))


@pytest.mark.parametrize(
    ("attributes", "kinds"),
    [
        ({"BreastImplantPresent": "YES"}, [Special.IMPLANT]),
        ({"BreastImplantPresent": "yes "}, [Special.IMPLANT]),
        ({"BreastImplantPresent": "NO"}, []),
        ({"PartialView": "YES"}, [Special.PARTIAL]),
        ({"PartialView": "NO"}, []),
        ({"PartialViewCodeSequence": [Dataset()]}, [Special.PARTIAL]),
        ({"SpecimenDescriptionSequence": [Dataset()]}, [Special.SPECIMEN]),
        ({"BodyPartExamined": "BREAST SPECIMEN"}, [Special.SPECIMEN]),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, [Special.MAGNIFICATION]),
        ({"EstimatedRadiographicMagnificationFactor": "1.09"}, []),
        (
            {"DistanceSourceToDetector": "660", "DistanceSourceToPatient": "367"},
            [Special.MAGNIFICATION],
        ),
        ({"DistanceSourceToDetector": "660", "DistanceSourceToPatient": "613"}, []),
        ({"DistanceSourceToDetector": "660", "DistanceSourceToPatient": "0"}, []),
        ({"PaddleDescription": "10CM MAG"}, [Special.MAGNIFICATION]),
        ({"PaddleDescription": "SPOT CONTACT"}, [Special.SPOT_COMPRESSION]),
        ({"PaddleDescription": "Magnetic 18x24 standard"}, []),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "", "STEREO_SCOUT"]}, [Special.BIOPSY]),
        ({"ImageType": ["DERIVED", "PRIMARY", "SUBTRACTION"]}, [Special.SUBTRACTION]),
        ({"ViewPosition": "XCCL"}, [Special.EXAGGERATED]),
        ({"ViewModifierCodeSequence": [code("R-102D6")]}, [Special.MAGNIFICATION]),
        (
            {"ViewCodeSequence": [code("R-10226", "?", "R-102D5")], "BreastImplantPresent": "YES"},
            [Special.IMPLANT, Special.IMPLANT_DISPLACED],
        ),
    ],
)
def test_special_views_by_attributes(tmp_path: Path, attributes: dict[str, Any], kinds: list[Special]) -> None:
    image = read(tmp_path, **attributes)
    assert image.header is not None
    assert image.header.special == tuple(kinds)
    said = [f"not a standard view: {', '.join(kinds)}; models"] if kinds else []
    assert [each[: len(start)] for each, start in zip(image.warnings, said, strict=True)] == said


def group(**attributes: Any) -> list[Dataset]:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def test_what_enhanced_objects_say_of_their_frame(tmp_path: Path) -> None:
    shared = group(
        FrameVOILUTSequence=group(WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR"),
        FrameAnatomySequence=group(FrameLaterality="R"),
        PixelMeasuresSequence=group(PixelSpacing=[0.1, 0.1]),
    )
    own = group(PixelValueTransformationSequence=group(RescaleSlope=2, RescaleIntercept=5, RescaleType="US"))
    said = {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR"}
    said |= {"RescaleSlope": 2, "RescaleIntercept": 5, "PixelSpacing": [0.1, 0.1]}
    kind = {"SOPClassUID": TOMOSYNTHESIS, "ImageType": SYNTHETIC, "NumberOfFrames": 1}
    plain = read(tmp_path, **kind, **said, ImageLaterality="R")
    groups = {"SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": own}
    for more in ({}, dict.fromkeys(said)):  # absent, or empty
        image = read(tmp_path, **kind, **groups, **more)
        np.testing.assert_array_equal(image.pixels, plain.pixels)
        assert image.header == plain.header
    dataset = mammogram(gradient(12), 12, **kind, **groups)
    insert(save(tmp_path / "image.dcm", dataset), ((0x1051, b"abc "),))
    assert read_image(tmp_path / "image.dcm").header == plain.header


@pytest.mark.parametrize(
    ("attributes", "unknown"),
    [
        ({"ViewPosition": "CC SPOT"}, True),
        ({"ViewPosition": "MAG"}, True),
        ({"ViewPosition": ""}, False),
        ({"ViewPosition": "LCC"}, False),
        ({"ViewPosition": "YY", "ViewCodeSequence": [code("R-10226")]}, False),
        ({"ViewPosition": "CC", "ViewCodeSequence": [code("X-1")]}, False),
        ({"ViewCodeSequence": [code("X-1")]}, True),
        ({"ViewCodeSequence": [code("", "")]}, False),
        ({"ViewCodeSequence": [code("R-10226", modifier="X-1")]}, True),
        ({"ViewCodeSequence": [code("R-10226")], "ViewModifierCodeSequence": [code("X")]}, True),
        ({"ViewPosition": "CC", "ViewModifierCodeSequence": [code("", "Push-back view")]}, True),
    ],
)
def test_views_of_unknown_names_are_doubted(tmp_path: Path, attributes: dict[str, Any], unknown: bool) -> None:
    image = read(tmp_path, **attributes)
    assert image.header is not None
    assert image.header.special == ((Special.UNKNOWN,) if unknown else ())
    assert any("a view of an unknown name" in each for each in image.warnings) == unknown


def test_empty_sequences_say_nothing(tmp_path: Path) -> None:
    empty = ["PartialViewCodeSequence", "SpecimenDescriptionSequence", "ViewCodeSequence"]
    assert header(tmp_path, **{each: [] for each in empty}) == header(tmp_path)
    assert header(tmp_path, ImageLaterality="r").laterality is Laterality.RIGHT
