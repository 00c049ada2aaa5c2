"""What the doctor says: `Finding`s in a `Diagnosis`, and the schema of ``findings.json``."""

import tomllib
from collections.abc import Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mammolens import __version__
from mammolens.measures.intervals import Estimate

_FROZEN = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")
_SENTENCES = tomllib.loads(resources.files("mammolens.doctor").joinpath("findings.toml").read_text(encoding="utf-8"))


class Severity(StrEnum):
    """How bad it is: figures are wrong, figures may be wrong, good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


MEANINGS = {
    Severity.ERROR: "figures computed on these data are wrong",
    Severity.WARNING: "they may be wrong",
    Severity.NOTE: "good to know",
}
"""What each severity says, as people read it."""


class Finding(BaseModel):
    """One thing that is wrong with a data set.

    Attributes:
        code: a stable name, such as ``inverted`` or ``patients_across_splits``.
        severity: how bad it is.
        title: what was found, with numbers, in one line.
        files: every image it concerns, in the order of the manifest; empty where it concerns all.
        groups: for duplicates and contradictions: which files belong together.
        why: why it matters, in a sentence.
        mend: what to do about it.
        estimate: for shortcuts: the AUC with its 95 % interval by patient.
    """

    model_config = _FROZEN

    code: str
    severity: Severity
    title: str
    files: tuple[Path, ...] = ()
    groups: tuple[tuple[Path, ...], ...] = ()
    why: str
    mend: str
    estimate: Estimate | None = None


class Table(BaseModel):
    """Counts that put findings into context, such as classes by machine."""

    model_config = _FROZEN

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Diagnosis(BaseModel):
    """What ``findings.json`` holds.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        data: what the user named.
        command: what to type to get this again.
        images: rows of the data set.
        patients: known patients.
        tumors: images labelled tumor.
        findings: worst first.
        tables: counts by split, site, machine and view.
    """

    model_config = _FROZEN

    schema_version: Literal[1] = 1
    mammolens_version: str = __version__
    data: str
    command: str
    images: int
    patients: int
    tumors: int
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity is severity)


def finding(
    key: str,
    files: Sequence[Path] = (),
    *,
    groups: Sequence[Sequence[Path]] = (),
    estimate: Estimate | None = None,
    **said: object,
) -> Finding:
    """Return what ``findings.toml`` says under `key` of these files, or groups of files.

    Args:
        key: of the table.
        files: what it concerns, where they are not in groups.
        groups: which files belong together.
        estimate: of a shortcut.
        said: what its sentences leave to be filled in, but for the numbers of images and groups.
    """
    files = files or [path for group in groups for path in group]
    said |= {"images": _counted(files, "image"), "groups": _counted(groups, "group")}
    parts = {"code": key} | _SENTENCES[key]
    texts = {part: text.format(**said) for part, text in parts.items()}
    return Finding.model_validate(texts | {"files": files, "groups": groups, "estimate": estimate})


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name if len(things) == 1 else f'{name}s'}"
