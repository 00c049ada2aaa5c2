"""What a DICOM header says of a mammogram, as `Header`. Odd values are unknown, never an error."""

import math
import re
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

_VIEWS = {
    View.CC: ("399162004", "R10242", "CC", "LCC", "RCC", "CRANIOCAUDAL"),
    View.MLO: ("399368009", "R10226", "MLO", "LMLO", "RMLO", "MEDIOLATERALOBLIQUE"),
    View.ML: ("399260004", "R10224", "ML", "MEDIOLATERAL", "MEDIALLATERAL"),
    View.LM: ("399352003", "R10228", "LM", "LATEROMEDIAL"),
    View.LMO: ("399099002", "R10230", "LMO", "LATEROMEDIALOBLIQUE"),
    View.AT: ("399011000", "R102D1", "AT", "AXILLARYTAIL"),
}
"""SNOMED CT and, retired, SNOMED RT codes; names; meanings: PS3.16 CID 4014 and, for AT, 4015."""

_SPECIAL = {
    Special.MAGNIFICATION: ("399163009", "R102D6", "MAGNIFICATION"),
    Special.SPOT_COMPRESSION: ("399055006", "R102D7", "SPOTCOMPRESSION", "SPOT"),
    Special.IMPLANT_DISPLACED: ("399209000", "R102D5", "IMPLANTDISPLACED"),
    Special.SPECIMEN: ("127457009", "G8310", "SPECIMEN", "TISSUESPECIMENFROMBREAST"),
    Special.TANGENTIAL: ("399110001", "R102C2", "TANGENTIAL", "TAN"),
    Special.CLEAVAGE: ("399161006", "R102D2", "CLEAVAGE", "CV"),
    Special.ANTERIOR_COMPRESSION: ("441752004", "P200161", "ANTERIORCOMPRESSION"),
    Special.NIPPLE_IN_PROFILE: ("442581004", "R40AB3", "NIPPLEINPROFILE"),
    Special.INFRAMAMMARY_FOLD: ("442593008", "R40ABE", "INFRAMAMMARYFOLD"),
    Special.AXILLARY_TISSUE: ("442580003", "R40AB2", "AXILLARYTISSUE"),
    Special.ROLLED: (
        *("399197002", "R102D3", "ROLLEDLATERAL", "399226006", "R102D4", "ROLLEDMEDIAL"),
        *("414493004", "R102CA", "ROLLEDINFERIOR", "415670009", "R102C9", "ROLLEDSUPERIOR"),
    ),
    Special.EXAGGERATED: (
        *("399192008", "R1024A", "XCCL", "CRANIOCAUDALEXAGGERATEDLATERALLY"),
        *("399101009", "R1024B", "XCCM", "CRANIOCAUDALEXAGGERATEDMEDIALLY", "XCC"),
    ),
    Special.OTHER_PROJECTION: (
        *("399196006", "R10244", "FB", "CAUDOCRANIAL"),
        *("399188001", "R102D0", "SIO", "SUPEROLATERALTOINFEROMEDIALOBLIQUE"),
        *("441555000", "R40AAA", "ISO", "INFEROMEDIALTOSUPEROLATERALOBLIQUE"),
    ),
}
"""As `_VIEWS`, of what is no standard view: PS3.16 CID 4014 and 4015."""

_KNOWN = frozenset(word for words in (*_VIEWS.values(), *_SPECIAL.values()) for word in words)

_PADDLES = {
    Special.MAGNIFICATION: {"MAG", "MAGNIFICATION"},
    Special.SPOT_COMPRESSION: {"SPOT"},
    Special.BIOPSY: {"BIOPSY", "LOCALIZATION", "NEEDLE", "STEREO", "STEREOTACTIC"},
}
"""Words of Paddle Description (0018,11A4), which has no terms of its own."""

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
    spacing = numbers(dataset, "ImagerPixelSpacing") or numbers(dataset, "PixelSpacing")
    age = re.fullmatch(r"(\d{1,3})([DWMY])", text(dataset, "PatientAge") or "")
    intent, kind = text(dataset, "PresentationIntentType"), text(dataset, "SOPClassUID")
    return Header(
        patient_id=text(dataset, "PatientID"),
        study_id=text(dataset, "StudyInstanceUID"),
        laterality={one.value: one for one in Laterality}.get(side or ""),
        view=_view(dataset),
        age=int(age[1]) // _UNITS_A_YEAR[age[2]] if age else None,
        manufacturer=text(dataset, "Manufacturer"),
        spacing=(spacing[0], spacing[1]) if spacing[1:] and min(spacing) > 0 else None,
        for_processing=intent == "FOR PROCESSING" or kind in _FOR_PROCESSING,
        photometric=str(text(dataset, "PhotometricInterpretation")),
        special=_special(dataset),
        transfer_syntax=dataset.file_meta.TransferSyntaxUID.name,
    )


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
    strange = any((said := _words(each, *codes)) and _KNOWN.isdisjoint(said) for each in modifiers)
    return strange or (any(plain) and _KNOWN.isdisjoint(word for said in plain for word in said))


def _special(dataset: "Dataset") -> tuple[Special, ...]:
    """Return what makes this other than a standard view of a whole breast."""
    words = _view_words(dataset)
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
    return tuple(
        each
        for each in Special
        if told.get(each) or paddle & _PADDLES.get(each, set()) or any(word in _SPECIAL.get(each, ()) for word in words)
    )


def _yes(dataset: "Dataset", keyword: str) -> bool:
    return (text(dataset, keyword) or "").upper() in ("YES", "Y")


def _magnification(dataset: "Dataset") -> float:
    """Return how much larger the breast is at the detector, by (0018,1114) or by distances."""
    factor = numbers(dataset, "EstimatedRadiographicMagnificationFactor")
    detector = numbers(dataset, "DistanceSourceToDetector")
    breast = numbers(dataset, "DistanceSourceToPatient")
    if factor or not (detector and breast and breast[0] > 0):
        return next(iter(factor), 1)
    return detector[0] / breast[0]


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
    return int(next(iter(numbers(dataset, keyword)), default))
