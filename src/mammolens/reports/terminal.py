"""What the command line shows: Rich tables of splits, reports and predictions. Decides nothing."""

import math
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from mammolens import numerals
from mammolens.data.manifest import Manifest
from mammolens.data.splits import leakage
from mammolens.doctor.findings import Diagnosis, Severity
from mammolens.judging.comparison import Comparison
from mammolens.judging.schema import Report
from mammolens.measures.intervals import Estimate
from mammolens.records import Level, Split

_WEAKER = {
    "patients_also_in_training": "of these patients are in the training split of this data set, too: figures are too "
    "good where the model learnt from it",
    "without_answer": "images got no answer and are left out",
    "without_label": "images have no label and are left out",
    "without_patient": "images are of no known patient, each taken for another one: intervals are too narrow where a "
    "patient has several",
    "not_like_training": "images do not look like what was learnt from: they are judged all the same, but predict "
    "gives them no decision",
}
"""What is said of each of `Counts` that is not 0."""


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
    """Show each finding of the doctor with what to do about it, worst first."""
    colours = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "blue"}
    counts = f"{diagnosis.images} images, {diagnosis.patients} patients, {diagnosis.tumors} tumors"
    table = Table("", "finding", "what to do", title=f"{diagnosis.data}: {counts}", show_lines=True)
    for finding in diagnosis.findings:
        severity = f"[{colours[finding.severity]}]{finding.severity}[/]"
        table.add_row(severity, escape(finding.title), escape(finding.mend))
    return table


def measures_table(report: Report) -> Table:
    """Show discrimination with intervals, by image, breast and patient."""
    counts = report.counts
    table = Table(
        "measure",
        *(f"by {level}" for level in report.levels),
        title=f"{report.split or 'all images'}: {counts.images} images of {counts.patients} "
        f"patients, {counts.tumors} with tumor",
        caption="95 % intervals by patient",
    )
    for name in report.images.discrimination:
        figures = (level.discrimination[name] for level in report.levels.values())
        table.add_row(name.replace("_", " "), *map(show, figures))
    return table


def decisions_table(report: Report) -> Table:
    """Show what each operating point decides, by image."""
    names = ("sensitivity", "specificity", "precision", "accuracy")
    table = Table("operating point", "threshold", *names, title="Decisions by image")
    for name, decision in report.images.decisions.items():
        chosen = f"{name} (default)" if name == report.default_point else name
        figures = (show(decision.measures[measure]) for measure in names)
        table.add_row(chosen, numerals.probability(decision.threshold), *figures)
    table.add_section()
    majority = f"{report.images.majority_accuracy:.3f}"
    table.add_row("always the commoner class", "", "", "", "", majority)
    return table


def comparison_table(comparison: Comparison) -> Table:
    """Show two AUCs and their difference, by image, breast and patient."""
    first, second = comparison.reports
    table = Table("AUC", *map(str, comparison.levels), title=escape(f"{second} against {first}"))
    rows = {
        "subjects": [f"{one.subjects}" for one in comparison.levels.values()],
        "first": [show(one.first) for one in comparison.levels.values()],
        "second": [show(one.second) for one in comparison.levels.values()],
        "difference, by patient": [show(one.difference) for one in comparison.levels.values()],
        "difference, DeLong": [show(one.delong) for one in comparison.levels.values()],
        "p, DeLong": [numerals.p_value(one.p_value) for one in comparison.levels.values()],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def folds_table(means: Mapping[Level, Estimate], folds: Mapping[Level, Sequence[Estimate]]) -> Table:
    """Show the AUC of each fold and their mean, by image, breast and patient."""
    table = Table("fold", *(f"AUC by {level}" for level in means), title="95 % intervals by patient")
    for number, row in enumerate(zip(*(folds[level] for level in means), strict=True), start=1):
        table.add_row(str(number), *map(show, row))
    table.add_section()
    table.add_row("mean", *map(show, means.values()))
    return table


def show(figure: Estimate) -> str:
    """Return an estimate as text, such as ``0.652 (0.611 to 0.690)``."""
    if math.isnan(figure.value):
        return numerals.NOT_DEFINED
    value, low, high = map(numerals.figure, (figure.value, figure.low, figure.high))
    return f"{value} {numerals.interval(low, high)}"


def report_warnings(report: Report) -> list[str]:
    """Say what makes the figures weaker than they look."""
    counts = [(getattr(report.counts, name), said) for name, said in _WEAKER.items()]
    return [*(f"{count} {said}" for count, said in counts if count), *report.notes]
