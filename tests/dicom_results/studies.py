"""Examinations of phantoms as a mammography unit stores them, and what their results say."""

import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MammographyCADSRStorage,
)

from mammolens.dicom_results.results import Results
from mammolens.images.archives import pictures_in
from mammolens.levels import ServedLevel
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view
from mammolens.records import Laterality, Prediction
from mammolens.serving.predictor import Predictor

STUDY = "1.2.826.0.1.3680043.8.498.1"
DATES = (
    *("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributingEquipmentSequence"),
    *("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)
"""What changes in a result from one moment to the next."""

NAME, PATIENT = "Østergård^Ännchen", "P-4711"


def stored(number: int, side: Laterality, view: int = 0, size: int = 480) -> NDArray[np.uint16]:
    """The pixels of one view of a patient with a tumor, in 12 bits."""
    patient = draw_patient(number, seed=7, tumor_share=1)
    breast = patient.left if side is Laterality.LEFT else patient.right
    return draw_view(breast, VIEWS[view], size=size).pixels.astype(np.uint16) * 16


def mammogram(pixels: NDArray[np.uint16], side: Laterality = Laterality.LEFT, view: int = 0, **changes: Any) -> Dataset:
    """A mammogram with a patient; an attribute that is None is left out."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    series = f"{STUDY}.{list(Laterality).index(side) + 1}.{view + 1}"
    told = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
        "SOPInstanceUID": f"{series}.1",
        "StudyDate": "20260102",
        "StudyTime": "101112",
        "AccessionNumber": "A1",
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "PatientName": NAME,
        "PatientID": PATIENT,
        "PatientBirthDate": "19600203",
        "PatientSex": "F",
        "PatientAge": "065Y",
        "ViewPosition": VIEWS[view].value,
        "ImagerPixelSpacing": [0.07, 0.07],
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": series,
        "StudyID": "7",
        "InstanceNumber": 1,
        "PatientOrientation": ["A", "F"] if side is Laterality.LEFT else ["P", "F"],
        "ImageLaterality": side.value,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    with warnings.catch_warnings(action="ignore"):  # pydicom remarks on what should not be written
        for keyword, value in (told | changes).items():
            if value is not None:
                setattr(one, keyword, value)
        one.file_meta.MediaStorageSOPClassUID = one.get("SOPClassUID", "1.2.3")
        one.file_meta.MediaStorageSOPInstanceUID = one.get("SOPInstanceUID", "1.2.3")
    one["PixelData"].VR = "OW"
    return one


def save(one: Dataset, path: Path) -> Path:
    """Write a data set as a file, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(action="ignore"):
        one.save_as(path, enforce_file_format=True)
    return path


def examination(folder: Path) -> list[Path]:
    """Four views of a patient, as files."""
    return [
        save(mammogram(stored(0, side, view), side, view), folder / f"{side}-{view}.dcm")
        for side in Laterality
        for view in range(2)
    ]


@dataclass(frozen=True)
class Made:
    """What was answered for an examination, and the results of it."""

    exam: Prediction
    results: Results
    files: Sequence[Dataset]

    def of(self, kind: str) -> list[Dataset]:
        return [one for one in self.files if one.SOPClassUID == kind]

    @property
    def report(self) -> Dataset:
        (one,) = self.of(MammographyCADSRStorage)
        return one


def without_dates(result: Dataset) -> Dataset:
    """Take what changes from one moment to the next out of a result, and return it."""
    for keyword in DATES:
        result.pop(keyword, None)
    return result


def made_of(predictor: Predictor, items: Any, folder: Path) -> Made:
    results = Results.begin(folder, predictor)
    (exam, *_) = predictor.answers(pictures_in(items), level=ServedLevel.EXAM, also=results.add)
    results.finish()
    return Made(exam, results, [dcmread(path) for path in results.written])


def items(item: Dataset) -> Iterator[Dataset]:
    """All content items below one."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from items(child)


def meaning(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if "ConceptNameCodeSequence" in item else ""


def named(item: Dataset, name: str) -> list[Dataset]:
    return [one for one in items(item) if meaning(one) == name]


def value(item: Dataset) -> str:
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    return str(item.MeasuredValueSequence[0].NumericValue) if item.ValueType == "NUM" else str(item.TextValue)


def percent(probability: float | None) -> str:
    assert probability is not None
    return repr(round(100 * probability, 4))


def findings(report: Dataset) -> dict[str, Dataset]:
    """What the report finds in each picture, by the picture's SOP Instance UID."""
    (library,) = named(report, "Image Library")
    found = {}
    for finding in named(report, "Single Image Finding"):
        (center,) = named(finding, "Center")
        path = center.ContentSequence[0].ReferencedContentItemIdentifier
        assert report.ContentSequence[path[1] - 1] is library
        found[library.ContentSequence[path[2] - 1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID] = finding
    return found


def center_of(made: Made) -> tuple[float, float]:
    (finding,) = findings(made.report).values()
    column, row = named(finding, "Center")[0].GraphicData
    return column, row


def installed(program: str, package: str) -> str:
    """Where a program is."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (apt-get install {package})")
    return found


def errors(path: Path) -> list[str]:
    """What dicom3tools finds wrong with a file."""
    said = subprocess.run([installed("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, check=False)
    return [line for line in said.stderr.splitlines() if line.startswith("Error")]
