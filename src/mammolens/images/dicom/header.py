"""What a DICOM header says of a mammogram, as `Header`. Odd values are unknown, never an error."""

import math
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mammolens.images.image import Header
from mammolens.records import Laterality, Special, View

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FOR_PROCESSING = {
    *("1.2.840.10008.5.1.4.1.1.1.2.1", "1.2.840.10008.5.1.4.1.1.1.1.1"),
    "1.2.840.10008.5.1.4.1.1.13.1.5",
}
"""Classes of raw pixels: mammograms, other radiographs, projections of tomosynthesis units."""

_TERMS = tomllib.loads(Path(__file__).with_name("views.toml").read_text(encoding="utf-8"))
_VIEWS = {View[name]: words for name, words in _TERMS["views"].items()}
_SPECIAL = {Special[name]: words for name, words in _TERMS["special"].items()}
_PADDLES = {Special[name]: words for name, words in _TERMS["paddles"].items()}
KNOWN_VIEWS = frozenset(word for words in (*_VIEWS.values(), *_SPECIAL.values()) for word in words)
"""Words that say which view a picture shows, as capital letters and digits."""

KNOWN_PADDLES = frozenset(word for words in _PADDLES.values() for word in words)
"""Words that say what a paddle is for."""

MODALITIES = frozenset(_TERMS["modalities"])
"""Modalities that may be called by name."""

_MAKERS = frozenset(_TERMS["makers"])

_MAGNIFIED = 1.3
"""Pictures in contact are magnified by 1.1 at most, magnification views by 1.5 to 2."""

_USUAL = {"SamplesPerPixel": 1, "PlanarConfiguration": 0, "PixelRepresentation": 0}

_NAMES = (
    *("Modality", "PhotometricInterpretation", "PresentationIntentType", "PresentationLUTShape"),
    *("ImageLaterality", "Laterality"),
)

_UNITS_A_YEAR = {"Y": 1, "M": 12, "W": 52, "D": 365}
"""Of an Age String such as ``045Y`` or ``018M`` (PS3.5 6.2)."""


def header_of(dataset: "Dataset") -> Header:
    """Return what the header says."""
    side = text(dataset, "ImageLaterality") or text(dataset, "Laterality")
    intent, kind = text(dataset, "PresentationIntentType"), text(dataset, "SOPClassUID")
    return Header(
        patient_id=text(dataset, "PatientID"),
        study_id=text(dataset, "StudyInstanceUID"),
        laterality={one.value: one for one in Laterality}.get(side or ""),
        view=_view(dataset),
        age=_age(dataset),
        manufacturer=_maker(dataset),
        spacing=spacing_of(dataset),
        for_processing=intent == "FOR PROCESSING" or kind in _FOR_PROCESSING,
        photometric=str(text(dataset, "PhotometricInterpretation")),
        special=_special(dataset),
        transfer_syntax=dataset.file_meta.TransferSyntaxUID.name,
    )


def spacing_of(dataset: "Dataset") -> tuple[float, float] | None:
    """Return the distance in mm of rows and of columns, at the detector where that is told; None where neither is."""
    spacing = numbers(dataset, "ImagerPixelSpacing") or numbers(dataset, "PixelSpacing")
    return (spacing[0], spacing[1]) if spacing[1:] and min(spacing) > 0 else None


def _maker(dataset: "Dataset") -> str | None:
    """Return by which makers a machine is, as far as they are known: the element itself may say anything."""
    words = re.findall(r"[A-Z]+", (text(dataset, "Manufacturer") or "").upper())
    return " ".join(word for word in words if word in _MAKERS) or None


def _age(dataset: "Dataset") -> int | None:
    """Return whole years by Patient's Age, else from the birth date to that of the study or picture."""
    said = re.fullmatch(r"(\d{1,3})([DWMY])", text(dataset, "PatientAge") or "")
    if said and int(said[1]):  # 000Y is no age
        return int(said[1]) // _UNITS_A_YEAR[said[2]]
    born, day = _date(dataset, "PatientBirthDate"), _date(dataset, "StudyDate") or _date(dataset, "AcquisitionDate")
    if born is None or day is None or day < born:
        return None
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def _date(dataset: "Dataset", keyword: str) -> date | None:
    """Return a date such as ``19580203``, or ``1958.02.03`` as it was written before DICOM 3.0."""
    said = re.fullmatch(r"(\d{4})(\.?)(\d\d)\2(\d\d)", text(dataset, keyword) or "")
    try:
        return date(int(said[1]), int(said[3]), int(said[4])) if said else None
    except ValueError:  # there is no such day
        return None


def _view(dataset: "Dataset") -> View | None:
    """Return the view by its modifiers and codes, else by View Position, else by their meanings."""
    words = _view_words(dataset)
    return next((view for word in words for view in _VIEWS if word in _VIEWS[view]), None)


def _view_words(dataset: "Dataset") -> list[str]:
    """Return what the header calls the view, the most certain first, as letters and digits."""
    modifiers, views = _view_codes(dataset)
    codes = [*modifiers, *views]
    said = [word for code in codes for word in _words(code, "CodeValue", "LongCodeValue")]
    said += _words(dataset, "ViewPosition")
    return said + [word for code in codes for word in _words(code, "CodeMeaning")]


def _view_codes(dataset: "Dataset") -> tuple[list["Dataset"], list["Dataset"]]:
    """Return the items that say how a view is modified, and those that say which it is."""
    views = list(dataset.get("ViewCodeSequence") or ())
    holders = (*views, dataset)
    return [part for each in holders for part in each.get("ViewModifierCodeSequence") or ()], views


def _words(holder: "Dataset", *keywords: str) -> list[str]:
    """Return what elements say, as capital letters and digits; nothing for those that are empty."""
    said = (re.sub(r"[^A-Z0-9]", "", (text(holder, each) or "").upper()) for each in keywords)
    return list(filter(None, said))


def _has_unknown_view(dataset: "Dataset") -> bool:
    """Tell whether there is a modifier or, where no code is known, a view of an unknown name."""
    modifiers, views = _view_codes(dataset)
    codes = ("CodeValue", "LongCodeValue", "CodeMeaning")
    plain = [_words(each, *codes) for each in views] + [_words(dataset, "ViewPosition")]
    strange = any((said := _words(each, *codes)) and KNOWN_VIEWS.isdisjoint(said) for each in modifiers)
    return strange or (any(plain) and KNOWN_VIEWS.isdisjoint(word for said in plain for word in said))


def _special(dataset: "Dataset") -> tuple[Special, ...]:
    """Return what makes this other than a standard view of a whole breast."""
    words = set(_view_words(dataset))
    paddle = set(re.findall(r"[A-Z]+", (text(dataset, "PaddleDescription") or "").upper()))
    kinds = " ".join(image_type(dataset))
    told = {
        Special.IMPLANT: _yes(dataset, "BreastImplantPresent"),
        Special.PARTIAL: _yes(dataset, "PartialView") or dataset.get("PartialViewCodeSequence"),
        Special.SPECIMEN: "SPECIMEN" in (text(dataset, "BodyPartExamined") or "").upper()
        or dataset.get("SpecimenDescriptionSequence"),
        Special.MAGNIFICATION: _magnification(dataset) >= _MAGNIFIED,
        Special.BIOPSY: "STEREO" in kinds or "BIOPSY" in kinds,
        Special.SUBTRACTION: "SUBTRACT" in kinds or "RECOMBINED" in kinds,
        Special.UNKNOWN: _has_unknown_view(dataset),
    }
    named = {each for each, terms in _SPECIAL.items() if not words.isdisjoint(terms)}
    named |= {each for each, terms in _PADDLES.items() if not paddle.isdisjoint(terms)}
    return tuple(each for each in Special if told.get(each) or each in named)


def _yes(dataset: "Dataset", keyword: str) -> bool:
    return (text(dataset, keyword) or "").upper() in ("YES", "Y")


def _magnification(dataset: "Dataset") -> float:
    """Return how much larger the breast is at the detector, by (0018,1114) or by distances."""
    detector, breast = number(dataset, "DistanceSourceToDetector", 0), number(dataset, "DistanceSourceToPatient", 0)
    usual = detector / breast if detector and breast > 0 else 1
    return number(dataset, "EstimatedRadiographicMagnificationFactor", usual)


def image_type(dataset: "Dataset") -> tuple[str, ...]:
    """Return the values of Image Type, in capitals."""
    return tuple(re.findall(r"[A-Z0-9_]+", (text(dataset, "ImageType") or "").upper()))


def add_frame_groups(dataset: "Dataset") -> None:
    """Add what enhanced objects say of their first frame elsewhere, where nothing is said yet.

    What single-frame objects have at the top is in functional groups there (PS3.3 C.7.6.16).
    """
    for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in next(iter(dataset.get(keyword) or ()), ()):
            macro = group.value[0] if group.VR == "SQ" and group.value else ()
            for element in macro:
                there = dataset.get_item(element.tag)  # as it is: it may be malformed
                if there is None or there.value in (None, b"", ""):
                    dataset.add(element)
    if "FrameLaterality" in dataset and not text(dataset, "ImageLaterality"):
        dataset.ImageLaterality = dataset.FrameLaterality


def complete(dataset: "Dataset") -> None:
    """Fill in what a file leaves out and other viewers take for granted; put names in capitals."""
    for keyword, usual in _USUAL.items():
        setattr(dataset, keyword, whole(dataset, keyword, usual))
    for keyword in _NAMES:
        if named := text(dataset, keyword):
            setattr(dataset, keyword, named.upper())


def text(dataset: "Dataset", keyword: str) -> str | None:
    """Return an element as text, or None where it is absent or empty."""
    value = dataset.get(keyword)
    return (str(value).strip() or None) if value is not None else None


def numbers(dataset: "Dataset", keyword: str) -> tuple[float, ...]:
    """Return an element's finite numbers, or none where it is absent, empty or malformed."""
    values = values_of(dataset, keyword)
    return values if np.isfinite(values).all() else ()


def number(dataset: "Dataset", keyword: str, default: float) -> float:
    """Return an element's first number, or `default` where it is absent, empty or malformed."""
    return next(iter(numbers(dataset, keyword)), default)


def values_of(dataset: "Dataset", keyword: str) -> tuple[float, ...]:
    """Return an element's numbers, NaN for each that is none; a decimal comma counts as a point."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, OverflowError):  # what pydicom says of a malformed number
        value = dataset.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("latin-1").split("\\")
    if value is None or isinstance(value, str | int | float):
        value = [] if value in (None, "") else [value]
    return tuple(_number(str(each)) for each in value)


def _number(written: str) -> float:
    try:
        return float(written.replace(",", ".").strip(" \0"))
    except ValueError:
        return math.nan


def whole(dataset: "Dataset", keyword: str, default: int) -> int:
    """Return an element as a whole number, or `default` where it is absent or malformed."""
    return int(number(dataset, keyword, default))
