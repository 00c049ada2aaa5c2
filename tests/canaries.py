"""Mammograms full of names that must not come out anywhere, and a search for them in whatever was written."""

import base64
import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

NAME, DAY, TIME, ROOT = "CANARY", "19110307", "112233.4445", "1.2.840.777777"
"""What names, dates, times and identifiers begin with."""

PATTERN = re.compile("|".join(map(re.escape, (NAME, DAY, TIME, ROOT))).encode(), re.IGNORECASE)

PATIENT, STUDY = f"{NAME}-PATIENT-7", f"{ROOT}.99999"
MEANT = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
    "Modality": "MG",
    "PresentationIntentType": "FOR PRESENTATION",
    "PatientID": PATIENT,
    "StudyInstanceUID": STUDY,
    "PatientAge": "043Y",
    "PatientSex": "F",
    "ImageLaterality": "L",
    "ViewPosition": "MLO",
    "ImagerPixelSpacing": [0.1, 0.1],
    "WindowCenter": 2047.5,
    "WindowWidth": 4095,
    "PhotometricInterpretation": "MONOCHROME2",
    "ImageType": ["ORIGINAL", "PRIMARY", NAME],
    "Manufacturer": f"HOLOGIC {NAME}",
    "BodyPartExamined": "BREAST",
    "PixelPaddingValue": 0,
    "PatientOrientation": ["A", "FR"],
    "BurnedInAnnotation": "NO",
    "PixelIntensityRelationship": "LIN",
    "PixelIntensityRelationshipSign": 1,
    "DetectorType": "DIRECT",
}
"""What a picture needs; where it is text, with a name beside it."""

_LEFT_OUT = {"Laterality", "FrameLaterality", "PresentationLUTShape", "VOILUTFunction", "PaddleDescription"}
_LEFT_OUT |= {"RescaleSlope", "RescaleIntercept", "PixelSpacing", "LossyImageCompressionRatio", "NumberOfFrames"}
_NUMBER = count()


def _planted(vr: str) -> Any:
    name = f"{NAME}{next(_NUMBER)}"
    return {
        "PN": f"{name}^JANE",
        "DA": DAY,
        "TM": TIME,
        "DT": DAY + TIME,
        "AS": "077Y",
        "UI": f"{ROOT}.{name[6:]}",
    }.get(vr, name)


def plant(dataset: Dataset) -> None:
    """Put a name, date or identifier into every element of the dictionary that can hold one and has no value yet."""
    text = ("PN", "LO", "SH", "DA", "TM", "DT", "AS", "UI", "LT", "ST", "UT", "UC", "UR", "AE", "CS")
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in text and tag >> 16 > 7 and keyword not in _LEFT_OUT and tag not in dataset:
            dataset.add_new(tag, vr, _planted(vr))
    for mask, (vr, *_) in RepeatersDictionary.items():
        if vr in text:
            dataset.add_new(int(mask.replace("x", "0"), 16), vr, _planted(vr))


def full_dataset(stored: np.ndarray, **changes: Any) -> FileDataset:
    """Return a mammogram with names wherever a header can hold one: sequences, private elements, overlays, padding."""
    dataset = FileDataset("", {}, preamble=f"{NAME}PREAMBLE".encode().ljust(128), file_meta=FileMetaDataset())
    with warnings.catch_warnings(action="ignore"):
        for keyword, value in (MEANT | changes).items():
            setattr(dataset, keyword, value)
        plant(dataset)
        inner = Dataset()
        plant(inner)
        inner.RequestAttributesSequence = [Dataset()]
        plant(inner.RequestAttributesSequence[0])
        dataset.RequestAttributesSequence = dataset.ReferencedStudySequence = [inner]
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "R-10226", NAME, f"{NAME} oblique"
        dataset.ViewCodeSequence = [code]
        dataset.private_block(0x0019, NAME, create=True).add_new(1, "LO", f"{NAME}PRIVATE")
        dataset.private_block(0x7FE1, NAME, create=True).add_new(1, "OB", f"{NAME}PRIVATE".encode())
        dataset.add_new(0x60003000, "OW", f"{NAME}OVERLAYS".encode())
        dataset.add_new(0xFFFCFFFC, "OB", f"{NAME}TRAILING".encode().ljust(20))
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *stored.shape, 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        overlaid = stored.astype("<u2") | (np.indices(stored.shape).sum(0) % 2 << 15).astype("<u2")
        dataset.add_new("PixelData", "OW", overlaid.tobytes())
        meta = dataset.file_meta
        meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle = ExplicitVRLittleEndian, NAME
        meta.PrivateInformationCreatorUID, meta.PrivateInformation = UID(f"{ROOT}.1"), f"{NAME}META".encode()
    return dataset


def write_dicom(path: Path, stored: np.ndarray, **changes: Any) -> Path:
    """Write such a mammogram of 12 bits."""
    with warnings.catch_warnings(action="ignore"):
        full_dataset(stored, **changes).save_as(path, enforce_file_format=True)
    return path


def write_jpeg_dicom(path: Path, stored: np.ndarray) -> Path:
    """Write such a mammogram as JPEG, with a name in a comment of the picture itself."""
    dataset, file = full_dataset(stored), io.BytesIO()
    Pillow.fromarray((stored >> 4).astype(np.uint8)).save(file, "JPEG", quality=90, comment=f"{NAME}JPEG".encode())
    with warnings.catch_warnings(action="ignore"):
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.WindowCenter, dataset.WindowWidth = 127.5, 255
        dataset.file_meta.TransferSyntaxUID = UID(JPEGBaseline8Bit)
        dataset.PixelData = encapsulate([file.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path, enforce_file_format=True)
    return path


def write_raster(path: Path, pixels: np.ndarray) -> Path:
    """Write a PNG, JPEG or TIFF file of 8 bits with names in its EXIF data, profile, text and comment."""
    picture, text = Pillow.fromarray(pixels), PngInfo()
    text.add_text("Patient", f"{NAME}TEXT")
    text.add_text("Comment", f"{NAME}ZIPPED" * 20, zip=True)
    text.add_itxt("Title", f"{NAME}ITXT", zip=True)
    exif = picture.getexif()
    exif[0x010E], exif[0x013B], exif[0x0132] = f"{NAME}EXIF", f"{NAME}ARTIST", f"{DAY} {TIME}"
    options: dict[str, Any] = {"exif": exif, "icc_profile": f"{NAME}PROFILE".encode().ljust(200)}
    suffix = path.suffix.lower()
    options |= {"pnginfo": text} if suffix == ".png" else {"comment": f"{NAME}COMMENT"} if suffix == ".jpg" else {}
    if suffix == ".tif":
        options["description"] = f"{NAME}DESCRIPTION"
    picture.save(path, **options)
    return path


def leaks(data: bytes, name: str = "") -> set[str]:
    """Return what is found of names in bytes, and in all that these hold: archives, tables, pictures, pages."""
    found = {match.decode() for match in PATTERN.findall(data)}
    found |= {match.decode() for match in PATTERN.findall(data.replace(b"\0", b""))}  # UTF-16
    for inner in _within(data, name):
        found |= leaks(inner)
    return found


def _within(data: bytes, name: str) -> Iterator[bytes]:
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield " ".join(archive.namelist()).encode()
            yield from (archive.read(each) for each in archive.namelist())
    if data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    if data.startswith(b"PAR1"):
        yield pd.read_parquet(io.BytesIO(data)).to_csv().encode()
    if data.startswith(b"\x89PNG"):
        yield from _chunks(data)
    if name.endswith((".html", ".svg", ".md")):
        yield from (base64.b64decode(each) for each in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data))


def _chunks(data: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 8 : place + 8 + length]
        for begin in (match.start() for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", body[:200])):
            with suppress(zlib.error):
                yield zlib.decompress(body[begin:])
        place += length + 12


def leaks_below(*folders: Path) -> dict[str, set[str]]:
    """Return, of each file below folders, what it holds of names; the names of files and folders count."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            relative = str(path.relative_to(folder))
            told = leaks(relative.encode())
            told |= leaks(path.read_bytes(), path.name) if path.is_file() else set()
            if told:
                found[relative] = told
    return found
