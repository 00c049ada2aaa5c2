"""Every check of a data set: `examine` it, and `mend` what can be corrected. Originals are never touched."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency, contingency

from mammolens import numerals
from mammolens.data.manifest import Manifest
from mammolens.data.splits import leakage, split_by_patient
from mammolens.doctor.duplicates import duplicate_groups
from mammolens.doctor.facts import ExaminedSet, Facts
from mammolens.doctor.findings import Diagnosis, Finding, Severity, Table, finding
from mammolens.images.breast import UNCERTAIN
from mammolens.measures import shortcuts
from mammolens.measures.intervals import Estimate
from mammolens.records import Mammogram, Split

_BLANK = 0.05  # 1st to 99th percentile of grey levels closer than this: nothing to see
_NO_BREAST = 0.02
_NOT_ALL_BREAST = 0.97
_NO_BACKGROUND = 0.03  # polarity margin; a mammogram has background near its edge
_FEW_LEVELS = 64
_COARSE = 45.0  # mean quantisation step, about JPEG quality 60
_CLIPPED = 0.05
_FEW_BITS = 8

Pairs = list[tuple[Mammogram, Facts]]


def _is_blank(facts: Facts) -> bool:
    return facts.spread < _BLANK


def _has_breast(facts: Facts) -> bool:
    against_background = facts.margin > _NO_BACKGROUND and not _is_blank(facts)
    return against_background and _NO_BREAST <= facts.breast_area <= _NOT_ALL_BREAST


_FAULTS: dict[str, Callable[[Facts], bool]] = {
    "blank": _is_blank,
    "no_breast": lambda facts: not _is_blank(facts) and not _has_breast(facts),
    "colour": lambda facts: facts.colour,
    "few_levels": lambda facts: not _is_blank(facts) and facts.levels < _FEW_LEVELS,
    "heavy_compression": lambda facts: facts.quantizer > _COARSE,
    "clipped": lambda facts: facts.clipped > _CLIPPED,
    "cut_off": lambda facts: facts.cut_off,
    "marker": lambda facts: facts.marker,
    "inverted": lambda facts: _has_breast(facts) and facts.inverted,
    "polarity_uncertain": lambda facts: _has_breast(facts) and facts.margin < UNCERTAIN,
    "square": lambda facts: facts.size[0] == facts.size[1],
    "eight_bits": lambda facts: facts.bit_depth <= _FEW_BITS,
}
"""What may be wrong with a single picture, by the code of its finding."""


def check_images(examined: ExaminedSet) -> list[Finding]:
    """Run every check of this room."""
    pairs = list(examined.pairs())
    sizes = Counter(facts.size for _, facts in pairs).most_common(3)
    said = _inversion(pairs) | {
        "few": _FEW_LEVELS,
        "sizes": ", ".join(f"{count} of {height} x {width}" for (height, width), count in sizes),
    }
    faulty = {code: examined.paths(holds) for code, holds in _FAULTS.items()}
    findings = [finding(code, files, **said) for code, files in faulty.items() if files]
    return [*_unreadable(examined), *findings, *_duplicates(pairs)]


def _unreadable(examined: ExaminedSet) -> list[Finding]:
    reasons = {m.path: said for m, said in zip(examined.manifest, examined.facts, strict=True) if isinstance(said, str)}
    examples = "; ".join(list(reasons.values())[:3])
    return [finding("unreadable", list(reasons), reasons=examples)] if reasons else []


def _inversion(pairs: Pairs) -> dict[str, Any]:
    """Return what is said of inverted images, among those with a breast against a background."""
    seen = [(mammogram, facts) for mammogram, facts in pairs if _has_breast(facts)]
    margins = [facts.margin for _, facts in seen if facts.inverted]
    return {
        "severity": Severity.WARNING if len(margins) < len(seen) else Severity.NOTE,
        "of": len(seen),
        "origin": _origin(seen),
        "margin": min(margins, default=0.0),
        "uncertain": UNCERTAIN,
    }


def _origin(seen: Pairs) -> str:
    """Say which machines, or else sites, inverted images come from; nothing where it is unknown."""
    for name, kind in (("machine_id", "machine"), ("site_id", "site")):
        if any(name in mammogram.metadata for mammogram, _ in seen):
            every = Counter(m.metadata.get(name, "unknown") for m, _ in seen)
            inverted = Counter(m.metadata.get(name, "unknown") for m, facts in seen if facts.inverted)
            parts = (f"{count} of {every[origin]} of {kind} {origin}" for origin, count in inverted.most_common())
            return f": {', '.join(parts)}"
    return ""


def _duplicates(pairs: Pairs) -> list[Finding]:
    pairs = [(mammogram, facts) for mammogram, facts in pairs if not _is_blank(facts)]
    if not pairs:
        return []
    indices = duplicate_groups([facts.digest for _, facts in pairs], [facts.descriptor for _, facts in pairs])
    groups = [[pairs[index][0] for index in group] for group in indices]
    contrary = [group for group in groups if len({m.label for m in group}) > 1]
    across = [group for group in groups if len({m.split for m in group}) > 1]
    sorts = {
        "duplicates_with_different_labels": contrary,
        "duplicates_across_splits": across,
        "duplicates": [group for group in groups if group not in contrary and group not in across],
    }
    return [finding(code, groups=[[m.path for m in group] for group in some]) for code, some in sorts.items() if some]


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
        prevalence = numerals.percent(sum(labels) / len(labels)) if labels else "-"
        patients = len({m.patient_key for m in group})
        rows.append((value, str(len(group)), str(patients), str(sum(labels)), prevalence))
    columns = (column, "images", "patients", "tumor", "prevalence")
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


STRATA = ("site_id", "machine_id")
"""Metadata that corrected splits are stratified by, besides the label."""

_KEPT = {"unreadable": 0, "blank": 0, "duplicates_with_different_labels": 0}
_KEPT |= {"duplicates_across_splits": 1, "duplicates": 1}
"""How many images of each group, or of all, a finding leaves in the data set."""

_ORDER = tuple(Severity)


def examine(examined: ExaminedSet, *, data: str, command: str) -> Diagnosis:
    """Run every check and return the findings, worst first."""
    manifest = examined.manifest
    findings = [*check_images(examined), *check_tables(examined)]
    return Diagnosis(
        data=data,
        command=command,
        images=len(manifest),
        patients=len({m.patient_id for m in manifest if m.patient_id is not None}),
        tumors=len(manifest.with_label(1)),
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))),
        tables=count_tables(manifest),
    )


def mend(examined: ExaminedSet, findings: Iterable[Finding]) -> Manifest:
    """Return a manifest without unusable and duplicate images, polarity marked, split by patient.

    Polarity is the metadata ``polarity``, ``inverted`` or ``upright``. Splits are 70, 15 and 15 %
    of the images, patients apart, stratified by label, site and machine.

    Raises:
        DataError: what remains cannot be split.
    """
    dropped: set[Path] = set()
    for one in findings:
        if one.code in _KEPT:
            for group in one.groups or (one.files,):
                dropped.update(group[_KEPT[one.code] :])
    marked = (
        replace(m, metadata={**m.metadata, "polarity": "inverted" if facts.inverted else "upright"})
        for m, facts in examined.pairs()
        if m.path not in dropped
    )
    return split_by_patient(Manifest(tuple(marked)), strata=STRATA)
