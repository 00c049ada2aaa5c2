"""A DICOM header without a person: a new one, of nothing but what is known to say nothing of anybody.

The Basic Application Level Confidentiality Profile of PS3.15 Annex E, with age and sex of its Retain Patient
Characteristics Option. What the profile's table would let stay, and `header.toml` does not name, goes as well.
"""

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mammolens.data.identity import patient_of
from mammolens.deidentification.pseudonyms import Pseudonyms
from mammolens.images.dicom.header import KNOWN_PADDLES, KNOWN_VIEWS, header_of, image_type, numbers, text, values_of
from mammolens.images.dicom.lut import Integers, entries_of, is_lossy, table_of, windows_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

OLDEST = 90
"""Years: who is older is said to be so old (45 CFR 164.514(b)(2)(i)(C))."""

_KEPT = tomllib.loads(Path(__file__).with_name("header.toml").read_text(encoding="utf-8"))
_PROFILE = {"113100": "Basic Application Confidentiality Profile", "113108": "Retain Patient Characteristics Option"}
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_SCHEMES = ("SCT", "SRT", "SNM3", "99SDM", "DCM")
_SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
_UNKNOWN = "UNKNOWN"  # as strange as what it stands for
_MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"
_WORDS = 16  # bits


def bare_dataset(old: "Dataset", stored: Integers, names: Pseudonyms, file: str) -> "FileDataset":
    """Return a data set with the same pixels, in Explicit VR Little Endian, and nobody's name.

    Args:
        old: as `images.dicom.reader.read_stored` returns it.
        stored: likewise.
        names: of patients and identifiers.
        file: what stands for the old file; identifies a picture that has no identifier.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: PLC0415 - takes 0.2 s
    from pydicom.uid import UID, ExplicitVRLittleEndian  # noqa: PLC0415

    new = FileDataset("", {}, preamble=bytes(128), file_meta=FileMetaDataset())
    for keyword, value in _KEPT["constants"].items():
        setattr(new, keyword, value)
    _add_words(new, old)
    _add_numbers(new, old)
    _add_person(new, old, names)
    for keyword in _UIDS:
        if said := text(old, keyword):
            setattr(new, keyword, names.uid(said))
    kind = UID(text(old, "SOPClassUID") or "")
    new.SOPClassUID = kind if kind.name != kind else UID(_MAMMOGRAM)
    new.SOPInstanceUID = new.get("SOPInstanceUID") or names.uid(file)
    new.file_meta.MediaStorageSOPClassUID = new.SOPClassUID
    new.file_meta.MediaStorageSOPInstanceUID = new.SOPInstanceUID
    new.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    _add_views(new, old)
    _add_shades(new, old)
    _add_pixels(new, old, stored)
    new.DeidentificationMethodCodeSequence = [_code(value, "DCM", meaning) for value, meaning in _PROFILE.items()]
    return new


def _add_words(new: "Dataset", old: "Dataset") -> None:
    for keyword, terms in _KEPT["terms"].items():
        if (said := (text(old, keyword) or "").upper()) in terms:
            setattr(new, keyword, said)
    for keyword, terms in _KEPT["words"].items():
        said = " ".join(image_type(old)) if keyword == "ImageType" else text(old, keyword) or ""
        named = [term for term in terms if re.search(rf"(?<![A-Z]){term}(?![A-Z])", said.upper())]
        setattr(new, keyword, named if keyword == "ImageType" else " ".join(named))
    for keyword, pattern in _KEPT["patterns"].items():
        values = re.findall(r"\w+", text(old, keyword) or "")
        if values and all(re.fullmatch(pattern, value) for value in values):
            setattr(new, keyword, values)
    if old.get("SpecimenDescriptionSequence"):
        new.BodyPartExamined = "BREAST SPECIMEN"
    if old.get("PartialViewCodeSequence"):
        new.PartialView = "YES"


def _add_numbers(new: "Dataset", old: "Dataset") -> None:
    for keyword in _KEPT["numbers"]["decimal"]:
        if found := numbers(old, keyword):
            setattr(new, keyword, _decimals(found))
    for keyword in _KEPT["numbers"]["whole"]:
        if found := numbers(old, keyword):
            setattr(new, keyword, int(found[0]))


def _add_person(new: "Dataset", old: "Dataset", names: Pseudonyms) -> None:
    header = header_of(old)
    patient = patient_of(header)
    new.Manufacturer = header.manufacturer or ""
    new.PatientID = new.PatientName = names.patient(patient) if patient else ""
    new.PatientAge = f"{min(header.age, OLDEST):03d}Y" if header.age else ""


def _add_views(new: "Dataset", old: "Dataset") -> None:
    """Keep codes, positions and paddles that are known by name; others become one that nobody knows."""
    new.AnatomicRegionSequence = [_code("76752008", "SCT", "Breast")]
    if said := text(old, "ViewPosition"):
        new.ViewPosition = _known(said)
    paddles = re.findall(r"[A-Z]+", (text(old, "PaddleDescription") or "").upper())
    if known := KNOWN_PADDLES.intersection(paddles):
        new.PaddleDescription = " ".join(sorted(known))
    views = old.get("ViewCodeSequence") or ()
    if views:
        new.ViewCodeSequence = [_known_code(each) for each in views]
    for there, here in ((old, new), *zip(views, new.get("ViewCodeSequence") or (), strict=True)):
        if (modifiers := there.get("ViewModifierCodeSequence") or []) or here is not new:
            here.ViewModifierCodeSequence = [_known_code(each) for each in modifiers]


def _known(said: str | None) -> str:
    if said is None:
        return ""
    known = re.sub(r"[^A-Z0-9]", "", said.upper()) in KNOWN_VIEWS and re.fullmatch(r"[\w ./()-]*", said, re.ASCII)
    return said if known else _UNKNOWN


def _known_code(old: "Dataset") -> "Dataset":
    scheme = text(old, "CodingSchemeDesignator")
    value = _known(text(old, "CodeValue") or text(old, "LongCodeValue"))
    usual = "SRT" if value[:1].isalpha() else "SCT"
    return _code(value, scheme if scheme in _SCHEMES else usual, _known(text(old, "CodeMeaning")))


def _code(value: str, scheme: str, meaning: str) -> "Dataset":
    from pydicom.dataset import Dataset  # noqa: PLC0415

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _add_shades(new: "Dataset", old: "Dataset") -> None:
    """Keep the tables and windows that are heeded, and say what goes without saying."""
    from pydicom.dataset import Dataset  # noqa: PLC0415

    for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
        if table := table_of(old, keyword):
            entries, bits = entries_of(old, table)
            item = Dataset()
            first = int(numbers(table, "LUTDescriptor")[1]) % 2**_WORDS
            item.add_new("LUTDescriptor", "US", [len(entries) % 2**_WORDS, first, bits])
            item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
            if keyword == "ModalityLUTSequence":
                item.ModalityLUTType = "US"
            setattr(new, keyword, [item])
    if "ModalityLUTSequence" not in new:
        new.RescaleSlope, new.RescaleIntercept = new.get("RescaleSlope") or 1, new.get("RescaleIntercept") or 0
        new.RescaleType = "US"
    if shape := _SHAPES.get(new.get("PhotometricInterpretation", "")):
        new.PresentationLUTShape = new.get("PresentationLUTShape") or shape
    if windows := [window[1:] for window in windows_of(old) if window]:
        new.WindowCenter, new.WindowWidth = (_decimals(ends) for ends in zip(*windows, strict=True))


def _add_pixels(new: "Dataset", old: "Dataset", stored: Integers) -> None:
    signed, colour = bool(old.PixelRepresentation), stored.ndim > 2  # noqa: PLR2004
    allocated = max(int(old.BitsAllocated), 8 if old.BitsStored <= 8 else _WORDS)  # noqa: PLR2004
    new.Rows, new.Columns, new.SamplesPerPixel = *stored.shape[:2], 3 if colour else 1
    new.BitsAllocated, new.BitsStored, new.HighBit = allocated, int(old.BitsStored), int(old.BitsStored) - 1
    new.PixelRepresentation = int(signed)
    if colour:
        new.PhotometricInterpretation, new.PlanarConfiguration = "RGB", 0
    new.LossyImageCompression = "01" if is_lossy(old) else "00"
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        for value in values_of(old, keyword)[:1]:
            if np.isfinite(value):
                low = -(2 ** (allocated - 1)) if signed else 0
                new.add_new(keyword, "SS" if signed else "US", (int(value) - low) % 2**allocated + low)
    data = stored.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    new.add_new("PixelData", "OW", data + b"\0" * (len(data) % 2))


def _decimals(values: tuple[float, ...]) -> list[object]:
    from pydicom.valuerep import DSfloat  # noqa: PLC0415

    return [DSfloat(value, auto_format=True) for value in values]
