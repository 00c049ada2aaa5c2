"""A `Diagnosis` as ``findings.json`` and as ``report.html``: one page, no network, no script."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

from mammolens.doctor.findings import MEANINGS, Diagnosis, Finding, Severity, Table
from mammolens.files import write_text
from mammolens.images.breast import thumbnail
from mammolens.images.reading import read_or_reason
from mammolens.parallel import map_in_order
from mammolens.reports.pages import template

EXAMPLES = 8  # thumbnails of a finding without groups, at most
GROUPS, PER_GROUP = 3, 6  # groups shown of a finding that has groups, and thumbnails of each
NAMES = 200  # further file names of a finding, at most

_SIDE, _QUALITY = 160, 70  # longer side of a thumbnail in pixels, JPEG quality
_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the axis that AUCs are drawn on


class Picture(NamedTuple):
    """A thumbnail."""

    jpeg: bytes
    height: int
    width: int


class Shown(NamedTuple):
    """A finding as the page shows it.

    Attributes:
        place: in the diagnosis.
        finding: what was found.
        examples: rows of files that are shown: the first groups, or files spread evenly.
        others: files that are named alone, with the number of their group, or 0.
    """

    place: int
    finding: Finding
    examples: Sequence[Sequence[Path]]
    others: Mapping[Path, int]


def write_report(diagnosis: Diagnosis, folder: Path) -> None:
    """Write ``findings.json`` and then ``report.html``, each whole or not at all, into `folder`.

    Raises:
        DataError: `folder` cannot be written to.
    """
    write_text(folder / "findings.json", diagnosis.model_dump_json(indent=2) + "\n")
    write_text(folder / "report.html", _page(diagnosis))


def _page(diagnosis: Diagnosis) -> str:
    shown = [_shown(place, finding) for place, finding in enumerate(diagnosis.findings)]
    wanted = sorted({path for one in shown for row in one.examples for path in row})
    folders = {path.parent for finding in diagnosis.findings for path in finding.files}
    shared = set.intersection(*({one, *one.parents} for one in folders)) if folders else set()
    return template("doctor.html.j2").render(
        diagnosis=diagnosis,
        name=Path(diagnosis.data).name or diagnosis.data,
        shown=shown,
        pictures=dict(zip(wanted, map_in_order(_picture, wanted), strict=True)),
        root=max(shared, key=lambda one: len(one.parts), default=Path()),
        numeric=_numeric,
        severities=list(Severity),
        meanings=MEANINGS,
        names=NAMES,
        ticks=_TICKS,
        along=_along,
        finite=math.isfinite,
    )


def _shown(place: int, finding: Finding) -> Shown:
    if finding.estimate:
        return Shown(place, finding, (), dict.fromkeys(finding.files, 0))
    count = min(EXAMPLES, len(finding.files))
    examples = [group[:PER_GROUP] for group in finding.groups[:GROUPS]]
    if count and not examples:
        examples = [tuple(finding.files[number * len(finding.files) // count] for number in range(count))]
    others = {path: number for number, group in enumerate(finding.groups, 1) for path in group}
    others |= {path: 0 for path in finding.files if path not in others}
    for path in {path for row in examples for path in row}:
        del others[path]
    return Shown(place, finding, examples, others)


def _picture(path: Path) -> Picture | str:
    """Return a thumbnail, or why there is none."""
    image = read_or_reason(path)
    if isinstance(image, str):
        return image
    grey = np.rint(thumbnail(image.pixels, _SIDE) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(grey).save(stream, "JPEG", quality=_QUALITY)
    return Picture(stream.getvalue(), *grey.shape)


def _along(auc: float) -> str:
    """Return where on the axis an AUC is."""
    return f"{200 * (min(max(auc, 0.5), 1.0) - 0.5):.2f}%"


def _numeric(table: Table) -> list[int]:
    """Return which columns hold numbers, and no words."""
    texts = ["".join(cells).lower() for cells in zip(*table.rows, strict=True)]
    return [place for place, text in enumerate(texts) if place and text == text.upper()]
