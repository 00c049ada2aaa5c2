"""The page in a real browser: Chromium, driven by Playwright. Screenshots: build/screenshots/."""

import csv
import io
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")
pytest.importorskip("plotly", reason="pip install 'mammolens[app]'")
pytest.importorskip("playwright", reason="pip install 'mammolens[dev]'")

from playwright.sync_api import Browser, FilePayload, Page, Response, expect, sync_playwright

from mammolens.app.uploads import EXAMPLES, drawn
from mammolens.cli import app as command_line
from mammolens.model.bundle import packaged_bundles
from mammolens.reports.case import blocks

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.skipif("phantom" not in packaged_bundles(), reason="no bundle ships"),
]

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SLOW = 30_000  # milliseconds that anything may take on a busy machine
DESKTOP, PHONE = (1400, 900), (390, 844)
BANNER = ".m-banner"


@contextmanager
def served(log: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Serve the page in a process of its own, as a user does; all that it prints goes to `log`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    command = [sys.executable, "-m", "mammolens", "app", "--model", "phantom", "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{url}/_stcore/health", process)
        yield url, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own page
                return
        except URLError:
            time.sleep(0.1)
    pytest.fail(f"the page did not start (exit code {process.poll()})")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("page") / "log.txt") as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield chromium
        chromium.close()


@contextmanager
def opened(browser: Browser, url: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Iterator[Page]:
    """Open the page in a fresh profile; fail if it asks anything of another machine."""
    strangers: list[str] = []

    def note(response: Response) -> None:
        if not response.url.startswith((url, "data:", "blob:")):
            strangers.append(response.url)

    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(SLOW)
    page = context.new_page()
    page.on("response", note)
    page.goto(url)
    expect(page.get_by_text("Drop a mammogram, or choose an example")).to_be_visible(timeout=SLOW)
    settle(page)
    yield page
    context.close()
    assert not strangers


def settle(page: Page) -> None:
    """Wait until the script has run to its end."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=SLOW)


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).click()


def show_example(page: Page, number: int) -> None:
    choose(page, "or a synthetic example", EXAMPLES[number].title)
    expect(page.locator(".m-verdict")).to_be_visible(timeout=SLOW)
    settle(page)
    drawn_in_full(page)


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    page.locator("input[type=file]").first.set_input_files(
        [FilePayload(name=name, mimeType="", buffer=content) for name, content in files]
    )
    expect(page.locator(".m-verdict")).to_be_visible(timeout=SLOW)
    settle(page)


def drawn_in_full(page: Page) -> None:
    """Wait until every figure has its picture, in its own shape, as high as its place."""
    page.wait_for_function(
        """() => {
            const figures = [...document.querySelectorAll('.js-plotly-plot')];
            return figures.length > 0 && figures.every(figure => {
                const place = figure.closest('[class*="st-key-picture"]');
                return figure.querySelector('.layer-subplot image')
                    && Math.abs(figure.clientHeight - place.clientHeight) < 3;
            });
        }"""
    )


def picture(page: Page, name: str) -> Path:
    """Keep what is in sight, and check that nothing is to be found to the right of it."""
    overhang = "e => e.scrollWidth - e.clientWidth"
    assert page.get_by_test_id("stMain").evaluate(overhang) <= 0
    assert page.locator("html").evaluate(overhang) <= 0
    page.mouse.move(0, 0)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    return path


def number_on(page: Page) -> str:
    return page.locator(".m-number b").inner_text()


def banner_is_on_top(page: Page) -> bool:
    """Tell whether the disclaimer is in sight, and nothing lies over it."""
    return bool(
        page.locator(BANNER).evaluate(
            """e => {
                const box = e.getBoundingClientRect();
                const x = box.left + box.width / 2, y = box.top + box.height / 2;
                return document.elementFromPoint(x, y) === e
                    && box.top >= 0 && box.bottom <= innerHeight && e.scrollWidth <= e.clientWidth;
            }"""
        )
    )


def png(example: int, number: int = 0) -> bytes:
    return drawn(EXAMPLES[example])[number].content


def bomb(width: int = 20_000, height: int = 10_000) -> bytes:
    """A PNG of 25 kilobytes with 200 million pixels, all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(height * (1 + width // 8)))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def dicom(example: int) -> bytes:
    """A mammogram as a machine writes it: right breast, MLO, 12 bits, patient DOE^JANE."""
    from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: PLC0415 - slow to import
    from pydicom.uid import (  # noqa: PLC0415
        DigitalMammographyXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
        generate_uid,
    )

    pixels = np.asarray(Image.open(io.BytesIO(png(example)))).astype(np.uint16) * 16
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID = meta.MediaStorageSOPClassUID
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    file.Modality, file.PatientName, file.PatientID = "MG", "DOE^JANE", "SECRET-4711"
    file.ImageLaterality, file.ViewPosition = "R", "MLO"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


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
        assert number_on(page) == f"{float(told['probability']):.4f}"
        expect(page.locator(".m-verdict h2")).to_have_text(told["decision"].capitalize())
        picture(page, "light")
        with page.expect_download() as download:
            page.get_by_role("button", name="The answer (CSV)").click()
        (kept,) = csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8")))
        assert kept["probability"] == told["probability"]
        assert kept["path"] == path.name


def test_a_dicom_file_without_a_suffix_is_read_by_its_content(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        drop(page, ("IM0001", dicom(4)))
        drawn_in_full(page)
        told = page.locator(".m-subject")
        expect(told).to_contain_text("Right breast, mediolateral oblique (MLO)")
        expect(told).to_contain_text("DICOM, 640 × 640 pixels, 12 bits")
        expect(told).not_to_contain_text("by the file's name")
        assert re.fullmatch(r"[01]\.\d{4}", number_on(page))


def test_bad_files_are_named_and_stop_no_other(browser: Browser, url: str) -> None:
    files = (("note.png", b"I am a letter."), ("bomb.png", bomb()), ("good.png", png(0)))
    with opened(browser, url) as page:
        drop(page, *files)
        drawn_in_full(page)
        complaints = page.get_by_test_id("stAlert")
        expect(complaints).to_contain_text("note.png: not an image")
        expect(complaints).to_contain_text("over the limit of 80,000,000 pixels")
        expect(page.locator(".m-subject")).to_contain_text("good.png")
        assert re.fullmatch(r"[01]\.\d{4}", number_on(page))
        picture(page, "errors")


def test_four_views_hang_as_radiologists_hang_them(browser: Browser, url: str) -> None:
    with opened(browser, url, (1400, 1300), "dark") as page:
        show_example(page, 4)
        boxes = {
            place: page.locator(f".st-key-picture-{place}").bounding_box()
            for place in ("R-CC", "L-CC", "R-MLO", "L-MLO")
        }
        found = {place: box for place, box in boxes.items() if box}
        assert len(found) == 4
        for view in ("CC", "MLO"):
            right, left = found[f"R-{view}"], found[f"L-{view}"]
            assert right["x"] + right["width"] <= left["x"] < right["x"] + right["width"] + 20
            assert abs(right["y"] - left["y"]) < 2
        assert found["R-CC"]["y"] + found["R-CC"]["height"] < found["R-MLO"]["y"]
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
        parts = [".st-key-example", ".st-key-picture-R-CC", ".st-key-picture-L-CC", ".m-verdict"]
        boxes = [page.locator(part).bounding_box() for part in parts]
        edges = [(box["x"], box["y"], box["x"] + box["width"]) for box in boxes if box]
        assert len(edges) == len(parts)
        assert [y for _, y, _ in edges] == sorted(y for _, y, _ in edges)
        assert all(left >= 0 and right <= PHONE[0] for left, _, right in edges)
        page.locator(".m-verdict").scroll_into_view_if_needed()
        picture(page, "phone-answer")


def test_zoom_needs_no_server_and_outlives_other_changes(browser: Browser, url: str) -> None:
    extent = """() => {
        const axis = document.querySelector('.js-plotly-plot')._fullLayout.xaxis;
        return Math.round(axis.range[1] - axis.range[0]);
    }"""
    with opened(browser, url) as page:
        show_example(page, 0)
        page.get_by_text("Views side by side").click()
        page.locator(".st-key-picture-one").wait_for()
        settle(page)
        drawn_in_full(page)
        whole = page.evaluate(extent)
        assert whole == 640
        page.locator(".st-key-picture-one .nsewdrag").hover()
        page.mouse.wheel(0, -400)
        page.wait_for_function(f"() => ({extent})() < {0.95 * whole}")
        zoomed = page.evaluate(extent)
        choose(page, "Operating point", "90 % specificity")
        expect(page.locator(".m-verdict")).to_contain_text("“90 % specificity”")
        settle(page)
        assert page.evaluate(extent) == zoomed


def test_sliders_answer_to_the_keyboard(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        show_example(page, 0)
        heat = page.get_by_role("slider", name="Heatmap opacity").first
        heat.focus()
        page.keyboard.press("Home")
        expect(page.locator(".layer-above image")).to_have_count(0)
        page.keyboard.press("ArrowRight")
        expect(page.locator(".layer-above image").first).to_have_attribute("opacity", "0.05")


def test_the_report_prints_on_one_sheet(browser: Browser, url: str, tmp_path: Path) -> None:
    with opened(browser, url) as page:
        show_example(page, 3)
        with page.expect_download() as download:
            page.get_by_role("button", name="Report of this picture").click()
        report = tmp_path / "report.html"
        download.value.save_as(report)
        number = number_on(page)
    sheet = browser.new_page()
    sheet.goto(report.as_uri())
    expect(sheet.locator(".m-number b")).to_have_text(number)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    sheet.screenshot(path=SCREENSHOTS / "report.png", full_page=True)
    printed = sheet.pdf(prefer_css_page_size=True, print_background=True)
    (SCREENSHOTS / "report.pdf").write_bytes(printed)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
    sheet.close()


def test_the_log_names_nobody_and_ctrl_c_ends_it(browser: Browser, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with served(log) as (url, process):
        with opened(browser, url) as page:
            drop(page, ("DOE^JANE", dicom(4)), ("DOE^JANE.png", b"nothing"))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    said = log.read_text(encoding="utf-8")
    assert url in said
    for secret in ("DOE", "JANE", "SECRET", "4711", "Traceback"):
        assert secret not in said
