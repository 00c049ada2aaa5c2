import codecs
import csv
import zipfile
from pathlib import Path

import pytest

from mammolens.data.csv_table import read_header, read_rows, write_row
from mammolens.errors import DataError

ROWS = [{"path": "ä, b.png", "label": "1"}, {"path": "c.png", "label": ""}]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_table_is_read_whatever_parts_its_cells_and_holds_its_letters(
    tmp_path: Path, mark: str, encoding: str, newline: str
) -> None:
    lines = [f" path{mark}label ", f'"ä, b.png"{mark}1', f"c.png{mark}", f"{mark}", ""]
    path = tmp_path / "data.csv"
    path.write_bytes(newline.join(lines).encode(encoding))
    assert read_rows(path) == ROWS
    assert read_header(path) == ["path", "label"]


def test_the_mark_of_the_other_byte_order_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(codecs.BOM_UTF16_BE + "sep=;\npath;label\nc.png;".encode("utf-16-be"))
    assert read_rows(path) == ROWS[1:]


def workbook(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the table has no rows"),
        (b"path,label\n", "the table has no rows"),
        (b"path,label\n\xe4.png,1\n", r"UTF-8 CSV table .*Save it as CSV \(UTF-8\)"),
        (b"path,label\na.png,1,2\n", "row 2: has more cells"),
        (b"\x89PNG\r\n\x1a\n", "is an image; a data set is a folder of class folders, or a CSV"),
        (b"PK\x03\x04", "is a ZIP archive; a folder or a CSV table was expected. Unpack it"),
        (b"\x1f\x8b\x08", "is an archive packed by gzip; a CSV table was expected. Unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Excel workbook.* save the sheet as CSV"),
        (b"path,label,label\na.png,0,1\n", "has two columns 'label'; remove one"),
        (b"path,label\na\0.png,1\n", "is no text, or damaged; a CSV table was expected"),
        (b"PAR1", "is a Parquet table; a CSV table was expected. Save it as CSV"),
    ],
)
def test_what_is_no_table_is_called_by_its_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_rows(path)
    assert str(caught.value).startswith(str(path))


def test_a_workbook_a_folder_and_nothing_are_told_apart(tmp_path: Path) -> None:
    workbook(tmp_path / "data.xlsx")
    with zipfile.ZipFile(tmp_path / "data.ods", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    for name, said in (
        ("data.ods", "is a spreadsheet of LibreOffice; a CSV table was expected. Open it and save"),
        ("data.xlsx", "is an Excel workbook; a CSV table was expected. Open it and save"),
        ("", "is a folder; a CSV table was expected. Name a file in it"),
        ("gone.csv", "no such file"),
    ):
        with pytest.raises(DataError, match=said):
            read_rows(tmp_path / name)


def test_a_table_that_may_not_be_read_says_so(locked: Path) -> None:
    path = locked / "data.csv"
    path.write_text("path,label\n")
    path.chmod(0)
    with pytest.raises(DataError, match="may not be read by this user"):
        read_rows(path)


def test_columns_without_a_name_may_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(",,path\n0,7,a.png\n")
    assert [row["path"] for row in read_rows(tmp_path / "data.csv")] == ["a.png"]


@pytest.mark.parametrize("sign", ["\r", "\n", "\r\n", ",", '"', ";", "\t", " "])
def test_a_row_that_is_written_is_read_as_it_was(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        for row in (("path", "label"), (f"a{sign}b.png", ""), ("c.png", 1)):
            write_row(stream, row)
    assert [row["path"] for row in read_rows(path)] == [f"a{sign}b.png", "c.png"]


FORMULAS = ("=1+1", "+cmd|' /c calc'!A1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''@a", "-", "-inf")
HARMLESS = ("'", "'tis", "a=1", "-2.5", "+3", "1e-5", "-.5E+3", "", "2026-01-01", "L-CC")


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS])
def test_what_a_spreadsheet_would_compute_is_shielded_and_read_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        for row in (("path", text or "else"), ("a.png", text), ("b.png", -0.25)):
            write_row(stream, row)
    with path.open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert (cells[3] == f"'{text}") == (text in FORMULAS)
    assert cells[5] == "-0.25"
    first, second = read_rows(path)
    assert (first[text.strip() or "else"], second["path"]) == (text, "b.png")


def test_a_table_whose_rows_were_shielded_elsewhere_is_read_alike(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("path,label\n'=a.png,1\n")
    assert read_rows(tmp_path / "data.csv") == [{"path": "=a.png", "label": "1"}]
