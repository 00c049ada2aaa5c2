"""The model card of a `Report`, as Markdown, and what page and card warn of."""

from collections.abc import Sequence

from mammolens.judging.schema import Report
from mammolens.model.rules import BALANCED, FIXED, SENSITIVITY_90, SPECIFICITY_90
from mammolens.records import Level, Split
from mammolens.reports.blocks import BY
from mammolens.reports.checklists import (
    CLAIM,
    MAKERS,
    TRIPOD_AI,
    choice_of_weights,
    first_weights,
    networks_that_answer,
)
from mammolens.reports.citations import Cited, Form, counted, measure

_SIZES = ("subjects", "patients", "tumors")
_RATES = ("sensitivity", "specificity", "precision")
_CALIBRATION = ("slope", "in_the_large", "brier", "expected_calibration_error")

NO_CALIBRATION = """
Calibration is not defined at every level, for a class is missing.
"""
POINTS = {
    BALANCED: ", the threshold with the largest sum of sensitivity and specificity on validation",
    SENSITIVITY_90: ", the highest threshold that finds nine tenths of tumors on validation",
    SPECIFICITY_90: ", the lowest threshold that lets nine tenths of the others go on validation",
    FIXED: ", a threshold that was given, and not chosen on data",
}
"""What the names of operating points mean."""

_CALIBRATIONS = {
    "none": "tried on validation, and best left alone: the score is the probability",
    "temperature": "temperature scaling, fitted on validation",
    "platt": "Platt scaling (a logistic curve of the score), fitted on validation",
    "isotonic": "isotonic (a rising curve of the score), fitted on validation",
}
_ALONE = "- A single examination is judged: no earlier images, no history, no symptoms.\n"
NOT_A_LESION = "A heatmap shows what moved the network. It is not the outline of a lesion."


def warnings(report: Report, cite: Cited) -> list[tuple[str, str]]:
    """Return what to know before any figure: how grave, and in a sentence or two."""
    counts, split = report.counts, report.split

    def some(key: str, noun: str = "image") -> str:
        return counted(cite, f"counts.{key}", noun)

    errors = {
        f"{some('patients_also_in_training', 'patient')} judged here, and in the training split, "
        "too. Of a model that learnt from it every figure is too good.": (counts.patients_also_in_training > 0),
        "The model learnt from drawn, synthetic mammograms. On real ones its answers mean nothing.": bool(
            report.model.synthetic
        )
        and not report.model.calibration_only,
        "The model was calibrated on drawn, synthetic mammograms. Its probabilities hold for no others.": bool(
            report.model.synthetic
        )
        and report.model.calibration_only,
        "The training split is judged. Of a model that learnt from it every figure is too good.": split is Split.TRAIN,
    }
    doubts = {
        f"The validation split is judged. {_chosen_on_validation(report)}": split is Split.VALID,
        "All images are judged, of whichever split: figures are too good where the model learnt "
        "from some of them, or was calibrated on some.": split is None,
        "Only one class is present: much is not defined.": counts.tumors in (0, counts.images),
        f"{some('without_answer')} without an answer, left out.": counts.without_answer > 0,
        f"{some('without_patient')} of no known patient, each taken for another one: intervals are "
        "too narrow where a patient has several.": counts.without_patient > 0,
        f"{some('not_like_training')} unlike those that the model learnt from, judged all the "
        "same, but without a decision in use.": counts.not_like_training > 0,
    }
    notes = {f"{some('without_label')} without a label, left out.": counts.without_label > 0}
    notes |= {cite(f"notes.{place}", "text"): True for place in range(len(report.notes))}
    graded: dict[str, dict[str, bool]] = {"error": errors, "warning": doubts, "note": notes}
    return [(kind, words) for kind, known in graded.items() for words, holds in known.items() if holds]


def _chosen_on_validation(report: Report) -> str:
    """Say what was chosen on validation, as far as that is recorded."""
    known = report.model.learnt or ()
    epoch = any(one.monitor != "nothing" for one in known)
    chosen = [
        *(["the epoch"] if epoch else []),
        *(["calibration"] if report.model.calibration else []),
        *(["thresholds"] if report.default_point != FIXED else []),
    ]
    if not chosen:
        return "Figures are too good where something was chosen on it."
    words = " and ".join(filter(None, [", ".join(chosen[:-1]), chosen[-1]]))
    return f"What was chosen on it: {words}. Figures are too good."


def model_card(report: Report) -> str:
    """Return ``model-card.md``: after Mitchell et al. 2019 (FAccT), from the report alone."""
    cite = Cited.of(report, markup=False)
    parts = (
        f"# Model card: {cite('model.name', 'text')}",
        f"""Written by mammolens {report.mammolens_version} from report.json, which has more digits.
Intervals are 95 %, and take the images of a patient together. **Research use only: not a medical
device.**""",
        *(f"**{kind.capitalize()}**: {words}" for kind, words in warnings(report, cite)),
        _details(report, cite),
        _data(report, cite),
        _figures(report, cite),
        _subgroups(report, cite),
        _robustness(report, cite),
        _localisation(report, cite),
        _limits(report, cite),
        _checklists(report),
    )
    return "\n\n".join(parts) + "\n"


def _details(report: Report, cite: Cited) -> str:
    model = report.model
    use = model.intended_use or "Not told. What is judged here is for research only."
    refuses = "\nFiles that cannot be read get no answer, with the reason." if model.is_bundle else ""
    unlike = ", and those that do not look like mammograms of the data it was made with,"
    gate = f"\nImages in colour{unlike * model.gate} get no decision." if model.is_bundle else ""
    learnt = model.learnt
    unknown = f"not recorded; {MAKERS}"
    calibration = _CALIBRATIONS.get(model.calibration or "", "none: what is shown is a raw score")
    point = report.default_point
    return f"""## Model details

It gives an image {"a probability" if model.calibration else "a score"} of a tumor, and a decision \
at an operating point. A breast has the
mean of its views, a patient the larger of the breasts.{refuses}{gate}

- Name: {cite("model.name", "text")}
- Licence: {cite("model.licence", "text")}
- Networks that answer: {networks_that_answer(learnt) if learnt else unknown}
- First weights: {first_weights(learnt) if learnt else unknown}
- Weights kept: {choice_of_weights(learnt) if learnt else unknown}
- Calibration: {calibration}
- Operating point that decides: {cite("default_point", "text")}{POINTS.get(point, "")}

## Intended use

{use}"""


def _data(report: Report, cite: Cited) -> str:
    counts = cite.at("counts")
    judged = f"split {report.split}" if report.split else "all images"
    drawn = {True: "drawn, synthetic", False: "real", None: "not told"}
    learnt = report.model.learnt
    elsewhere = report.model.calibration_only or not report.model.training_data
    names = ", ".join(dict.fromkeys(one.data for one in learnt or ())) or f"not recorded; {MAKERS}"
    told = f"- Learnt from: {names}\n" if elsewhere else ""
    kind = "Calibrated on" if report.model.calibration_only else "Data set"
    return f"""## Training data

{told}- {kind}: {cite("model.training_data", "text")}
- Images in training and validation: {_told(cite, "model.training_images", "count")}
- Patients: {_told(cite, "model.training_patients", "count")}
- Share of validation images with a tumor: {_told(cite, "model.training_prevalence", "percent")}
- Pictures: {drawn[report.model.synthetic]}

## Evaluation data

- Data set: {report.data or "not named"}, {judged}
- Images: {counts("images", "count")}, of {counts("patients", "count")} patients; \
{counts("tumors", "count")} with a tumor
- Left out without a label: {counts("without_label", "count")}; without an answer: \
{counts("without_answer", "count")}
- Not like training images, judged but not decided in use: \
{counts("not_like_training", "count")}
- Patients found in the training split of this data set, too: \
{counts("patients_also_in_training", "count")}"""


def _told(cite: Cited, path: str, form: Form) -> str:
    return "not told" if cite.value(path) is None else cite(path, form)


def _figures(report: Report, cite: Cited) -> str:
    """Return the table of figures, by level, and of what sees no pixel."""
    levels = [level for level in Level if level in report.levels]

    def row(name: str, keys: Sequence[str], form: Form, *, spread: bool = True) -> list[str]:
        spots = [cite.at("levels", level, *keys) for level in levels]
        return [name, *(one.interval(form=form) if spread else one(form=form) for one in spots)]

    rows = [row(key.capitalize(), [key], "count", spread=False) for key in _SIZES]
    rows += [
        row(measure(key)[0], ["discrimination", key], measure(key)[1])
        for key in report.levels[levels[0]].discrimination
    ]
    point = report.default_point
    for key in _RATES:
        name, form = measure(key)
        rows.append(row(f"{name}, {point}", ["decisions", point, "measures", key], form))
    calibrated = all(report.levels[level].calibration for level in levels)
    if calibrated:
        rows += [row(f"Calibration: {measure(key)[0]}", ["calibration", key], "three") for key in _CALIBRATION]
    table = _table(["Figure", *(BY[level] for level in levels)], rows)
    seen = [f"- {key} alone: AUC {cite.interval(f'references.{key}')}" for key in report.references]
    unseen = "\n".join(seen) or "No age and no other metadata in this data set."
    return f"""## Figures

{table}
{"" if calibrated else NO_CALIBRATION}
What sees no pixel reaches, by image:

{unseen}

US screening radiologists (BCSC, Lehman et al. 2017, Radiology 283:49) had a sensitivity of
{cite("benchmark.sensitivity", "percent")} and a specificity of \
{cite("benchmark.specificity", "percent")}, in another population: only the order of magnitude
compares."""


def _subgroups(report: Report, cite: Cited) -> str:
    found = [
        [
            f"{group.variable} {group.value}",
            cite(f"subgroups.{place}.images", "count"),
            cite(f"subgroups.{place}.tumors", "count"),
            cite.interval(f"subgroups.{place}.roc_auc"),
            cite.interval(f"subgroups.{place}.difference"),
            cite(f"subgroups.{place}.adjusted", "p"),
        ]
        for place, group in enumerate(report.subgroups)
        if group.stands_out
    ]
    head = ["Subgroup", "Images", "Tumors", "AUC", "Difference from others", "Adjusted p"]
    if found:
        words = _table(head, found)
    elif report.subgroups:
        words = "None stands out after correction for their number."
    else:
        words = "None could be judged: no metadata, or too few images of each kind."
    return f"## Subgroups that stand out\n\n{words}"


def _robustness(report: Report, cite: Cited) -> str:
    rows = [
        [
            one.change,
            cite(f"robustness.{place}.images", "count"),
            cite.interval(f"robustness.{place}.roc_auc"),
            cite.interval(f"robustness.{place}.drop"),
            cite.interval(f"robustness.{place}.decisions_changed", "percent"),
        ]
        for place, one in enumerate(report.robustness)
    ]
    head = ["Change of the picture", "Images", "AUC", "Drop of AUC", "Decisions changed"]
    words = _table(head, rows) if rows else "Not tried in this evaluation."
    return f"## Robustness\n\n{words}"


def _localisation(report: Report, cite: Cited) -> str:
    if report.localisation is None:
        words = "Not judged: no boxes in this data set, or no maps from this model."
    else:
        words = (
            f"In {cite('localisation.images', 'count')} images with boxes, the hottest place lay "
            f"in a box in {cite.interval('localisation.hit_rate', 'percent')}; a place drawn "
            f"evenly from the breast would in {cite('localisation.chance_rate', 'percent')}."
        )
    return f"## Where it looked\n\n{words} {NOT_A_LESION}"


def _limits(report: Report, cite: Cited) -> str:
    licence = cite("model.licence", "text")
    alone = _ALONE if report.model.is_bundle else ""
    synthetic = (
        "- It learnt from synthetic mammograms: on real ones its answers mean nothing.\n"
        if report.model.synthetic and not report.model.calibration_only
        else ""
    )
    return f"""## Limitations

{synthetic}- One data set says nothing of other machines, centres, populations or prevalences.
- Labels are those of the data set. What they call a tumor, and how it was proved, is told there.
{alone}- Subgroups are many and small: one that does not stand out has not been shown to be equal.
- Predictive values follow the prevalence; those at screening prevalence are re-scaled, not seen.
- Intervals are of chance in drawing patients, not of training again or of errors in labels.

## Ethical considerations

A missed tumor and a false alarm both harm. No person may be treated, called back or sent home by
this model's answer. Metadata can hide unequal care: look at the subgroups before any study. Images
of patients stay where their owners allow them to be.

## Licence

{licence}"""


def _checklists(report: Report) -> str:
    texts = []
    for title, source, items in (
        ("TRIPOD+AI", "Collins et al. 2024, BMJ 385:e078378", TRIPOD_AI),
        ("CLAIM 2024", "Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300", CLAIM),
    ):
        rows = "\n".join(item.row(report) for item in items)
        texts.append(
            f"## {title}\n\n{source}. Topics are short names; read the checklist itself.\n\n"
            f"| Item | Topic | Where |\n|---|---|---|\n{rows}"
        )
    return "\n\n".join(texts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
