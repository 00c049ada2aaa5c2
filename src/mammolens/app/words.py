"""What the page and the report of a case say, in plain words. No markup."""

import math
from collections.abc import Sequence

from mammolens import numerals
from mammolens.app.cases import Case
from mammolens.app.uploads import MAX_IMAGES
from mammolens.measures.metrics import Estimate
from mammolens.model.bundle import BundleRecord
from mammolens.model.rules import (
    BALANCED,
    FIXED,
    SENSITIVITY_90,
    SPECIFICITY_90,
    at_prevalence,
    predictive_value,
)
from mammolens.records import LABEL_NAMES, ImageWarning, Laterality, Level, Reason, View
from mammolens.serving.overlay import caption

DISCLAIMER = "For research use only. Not a medical device."
SCREENING = 0.005
"""Share of women with a tumor among those who come to screening, as the page's first guess."""

SYNTHETIC = (
    "This model learnt from drawn, synthetic mammograms only. It shows how the page works. "
    "On real mammograms its answers mean nothing."
)
SYNTHETIC_CALIBRATION = (
    "This model was calibrated on drawn, synthetic mammograms only, and what it learnt from is not "
    "recorded. On real mammograms its probabilities mean nothing."
)
UNCALIBRATED = (
    "Nothing is known of the data that this model learnt from. Its numbers are raw scores, not "
    "probabilities, and nothing is known of how often they are right."
)
NO_DECISION = "No decision"
UNLIKE = (
    "The picture does not look like the mammograms that the model learnt from. A network answers "
    "whatever it is shown; what it says of this picture means nothing and is left out."
)
UNCERTAIN = {
    Reason.BOTH: ("Uncertain: on validation, a probability like this was usual with a tumor and without."),
    Reason.NEITHER: ("Uncertain: on validation, a probability like this was unusual with a tumor and without."),
    Reason.AGAINST: ("Uncertain: on validation, a probability like this was usual for the other class alone."),
    Reason.BETWEEN: (
        "Uncertain: too high to rule a tumor out at the threshold that finds 90 % of tumors, too "
        "low to rule it in at the one that lets 90 % of the others go."
    ),
}
"""Why a decision is not to be relied on; bundles without prediction sets have the last alone."""

_POINTS = {
    BALANCED: "Balanced",
    SENSITIVITY_90: "90 % sensitivity",
    SPECIFICITY_90: "90 % specificity",
    FIXED: "Fixed, not chosen on data",
}
_SIDES = {Laterality.LEFT: "Left breast", Laterality.RIGHT: "Right breast"}
_VIEWS = {
    View.CC: "craniocaudal (CC)",
    View.MLO: "mediolateral oblique (MLO)",
    View.ML: "mediolateral (ML)",
    View.LM: "lateromedial (LM)",
    View.LMO: "lateromedial oblique (LMO)",
    View.AT: "axillary tail (AT)",
}
_PLAIN = {
    ImageWarning.INVERTED: ("Black and white are exchanged in this file. The network saw them put right."),
    ImageWarning.COLOUR: (
        "The picture is in colour, and mammograms have none. If it is one, export it in grey, without annotations."
    ),
    ImageWarning.POLARITY: (
        "It is not clear which of black and white is the background. If the wrong one was chosen, "
        "the answer means little."
    ),
    ImageWarning.NO_BREAST: (
        "No breast was found in the picture. The network saw all of it, so the answer means little."
    ),
}


def point_name(name: str) -> str:
    """Return what people call an operating point."""
    return _POINTS.get(name, name)


def class_name(case: Case) -> str:
    """Return the class as a heading, or that there is none."""
    none = NO_DECISION if is_unlike(case) else "No answer"
    return (case.answer.decision or none).capitalize()


def probability(value: float | None) -> str:
    """Return a probability with the four digits that the command line shows."""
    return "" if value is None else numerals.probability(value)


def comparison(case: Case) -> str:
    """Return how the probability stands to the threshold."""
    answer = case.answer
    where = "Below" if answer.decision == LABEL_NAMES[0] else "At or above"
    point = point_name(answer.operating_point)
    return (
        f"{where} the threshold {probability(answer.threshold)} of the operating point “{point}”: "
        f"called {answer.decision}."
    )


def share(value: float) -> str:
    """Return a share in percent, with as many digits as it needs: 21 %, 19.7 %, 0.02 %."""
    return f"{numerals.percent(value, unit='').removesuffix('.0')} %"


def interval(estimate: Estimate) -> str:
    """Return a share with its 95 % interval, or that it was not measured."""
    if math.isnan(estimate.value):
        return "not measured"
    ends = (numerals.percent(end, unit="") for end in (estimate.low, estimate.high))
    return f"{numerals.percent(estimate.value)} {numerals.interval(*ends)}"


def measured_on(record: BundleRecord, point: str) -> str:
    """Return what an operating point was measured on."""
    found = record.operating_points[Level.IMAGE][point]
    if not found.subjects:
        return "Never measured: the threshold was given, not chosen."
    drawn = "synthetic " if record.training_data and record.training_data.synthetic else ""
    chosen = (
        "The threshold was given, not chosen on them."
        if point == FIXED
        else "The threshold was chosen on them: unseen images do a little worse."
    )
    return (
        f"Measured on {found.subjects:,} {drawn}validation images of {found.patients:,} patients. "
        f"{chosen} In brackets the 95 % interval by patient."
    )


def limits(record: BundleRecord) -> str:
    """Return what limits the worth of all answers of a model; nothing if nothing does."""
    data = record.training_data
    if data is None:
        return UNCALIBRATED
    if not data.synthetic:
        return ""
    return SYNTHETIC_CALIBRATION if data.calibration_only else SYNTHETIC


def subject(case: Case) -> str:
    """Return which breast and view it is, and how that is known."""
    if case.laterality is None and case.view is None:
        return "Side and view not known"
    told = [
        _SIDES[case.laterality] if case.laterality else "Side not known",
        _VIEWS[case.view] if case.view else "view not known",
    ]
    by_name = ", by the file's name" if case.told_by_name else ""
    return f"{', '.join(told)}{by_name}"


def warnings(case: Case) -> list[str]:
    """Return what to know before trusting the answer, a sentence each."""
    return [
        _PLAIN.get(warning.kind, _sentence(warning))
        for warning in case.answer.warnings
        if warning.kind is not ImageWarning.NOT_LIKE_TRAINING
    ]


def entry(number: int, case: Case) -> str:
    """Return a case as one line of a list to choose from."""
    told = " ".join(case.place or ()) or case.laterality or case.view or ""
    return " · ".join(filter(None, [f"{number + 1}", told, case.name]))


def row(case: Case) -> dict[str, str]:
    """Return a case as a row of the table of all answers."""
    answer = case.answer
    return {
        "Picture": case.name,
        "Probability of a tumor": probability(answer.probability),
        "Class": class_name(case).lower(),
        "Doubt": doubt(case),
        "Side": case.laterality or "",
        "View": case.view or "",
        "Remarks": answer.error or " ".join(warnings(case)),
    }


def doubt(case: Case) -> str:
    """Return in a few words why nothing is decided, or why a decision is uncertain."""
    answer = case.answer
    uncertain = "uncertain" if answer.decision and answer.uncertain else ""
    return ": ".join(filter(None, (uncertain, answer.reason)))


def cut_short(name: str, images: int) -> str:
    """Return that an archive holds more than the page takes."""
    return (
        f"{name}: of its {images:,} images the first {MAX_IMAGES} are shown. For the others use "
        "`mammolens predict` on the command line."
    )


def looked(cases: Sequence[Case]) -> str:
    """Return what stands below pictures whose heatmaps are drawn; nothing if there is no map."""
    maps = [case.answer.score_map for case in cases if case.answer.score_map is not None]
    return caption(maps) if maps else ""


def is_unlike(case: Case) -> bool:
    """Tell whether the picture does not look like a mammogram to the model."""
    return not case.answer.admitted


def at_prevalences(value: float, record: BundleRecord, expected: float) -> list[tuple[str, str, str]]:
    """Return rows of (where, share with a tumor, probability): validation mix, and `expected`."""
    if record.training_data is None:
        return []
    seen = record.training_data.prevalence
    where = "Screening" if expected == SCREENING else "Your choice"
    moved = at_prevalence(value, seen, expected)
    return [
        ("The model's own data", share(seen), probability(value)),
        (where, share(expected), probability(moved)),
    ]


def called_there(case: Case, record: BundleRecord, expected: float) -> str:
    """Return how often pictures with this decision would be as decided, where tumors are rarer."""
    answer = case.answer
    if answer.decision is None:
        return ""
    point = record.operating_points[Level.IMAGE][answer.operating_point]
    found = predictive_value(point, answer.decision, expected)
    if math.isnan(found.value):
        return ""
    right = "have one" if answer.decision == LABEL_NAMES[1] else "have none"
    return (
        f"Where {share(expected)} have a tumor, {interval(found)} of all pictures called "
        f"{answer.decision} {right}, by the sensitivity and specificity above."
    )


def identity(record: BundleRecord) -> list[tuple[str, str]]:
    """Return what tells this model from every other, and how good it was."""
    facts = [
        ("Model", record.name),
        ("Version", f"mammolens {record.mammolens_version}"),
        ("Created", record.created[:16].replace("T", " ") + " UTC"),
    ]
    auc = record.metrics.get("roc_auc")
    if auc is not None and not math.isnan(auc.value):
        points = record.operating_points[Level.IMAGE]
        number = points[record.default_operating_point].subjects
        value, low, high = (numerals.figure(one, 2) for one in (auc.value, auc.low, auc.high))
        facts.append(("Validation AUC", f"{value} {numerals.interval(low, high)}, n = {number:,}"))
    if record.training_data is not None:
        data = record.training_data
        facts.append(
            ("Calibrated on", f"{data.name}, validation images")
            if data.calibration_only
            else ("Learnt from", f"{data.name}, {data.images:,} images")
        )
    checksum = next(iter(record.files.values()), "")
    return [*facts, ("Licence", record.licence), ("SHA-256", checksum[:12])]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
