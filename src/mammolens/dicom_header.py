"""What a DICOM header says of a mammogram, as `Header`. Odd values are unknown, never an error."""

import re
from typing import TYPE_CHECKING

import numpy as np

from mammolens.images import Header
from mammolens.records import Laterality, View

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"

_VIEWS = {
    View.CC: ("399162004", "R10242", "CC", "CRANIOCAUDAL"),
    View.MLO: ("399368009", "R10226", "MLO", "MEDIOLATERALOBLIQUE"),
    View.ML: ("399260004", "R10224", "ML", "MEDIOLATERAL", "MEDIALLATERAL"),
    View.LM: ("399352003", "R10228", "LM", "LATEROMEDIAL"),
    View.LMO: ("399099002", "R10230", "LMO", "LATEROMEDIALOBLIQUE"),
    View.AT: ("399011000", "R102D1", "AT", "AXILLARYTAIL"),
}
"""SNOMED CT and, retired, SNOMED RT codes; names; meanings: PS3.16 CID 4014 and, for AT, 4015."""

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
        for_processing=intent == "FOR PROCESSING" or kind == _FOR_PROCESSING,
        photometric=str(text(dataset, "PhotometricInterpretation")),
        transfer_syntax=dataset.file_meta.TransferSyntaxUID.name,
    )


def _view(dataset: "Dataset") -> View | None:
    """Return the view by its modifiers and codes, else by View Position, else by their meanings."""
    codes = list(dataset.get("ViewCodeSequence") or ())
    codes = [part for code in codes for part in code.get("ViewModifierCodeSequence") or ()] + codes
    said = [text(code, "CodeValue") for code in codes] + [text(dataset, "ViewPosition")]
    said += [text(code, "CodeMeaning") for code in codes]
    words = [re.sub(r"[^A-Z0-9]", "", (word or "").upper()) for word in said]
    return next((view for word in words for view in _VIEWS if word in _VIEWS[view]), None)


def text(dataset: "Dataset", keyword: str) -> str | None:
    """Return an element as text, or None where it is absent or empty."""
    value = dataset.get(keyword)
    return (str(value).strip() or None) if value is not None else None


def numbers(dataset: "Dataset", keyword: str) -> tuple[float, ...]:
    """Return an element's finite numbers, or none where it is absent, empty or malformed."""
    try:
        values = np.atleast_1d(np.asarray(dataset.get(keyword), dtype=np.float64))
    except (ValueError, TypeError):
        return ()
    return tuple(values.tolist()) if np.isfinite(values).all() else ()


def whole(dataset: "Dataset", keyword: str, default: int) -> int:
    """Return an element as a whole number, or `default` where it is absent or malformed."""
    return int(next(iter(numbers(dataset, keyword)), default))
