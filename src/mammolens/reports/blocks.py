"""Parts of a report's page: tables whose every number cites its place, figures side by side."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mammolens.judging.schema import Report
from mammolens.records import Level
from mammolens.reports.citations import Cited, Form, measure

BY = {Level.IMAGE: "By image", Level.BREAST: "By breast", Level.PATIENT: "By patient"}


class Field(NamedTuple):
    """What a row or a column of a table shows: its name, where it lies, how it is written."""

    name: str
    path: str
    form: Form = "three"
    spread: bool = False  # whether it is an estimate with an interval

    def of(self, thing: Cited) -> str:
        """Write it of a thing."""
        return (thing.interval if self.spread else thing)(self.path, self.form)


Things = Sequence[tuple[str, Cited]]
"""By what to call each."""


def by_level(report: Report, cite: Cited) -> list[tuple[str, Cited]]:
    """Return each level that was judged, by what to call it."""
    return [(BY[level], cite.at("levels", level)) for level in Level if level in report.levels]


def listed(cite: Cited, path: str, named: str, form: Form) -> list[tuple[str, Cited]]:
    """Return each of a list, by its field `named`."""
    places = [cite.at(path, key) for key in cite.keys(path)]
    return [(at(named, form), at) for at in places]


def measured(path: str, key: str) -> Field:
    """Return the field of a measure that has an interval."""
    name, form = measure(key)
    return Field(name, f"{path}.{key}".lstrip("."), form, spread=True)


def down(things: Things, fields: Sequence[Field]) -> str:
    """Return a table with a column for each thing."""
    rows = [[field.name, *(field.of(at) for _, at in things)] for field in fields]
    return table([name for name, _ in things], rows)


def across(things: Things, fields: Sequence[Field], corner: str = "") -> str:
    """Return a table with a row for each thing."""
    cells = [[name, *(field.of(at) for field in fields)] for name, at in things]
    return table([field.name for field in fields], cells, corner)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], corner: str = "") -> str:
    """Return a table; `corner` stands above the names of its rows."""
    head = "".join(f'<th scope="col">{name}</th>' for name in (corner, *columns))
    body = "\n".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, *cells in rows
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{table}</div>'


def side_by_side(drawn: Mapping[str, str], *names: str) -> str:
    """Return the figures that were drawn, side by side."""
    found = "\n".join(f"<figure>{drawn[name]}</figure>" for name in names if name in drawn)
    return f'<div class="plots">\n{found}\n</div>' if found else ""


def quiet(words: str) -> str:
    """Return a paragraph in small print."""
    return f'<p class="quiet">{words}</p>\n'
