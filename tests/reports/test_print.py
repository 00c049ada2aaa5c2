"""Reports on paper: how many A4 pages, and that no heading ends one."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from html_page import Page
from PIL import Image as Pillow
from test_evaluation import PICTURES
from test_model_card import full

from mammolens.doctor.findings import Diagnosis, Severity, finding
from mammolens.levels import ServedLevel
from mammolens.measures.intervals import Estimate
from mammolens.model.bundle import find_bundle, open_bundle
from mammolens.model.decisions import decided
from mammolens.records import ImageWarning, Laterality, Prediction, View
from mammolens.reports.case import Case, case_page
from mammolens.reports.doctor import write_report as write_doctor
from mammolens.reports.evaluation import write_report as write_evaluation
from mammolens.reports.examination import Print, examination_page
from mammolens.reports.pages import GLOSSARY
from mammolens.serving.exams import STANDARD, joined

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium")

Runs = Iterator[tuple[str, bool]]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    pytest.importorskip("playwright", reason="pip install 'mammolens[dev]'")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def evaluation(folder: Path) -> Path:
    write_evaluation(full(), folder, PICTURES)
    return folder / "report.html"


def doctor(folder: Path) -> Path:
    """Twelve findings with pictures, so that pages break in all of their parts."""
    pixels = np.tile(np.arange(60, dtype=np.uint8), (80, 1))
    paths = [folder / f"{number:02}_with_a_name_of_some_length.png" for number in range(12)]
    for path in paths:
        Pillow.fromarray(pixels).save(path)
    some = [finding("blank", paths), finding("no_breast", paths), finding("colour", paths), finding("marker", paths)]
    groups = [
        finding(code, groups=[paths[:5], paths[5:9], paths[9:]]) for code in ("duplicates", "duplicates_across_splits")
    ]
    auc = {"estimate": Estimate(0.9, 0.8, 0.95), "value": "0.900", "interval": "(0.800 to 0.950)"}
    shortcuts = [finding("shortcut", name=name, source=name, **auc) for name in ("metadata", "file_name")]  # type: ignore[arg-type]
    made = Diagnosis(
        data="set", command="", images=12, patients=3, tumors=4, findings=(*some, *groups, *shortcuts, *some), tables=()
    )
    assert made.of(Severity.ERROR)
    write_doctor(made, folder)
    return folder / "report.html"


def case(folder: Path) -> Path:
    record = open_bundle(find_bundle("phantom")).record
    answer = decided(Prediction(Path("left-cc.png"), 0.4), ServedLevel.IMAGE, "balanced", record.rules())
    picture = Pillow.new("L", (640, 800), 90)
    page = case_page(Case(answer), record, [(picture, "The picture as read"), (picture, "Where the network looked")])
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def examination(folder: Path) -> Path:
    """All that takes room: uncertain breasts, pictures beyond the four, warnings, a model of synthetic pictures."""
    record = open_bundle(find_bundle("accurate")).record
    data = record.training_data
    assert data is not None
    record = record.model_copy(update={"training_data": data.model_copy(update={"synthetic": True})})
    said = (ImageWarning.INVERTED, ImageWarning.POLARITY)
    views = [
        Prediction(Path("x.png"), 0.38, patient_id="1", laterality=side, view=view, warnings=said)
        for side, view in STANDARD
    ]
    views += [Prediction(Path("y.png"), 0.36, patient_id="1", laterality=side, view=View.CC) for side in Laterality]
    (exam,) = joined(views, ServedLevel.EXAM, "balanced", record.rules())
    stream = io.BytesIO()
    Pillow.new("L", (640, 800), 90).save(stream, format="JPEG")
    prints = {one: Print(stream.getvalue(), "", inverted=True, mirrored=True) for one in exam.views}
    page = examination_page(exam, record, prints, looked="Where the network looked.", unread=1)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def runs(pdf: bytes) -> Runs:
    """Yield page and whether it is of a heading of each piece of a tagged PDF, in reading order."""
    objects = dict(re.findall(rb"\n(\d+) 0 obj\n(.*?)\nendobj", pdf, flags=re.DOTALL))

    def below(number: bytes, *, heading: bool) -> Runs:
        element = objects[number]
        heading = heading or re.search(rb"/S /H\d", element) is not None
        kids = re.search(rb"/K (\[.*?\]|\S+ 0 R|\d+)", element, flags=re.DOTALL)
        for page in re.findall(rb"/Pg (\d+) 0 R", element) if kids else ():
            yield page.decode(), heading
        for kid in re.findall(rb"(\d+) 0 R", re.sub(rb"/Pg \d+ 0 R", b"", kids[1])) if kids else ():
            yield from below(kid, heading=heading)

    (root,) = re.findall(rb"/StructTreeRoot (\d+) 0 R", pdf)
    yield from below(root, heading=False)


@pytest.mark.parametrize(
    ("written", "least", "most"), [(evaluation, 5, 8), (doctor, 4, 6), (case, 1, 1), (examination, 2, 2)]
)
def test_a_report_prints_on_few_pages_and_no_heading_ends_one(
    written: Callable[[Path], Path], least: int, most: int, browser: "Browser", tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(written(tmp_path).as_uri())
    pdf = page.pdf(prefer_css_page_size=True, print_background=True, tagged=True)
    page.close()
    (tmp_path / "report.pdf").write_bytes(pdf)
    assert re.findall(rb"/MediaBox \[0 0 (\d+)\S* (\d+)", pdf)[0] == (b"594", b"841"), "A4"
    assert least <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= most
    pieces = list(runs(pdf))
    headings = [(here, after) for here, after in pairwise(pieces) if here[1] and not after[1]]
    assert len(headings) > 2
    assert all(here[0] == after[0] for here, after in headings), "a heading ends a page"


@pytest.mark.parametrize("written", [evaluation, doctor, case, examination])
def test_every_report_explains_its_terms_behind_one_link(written: Callable[[Path], Path], tmp_path: Path) -> None:
    page = Page(written(tmp_path).read_text(encoding="utf-8"))
    assert sum(attributes.get("href") == "#terms" for _, attributes in page.tags) == 1
    assert sum(attributes.get("id") == "terms" for _, attributes in page.tags) == 1
    for term, meaning in GLOSSARY.items():
        assert term in page.all_words
        assert meaning in page.all_words
