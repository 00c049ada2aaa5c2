"""`examine` a data set, and `mend` what can be mended. Originals are never touched."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mammolens.data.manifest import Manifest
from mammolens.data.splits import split_by_patient
from mammolens.doctor.facts import Facts, collect_facts
from mammolens.doctor.findings import Diagnosis, Finding, Severity
from mammolens.doctor.image_checks import Examined, check_images
from mammolens.doctor.table_checks import check_tables, count_tables
from mammolens.errors import DataError

STRATA = ("site_id", "machine_id")
"""Metadata that mended splits are stratified by, besides the label."""

_LEFT_OUT_WHOLE = ("unreadable", "blank", "duplicates_with_different_labels")
_LEFT_OUT_BUT_FIRST = ("duplicates_across_splits", "duplicates")
_ORDER = tuple(Severity)


def look(manifest: Manifest, *, progress: bool = False) -> Examined:
    """Look at every image once.

    Raises:
        DataError: there is no image.
    """
    if not len(manifest):
        raise DataError("the data set is empty: there is nothing to examine.")
    return Examined(manifest, tuple(collect_facts(manifest.paths, progress=progress)))


def examine(examined: Examined, *, data: str, command: str) -> Diagnosis:
    """Run every check and return the findings, worst first."""
    manifest = examined.manifest
    findings = [*check_images(examined), *check_tables(examined)]
    return Diagnosis(
        data=data,
        command=command,
        images=len(manifest),
        patients=len({m.patient_id for m in manifest if m.patient_id is not None}),
        tumors=sum(m.label == 1 for m in manifest),
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))),
        tables=count_tables(manifest),
    )


def mend(examined: Examined, findings: Iterable[Finding], seed: int = 0) -> Manifest:
    """Return a manifest without unusable and duplicate images, polarity marked, split by patient.

    Polarity is the metadata ``polarity``, ``inverted`` or ``upright``. Splits are 70, 15 and 15 %
    of the images, patients apart, stratified by label, site and machine.

    Raises:
        DataError: what is left cannot be split.
    """
    dropped: set[Path] = set()
    for finding in findings:
        if finding.code in _LEFT_OUT_WHOLE:
            dropped.update(finding.files)
        elif finding.code in _LEFT_OUT_BUT_FIRST:
            dropped.update(path for group in finding.groups for path in group[1:])
    kept = tuple(
        replace(m, metadata={**m.metadata, "polarity": _polarity(facts)})
        for m, facts in examined.pairs()
        if m.path not in dropped
    )
    return split_by_patient(Manifest(kept), seed=seed, strata=STRATA)


def _polarity(facts: Facts) -> str:
    return "inverted" if facts.inverted else "upright"
