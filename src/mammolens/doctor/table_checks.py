"""What is wrong with labels, patients and splits, and what tells the label without a tumor."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from functools import partial

import numpy as np
from scipy.stats import chi2_contingency, contingency

from mammolens import numerals
from mammolens.data.manifest import Manifest
from mammolens.data.splits import leakage
from mammolens.doctor.findings import Finding, Severity, Table
from mammolens.doctor.image_checks import Examined
from mammolens.measures.metrics import Estimate
from mammolens.measures.shortcuts import (
    can_be_judged,
    counts_auc,
    file_name_auc,
    metadata_auc,
    needed_patients,
    pixels_auc,
)
from mammolens.records import Mammogram, Split

_TELLS = 0.55  # a shortcut whose interval lies above this is worth a warning
_PROMISE = (0.75, 0.03)  # an AUC one may hope for, and how exactly one wants to know it

_ASSOCIATED = (0.15, 0.001)  # Cramer's V and p from which classes and groups go together

_COLUMNS: dict[str, Callable[[Mammogram], str]] = {
    "split": lambda m: m.split or "",
    "site": lambda m: m.metadata.get("site_id", ""),
    "machine": lambda m: m.metadata.get("machine_id", ""),
    "view": lambda m: m.view or "",
}

Breast = tuple[str, str]


def check_tables(examined: Examined) -> list[Finding]:
    """Run every check of this room."""
    manifest = examined.manifest
    findings = [*_left_out(manifest), *_crossing(manifest), *_contrary(manifest)]
    findings += _missing(manifest)
    findings += _unbalanced(manifest)
    return [*findings, *_shortcuts(examined)]


def count_tables(manifest: Manifest) -> tuple[Table, ...]:
    """Count classes by split, site, machine and view, where they are known."""
    grouped = ((name, _grouped(manifest, name)) for name in _COLUMNS)
    return tuple(_count_table(name, groups) for name, groups in grouped if groups)


def _grouped(manifest: Manifest, column: str) -> dict[str, list[Mammogram]]:
    """Return images by what a column says of them; nothing where it is known of none."""
    groups: dict[str, list[Mammogram]] = defaultdict(list)
    for mammogram in manifest:
        groups[_COLUMNS[column](mammogram) or "unknown"].append(mammogram)
    return {} if set(groups) == {"unknown"} else groups


def _count_table(name: str, groups: dict[str, list[Mammogram]]) -> Table:
    rows = []
    for value in sorted(groups):
        labels = [m.label for m in groups[value] if m.label is not None]
        share = numerals.percent(sum(labels) / len(labels)) if labels else "-"
        patients = len({m.patient_key for m in groups[value]})
        rows.append((value, str(len(groups[value])), str(patients), str(sum(labels)), share))
    columns = (name, "images", "patients", "tumor", "share of tumor")
    return Table(title=f"Classes by {name}", columns=columns, rows=tuple(rows))


def _left_out(manifest: Manifest) -> list[Finding]:
    """Files that may be images of the set and are not in it."""
    left_out = manifest.left_out
    if not left_out:
        return []
    return [
        Finding(
            code="left_out",
            severity=Severity.WARNING,
            title=f"{len(left_out)} files were left out, such as {left_out[0]}",
            files=tuple(one.path for one in left_out),
            why="Whoever thinks that these images are in the data set is wrong, and nobody can "
            "tell whether those that are stand for all.",
            mend="Put them where and how they can be read, or move them elsewhere.",
        )
    ]


def _crossing(manifest: Manifest) -> list[Finding]:
    """Patients, and single breasts, on both sides of a split."""
    findings = []
    known = manifest.where(lambda m: m.patient_id is not None)
    for judged in (Split.VALID, Split.TEST):
        shared = leakage(known, Split.TRAIN, judged)
        if not shared.patients:
            continue
        breasts = _breasts(known.of_split(Split.TRAIN))
        same = [m for m in known.of_split(judged) if _breast(m) in breasts]
        learnt = set(known.of_split(Split.TRAIN).patients)
        files = tuple(m.path for m in known.of_split(judged) if m.patient_key in learnt)
        findings.append(
            Finding(
                code=f"patients_across_splits_{judged}",
                severity=Severity.ERROR,
                title=f"{shared.images} of {shared.of_images} images in '{judged}' "
                f"({shared.patients} of {shared.of_patients} patients) have their patient in "
                f"'train', and {len(same)} have their very breast there",
                files=files,
                why="A network that knows a patient's breast by heart knows its label, and "
                "figures from this split are not about new patients.",
                mend="Split by patient (--mend does).",
            )
        )
    return findings


def _contrary(manifest: Manifest) -> list[Finding]:
    groups: dict[Hashable, list[Mammogram]] = defaultdict(list)
    for mammogram in manifest:
        if (breast := _breast(mammogram)) is not None and mammogram.label is not None:
            groups[breast].append(mammogram)
    contrary = [group for group in groups.values() if len({m.label for m in group}) > 1]
    if not contrary:
        return []
    paths = tuple(tuple(m.path for m in group) for group in contrary)
    return [
        Finding(
            code="contradictory_labels",
            severity=Severity.WARNING,
            title=f"{len(contrary)} of {len(groups)} breasts have images of both labels",
            files=tuple(path for group in paths for path in group),
            groups=paths,
            why="A label of the breast holds for all of its views; one of an image need not.",
            mend="Find out which kind of label the data set has, and correct it.",
        )
    ]


def _unbalanced(manifest: Manifest) -> list[Finding]:
    """Splits, sites, machines or views among which the share of tumors differs beyond chance."""
    findings = []
    for column in _COLUMNS:
        groups = _grouped(manifest.labelled(), column)
        labels = [[m.label for m in group] for group in groups.values()]
        counts = np.array([[known.count(0), known.count(1)] for known in labels]).reshape(-1, 2)
        if len(counts) < 2 or not counts.sum(axis=0).all():  # noqa: PLR2004 - nothing to compare
            continue
        strength = float(contingency.association(counts, method="cramer"))
        if strength > _ASSOCIATED[0] and chi2_contingency(counts).pvalue < _ASSOCIATED[1]:
            shares = counts[:, 1] / counts.sum(axis=1)
            findings.append(
                Finding(
                    code=f"class_balance_{column}",
                    severity=Severity.NOTE,
                    title=f"The share of tumors runs from {numerals.percent(shares.min())} to "
                    f"{numerals.percent(shares.max())} "
                    f"by {column} (Cramer's V {strength:.2f})",
                    why=f"Where classes and {column}s go together, one can be told from the other.",
                    mend="Compare within groups; --mend stratifies splits by site and machine.",
                )
            )
    return findings


def _missing(manifest: Manifest) -> list[Finding]:
    """What honest work would need and the data set does not have."""
    findings = []
    unknown = tuple(m.path for m in manifest if m.patient_id is None)
    if unknown:
        findings.append(
            Finding(
                code="no_patient_ids",
                severity=Severity.WARNING,
                title=f"{len(unknown)} of {len(manifest)} images have no patient",
                files=unknown,
                why="Nobody can tell whether a patient is on both sides of a split, and "
                "intervals are too narrow where a patient has several images.",
                mend="Add the column patient_id to the table, or name files PATIENT_IMAGE.png.",
            )
        )
    for split, purpose in ((Split.VALID, "choose"), (Split.TEST, "judge")):
        if not len(manifest.of_split(split)):
            findings.append(
                Finding(
                    code=f"no_{split}_split",
                    severity=Severity.WARNING if split is Split.VALID else Severity.NOTE,
                    title=f"There is no split '{split}' to {purpose} on",
                    why="What is chosen on the images it is judged on looks better than it is.",
                    mend="Split by patient (--mend does).",
                )
            )
    return [*findings, *_too_few(manifest)]


def _too_few(manifest: Manifest) -> list[Finding]:
    judged = manifest.of_split(Split.TEST).labelled()
    ill = {m.patient_key for m in judged if m.label == 1}
    well = {m.patient_key for m in judged} - ill
    if not ill or not well:
        return []
    auc, half_width = _PROMISE
    needed = needed_patients(auc, half_width, len(ill), len(well))
    if len(ill | well) >= needed:
        return []
    return [
        Finding(
            code="too_few_patients",
            severity=Severity.NOTE,
            title=f"The test split has {len(ill | well)} patients, {len(ill)} with a tumor; an "
            f"AUC of {auc} known to ± {half_width} needs about {needed}",
            why="Two networks that differ by less than the interval cannot be told apart.",
            mend="Judge by cross-validation over all patients, or get more.",
        )
    ]


def _shortcuts(examined: Examined) -> list[Finding]:
    pairs = [(m, f) for m, f in examined.pairs() if m.label is not None]
    manifest = Manifest(tuple(m for m, _ in pairs))
    if not can_be_judged(manifest):
        return []
    background = np.stack([facts.background for _, facts in pairs])
    tiny = np.stack([facts.tiny for _, facts in pairs])
    judged: dict[str, tuple[str, Callable[[], Estimate | None]]] = {
        "metadata": ("age, machine and other metadata", partial(metadata_auc, manifest)),
        "file_name": ("the numbers in the file name", partial(file_name_auc, manifest)),
        "counts": ("the number of images and breasts of a patient", partial(counts_auc, manifest)),
        "background": ("border and background", partial(pixels_auc, manifest, background)),
        "thumbnail": ("an 8 x 8 thumbnail", partial(pixels_auc, manifest, tiny)),
    }
    findings = []
    for code, (source, judge) in judged.items():
        if (figure := judge()) is not None:
            findings.append(_shortcut(f"shortcut_{code}", source, figure))
    return findings


def _shortcut(code: str, source: str, figure: Estimate) -> Finding:
    tells = figure.low > _TELLS
    value, low, high = map(numerals.figure, (figure.value, figure.low, figure.high))
    return Finding(
        code=code,
        severity=Severity.WARNING if tells else Severity.NOTE,
        title=f"The label is told from {source} alone with an AUC of {value} {numerals.interval(low, high)}",
        why=f"A model that scores {value} here may only be reading {source}."
        if tells
        else "Close to chance: there is little to be learnt from it.",
        mend="Beat it clearly, compare within its strata, and never feed it to a model." if tells else "Nothing.",
        estimate=figure,
    )


def _breast(mammogram: Mammogram) -> Breast | None:
    if mammogram.patient_id is None or mammogram.laterality is None:
        return None
    return mammogram.patient_id, mammogram.laterality


def _breasts(manifest: Manifest) -> set[Breast]:
    return {breast for m in manifest if (breast := _breast(m)) is not None}
