"""The page in a real browser, from what is dropped to the report."""

import csv
import io
import re
import signal
from pathlib import Path

import pytest
from browsing import (
    BANNER,
    DESKTOP,
    NEEDED,
    PHONE,
    SCREENSHOTS,
    banner_is_on_top,
    bomb,
    dicom,
    drawn_in_full,
    drop,
    grey,
    number_on,
    opened,
    picture,
    png,
    served,
    show_example,
)
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from canaries import NAME, leaks, write_dicom
from mammolens import numerals
from mammolens.cli import app as command_line
from mammolens.reports.case import blocks

pytestmark = NEEDED

PERCENT = r"([<>] )?\d+ %"


def test_a_png_gets_the_number_that_the_command_line_gives(browser: Browser, url: str, tmp_path: Path) -> None:
    path, out = tmp_path / "case_L_CC.png", tmp_path / "out.csv"
    path.write_bytes(png(0))
    typed = ["predict", str(path), "--model", "phantom", "--out", str(out), "--quiet"]
    said = CliRunner().invoke(command_line, typed)
    assert said.exit_code == 0, said.output
    (told,) = csv.DictReader(io.StringIO(out.read_text(encoding="utf-8")))
    with opened(browser, url) as page:
        drop(page, (path.name, path.read_bytes()))
        drawn_in_full(page)
        assert number_on(page) == numerals.whole_percent(float(told["probability"]))
        side = "Above" if told["decision"] == "tumor" else "Below"
        expect(page.locator(".m-said")).to_have_text(f"{side} the threshold")
        picture(page, "light")
        with page.expect_download() as download:
            page.get_by_role("button", name="The answer (CSV)").click()
        (kept,) = csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8")))
        assert kept["probability"] == told["probability"]
        assert kept["path"] == path.name


def test_a_dicom_file_without_a_suffix_is_read_by_its_content(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        drop(page, ("IM0001", dicom(grey(4))))
        drawn_in_full(page)
        told = page.locator(".m-subject")
        expect(told).to_contain_text("Right breast, mediolateral oblique (MLO)")
        expect(told).to_contain_text("DICOM, 640 × 640 pixels, 12 bits")
        expect(told).not_to_contain_text("by the file's name")
        assert re.fullmatch(PERCENT, number_on(page))


def test_bad_files_are_named_and_stop_no_other(browser: Browser, url: str) -> None:
    files = (("note.png", b"I am a letter."), ("bomb.png", bomb()), ("good.png", png(0)))
    with opened(browser, url) as page:
        drop(page, *files)
        drawn_in_full(page)
        complaints = page.get_by_test_id("stAlert")
        expect(complaints).to_contain_text("note.png: not an image")
        expect(complaints).to_contain_text("over the limit of 80,000,000 pixels")
        expect(page.locator(".m-subject")).to_contain_text("good.png")
        assert re.fullmatch(PERCENT, number_on(page))
        picture(page, "errors")


def test_four_views_hang_as_radiologists_hang_them(browser: Browser, url: str) -> None:
    with opened(browser, url, (1400, 1300), "dark") as page:
        show_example(page, 4)
        boxes = {
            place: page.locator(f"figure[data-view='{place}'] .picture").bounding_box()
            for place in ("R CC", "L CC", "R MLO", "L MLO")
        }
        found = {place: box for place, box in boxes.items() if box}
        assert len(found) == 4
        for view in ("CC", "MLO"):
            right, left = found[f"R {view}"], found[f"L {view}"]
            assert right["x"] + right["width"] <= left["x"] < right["x"] + right["width"] + 20
            assert abs(right["y"] - left["y"]) < 2
        assert found["R CC"]["y"] + found["R CC"]["height"] < found["R MLO"]["y"]
        picture(page, "four-views-dark")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "dark"), (PHONE, "light")])
def test_the_disclaimer_is_always_in_sight(browser: Browser, url: str, size: tuple[int, int], scheme: str) -> None:
    with opened(browser, url, size, scheme) as page:
        expect(page.locator(BANNER)).to_have_text(blocks.disclaimer())
        assert banner_is_on_top(page)
        show_example(page, 3)
        page.locator(".m-footer").scroll_into_view_if_needed()
        assert page.get_by_test_id("stMain").evaluate("e => e.scrollTop") > 50
        assert banner_is_on_top(page)
        page.locator(".m-notice").scroll_into_view_if_needed()
        drawn_in_full(page)
        picture(page, "phone" if size == PHONE else "dark")


def test_on_a_phone_all_is_below_each_other(browser: Browser, url: str) -> None:
    with opened(browser, url, PHONE) as page:
        show_example(page, 4)
        parts = [".m-verdicts", "[data-view='R CC']", "[data-view='L CC']", ".m-table", ".m-subject"]
        boxes = [page.locator(part).bounding_box() for part in parts]
        edges = [(box["x"], box["y"], box["x"] + box["width"]) for box in boxes if box]
        assert len(edges) == len(parts)
        assert [y for _, y, _ in edges] == sorted(y for _, y, _ in edges)
        assert all(left >= 0 and right <= PHONE[0] for left, _, right in edges)
        page.locator(".m-verdicts").scroll_into_view_if_needed()
        picture(page, "phone-answer")


def test_the_report_prints_on_one_sheet(browser: Browser, url: str, tmp_path: Path) -> None:
    with opened(browser, url) as page:
        show_example(page, 3)
        with page.expect_download() as download:
            page.get_by_role("button", name="Report of this picture").click()
        report = tmp_path / "report.html"
        download.value.save_as(report)
        said = page.locator(".m-own").inner_text()
    sheet = browser.new_page()
    sheet.goto(report.as_uri())
    told = sheet.locator(".m-number b").inner_text()
    assert f", {numerals.whole_percent(float(told))}." in said
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    sheet.screenshot(path=SCREENSHOTS / "report.png", full_page=True)
    printed = sheet.pdf(prefer_css_page_size=True, print_background=True)
    (SCREENSHOTS / "report.pdf").write_bytes(printed)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
    sheet.close()


def test_the_log_names_nobody_and_ctrl_c_ends_it(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, scratch = tmp_path / "log.txt", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    planted = write_dicom(tmp_path / "planted.dcm", grey(4)).read_bytes()
    with served(log) as (url, process):
        with opened(browser, url) as page:
            drop(page, ("DOE^JANE", dicom(grey(4))), ("DOE^JANE.png", b"nothing"), (NAME, planted))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    said = log.read_text(encoding="utf-8")
    assert url in said
    for secret in ("DOE", "JANE", "SECRET", "4711", "Traceback"):
        assert secret not in said
    assert not leaks(log.read_bytes())
    assert list(scratch.iterdir()) == []
