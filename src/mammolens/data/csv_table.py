"""A CSV as people have it → rows of text: commas, semicolons or tabs, UTF-8 or UTF-16."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from mammolens.errors import DataError
from mammolens.files import why_not_opened
from mammolens.images.reading import START, ZIP, foreign_kind, is_picture

_DELIMITERS = (",", ";", "\t", "|")
_SURPLUS = "\0"  # where csv puts cells beyond the header
_BYTE_ORDER_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)

_WORKBOOKS = {
    b"xl/": "an Excel workbook",
    b"opendocument.spreadsheet": "a spreadsheet of LibreOffice",
    b"Index/Tables/": "a spreadsheet of Numbers",
}
"""What is in the ZIP archives that spreadsheets are."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV as one dict a row, all values text; empty rows at its end are no rows.

    What parts the cells is told by the header: the one of comma, semicolon, tab and bar that makes
    most columns. A first line ``sep=;``, as Excel has it, is passed over.

    Raises:
        DataError: the file is missing, empty, no text, or ragged, or two columns have one name.
    """
    reader = _reader(path)
    if twice := _first_twice(reader.fieldnames or ()):
        raise DataError(f"{path}: has two columns '{twice}'; remove one, or give it another name.")
    try:
        rows = [{key: value or "" for key, value in row.items()} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error}).") from error
    while rows and not any(rows[-1].values()):
        rows.pop()
    if not rows:
        raise DataError(f"{path}: the table has no rows; expected a header and a row an image.")
    for line, row in enumerate(rows, start=2):
        if _SURPLUS in row:
            raise DataError(
                f"{path}, row {line}: has more cells than the header has columns; cells that hold "
                f"'{reader.reader.dialect.delimiter}' need quotes."
            )
    return rows


def read_header(path: Path) -> list[str]:
    """Return the names of a CSV's columns; none where it is empty.

    Raises:
        DataError: the file is missing or no text.
    """
    return list(_reader(path).fieldnames or ())


def in_our_case(rows: Iterable[Mapping[str, str]], ours: Sequence[str], path: Path) -> list[dict[str, str]]:
    """Return rows with the names of our columns as we write them, such as Path for path.

    Args:
        rows: of the table, at least one.
        ours: names in lower case.
        path: of the table.

    Raises:
        DataError: two columns could be the same of ours.
    """
    found = list(rows)
    named = {name: name.lower() for name in found[0] if name.lower() in ours}
    if twice := _first_twice(list(named.values())):
        names = " and ".join(name for name in named if name.lower() == twice)
        raise DataError(f"{path}: columns {names} differ in case alone; remove or rename one.")
    return [{named.get(name, name): value for name, value in row.items()} for row in found]


def write_row(stream: TextIO, cells: Iterable[object]) -> None:
    """Write one row; before Python 3.13, csv leaves a lone carriage return without quotes."""
    row = list(cells)
    everything = any("\r" in cell for cell in row if isinstance(cell, str))
    csv.writer(
        stream,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL,
    ).writerow(row)


def _first_twice(names: Sequence[str]) -> str | None:
    """Return the first name that stands twice; columns without one may."""
    return next((name for name, times in Counter(names).items() if name and times > 1), None)


def _reader(path: Path) -> "csv.DictReader[str]":
    text = _text(path)
    first, rest = _first_line(text)
    if first.lower().startswith("sep="):
        text, first = rest, _first_line(rest)[0]
    columns = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda mark: columns[mark])
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, restkey=_SURPLUS, delimiter=delimiter)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    return reader


def _first_line(text: str) -> tuple[str, str]:
    """Return a text's first line and the rest; lines end as on any system."""
    line = text.splitlines(keepends=True)[0] if text else ""
    return line.rstrip("\r\n"), text[len(line) :]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {why_not_opened(path, error, 'a CSV table')}") from error
    if refused := _no_table(content):
        raise DataError(f"{path}: {refused}")
    try:
        text = content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 CSV table ({error}). Save it as CSV (UTF-8).") from error
    if "\0" in text:
        raise DataError(f"{path}: is no text, or damaged; a CSV table was expected.")
    return text


def _encoding(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return encoding
    first, second = content[:1], content[1:2]
    if b"\0" in (first, second):  # UTF-16 of Latin letters without its mark: every other is zero
        return "utf-16-be" if first == b"\0" else "utf-16-le"
    return "utf-8-sig"


def _no_table(content: bytes) -> str | None:
    """Say what a file is instead of a table, and what to do."""
    start = content[:START]
    if is_picture(start):
        return (
            "is an image; a data set is a folder of class folders, or a CSV table that lists path "
            "and label of each image."
        )
    kind = foreign_kind(start)
    if kind is ZIP:
        for sign, name in _WORKBOOKS.items():
            if sign in content:
                return f"is {name}; a CSV table was expected. Open it and save it as CSV (UTF-8)."
        return f"is {kind.name}; a folder or a CSV table was expected. Unpack it and name that."
    return f"is {kind.name}; a CSV table was expected. {kind.remedy}" if kind else None
