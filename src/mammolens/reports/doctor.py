"""A `Diagnosis` as ``findings.json`` and as ``report.html``: one page, no network, no script."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from mammolens import numerals
from mammolens.doctor.findings import Diagnosis, Finding, Severity, Table
from mammolens.files import write_text
from mammolens.images.breast import thumbnail
from mammolens.images.reading import read_or_reason
from mammolens.measures.metrics import Estimate
from mammolens.parallel import map_in_order

EXAMPLES = 8  # thumbnails of a finding without groups, at most
GROUPS, PER_GROUP = 3, 6  # groups shown of a finding that has groups, and thumbnails of each
NAMES = 200  # further file names of a finding, at most

_SIDE, _QUALITY = 160, 70  # longer side of a thumbnail in pixels, JPEG quality
_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the axis that AUCs are drawn on


def write_report(diagnosis: Diagnosis, folder: Path) -> None:
    """Write ``findings.json`` and then ``report.html``, each whole or not at all, into `folder`.

    Raises:
        DataError: `folder` cannot be written to.
    """
    write_text(folder / "findings.json", diagnosis.model_dump_json(indent=2) + "\n")
    write_text(folder / "report.html", _page(diagnosis))


def _page(diagnosis: Diagnosis) -> str:
    name = escape(Path(diagnosis.data).name or diagnosis.data)
    style = resources.files("mammolens.reports").joinpath("report.css").read_text("utf-8")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: mammolens doctor</title>
<style>
{style}</style></head><body><header><p class="by">mammolens doctor</p>
<h1>{name}</h1>
{_counts(diagnosis)}</header>
<main>
{_summary(diagnosis.findings) if diagnosis.findings else ""}
{_sections(diagnosis.findings)}
{"".join(map(_table, diagnosis.tables))}</main>
<footer><p>Made by <code>{escape(diagnosis.command)}</code> with mammolens
{escape(diagnosis.mammolens_version)}. findings.json names every file.</p>
<p>This page holds pictures and file names of the data set: share it only with those who may see
the data. <strong>Research use only</strong>: not a medical device.</p></footer></body></html>
"""


def _counts(diagnosis: Diagnosis) -> str:
    patients = _count(diagnosis.patients, "patient") if diagnosis.patients else "patients unknown"
    counts = (_count(diagnosis.images, "image"), patients, _count(diagnosis.tumors, "tumor"))
    found = {severity: len(diagnosis.of(severity)) for severity in Severity}
    chips = [_chip(one, _count(number, one.value)) for one, number in found.items() if number]
    return f'<p class="counts">{" · ".join(counts)}</p>\n<p>{" ".join(chips) or "No findings"}</p>'


def _summary(findings: Sequence[Finding]) -> str:
    counts = [f"{len(finding.files):,}" if finding.files else "–" for finding in findings]
    rows = [
        (_chip(finding.severity), _link(place, finding.title), counts[place]) for place, finding in enumerate(findings)
    ]
    return f"""<section class="summary">
<h2>At a glance</h2>
{_grid(("Severity", "Finding", "Images"), rows, numeric=(2,))}
<p class="quiet"><b>Error</b>: figures computed on these data are wrong. <b>Warning</b>: they may
be wrong. <b>Note</b>: good to know.</p>
</section>"""


def _sections(findings: Sequence[Finding]) -> str:
    """Return a section for each finding; the figure of shortcuts stands before the first one."""
    wanted = sorted({path for finding in findings for row in _shown(finding) for path in row})
    pictures = dict(zip(wanted, map_in_order(_picture, wanted), strict=True))
    folders = {path.parent for finding in findings for path in finding.files}
    shared = set.intersection(*({one, *one.parents} for one in folders)) if folders else set()
    root = max(shared, key=lambda one: len(one.parts), default=Path())
    sections = [_section(place, finding, pictures, root) for place, finding in enumerate(findings)]
    shortcuts = [place for place, finding in enumerate(findings) if finding.estimate]
    if shortcuts:
        sections.insert(shortcuts[0], _shortcuts(findings))
    if wanted:
        names = f"File names start at <code>{escape(str(root))}</code>."
        sections.append(f'<p class="quiet">{names} Thumbnails are stretched in contrast.</p>')
    return "\n".join(sections)


def _section(place: int, finding: Finding, pictures: Mapping[Path, str], root: Path) -> str:
    facts = {"Why it matters": escape(finding.why), "What to do": escape(finding.mend)}
    if finding.estimate:
        facts["AUC"] = "{}, 95 % interval {}".format(*_numbers(finding.estimate))
    if finding.files:
        groups = f" in {_count(len(finding.groups), 'group')}" if finding.groups else ""
        facts["Concerns"] = _count(len(finding.files), "image") + groups
    grouped = " grouped" if finding.groups else ""
    terms = "\n".join(f"<div><dt>{term}</dt><dd>{text}</dd></div>" for term, text in facts.items())
    return f"""<section class="finding {finding.severity.value}{grouped}" id="finding-{place}">
<h2>{_chip(finding.severity)} {escape(finding.title)}</h2>
<dl>
{terms}
</dl>
{_examples(finding, pictures, root)}{_others(finding, root)}</section>"""


def _examples(finding: Finding, pictures: Mapping[Path, str], root: Path) -> str:
    rows = ""
    wholes = finding.groups or (finding.files,)
    for number, (shown, whole) in enumerate(zip(_shown(finding), wholes, strict=False), 1):
        title = f"Group {number} of {len(wholes):,}" if finding.groups else "Examples"
        part = f", {len(shown)} of {len(whole):,} images" if len(shown) < len(whole) else ""
        figures = "\n".join(
            f"<figure>{pictures[path]}<figcaption>{_name(path, root)}</figcaption></figure>" for path in shown
        )
        rows += f'<h3>{title}{part}</h3>\n<div class="thumbnails">\n{figures}\n</div>\n'
    return rows


def _others(finding: Finding, root: Path) -> str:
    """List the files that are not shown, those of a group together."""
    shown = {path for row in _shown(finding) for path in row}
    numbered = enumerate(finding.groups, 1)
    group = {path: f"<b>Group {number}</b> " for number, row in numbered for path in row}
    rest = [path for path in dict.fromkeys((*group, *finding.files)) if path not in shown]
    if not rest:
        return ""
    names = [f"<li>{group.get(path, '')}{_name(path, root)}</li>" for path in rest[:NAMES]]
    if len(rest) > NAMES:
        names.append(f"<li>and {len(rest) - NAMES:,} more: see findings.json</li>")
    summary = f"<summary>{_count(len(rest), 'other image' if shown else 'image')}</summary>"
    return f"<details>{summary}\n<ul>{''.join(names)}</ul></details>\n"


def _shown(finding: Finding) -> tuple[tuple[Path, ...], ...]:
    """Return rows of examples: the first groups, or files spread evenly; none for shortcuts."""
    if finding.estimate:
        return ()
    if finding.groups or not finding.files:
        return tuple(group[:PER_GROUP] for group in finding.groups[:GROUPS])
    count = min(EXAMPLES, len(finding.files))
    return (tuple(finding.files[place * len(finding.files) // count] for place in range(count)),)


def _picture(path: Path) -> str:
    """Return a thumbnail as an HTML image that holds its own pixels."""
    image = read_or_reason(path)
    if isinstance(image, str):
        return f'<span class="unreadable" title="{escape(image)}">cannot be read</span>'
    grey = np.rint(thumbnail(image.pixels, _SIDE) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(grey).save(stream, "JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return f'<img alt="" height="{grey.shape[0]}" width="{grey.shape[1]}" src="{source}">'


def _shortcuts(findings: Sequence[Finding]) -> str:
    """Draw the AUC of every shortcut with its interval, each row linked to its finding."""
    labels = "".join(f'<text x="{_across(tick)}" y="14">{tick:.1f}</text>' for tick in _TICKS)
    axis = f'<svg height="20" role="img" aria-label="AUC from 0.5 to 1.0">{labels}</svg>'
    numbers = '<b>{}</b><br><span class="quiet">{}</span>'
    rows = [
        (
            _link(place, finding.code.removeprefix("shortcut_").replace("_", " ")),
            _interval(one),
            numbers.format(*_numbers(one)),
        )
        for place, finding in enumerate(findings)
        if (one := finding.estimate)
    ]
    return f"""<section class="shortcuts">
<h2>How well the label is told with no tumor in sight</h2>
<p>Each row guesses the label from one thing that is not a tumor. An AUC of 0.5 (the dashed line) is
chance; the nearer to 1, the more a network can score on these data without learning what a tumor
looks like. Dots are estimates, bars their 95 % intervals.</p>
{_grid(("Guessed from", axis, "AUC"), rows, numeric=(2,))}</section>"""


def _interval(estimate: Estimate) -> str:
    """Draw a dot and its bar; a bar that leaves the axis ends where the axis does."""
    line = '<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>'
    marks = [line.format("grid", _across(tick), _across(tick), 0, 40) for tick in _TICKS]
    if math.isfinite(estimate.low + estimate.high):
        marks.append(line.format("bar", _across(estimate.low), _across(estimate.high), 20, 20))
    if math.isfinite(estimate.value):
        marks.append(f'<circle cx="{_across(estimate.value)}" cy="20" r="5"/>')
    return f'<svg height="40" aria-hidden="true">{"".join(marks)}</svg>'


def _across(auc: float) -> str:
    return f"{200 * (min(max(auc, 0.5), 1.0) - 0.5):.2f}%"


def _numbers(estimate: Estimate) -> tuple[str, str]:
    figures = (estimate.value, estimate.low, estimate.high)
    value, low, high = map(numerals.figure, figures)
    return value, numerals.interval(low, high).strip("()")


def _table(table: Table) -> str:
    rows = [[escape(cell) for cell in row] for row in table.rows]
    texts = ["".join(cells).lower() for cells in zip(*table.rows, strict=True)]
    numeric = [place for place, text in enumerate(texts) if place and text == text.upper()]
    grid = _grid([escape(column) for column in table.columns], rows, numeric)
    return f'<section class="table">\n<h2>{escape(table.title)}</h2>\n{grid}\n</section>\n'


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]) -> str:
    """Return a table of cells that are HTML; `numeric` are the places of columns of numbers."""

    def line(tag: str, row: Sequence[str]) -> str:
        kinds = [' class="number"' if place in numeric else "" for place in range(len(row))]
        cells = (f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    head, body = line("th", columns), "\n".join(line("td", row) for row in rows)
    table = f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{table}</div>'


def _name(path: Path, root: Path) -> str:
    name = escape(str(path.relative_to(root) if path.is_relative_to(root) else path))
    breakable = name.replace("/", "/<wbr>").replace("_", "_<wbr>")
    return f'<span title="{escape(str(path))}">{breakable}</span>'


def _link(place: int, words: str) -> str:
    return f'<a href="#finding-{place}">{escape(words)}</a>'


def _chip(severity: Severity, words: str = "") -> str:
    return f'<span class="chip {severity.value}">{words or severity.value}</span>'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
