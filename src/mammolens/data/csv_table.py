"""A CSV as people have it → rows of text: commas, semicolons or tabs, UTF-8 or UTF-16."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TextIO

from mammolens.errors import DataError
from mammolens.files import why_not_opened
from mammolens.images.reading import START, ZIP, foreign_kind, is_picture

_DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r"\Asep=[^\r\n]*(?:\r\n?|\n|\Z)", re.IGNORECASE)  # as Excel has it
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""How a cell begins that spreadsheets would compute, or that was kept from it (OWASP, CSV Injection)."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_SURPLUS = "\0"  # where csv puts cells beyond the header
_FEW_CELLS, _EMPTY = 10**6, 8  # cells that a table may have, and more of them a character: short rows are filled up
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


def read_rows(path: Path, ours: Collection[str] = ()) -> list[dict[str, str]]:
    """Read a CSV as one dict a row, all values text; empty rows at its end are no rows.

    What parts the cells is told by the header: the one of comma, semicolon, tab and bar that makes
    most columns. A first line ``sep=;``, as Excel has it, is passed over. So is the apostrophe by which `write_row`
    keeps spreadsheets from computing a cell.

    Args:
        path: of the table.
        ours: names in lower case of columns that are given as we write them, such as Path for path.

    Raises:
        DataError: the file is missing, empty, no text, or ragged, or two columns have one name.
    """
    reader = _reader(path)
    columns = list(reader.fieldnames or ())
    if twice := _first_twice(columns):
        raise DataError(f"{path}: has two columns '{twice}'; remove one, or give it another name.")
    reader.fieldnames = [name.lower() if name.lower() in ours else name for name in columns]
    if twice := _first_twice(reader.fieldnames):
        names = " and ".join(name for name in columns if name.lower() == twice)
        raise DataError(f"{path}: columns {names} differ in case alone; remove or rename one.")
    try:
        rows = [{key: _plain(value) if isinstance(value, str) else "" for key, value in row.items()} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error}).") from error
    while rows and not any(rows[-1].values()):
        rows.pop()
    if not rows:
        raise DataError(f"{path}: the table has no rows; expected a header and a row an image.")
    if line := next((line for line, row in enumerate(rows, start=2) if _SURPLUS in row), None):
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


def write_row(stream: TextIO, cells: Iterable[object]) -> None:
    """Write one row; text that spreadsheets would compute, such as ``=1+1`` but no number, after an apostrophe.

    Before Python 3.13, csv leaves a lone carriage return without quotes.
    """
    row = [_shielded(cell) if isinstance(cell, str) else cell for cell in cells]
    lone = any("\r" in cell for cell in row if isinstance(cell, str))
    csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL).writerow(row)


def _shielded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _plain(text: str) -> str:
    """Return what `_shielded` was given: an apostrophe before such text is its own."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _first_twice(names: Sequence[str]) -> str | None:
    """Return the first name that stands twice; columns without one may."""
    return next((name for name, times in Counter(names).items() if name and times > 1), None)


def _reader(path: Path) -> "csv.DictReader[str]":
    text = _SEPARATOR_LINE.sub("", _text(path))
    first = next(iter(text.splitlines()), "")
    try:
        delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_SURPLUS, delimiter=delimiter)
        reader.fieldnames = [_plain(name).strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise DataError(f"{path}: its header cannot be read as that of a CSV table ({error}).") from error
    cells = len(reader.fieldnames) * (text.count("\n") + text.count("\r"))
    if cells > _FEW_CELLS + _EMPTY * len(text):
        raise DataError(f"{path}: its header names {len(reader.fieldnames):,} columns, which its rows do not have.")
    return reader


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
