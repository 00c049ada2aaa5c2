"""Answers for the pictures of a study as a Mammography CAD SR (PS3.16 TID 4000), which highdicom does not write.

Numbers are those of the answers, in percent, as the template has them: six digits of a probability are four behind
the point.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom import SOPClass
from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    DateContentItem,
    ImageContentItem,
    NumContentItem,
    ScoordContentItem,
    TextContentItem,
)
from highdicom.sr.utils import collect_evidence
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, MammographyCADSRStorage

from mammolens import __version__
from mammolens.dicom_results.maker import RESEARCH, Maker
from mammolens.dicom_results.source import Source
from mammolens.levels import ServedLevel
from mammolens.records import LABEL_NAMES, ImageWarning, Laterality, Prediction, Reason, View

_SERIES = 9701  # number of the series
_CONTAINS, _PROPERTY, _INFERRED = "CONTAINS", "HAS PROPERTIES", "INFERRED FROM"
_CONTEXT, _MODIFIER, _SELECTED = "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "SELECTED FROM"

_LIBRARY = (1, 2)
"""Where the image library stands in the tree: by-reference items name a picture by its place (PS3.3 C.17.3.2.5)."""

_Pictures = tuple[Code, Sequence[int]]  # what a group of them is called, and their numbers

_PERCENT = Code("%", "UCUM", "Percent")
_SIDES = {Laterality.LEFT: codes.SCT.LeftBreast, Laterality.RIGHT: codes.SCT.RightBreast}
_VIEWS = {
    View.CC: codes.cid4014.CranioCaudal,
    View.MLO: codes.cid4014.MedioLateralObliqueProjection,
    View.ML: codes.cid4014.MedioLateralProjection,
    View.LM: codes.cid4014.LateroMedial,
    View.LMO: codes.cid4014.LateroMedialOblique,
}
_IMPRESSION = Code("111034", "DCM", "Individual Impression/Recommendation")  # pydicom's have a space of no width
_ANALYSIS = Code("111234", "DCM", "Overall Impression/Recommendation Analysis")
_DENSITY = codes.SCT.MammographyBreastDensity
"""What a place is called that has no shape of its own: the nearest that CID 6014 has, and that workstations mark."""

_AGGREGATED = {
    ServedLevel.BREAST: "Mean of the pictures of the breast",
    ServedLevel.EXAM: "The larger of the breasts",
}
_OF_EXAMINATIONS = (ImageWarning.MISSING_VIEW, ImageWarning.DOUBLED_VIEW, ImageWarning.AGES)
"""Warnings of what pictures are together, those that name no file."""

_CENTER = "Center: where the map of the network is largest in this picture. Not a lesion outline."


@dataclass(frozen=True, eq=False)
class Examined:
    """The pictures of one study, and what is said of them.

    Attributes:
        exam: the answer for the examination; None where no picture could be read.
        sources: the pictures.
        besides: pictures that have a say in the examination, and are no DICOM.
    """

    exam: Prediction | None
    sources: Sequence[Source]
    besides: int = 0


def cad_report(examined: Examined, maker: Maker) -> SOPClass:
    """Return the report of one examination."""
    headers = [one.header for one in examined.sources]
    first = headers[0]
    said = *(header.SOPInstanceUID for header in headers), *_lines(examined, maker)
    made = SOPClass(
        study_instance_uid=first.StudyInstanceUID,
        sop_class_uid=MammographyCADSRStorage,
        modality="SR",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=first.SpecificCharacterSet,
        **maker.identified("CAD report", _SERIES, first.StudyInstanceUID, *said),
    )
    made.copy_patient_and_study_information(first)
    made.CompletionFlag, made.VerificationFlag, made.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    made.PerformedProcedureCodeSequence, made.ReferencedPerformedProcedureStepSequence = [], []
    nothing = ContainerContentItem(codes.DCM.MammographyCADReport)  # highdicom reads no by-reference items
    nothing.add_new("ContentSequence", "SQ", [])
    current, others = collect_evidence(headers, nothing, first.StudyInstanceUID)
    made.update(_tree(examined, headers, maker))
    made.CurrentRequestedProcedureEvidenceSequence = current
    if others:
        made.PertinentOtherEvidenceSequence = others
    return made


def _tree(examined: Examined, headers: Sequence[Dataset], maker: Maker) -> ContentItem:
    answered = [one.answer.probability is not None and one.answer.admitted for one in examined.sources]
    succeeded = [number for number, fine in enumerate(answered, start=1) if fine]
    failed = [number for number, fine in enumerate(answered, start=1) if not fine]
    joined = examined.exam is not None and examined.exam.probability is not None
    return _with(
        ContainerContentItem(codes.DCM.MammographyCADReport, is_content_continuous=False, template_id="4000"),
        _code(_MODIFIER, codes.DCM.LanguageOfContentItemAndDescendants, Code("en", "RFC5646", "English")),
        _with(
            ContainerContentItem(codes.DCM.ImageLibrary, is_content_continuous=False, relationship_type=_CONTAINS),
            *map(_image, examined.sources, headers),
        ),
        _summary(examined, maker, succeeded, failed),
        _performed(
            _code(_CONTAINS, codes.DCM.SummaryOfDetections, _status(succeeded, failed)),
            (codes.DCM.DetectionPerformed, _DENSITY),
            (codes.DCM.SuccessfulDetections, succeeded),
            (codes.DCM.FailedDetections, failed),
            maker,
        ),
        _performed(
            _code(_CONTAINS, codes.DCM.SummaryOfAnalyses, codes.DCM.Succeeded if joined else codes.DCM.NotAttempted),
            (codes.DCM.AnalysisPerformed, _ANALYSIS),
            (codes.DCM.SuccessfulAnalyses, succeeded if joined else []),
            (codes.DCM.FailedAnalyses, []),
            maker,
        ),
    )


def _image(source: Source, header: Dataset) -> ContentItem:
    """Return an entry of the image library (TID 4020): what is known of a picture, by whatever source told it."""
    image = ImageContentItem(
        codes.DCM.SourceImage, header.SOPClassUID, header.SOPInstanceUID, relationship_type=_CONTAINS
    )
    del image.ConceptNameCodeSequence  # the template gives it none
    side, view, day = source.answer.laterality, source.answer.view, header.StudyDate
    context = [
        *([_code(_CONTEXT, codes.DCM.ImageLaterality, _SIDES[side])] if side else []),
        *([_code(_CONTEXT, codes.DCM.ImageView, _VIEWS[view])] if view in _VIEWS else []),
        *([DateContentItem(codes.DCM.StudyDate, day, relationship_type=_CONTEXT)] if day else []),
    ]
    return _with(image, *context)


def _summary(examined: Examined, maker: Maker, succeeded: Sequence[int], failed: Sequence[int]) -> ContentItem:
    """Return the overall impression (TID 4001): every number, and below it the places, by breast."""
    found = [one for side in (*Laterality, None) if (one := _breast(side, examined, maker, succeeded))]
    exam = examined.exam
    numbers = [] if exam is None else [one for one in (exam, *exam.breasts) if one.probability is not None]
    return _with(
        _code(_CONTAINS, codes.DCM.CADProcessingAndFindingsSummary, _outcome(succeeded, failed, found=bool(found))),
        _text(_PROPERTY, codes.DCM.ImpressionDescription, "\n".join(_lines(examined, maker))),
        *_algorithm(maker),
        *map(_probability, numbers),
        *found,
    )


def _probability(answer: Prediction) -> ContentItem:
    """Return the probability of a breast or an examination, with its side and what is decided by it."""
    side = _SIDES.get(answer.laterality) if answer.level is ServedLevel.BREAST and answer.laterality else None
    return _with(
        _percent(_PROPERTY, answer.probability),
        _code(_MODIFIER, codes.SCT.Laterality, side or codes.SCT.BothBreasts),
        _text(_INFERRED, codes.DCM.CalculationDescription, f"{_AGGREGATED[answer.level]}. {_said(answer)}"),
    )


def _breast(side: Laterality | None, examined: Examined, maker: Maker, succeeded: Sequence[int]) -> ContentItem | None:
    """Return the impression of one breast (TID 4003) with the place in each of its pictures; None without any."""
    mapped = [
        (number, source, peak)
        for number, source in enumerate(examined.sources, start=1)
        if number in succeeded and source.answer.laterality is side and (peak := source.peak) is not None
    ]
    if not mapped:
        return None
    breast = examined.exam.breast(side) if examined.exam and side else None
    shown = any(_is_tumor(one) for one in (breast, *(source.answer for _, source, _ in mapped)) if one)
    return _with(
        ContainerContentItem(_IMPRESSION, is_content_continuous=False, relationship_type=_INFERRED),
        _intent(shown=shown),
        *(_finding(number, source.answer, peak, maker) for number, source, peak in mapped),
    )


def _finding(number: int, answer: Prediction, peak: tuple[float, float], maker: Maker) -> ContentItem:
    """Return the place where the map of a picture is largest (TID 4006), and the picture's probability."""
    center = ScoordContentItem(codes.DCM.Center, "POINT", np.array([peak]), relationship_type=_PROPERTY)
    return _with(
        _code(_CONTAINS, codes.DCM.SingleImageFinding, _DENSITY),
        _intent(shown=_is_tumor(answer)),
        *_algorithm(maker, f"operating point: {answer.operating_point}", f"threshold: {answer.threshold!r}", _CENTER),
        _percent(_PROPERTY, answer.probability),
        _with(center, _referred(_SELECTED, number)),
    )


def _performed(
    summary: ContentItem,
    done: tuple[Code, Code],
    fine: tuple[Code, list[int]],
    failed: tuple[Code, list[int]],
    maker: Maker,
) -> ContentItem:
    """Add to a summary of detections or analyses which pictures each was done on (TID 4015 to 4018)."""
    groups = []
    for name, numbers in (fine, failed):
        if numbers:
            group = ContainerContentItem(name, is_content_continuous=False, relationship_type=_INFERRED)
            pictures = [_referred(_PROPERTY, number) for number in numbers]
            groups.append(_with(group, _with(_code(_CONTAINS, *done), *_algorithm(maker), *pictures)))
    return _with(summary, *groups)


def _outcome(succeeded: Sequence[int], failed: Sequence[int], *, found: bool) -> Code:
    """Return a code of CID 6047: whether all succeeded, and whether there are places."""
    which = "All" if not failed else "NotAll" if succeeded else "No"
    name = f"{which}AlgorithmsSucceededWith{'' if found else 'out'}Findings"
    outcome: Code = getattr(codes.cid6047, name)
    return outcome


def _status(succeeded: Sequence[int], failed: Sequence[int]) -> Code:
    name = "PartiallySucceeded" if succeeded and failed else "Succeeded" if succeeded else "Failed"
    status: Code = getattr(codes.cid6042, name)
    return status


def _intent(*, shown: bool) -> ContentItem:
    required = codes.cid6034.PresentationRequiredRenderingDeviceIsExpectedToPresent
    hidden = codes.cid6034.NotForPresentationRenderingDeviceExpectedNotToPresent
    return _code(_MODIFIER, codes.DCM.RenderingIntent, required if shown else hidden)


def _algorithm(maker: Maker, *parameters: str) -> list[ContentItem]:
    """Return which model answers (TID 4019)."""
    told = (f"model SHA-256: {maker.fingerprint}", *parameters)
    return [
        _text(_PROPERTY, codes.DCM.AlgorithmName, f"mammolens {maker.name}"),
        _text(_PROPERTY, codes.DCM.AlgorithmVersion, __version__),
        *(_text(_PROPERTY, codes.DCM.AlgorithmParameters, one) for one in told),
    ]


def _lines(examined: Examined, maker: Maker) -> Iterator[str]:
    """Yield what a reader is told in words."""
    yield f"{RESEARCH.upper()}. {maker.record.intended_use}"
    if examined.exam is not None:
        yield f"Examination: {_said(examined.exam)}"
        yield from (f"  Warning: {one}" for one in examined.exam.warnings if one.kind in _OF_EXAMINATIONS)
        for breast in examined.exam.breasts:
            yield f"{breast.laterality.word.capitalize() if breast.laterality else 'A'} breast: {_said(breast)}"
    for number, source in enumerate(examined.sources, start=1):
        place = " ".join(filter(None, (source.answer.laterality, source.answer.view)))
        yield f"Picture {number}{place and f' ({place})'}: {_said(source.answer)}"
        yield from (f"  Warning: {warning}" for warning in source.answer.warnings)
    if examined.besides:
        yield f"{examined.besides} pictures that are no DICOM have a say, and are not referred to."


def _said(answer: Prediction) -> str:
    """Return an answer as a sentence; nothing of a file's name."""
    if answer.error is not None:
        return f"failed: {answer.error.removeprefix(f'{answer.path}: ')}"
    if not answer.admitted or answer.probability is None:
        return f"not attempted: {Reason.NOT_A_MAMMOGRAM}."
    doubt = f" Uncertain: {answer.reason}." if answer.uncertain else ""
    return (
        f"{answer.decision}, probability of tumor {answer.probability!r}, threshold {answer.threshold!r} "
        f"({answer.operating_point}).{doubt}"
    )


def _is_tumor(answer: Prediction) -> bool:
    return answer.decision == LABEL_NAMES[1]


def _percent(relationship: str, probability: float | None) -> ContentItem:
    value = round(100 * (probability or 0.0), 10)
    return NumContentItem(codes.DCM.ProbabilityOfCancer, value, _PERCENT, relationship_type=relationship)


def _code(relationship: str, name: Code, value: Code) -> ContentItem:
    return CodeContentItem(name, value, relationship_type=relationship)


def _text(relationship: str, name: Code, value: str) -> ContentItem:
    return TextContentItem(name, value, relationship_type=relationship)


def _referred(relationship: str, number: int) -> Dataset:
    """Return a reference to a picture by its place in the library; highdicom has no such items."""
    one = Dataset()
    one.RelationshipType = relationship
    one.ReferencedContentItemIdentifier = [*_LIBRARY, number]
    return one


def _with(item: ContentItem, *children: Dataset) -> ContentItem:
    if children:
        item.add_new("ContentSequence", "SQ", list(children))
    return item
