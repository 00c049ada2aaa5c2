"""What is wrong with labels, patients and splits, and what tells the label without a tumor."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from scipy.stats import chi2_contingency, contingency

from mammolens import numerals
from mammolens.data.manifest import Manifest
from mammolens.data.splits import leakage
from mammolens.doctor.facts import ExaminedSet
from mammolens.doctor.findings import Finding, Table, finding
from mammolens.measures import shortcuts
from mammolens.measures.metrics import Estimate
from mammolens.records import Mammogram, Split

_TELLS = 0.55  # a shortcut whose interval lies above this is worth a warning
_PROMISE = (0.75, 0.03)  # an AUC one may hope for, and how exactly one wants to know it
_ASSOCIATED = (0.15, 0.001)  # Cramer's V and p from which classes and groups go together

_COLUMNS: dict[str, Callable[[Mammogram], str | None]] = {
    "split": lambda m: m.split,
    "site": lambda m: m.metadata.get("site_id"),
    "machine": lambda m: m.metadata.get("machine_id"),
    "view": lambda m: m.view,
}


def check_tables(examined: ExaminedSet) -> list[Finding]:
    """Run every check of this room."""
    manifest = examined.manifest
    checks = (_left_out, _crossing, _contrary, _missing, _too_few, _unbalanced)
    return [*(found for check in checks for found in check(manifest)), *_shortcuts(examined)]


def count_tables(manifest: Manifest) -> tuple[Table, ...]:
    """Count classes by split, site, machine and view, where they are known."""
    grouped = {column: _grouped(manifest, column) for column in _COLUMNS}
    return tuple(_count_table(column, groups) for column, groups in grouped.items() if groups)


def _grouped(manifest: Manifest, column: str) -> dict[str, list[Mammogram]]:
    """Return images by what a column says of them; nothing where it is known of none."""
    groups: dict[str, list[Mammogram]] = defaultdict(list)
    for mammogram in manifest:
        groups[_COLUMNS[column](mammogram) or "unknown"].append(mammogram)
    return {} if set(groups) == {"unknown"} else groups


def _count_table(column: str, groups: dict[str, list[Mammogram]]) -> Table:
    rows = []
    for value, group in sorted(groups.items()):
        labels = [m.label for m in group if m.label is not None]
        share = numerals.percent(sum(labels) / len(labels)) if labels else "-"
        patients = len({m.patient_key for m in group})
        rows.append((value, str(len(group)), str(patients), str(sum(labels)), share))
    columns = (column, "images", "patients", "tumor", "share of tumor")
    return Table(title=f"Classes by {column}", columns=columns, rows=tuple(rows))


def _left_out(manifest: Manifest) -> list[Finding]:
    """Files that may be images of the set and are not in it."""
    files = [one.path for one in manifest.left_out]
    return [finding("left_out", files, count=len(files), first=manifest.left_out[0])] if files else []


def _crossing(manifest: Manifest) -> list[Finding]:
    """Patients, and single breasts, on both sides of a split."""
    findings = []
    named = manifest.where(lambda m: m.patient_id is not None)
    train = named.of_split(Split.TRAIN)
    patients, breasts = set(train.patients), {m.breast_key for m in train}
    for split in (Split.VALID, Split.TEST):
        crossing = [m for m in named.of_split(split) if m.patient_key in patients]
        if crossing:
            shared = leakage(named, Split.TRAIN, split)
            same = sum(m.breast_key in breasts for m in crossing)
            files = [m.path for m in crossing]
            findings.append(finding("patients_across_splits", files, split=split, shared=shared, same=same))
    return findings


def _contrary(manifest: Manifest) -> list[Finding]:
    """Breasts whose images have different labels."""
    breasts: dict[str, list[Mammogram]] = defaultdict(list)
    for mammogram in manifest.labelled():
        if mammogram.patient_id is not None and mammogram.laterality is not None:
            breasts[mammogram.breast_key].append(mammogram)
    groups = [[m.path for m in images] for images in breasts.values() if len({m.label for m in images}) > 1]
    if not groups:
        return []
    return [finding("contradictory_labels", groups=groups, contrary=len(groups), breasts=len(breasts))]


def _missing(manifest: Manifest) -> list[Finding]:
    """Patients and splits that honest work would need."""
    unknown = [m.path for m in manifest if m.patient_id is None]
    patients = [finding("no_patient_ids", unknown, unknown=len(unknown), of=len(manifest))] if unknown else []
    splits = (Split.VALID, Split.TEST)
    return patients + [finding(f"no_{split}_split") for split in splits if not len(manifest.of_split(split))]


def _too_few(manifest: Manifest) -> list[Finding]:
    judged = manifest.of_split(Split.TEST).labelled()
    patients, ill = set(judged.patients), set(judged.with_label(1).patients)
    if not ill or ill == patients:
        return []
    auc, half_width = _PROMISE
    needed = shortcuts.needed_patients(auc, half_width, len(ill), len(patients - ill))
    if len(patients) >= needed:
        return []
    return [
        finding("too_few_patients", patients=len(patients), ill=len(ill), auc=auc, half_width=half_width, needed=needed)
    ]


def _unbalanced(manifest: Manifest) -> list[Finding]:
    """Splits, sites, machines or views among which the share of tumors differs beyond chance."""
    findings = []
    for column in _COLUMNS:
        groups = _grouped(manifest.labelled(), column).values()
        tumors = np.array([sum(m.label == 1 for m in group) for group in groups])
        counts = np.stack([[len(group) for group in groups] - tumors, tumors], axis=1)
        if len(counts) < 2 or not counts.sum(axis=0).all():  # noqa: PLR2004 - nothing to compare
            continue
        strength = float(contingency.association(counts, method="cramer"))
        if strength > _ASSOCIATED[0] and chi2_contingency(counts).pvalue < _ASSOCIATED[1]:
            shares = tumors / counts.sum(axis=1)
            lowest, highest = numerals.percent(shares.min()), numerals.percent(shares.max())
            findings.append(finding("class_balance", column=column, lowest=lowest, highest=highest, strength=strength))
    return findings


def _shortcuts(examined: ExaminedSet) -> list[Finding]:
    """What else than a tumor the label is told from, and how well."""
    pairs = [(m, f) for m, f in examined.pairs() if m.label is not None]
    table = shortcuts.image_table(m for m, _ in pairs)
    if not shortcuts.can_be_judged(table):
        return []
    background = np.stack([facts.background for _, facts in pairs])
    tiny = np.stack([facts.tiny for _, facts in pairs])
    aucs: dict[str, tuple[str, Estimate | None]] = {
        "metadata": ("age, machine and other metadata", shortcuts.metadata_auc(table)),
        "file_name": ("the numbers in the file name", shortcuts.file_name_auc(table)),
        "counts": ("the number of images and breasts of a patient", shortcuts.counts_auc(table)),
        "background": ("border and background", shortcuts.pixels_auc(table, background)),
        "thumbnail": ("an 8 x 8 thumbnail", shortcuts.pixels_auc(table, tiny)),
    }
    return [_shortcut(name, source, auc) for name, (source, auc) in aucs.items() if auc is not None]


def _shortcut(name: str, source: str, auc: Estimate) -> Finding:
    value, low, high = map(numerals.figure, (auc.value, auc.low, auc.high))
    key = "shortcut" if auc.low > _TELLS else "no_shortcut"
    interval = numerals.interval(low, high)
    return finding(key, estimate=auc, name=name, source=source, value=value, interval=interval)
