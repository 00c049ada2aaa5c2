"""`examine` a data set, and `mend` what can be corrected. Originals are never touched."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mammolens.data.manifest import Manifest
from mammolens.data.splits import split_by_patient
from mammolens.doctor.facts import ExaminedSet
from mammolens.doctor.findings import Diagnosis, Finding, Severity
from mammolens.doctor.image_checks import check_images
from mammolens.doctor.table_checks import check_tables, count_tables

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
    for finding in findings:
        if finding.code in _KEPT:
            for group in finding.groups or (finding.files,):
                dropped.update(group[_KEPT[finding.code] :])
    marked = (
        replace(m, metadata={**m.metadata, "polarity": "inverted" if facts.inverted else "upright"})
        for m, facts in examined.pairs()
        if m.path not in dropped
    )
    return split_by_patient(Manifest(tuple(marked)), strata=STRATA)
