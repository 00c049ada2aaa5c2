"""What page and reports say of an answer, in the same words; one picture with its answer, and the report of it."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens import numerals
from mammolens.images.image import Window
from mammolens.judging.schema import SCREENING_PREVALENCE
from mammolens.measures.intervals import Estimate
from mammolens.model.bundle import BundleRecord
from mammolens.model.decisions import at_prevalence, predictive_value
from mammolens.records import LABEL_NAMES, Laterality, Prediction, View, Warned
from mammolens.reports.pages import TERMS, template

_QUALITY = 85  # of JPEG


@dataclass(frozen=True, eq=False)
class Case:
    """One picture and what is known of it.

    Attributes:
        answer: what the model says, or why it says nothing.
        picture: uint16 (height, width), black 0 and white 65535, upright; small where the file's is large.
            None where unreadable.
        shape: (height, width) of the picture in the file, in pixels.
        inverted: whether black and white change places in the file.
        spacing: millimetres between pixels at the detector, or None where unknown.
        windows: by name, contrast windows of `unwindowed`, or else of `picture`.
        unwindowed: as `picture`, before any window; None where the file offers none to choose from.
        facts: format and size in words.
        chest_wall_right: where the chest wall is in the picture; None where it is not clear.
    """

    answer: Prediction
    picture: NDArray[np.uint16] | None = None
    shape: tuple[int, int] = (0, 0)
    inverted: bool = False
    spacing: float | None = None
    windows: Mapping[str, Window] = field(default_factory=dict)
    unwindowed: NDArray[np.uint16] | None = None
    facts: str = ""
    chest_wall_right: bool | None = None

    @property
    def name(self) -> str:
        """The file's name, as its owner gave it."""
        return str(self.answer.path)

    @property
    def laterality(self) -> Laterality | None:
        """Which breast, where it is known."""
        return self.answer.laterality

    @property
    def view(self) -> View | None:
        """The projection, where it is known."""
        return self.answer.view

    @property
    def place(self) -> tuple[Laterality, View] | None:
        """Side and view, where both are known."""
        return (self.laterality, self.view) if self.laterality and self.view else None

    @property
    def hangs_mirrored(self) -> bool:
        """Whether it must be mirrored for its chest wall to face the middle."""
        if self.laterality is None or self.chest_wall_right is None:
            return False
        return self.chest_wall_right != (self.laterality is Laterality.RIGHT)


def case_page(case: Case, record: BundleRecord, pictures: Sequence[tuple[Pillow.Image, str]]) -> str:
    """Return the report of a case as one self-contained page of HTML, A4 when printed.

    Args:
        case: what is reported.
        record: of the model that answered.
        pictures: each with its caption.
    """
    return template("case.html.j2").render(
        case=case,
        record=record,
        pictures=[(jpeg(picture), caption) for picture, caption in pictures],
        blocks=blocks,
        point_name=point_name,
        screening=SCREENING_PREVALENCE,
    )


def jpeg(picture: Pillow.Image) -> bytes:
    """Return a picture of a report as a JPEG file."""
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY)
    return stream.getvalue()


def point_name(name: str) -> str:
    """Return what people call an operating point."""
    return str(TERMS["points"].get(name, {}).get("name", name))


def class_name(case: Case) -> str:
    """Return the class as a heading, or that there is none."""
    none = "No answer" if case.answer.admitted else "No decision"
    return (case.answer.decision or none).capitalize()


def standing(answer: Prediction) -> str:
    """Return how an answer stands to its threshold, uncertainty first."""
    if answer.decision is None:
        return "No answer" if answer.admitted else "No decision"
    side = "above the threshold" if answer.decision == LABEL_NAMES[1] else "below the threshold"
    return f"Uncertain, {side}" if answer.uncertain else side.capitalize()


def tone(answer: Prediction) -> str:
    """Return the name of the colour in which an answer is marked."""
    if answer.decision is None or answer.uncertain:
        return "uncertain"
    return "above" if answer.decision == LABEL_NAMES[1] else "below"


def probability(value: float | None) -> str:
    """Return a probability with the four digits that the command line shows."""
    return "" if value is None else numerals.probability(value)


def percent(value: float | None) -> str:
    """Return a probability as it is read, without digits that mean nothing: 54 %; nothing where there is none."""
    return "" if value is None else numerals.whole_percent(value)


def share(value: float) -> str:
    """Return a fraction in percent, with as many digits as it needs: 21 %, 19.7 %, 0.02 %."""
    return f"{numerals.percent(value, unit='').removesuffix('.0')} %"


def count_at(value: float | None, record: BundleRecord, prevalence: float) -> str:
    """Return of how many a probability is one where tumors are as common as `prevalence`; empty where not known."""
    if value is None or record.training_data is None:
        return ""
    count = numerals.one_in(at_prevalence(value, record.training_data.prevalence, prevalence))
    return count if count.startswith(("less", "more")) else f"about {count}"


def interval(estimate: Estimate) -> str:
    """Return a percentage with its 95 % interval, or that it was not measured."""
    if math.isnan(estimate.value):
        return "not measured"
    ends = (numerals.percent(end, unit="") for end in (estimate.low, estimate.high))
    return f"{numerals.percent(estimate.value)} {numerals.interval(*ends)}"


def subject(case: Case) -> str:
    """Return which breast and view it is, and how that is known."""
    if case.laterality is None and case.view is None:
        return "Side and view not known"
    side = TERMS["sides"].get(case.laterality, "Side not known")
    view = TERMS["views"].get(case.view, "view not known")
    return f"{side}, {view}" + (", by the file's name" if case.answer.by_name else "")


def warnings(case: Case) -> list[str]:
    """Return what to know before trusting the answer, a sentence each."""
    return [sentence(one) for one in case.answer.warnings]


def sentence(warning: Warned) -> str:
    """Return a warning as a sentence, in plain words where there are some."""
    said = f"{warning[:1].upper()}{warning[1:].rstrip('.')}."
    return str(TERMS["warnings"].get(warning.kind.name, said))


def uncertainty(case: Case) -> str:
    """Return in a few words why nothing is decided, or why a decision is uncertain."""
    answer = case.answer
    uncertain = "uncertain" if answer.decision and answer.uncertain else ""
    return ": ".join(filter(None, (uncertain, answer.reason)))


def entry(number: int, case: Case) -> str:
    """Return a case as one line of a list to choose from."""
    told = " ".join(case.place or ()) or case.laterality or case.view or ""
    return " · ".join(filter(None, [f"{number + 1}", told, case.name]))


def table_row(case: Case) -> dict[str, str]:
    """Return a case as a row of the table of all answers."""
    return {
        "Picture": case.name,
        "Probability of a tumor": percent(case.answer.probability),
        "Uncertainty": uncertainty(case),
        "Class": class_name(case).lower(),
        "Side": case.laterality or "",
        "View": case.view or "",
        "Remarks": case.answer.error or " ".join(warnings(case)),
    }


_SAID = (point_name, class_name, standing, tone, probability, share, interval, subject, warnings, uncertainty)
_RULES = (at_prevalence, predictive_value)
blocks: Any = template("blocks.html.j2", **{said.__name__: said for said in (*_SAID, *_RULES)}).module
"""The macros of ``blocks.html.j2``, which the page and the report of a case share; each returns HTML."""
