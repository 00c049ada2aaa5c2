"""The page in Chromium, driven by Playwright: what its tests share. Screenshots: build/screenshots/."""

import io
import shutil
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
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")
pytest.importorskip("playwright", reason="pip install 'mammolens[dev]'")

from playwright.sync_api import Browser, FilePayload, Page, Response, expect

from mammolens.app.uploads import EXAMPLES, drawn
from mammolens.model.bundle import packaged_bundles

CHROMIUM = shutil.which("chromium")
NEEDED = [
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

expect.set_options(timeout=SLOW)


@contextmanager
def served(
    log: Path, *options: str, start: tuple[str, ...] = ("-m", "mammolens")
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Serve the page in a process of its own, as a user does; all that it prints goes to `log`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    command = [sys.executable, *start, "app", "--model", "phantom", "--port", str(port), *options]
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
        except HTTPError:  # it is there, and asks who is there
            return
        except URLError:
            time.sleep(0.1)
    pytest.fail(f"the page did not start (exit code {process.poll()})")


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
    expect(page.get_by_text("Drop mammograms, or choose an example")).to_be_visible()
    settle(page)
    yield page
    context.close()
    assert not strangers


def settle(page: Page) -> None:
    """Wait until the script has run to its end."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).click()


def open_uploader(page: Page) -> None:
    if not page.locator(".st-key-examples").is_visible():
        page.get_by_text("Drop mammograms, or choose an example").click()
        # What is clicked while it still moves may miss the mouse.
        page.wait_for_function("document.getAnimations().every(one => one.playState !== 'running')")
        settle(page)


def show_example(page: Page, number: int) -> None:
    open_uploader(page)
    page.get_by_role("button", name=EXAMPLES[number].title).click()
    expect(page.locator(".m-verdicts")).to_be_visible()
    settle(page)
    drawn_in_full(page)


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    page.locator("input[type=file]").first.set_input_files(
        [FilePayload(name=name, mimeType="", buffer=content) for name, content in files]
    )
    expect(page.locator(".m-verdicts")).to_be_visible()
    settle(page)


def drawn_in_full(page: Page) -> None:
    """Wait until every picture has its pixels."""
    expect(page.locator("figure").first).to_be_visible()
    expect(page.locator("figure:has(canvas):not(:has(.picture[data-resolution]))")).to_have_count(0)
    expect(page.locator("figure.loading, .picture[data-resolution='0']")).to_have_count(0)


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
    return page.locator(".m-percent").first.inner_text()


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


def grey(example: int) -> NDArray[np.uint16]:
    """The first picture of an example, in 12 bits."""
    return np.asarray(Image.open(io.BytesIO(png(example)))).astype(np.uint16) * 16


def dicom(pixels: NDArray[np.uint16], side: str = "R", view: str = "MLO", **elements: object) -> bytes:
    """A mammogram as a machine writes it: 12 bits, ten pixels a millimetre, patient DOE^JANE."""
    from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: PLC0415 - slow to import
    from pydicom.uid import (  # noqa: PLC0415
        DigitalMammographyXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
        generate_uid,
    )

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID = meta.MediaStorageSOPClassUID
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    file.Modality, file.PatientName, file.PatientID = "MG", "DOE^JANE", "SECRET-4711"
    file.ImageLaterality, file.ViewPosition = side, view
    file.ImagerPixelSpacing = [0.1, 0.1]
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(file, keyword, value)
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
