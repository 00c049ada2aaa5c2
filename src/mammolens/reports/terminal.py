"""What the command line shows: Rich tables of splits, reports and predictions. Decides nothing."""

import math
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from mammolens import numerals
from mammolens.data.manifest import Manifest
from mammolens.data.splits import leakage
from mammolens.doctor.findings import MEANINGS, Diagnosis, Severity
from mammolens.judging.comparison import Comparison
from mammolens.judging.schema import Report
from mammolens.judging.tuning import Tuning
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.records import Split
from mammolens.reports.pages import FORMS, counted, measure, setting

_ROOMY = 100  # columns of the screen from which an interval stands beside its figure, not below it

_BEST = 5  # trials on the screen

_WEAKER = {
    "patients_also_in_training": "of these patients are in the training split of this data set, too: figures are too "
    "good where the model learnt from it",
    "without_answer": "images got no answer and are left out",
    "without_label": "images have no label and are left out",
    "without_patient": "images have no known patient, each counted as a patient of its own: intervals are too narrow "
    "where a patient has several",
    "not_like_training": "images do not look like mammograms: evaluated all the same, but without a decision in use",
}
"""What is said of each of `Counts` that is not 0."""

_DECIDED, _WORTH = ("sensitivity", "specificity"), ("precision", "accuracy")


def splits_table(manifest: Manifest, title: str) -> Table:
    """Show images, patients and labels of each split."""
    table = Table("split", "images", "patients", "tumor", "no tumor", "unknown", title=escape(title))
    parts = [(str(split), manifest.of_split(split)) for split in Split]
    parts.append(("none", manifest.where(lambda mammogram: mammogram.split is None)))
    for name, part in parts:
        if len(part):
            tumors, healthy = int((part.labels == 1).sum()), int((part.labels == 0).sum())
            unknown = len(part) - tumors - healthy
            counts = (len(part), len(set(part.patients)), tumors, healthy, unknown)
            table.add_row(name, *map(str, counts))
    return table


def leakage_warnings(manifest: Manifest) -> list[str]:
    """Say where patients of the training split are judged, too."""
    said = []
    for judged in (Split.VALID, Split.TEST):
        shared = leakage(manifest, Split.TRAIN, judged)
        if shared.patients:
            said.append(
                f"{shared.patients} of {shared.of_patients} patients ({shared.images} of {shared.of_images} images) in "
                f"'{judged}' are in 'train' too: figures will be too good. "
                "Use: mammolens manifest DATA data.csv --splits patient"
            )
    return said


def findings_table(diagnosis: Diagnosis) -> Table:
    """Show what the first screen of the doctor's report says, with what to do about each finding."""
    colours = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "blue"}
    counts = [
        counted(diagnosis.images, "image"),
        counted(diagnosis.patients, "patient") if diagnosis.patients else "patients unknown",
        counted(diagnosis.tumors, "tumor"),
    ]
    found = [counted(len(some), severity) for severity in Severity if (some := diagnosis.of(severity))]
    table = Table(
        *("severity", "finding and what to do"),
        title=f"{escape(diagnosis.data)}: {' · '.join(counts)}\n{' · '.join(found) or 'No findings'}",
        caption=". ".join(f"{severity.capitalize()}: {meaning}" for severity, meaning in MEANINGS.items()),
    )
    table.add_column("images", justify="right")
    for finding in diagnosis.findings:
        severity = f"[{colours[finding.severity]}]{finding.severity}[/]"
        said = f"{escape(finding.title)}\n[dim]{escape(finding.mend)}[/]"
        table.add_row(severity, said, f"{len(finding.files):,}" if finding.files else "–")
    return table


def measures_table(report: Report, width: int) -> Table:
    """Show discrimination with intervals, by image, breast and patient, on a screen of `width` columns."""
    counts = report.counts
    table = Table(
        "measure",
        *(f"by {level}" for level in report.levels),
        title=f"{report.split or 'all images'}: {counts.images} images of {counts.patients} "
        f"patients, {counts.tumors} with tumor",
        caption="95 % confidence intervals by patient",
    )
    for key in report.images.discrimination:
        name, form = measure(key)
        table.add_row(name, *(show(one.discrimination[key], width, form) for one in report.levels.values()))
    return table


def decisions_tables(report: Report, width: int) -> tuple[Table, Table]:
    """Show what each operating point decides by image, and how often that is right at the prevalence here."""
    points = report.images.decisions
    decided = Table("operating point", "threshold", "sensitivity", "specificity", title="Decisions by image")
    worth = Table(
        *("operating point", "positive predictive value", "accuracy"),
        title="Predictive value and accuracy by image, at a prevalence of "
        + numerals.percent(report.counts.tumors / report.counts.images),
    )
    for name, decision in points.items():
        chosen = f"{name} (default)" if name == report.default_point else name
        figures = {key: show(decision.measures[key], width, "percent") for key in _DECIDED + _WORTH}
        decided.add_row(chosen, numerals.probability(decision.threshold), *(figures[key] for key in _DECIDED))
        worth.add_row(chosen, *(figures[key] for key in _WORTH))
    worth.add_section()
    worth.add_row("always the commoner class", "", numerals.percent(report.images.majority_accuracy))
    return decided, worth


def comparison_table(comparison: Comparison, width: int) -> Table:
    """Show two AUCs and their difference, by image, breast and patient."""
    first, second = comparison.reports
    table = Table("AUC", *map(str, comparison.levels), title=escape(f"{second} against {first}"))
    levels = comparison.levels.values()
    rows = {
        "subjects": [f"{one.subjects}" for one in levels],
        "first": [show(one.first, width) for one in levels],
        "second": [show(one.second, width) for one in levels],
        "difference, by patient": [show(one.difference, width) for one in levels],
        "difference, DeLong": [show(one.delong, width) for one in levels],
        "p, DeLong": [numerals.p_value(one.p_value) for one in levels],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def folds_table(means: Mapping[Level, Estimate], folds: Mapping[Level, Sequence[Estimate]], width: int) -> Table:
    """Show the AUC of each fold and their mean, by image, breast and patient."""
    table = Table("fold", *(f"AUC by {level}" for level in means), title="95 % confidence intervals by patient")
    for number, row in enumerate(zip(*(folds[level] for level in means), strict=True), start=1):
        table.add_row(str(number), *(show(one, width) for one in row))
    table.add_section()
    table.add_row("mean", *(show(one, width) for one in means.values()))
    return table


def trials_table(tuning: Tuning, width: int) -> Table:
    """Show the best trials, and the recipe that the search started from."""
    best = tuning.ranked
    chosen = [one for place, one in enumerate(best) if place < _BEST or not one.number]
    table = Table(
        *("trial", "AUC by image", "folds", "settings"),
        title=f"{counted(len(best) - 1, 'trial')} of {escape(tuning.recipe)}",
        caption="Trial 0 is the recipe that the search started from",
    )
    for one in chosen:
        settings = "\n".join(f"{name} = {setting(value)}" for name, value in one.settings.items())
        auc = show(one.roc_auc, width) if one.roc_auc else one.state
        table.add_row(str(one.number), auc, str(one.folds), escape(settings))
    return table


def worth_table(tuning: Tuning, width: int) -> Table:
    """Show what the best recipe is worth: on the folds that chose it, and on patients held out before."""
    table = Table("AUC by image", "best", "start", "difference, paired", title="95 % confidence intervals by patient")
    both = [tuning.trials[number].roc_auc for number in (tuning.best, 0)]
    table.add_row("on the folds: flatters", *(show(one, width) for one in (*both, tuning.gain) if one))
    if held := tuning.held_out:
        table.add_row("held out", *(show(one, width) for one in (held.best, held.start, held.difference)))
    return table


def show(figure: Estimate, width: int, form: str = "three") -> str:
    """Return an estimate as text, such as ``0.652 (0.611 to 0.690)``: on two lines where the screen is narrow."""
    if math.isnan(figure.value):
        return numerals.NOT_DEFINED
    low, high = map(FORMS["hundredths" if form == "percent" else form], (figure.low, figure.high))
    return f"{FORMS[form](figure.value)}{' ' if width >= _ROOMY else chr(10)}{numerals.interval(low, high)}"


def report_warnings(report: Report) -> list[str]:
    """Say what makes the figures weaker than they look."""
    counts = [(getattr(report.counts, name), said) for name, said in _WEAKER.items()]
    return [*(f"{count} {said}" for count, said in counts if count), *report.notes]
