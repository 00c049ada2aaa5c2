"""The report of an examination: both breasts' answers, the views as they hang, what it is worth."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mammolens import __version__
from mammolens.judging.schema import SCREENING_PREVALENCE
from mammolens.levels import Identifier, Level
from mammolens.model.bundle import BundleRecord
from mammolens.model.decisions import predictive_value
from mammolens.records import ImageWarning, Laterality, Prediction, View
from mammolens.reports.answers import text_of
from mammolens.reports.case import (
    blocks,
    count_at,
    interval,
    percent,
    point_name,
    probability,
    sentence,
    share,
    standing,
    tone,
)
from mammolens.reports.pages import counted, template

_SIDES = (Laterality.RIGHT, Laterality.LEFT)  # as they hang: as if the patient faced the reader
_STANDARD = (View.CC, View.MLO)
_LEVELS = {Level.BREAST: "A breast", Level.PATIENT: "An examination"}
_AUCS = {"roc_auc": "images", "roc_auc_by_breast": "breasts", "roc_auc_by_patient": "patients"}

Place = tuple[Laterality, View]


@dataclass(frozen=True, eq=False)
class Print:
    """A view as it hangs in a report.

    Attributes:
        jpeg: the picture, upright, its chest wall to the middle, heat laid over it.
        caption: what the heat is, and is not; empty where there is no map.
        inverted: whether black and white change places in the file.
        mirrored: whether it is shown mirrored.
    """

    jpeg: bytes
    caption: str
    inverted: bool
    mirrored: bool


@dataclass(frozen=True, eq=False)
class Hung:
    """A place on the sheet: a standard view's, or a further picture's.

    Attributes:
        place: side and view, where they are known.
        view: the answer for the picture; None where the standard view was not found.
    """

    place: Place | None
    view: Prediction | None


def examination_page(
    exam: Prediction,
    record: BundleRecord,
    prints: Mapping[Prediction, Print],
    *,
    looked: str,
    identifiers: Collection[Identifier] = (),
    unread: int = 0,
) -> str:
    """Return the report of an examination as one self-contained page of HTML, two sheets of A4 at most for four views.

    It names nobody unless it is told to: neither patient nor study nor files. What is burnt into the pixels stays.

    Args:
        exam: an answer for an examination, with its views and breasts.
        record: of the model that answered.
        prints: of its views; one that is not there could not be read a second time.
        looked: what heat is, and is not.
        identifiers: what the report may tell of whose it is.
        unread: files that were given with it and could not be read.
    """
    shown = set(identifiers)
    hanging, further = hung(exam.views)
    return template("examination.html.j2").render(
        exam=exam,
        record=record,
        prints=prints,
        shown=shown,
        told=_told(exam, shown),
        hanging=hanging,
        further=further,
        warnings=_warnings(exam, shown, unread),
        sides=[(side, exam.breast(side)) for side in _SIDES] if exam.breasts else [],
        points=[(name, record.operating_points[level][exam.operating_point]) for level, name in _LEVELS.items()],
        aucs=[(said, record.metrics[key]) for key, said in _AUCS.items() if key in record.metrics],
        screening=SCREENING_PREVALENCE,
        looked=looked,
        made=datetime.now().astimezone(),
        version=__version__,
        blocks=blocks,
        standing=standing,
        tone=tone,
        count_at=count_at,
        predictive_value=predictive_value,
        percent=percent,
        probability=probability,
        interval=interval,
        point_name=point_name,
        share=share,
        Identifier=Identifier,
    )


def hung(views: Sequence[Prediction]) -> tuple[list[Sequence[Hung]], list[Hung]]:
    """Return the four standard views in rows of two, and further pictures in their order.

    CC on top, MLO below; the right breast on the left. Of one breast alone, its two views share a row. Of a view that
    is there twice, the first hangs; one that is not there leaves its place empty.
    """
    first = {one.place: one for one in reversed([_placed(view) for view in views])}
    standard = [[first.get((side, view)) or Hung((side, view), None) for view in _STANDARD] for side in _SIDES]
    there = [column for column in standard if any(one.view for one in column)]
    rows: list[Sequence[Hung]] = [*zip(*there, strict=True)] if len(there) > 1 else [*there]
    hanging = {one.view for column in there for one in column}
    return rows, [_placed(view) for view in views if view not in hanging]


def _placed(view: Prediction) -> Hung:
    return Hung((view.laterality, view.view) if view.laterality and view.view else None, view)


def _told(exam: Prediction, shown: Collection[Identifier]) -> list[tuple[str, str]]:
    """Return what is said of whose it is: a line each; what may not be said is left to be filled in by hand."""
    known = {Identifier.PATIENT: exam.patient_id, Identifier.STUDY: exam.study_id}
    names = {Identifier.PATIENT: "Patient", Identifier.STUDY: "Study"}
    return [(names[one], text_of(value or "not known") if one in shown else "") for one, value in known.items()]


def _warnings(exam: Prediction, shown: Collection[Identifier], unread: int) -> list[str]:
    """Return what to know before trusting the answer; files are counted where they may not be named."""
    counted_instead = {
        ImageWarning.NO_SAY: ("Unlike mammograms, without a say", [one for one in exam.views if not one.admitted]),
        ImageWarning.NO_SIDE: (
            "Of a side that is not known, each taken for a breast of its own",
            [one for one in exam.views if one.laterality is None],
        ),
    }
    said = []
    for one in exam.warnings:
        if one.kind in counted_instead and Identifier.FILES not in shown:
            what, views = counted_instead[one.kind]
            said.append(f"{what}: {counted(len(views), 'picture')}.")
        else:
            said.append(sentence(one))
    missing = any(one.kind is ImageWarning.MISSING_VIEW for one in exam.warnings)
    if unread and (missing or not exam.breasts):
        said.append(f"Not readable among what was given: {counted(unread, 'file')}, maybe of a view that is missing.")
    return said
