import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from markupsafe import escape

from mammolens.doctor.findings import Diagnosis, Finding, Severity, Table
from mammolens.errors import DataError
from mammolens.images.image import Image
from mammolens.images.reading import read_or_reason
from mammolens.measures.intervals import Estimate
from mammolens.reports import doctor
from mammolens.reports.doctor import EXAMPLES, GROUPS, NAMES, PER_GROUP, write_report

Png = Callable[..., Path]
HOSTILE = "<b>&\"'one_1.png"


def finding(code: str, **values: object) -> Finding:
    fields = {
        "code": code,
        "severity": Severity.WARNING,
        "title": f"{code}: 3 < 4 & 5 > 2",
        "why": f'{code} says "why" <em>',
        "mend": f"{code} & mend <script>alert(1)</script>",
    }
    return Finding.model_validate(fields | values)


def diagnosis(*findings: Finding, tables: tuple[Table, ...] = ()) -> Diagnosis:
    return Diagnosis(
        data="data/a <set>",
        command="mammolens doctor 'data/a <set>'",
        images=1300,
        patients=1,
        tumors=40,
        findings=findings,
        tables=tables,
    )


@pytest.fixture
def paths(png: Png, tmp_path: Path) -> tuple[Path, ...]:
    """Five wide images and one file that is no image."""
    pixels = np.tile(np.arange(60, dtype=np.uint8), (40, 1))
    readable = [png(pixels, f"images/{name}") for name in (HOSTILE, *(f"{i}.png" for i in "2345"))]
    broken = tmp_path / "images" / "broken.png"
    broken.write_bytes(b"no image")
    return (*readable, broken)


@pytest.fixture
def everything(paths: tuple[Path, ...]) -> Diagnosis:
    return diagnosis(
        finding("unreadable", severity=Severity.ERROR, files=paths),
        finding("duplicates", files=paths[:4], groups=(paths[:2], paths[2:4])),
        finding("shortcut_file_name", estimate=Estimate(0.91234, 0.88765, 0.94321)),
        finding("shortcut_pixels", severity=Severity.NOTE, estimate=Estimate(0.51, 0.4449, 0.57)),
        tables=(Table(title="By <site>", columns=("site", "n"), rows=(("A&B", "12"), ("C", "3"))),),
    )


def written(made: Diagnosis, folder: Path) -> tuple[str, Page]:
    write_report(made, folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_json_reads_back_as_the_same_diagnosis(everything: Diagnosis, tmp_path: Path) -> None:
    write_report(everything, tmp_path / "out")
    text = (tmp_path / "out" / "findings.json").read_text(encoding="utf-8")
    assert Diagnosis.model_validate_json(text) == everything
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"findings.json", "report.html"}


def test_the_page_needs_nothing_from_elsewhere(everything: Diagnosis, tmp_path: Path) -> None:
    text, page = written(everything, tmp_path)
    assert not any(page.count(tag) for tag in ("script", "link", "iframe", "object"))
    for _, attributes in page.tags:
        source = attributes.get("src")
        assert source is None or source.startswith("data:image/jpeg;base64,")
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(|https?:", text)


def test_links_lead_to_the_findings(everything: Diagnosis, tmp_path: Path) -> None:
    _, page = written(everything, tmp_path)
    places = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(places) == len(set(places)) == len(everything.findings) + len(["terms"])
    assert {a["href"][1:] for tag, a in page.tags if tag == "a"} == set(places)


def test_every_word_is_shown_and_none_is_markup(everything: Diagnosis, tmp_path: Path) -> None:
    text, page = written(everything, tmp_path)
    for one in everything.findings:
        for words in (one.title, one.why, one.mend):
            assert escape(words) in text
            assert words in page.all_words
    for words in (everything.command, "a <set>", "By <site>", "A&B", HOSTILE, "Research use only"):
        assert words in page.all_words
    assert "1,300 images · 1 patient · 40 tumors" in page.all_words
    assert "1 error 2 warnings 1 note" in page.all_words
    assert page.count("em") == 0


def test_auc_and_intervals_are_those_of_the_json(everything: Diagnosis, tmp_path: Path) -> None:
    _, page = written(everything, tmp_path)
    for one in everything.findings:
        if one.estimate:
            value, low, high = (f"{x:.3f}" for x in (one.estimate.value, one.estimate.low, one.estimate.high))
            assert f"{value}, 95 % interval {low} to {high}" in page.all_words  # in its section
            assert f"{value}{low} to {high}" in page.all_words  # beside its bar


def test_a_dot_stands_where_its_auc_is_and_bars_stay_on_the_axis(tmp_path: Path) -> None:
    made = diagnosis(finding("shortcut_a", estimate=Estimate(0.75, 0.4, 1.0)))
    _, page = written(made, tmp_path)
    assert [a["cx"] for tag, a in page.tags if tag == "circle"] == ["50.00%"]
    bars = [(a["x1"], a["x2"]) for _, a in page.tags if a.get("class") == "bar"]
    assert bars == [("0.00%", "100.00%")]


def test_an_undefined_interval_is_said_and_not_drawn(tmp_path: Path) -> None:
    nan = float("nan")
    _, page = written(diagnosis(finding("shortcut_a", estimate=Estimate(nan, nan, nan))), tmp_path)
    assert "not defined" in page.all_words
    assert "nan" not in page.all_words.lower()
    assert page.count("circle") == 0


def test_thumbnails_keep_their_shape_and_bad_files_a_box(everything: Diagnosis, tmp_path: Path) -> None:
    _, page = written(everything, tmp_path)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5 + 4
    assert {(a["width"], a["height"]) for a in images} == {("160", "107")}
    assert page.all_words.count("cannot be read") == 1


def test_each_file_is_decoded_once(everything: Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Image | str:
        read.append(path)
        return read_or_reason(path)

    monkeypatch.setattr(doctor, "read_or_reason", counted)
    write_report(everything, tmp_path)
    assert sorted(read) == sorted(set(everything.findings[0].files))


def test_of_many_files_few_are_shown_and_two_hundred_named(tmp_path: Path) -> None:
    files = tuple(tmp_path / f"{number:03}.png" for number in range(300))
    _, page = written(diagnosis(finding("inverted", files=files)), tmp_path / "out")
    assert page.count("figure") == EXAMPLES
    assert page.count("li") == NAMES + 1
    named = re.findall(r"\d{3}\.png", page.all_words)
    assert len(named) == len(set(named)) == EXAMPLES + NAMES
    assert f"and {300 - EXAMPLES - NAMES} more: see findings.json" in page.all_words
    assert "8 of 300 images" in page.all_words


def test_of_many_groups_few_are_shown_side_by_side(tmp_path: Path) -> None:
    groups = tuple(tuple(tmp_path / f"{g}_{i}.png" for i in range(7)) for g in range(5))
    files = tuple(path for group in groups for path in group)
    text, page = written(diagnosis(finding("copies", files=files, groups=groups)), tmp_path / "out")
    assert page.count("figure") == GROUPS * PER_GROUP
    assert "Group 3 of 5, 6 of 7 images" in page.all_words
    listed = unescape(re.sub(r"<[^>]+>", "", text[text.index("<details>") :]))
    assert re.findall(r"Group (\d) (\d)_\d", listed) == [
        *((str(number), str(number - 1)) for number in (1, 2, 3)),
        *(("4", "3") for _ in range(7)),
        *(("5", "4") for _ in range(7)),
    ]


def test_a_healthy_data_set_has_a_page_too(tmp_path: Path) -> None:
    _, page = written(diagnosis(), tmp_path)
    assert "No findings" in page.all_words
    assert page.count("table") == 0


def test_a_folder_that_is_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(diagnosis(), taken)
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]


def test_nothing_is_left_half_written(everything: Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(doctor, "_picture", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(everything, out)
    assert [path.name for path in out.iterdir()] == ["findings.json"]
