"""What the command line shows: Rich tables of splits, reports and predictions. Decides nothing."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from mammolens.doctor.findings import Diagnosis, Severity
from mammolens.evaluation import Report, show
from mammolens.manifest import Manifest
from mammolens.metrics import Estimate
from mammolens.records import Level, Split
from mammolens.splits import leakage


def splits_table(manifest: Manifest, title: str) -> Table:
    """Show images, patients and labels of each split."""
    table = Table(
        "split", "images", "patients", "tumor", "no tumor", "unknown", title=escape(title)
    )
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
                f"{shared.patients} of {shared.of_patients} patients ({shared.images} of "
                f"{shared.of_images} images) in '{judged}' are in 'train' too: figures will be too "
                "good. Use: mammolens manifest DATA data.csv --splits patient"
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
    """Show every measure with its interval."""
    counts = report.counts
    table = Table(
        "measure",
        "value (95 % interval by patient)",
        title=f"{report.split or 'all images'}: {counts.images} images of {counts.patients} "
        f"patients, {counts.tumors} with tumor; threshold {report.threshold:.3f}",
    )
    for name, figure in report.metrics.items():
        table.add_row(name.replace("_", " "), show(figure))
    table.add_row("accuracy of always saying the commoner class", f"{report.majority_accuracy:.3f}")
    return table


def classes_table(report: Report) -> Table:
    """Show the confusion matrix with precision, recall and F1 of each class."""
    table = Table("", "called no tumor", "called tumor", "precision", "recall", "F1", "images")
    for row, cells in zip(report.classes, report.confusion, strict=True):
        shares = ("-" if x is None else f"{x:.3f}" for x in (row.precision, row.recall, row.f1))
        table.add_row(f"is {row.name}", *map(str, cells), *shares, str(row.images))
    return table


def folds_table(
    means: Mapping[Level, Estimate], folds: Mapping[Level, Sequence[Estimate]]
) -> Table:
    """Show the AUC of each fold and their mean, by image, breast and patient."""
    table = Table(
        "fold", *(f"AUC by {level}" for level in means), title="95 % intervals by patient"
    )
    for number, row in enumerate(zip(*(folds[level] for level in means), strict=True), start=1):
        table.add_row(str(number), *map(show, row))
    table.add_section()
    table.add_row("mean", *map(show, means.values()))
    return table


def report_warnings(report: Report) -> list[str]:
    """Say what makes the figures weaker than they look."""
    counts = report.counts
    said = []
    if counts.patients_also_in_training:
        said.append(f"{counts.patients_also_in_training} of these patients were trained on")
    if counts.without_answer:
        said.append(f"{counts.without_answer} images got no answer and are left out")
    if counts.without_label:
        said.append(f"{counts.without_label} images have no label and are left out")
    return said
