"""What is suspected where, in words and percent: of a picture, a breast, an examination; and what that is worth."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mammolens import numerals
from mammolens.app.cases import Examination
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.model.bundle import BundleRecord
from mammolens.model.decisions import predictive_value
from mammolens.records import ImageWarning, Prediction
from mammolens.reports.case import Case, blocks, count_at, percent, point_name, share, standing, tone, warnings
from mammolens.reports.pages import TERMS, template

Line = tuple[str, Prediction]
"""What an answer is about, in a word or two, and the answer."""


def lines_of(examination: Examination, cases: Sequence[Case]) -> list[Line]:
    """Return what is said of an examination: each breast, then all together; of one picture, what is said of it."""
    if len(examination.numbers) == 1:
        answer = cases[examination.numbers[0]].answer
        return [(TERMS["sides"].get(answer.laterality, "Side not known"), answer)]
    breasts = [
        (TERMS["sides"].get(one.laterality, f"Side not known: {one.path.name}"), one) for one in examination.breasts
    ]
    return [*breasts, ("Examination", examination.answer)]


def level_of(lines: Sequence[Line]) -> Level:
    """Return the level whose figures say what the last of these lines is worth."""
    return lines[-1][1].level.judged


def summary(lines: Sequence[Line]) -> str:
    """Return a line: Left: above the threshold, 54 %; right: uncertain, below the threshold, 21 %."""
    said = []
    for where, one in lines[:-1] or lines:
        told = filter(None, (standing(one).lower(), percent(one.probability)))
        said.append(f"{where.removesuffix(' breast')}: {', '.join(told)}")
    return "; ".join([said[0], *(f"{one[:1].lower()}{one[1:]}" for one in said[1:])])


def elsewhere(answer: Prediction, record: BundleRecord, expected: float, screening: float) -> str:
    """Return what an answer means where tumors are as common as `expected`; nothing where that is not known."""
    place = "in screening" if expected == screening else f"where {share(expected)} have a tumor,"
    count = count_at(answer.probability, record, expected)
    return f"{place} {count}" if count else ""


def estimated(estimate: Estimate) -> str:
    """Return a share in whole percent with its 95 % interval, or that it was not measured."""
    if estimate.value != estimate.value:
        return "not measured"
    low, high = (numerals.whole_percent(end).removesuffix(" %") for end in (estimate.low, estimate.high))
    return f"{numerals.whole_percent(estimate.value)} {numerals.interval(low, high)}"


def auc_at(record: BundleRecord, level: Level) -> tuple[str, Estimate] | None:
    """Return what was counted, and the AUC on validation: by breast where several pictures answer, if measured."""
    by_picture, by_breast = record.metrics.get("roc_auc"), record.metrics.get("roc_auc_by_breast")
    unit, found = ("breast", by_breast) if level is not Level.IMAGE and by_breast else ("picture", by_picture)
    return (unit, found) if found and found.value == found.value else None


def remarks(answer: Prediction) -> list[str]:
    """Return what to know before trusting an answer, a sentence each, what is missing first."""
    told = sorted(answer.warnings, key=lambda one: one.kind not in _OF_SEVERAL)
    return warnings(Case(replace(answer, warnings=tuple(told))))


_OF_SEVERAL = {ImageWarning.MISSING_VIEW, ImageWarning.DOUBLED_VIEW, ImageWarning.NO_SIDE, ImageWarning.NO_SAY}
_COUNTED = {Level.IMAGE: "pictures", Level.BREAST: "breasts", Level.PATIENT: "examinations"}

_SAID = (standing, tone, elsewhere, estimated, auc_at, remarks, percent, share, point_name, predictive_value, level_of)
verdicts: Any = template(
    "verdicts.html.j2", blocks=blocks, counted=_COUNTED, **{said.__name__: said for said in _SAID}
).module
"""The macros of ``verdicts.html.j2``; each returns HTML."""
