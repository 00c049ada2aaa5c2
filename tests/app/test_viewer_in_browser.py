"""The viewer in a real browser: what its canvases show is compared with the pixels of the files."""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browsing import (
    DESKTOP,
    NEEDED,
    PHONE,
    choose,
    dicom,
    drawn_in_full,
    drop,
    grey,
    opened,
    picture,
    png,
    settle,
    show_example,
)
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from mammolens.app.uploads import EXAMPLES, drawn
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import View
from mammolens.serving.overlay import heat

pytestmark = NEEDED

DRAWN = "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));"


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page with two views of a left breast in it, as 640 x 640 pixels of 8 bits."""
    with opened(browser, url) as page:
        drop(page, *((f"L_{view}.png", png(0, number)) for number, view in enumerate(("CC", "MLO"))))
        drawn_in_full(page)
        view_of(page, "L CC").click()
        expect(page.locator(".m-subject")).to_contain_text("craniocaudal")
        settle(page)
        yield page


def view_of(page: Page, name: str) -> Locator:
    return page.locator(f"figure[data-view='{name}'] .picture")


def lies(shown: Locator) -> tuple[float, float, float]:
    """Return left edge, top edge and width of the whole picture, in pixels of the canvas."""
    told = shown.evaluate(
        f"""async e => {{
            {DRAWN}
            return [e.dataset.left, e.dataset.top, e.dataset.width].map(Number);
        }}"""
    )
    return told[0], told[1], told[2]


def canvas(shown: Locator) -> NDArray[np.int64]:
    """Return the pixels of a view as RGBA, (height, width, 4)."""
    url: str = shown.locator("canvas").evaluate(
        f"""async canvas => {{
            {DRAWN}
            return canvas.toDataURL();
        }}"""
    )
    file = io.BytesIO(base64.b64decode(url.split(",")[1]))
    return np.asarray(Image.open(file).convert("RGBA")).astype(np.int64)


def part(shown: Locator, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the part of a picture that a view shows at 1:1, and what is on its canvas there; the scale is left out."""
    seen = canvas(shown)
    left, top, width = lies(shown)
    assert width == pixels.shape[1]
    left, top = round(left), round(top)
    rows, columns = (max(0, -top), seen.shape[0] - top - 60), (max(0, -left), seen.shape[1] - left)
    cut = pixels[rows[0] : rows[1], columns[0] : columns[1]]
    start = rows[0] + top, columns[0] + left
    return cut, seen[start[0] : start[0] + cut.shape[0], start[1] : start[1] + cut.shape[1]]


def as_read(number: int = 0) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(png(0, number)))).astype(np.int64)


def press(page: Page, shown: Locator, *keys: str) -> None:
    shown.focus()
    for key in keys:
        page.keyboard.press(key)


def window(page: Page) -> tuple[int, int]:
    """Return the contrast window as the controls tell it, in percent."""
    told = page.locator(".controls output").evaluate(f"async e => {{ {DRAWN} return e.value; }}")
    low, high = re.findall(r"-?\d+", told.replace("–", " "))
    return int(low), int(high)


def test_at_one_to_one_the_canvas_has_the_files_own_pixels(page: Page) -> None:
    shown = view_of(page, "L CC")
    press(page, shown, "1", "h")
    expected, seen = part(shown, as_read())
    assert expected.size > 50_000
    np.testing.assert_array_equal(seen[..., 0], expected)
    np.testing.assert_array_equal(seen[..., 3], 255)
    press(page, shown, "i")
    np.testing.assert_array_equal(part(shown, as_read())[1][..., 1], 255 - expected)
    page.get_by_role("button", name="Invert").click()
    np.testing.assert_array_equal(part(shown, as_read())[1][..., 2], expected)


def test_presets_keys_and_dragging_set_the_window(page: Page) -> None:
    shown = view_of(page, "L CC")
    press(page, shown, "1", "h")
    page.get_by_label("Contrast window").select_option("Breast tissue")
    low, high = window(page)
    assert 0 <= low < high <= 100
    assert (low, high) != (0, 100)
    values, seen = part(shown, as_read())
    expected = np.clip((values / 255 - low / 100) / ((high - low) / 100), 0, 1) * 255
    assert np.abs(seen[..., 0] - expected).max() < 255 * 0.012 / ((high - low) / 100), "percent are rounded"
    page.get_by_label("Contrast window").select_option("As in the file")
    assert window(page) == (0, 100)
    press(page, shown, "Shift+ArrowRight", "Shift+ArrowRight")
    narrow = window(page)
    assert 0 < narrow[0] < narrow[1] < 100
    press(page, shown, "Shift+ArrowUp")
    assert window(page)[1] < narrow[1], "brighter: white comes sooner"
    page.get_by_label("Contrast window").select_option("Full range")
    assert window(page)[1] <= 100
    before = lies(shown)
    page.get_by_role("button", name="Drag: contrast").click()
    drag(page, shown, 60, 0)
    assert window(page)[0] > 5
    assert lies(shown) == before
    press(page, shown, "w")
    drag(page, shown, 60, 0)
    assert lies(shown)[0] > before[0], "dragging moves again"


def test_the_windows_of_a_file_are_offered_by_their_explanation(browser: Browser, url: str) -> None:
    windows = {
        "WindowCenter": [1000, 3000],
        "WindowWidth": [500, 2000],
        "WindowCenterWidthExplanation": ["DARK", "SOFT"],
    }
    with opened(browser, url) as page:
        drop(page, ("x.dcm", dicom(grey(0), "L", "CC", **windows)))
        drawn_in_full(page)
        shown, select = view_of(page, "L CC"), page.get_by_label("Contrast window")
        press(page, shown, "1", "h")
        stored = grey(0).astype(float)

        def looks(center: float, width: float) -> None:
            values, seen = part(shown, np.clip((stored - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255)
            assert np.abs(seen[..., 0] - values).max() <= 1

        looks(1000, 500)
        assert select.locator("option").all_inner_texts()[-2:] == ["File: DARK", "File: SOFT"]
        select.focus()
        page.keyboard.press("End")
        expect(select).to_have_value("file: SOFT")
        looks(3000, 2000)
        show_example(page, 1)
        expect(page.locator("figcaption").first).to_contain_text("synthetic")
        expect(select).to_have_value("file")


def drag(page: Page, shown: Locator, dx: int, dy: int) -> None:
    shown.hover()
    box = shown.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()
    settle(page)


def test_heat_has_the_colours_of_the_reports_and_goes_away(page: Page) -> None:
    shown = view_of(page, "L CC")
    press(page, shown, "1")
    page.get_by_label("Heatmap opacity").focus()
    page.keyboard.press("End")
    values, seen = part(shown, as_read())
    warm = seen[..., 0] - seen[..., 2] > 40
    assert warm.any(), "the mass is in sight"
    hottest = np.unravel_index((seen[..., 0] - seen[..., 1] - seen[..., 2]).argmax(), warm.shape)
    strongest = heat(np.ones((1, 1), np.float32))[0, 0]
    assert abs(seen[hottest][0] - strongest[0]) < 40
    assert seen[hottest][2] < 100
    page.get_by_role("button", name="Heatmap").click()
    np.testing.assert_array_equal(part(shown, as_read())[1][..., 0], values)
    press(page, shown, "h")
    np.testing.assert_array_equal(part(shown, as_read())[1], seen)


def test_zoom_and_place_are_shared_kept_and_taken_back(page: Page) -> None:
    first, second = view_of(page, "L CC"), view_of(page, "L MLO")
    whole = lies(first)
    first.hover()
    page.mouse.wheel(0, -300)
    expect(first).not_to_have_attribute("data-width", re.compile(f"^{whole[2]:g}$"))
    zoomed = lies(first)
    assert zoomed[2] > 1.5 * whole[2]
    assert lies(second)[2] == pytest.approx(zoomed[2])
    choose(page, "Operating point", "90 % specificity")
    expect(page.locator(".m-verdicts")).to_contain_text("“90 % specificity”")
    settle(page)
    assert lies(first) == zoomed
    press(page, second, "ArrowRight", "ArrowDown")
    assert lies(first)[0] < zoomed[0]
    assert lies(first)[1] < zoomed[1]
    press(page, first, "+")
    page.get_by_role("button", name="Zoom in").click()
    assert lies(first)[2] > zoomed[2]
    press(page, first, "-")
    page.get_by_role("button", name="Zoom out").click()
    assert lies(first)[2] == pytest.approx(zoomed[2], rel=1e-3)
    page.get_by_role("button", name="Fit").click()
    assert lies(first) == whole
    page.get_by_role("button", name="1:1").click()
    assert lies(first)[2] == 640
    press(page, first, "f")
    assert lies(first) == whole


def test_pictures_are_chosen_by_click_and_by_key(page: Page) -> None:
    told, first, second = page.locator(".m-subject"), view_of(page, "L CC"), view_of(page, "L MLO")
    expect(told).to_contain_text("craniocaudal")
    second.click()
    expect(told).to_contain_text("mediolateral oblique")
    expect(second).to_have_attribute("aria-pressed", "true")
    settle(page)
    press(page, second, "n")
    expect(told).to_contain_text("craniocaudal")
    settle(page)
    press(page, second, "p")
    expect(told).to_contain_text("mediolateral oblique")
    settle(page)
    press(page, first, "Enter")
    expect(told).to_contain_text("craniocaudal")
    expect(first).to_have_attribute("aria-label", re.compile("Left breast, craniocaudal"))
    press(page, first, "v")
    expect(second).to_be_hidden()
    page.get_by_role("button", name="Side by side").click()
    expect(second).to_be_visible()
    expect(page.locator(".help")).to_be_hidden()
    press(page, first, "?")
    expect(page.locator(".help")).to_be_visible()
    picture(page, "viewer-help")
    page.get_by_role("button", name="Help: mouse").click()
    expect(page.locator(".help")).to_be_hidden()


def large(side: int = 1600) -> NDArray[np.uint16]:
    """A left breast, CC, in 12 bits with noise in the last."""
    pixels = draw_view(draw_patient(54, 2026).left, View.CC, size=side).pixels.astype(np.uint16) * 16
    return pixels + np.random.default_rng(0).integers(0, 8, pixels.shape, dtype=np.uint16)


def test_zooming_in_fetches_every_pixel_and_a_view_that_hangs_mirrored_moves_as_a_mirror_image(
    browser: Browser, url: str
) -> None:
    pixels = large()
    with opened(browser, url) as page:
        drop(page, *((f"{side}.dcm", dicom(pixels, side, "CC")) for side in "RL"))
        drawn_in_full(page)
        right, left = view_of(page, "R CC"), view_of(page, "L CC")
        expect(left).to_have_attribute("data-resolution", "1400")
        expect(page.locator("figure[data-view='R CC'] figcaption")).to_contain_text("mirrored")
        press(page, left, "h")
        whole = canvas(left)
        assert np.abs(whole - canvas(right)[:, ::-1])[1:-60, 1:-1].max() <= 3, (
            "at rest, each is the other's mirror image"
        )
        press(page, left, "1")
        for shown in (right, left):
            expect(shown).to_have_attribute("data-resolution", "1600")
        press(page, left, "ArrowRight", "ArrowUp")
        for shown, file in ((left, pixels), (right, pixels[:, ::-1])):
            values, seen = part(shown, file)
            assert values.size > 50_000
            assert np.abs(seen[..., 0] - values / 4095 * 255).max() <= 0.51
        wall_left, wall_right = lies(left)[0], lies(right)[0] + 1600
        across = canvas(right).shape[1]
        assert abs(wall_left - (across - wall_right)) <= 1
        bar = canvas(left)[-12:, :, :3].min(axis=2) > 250
        assert 100 <= bar.sum(axis=1).max() < 150, "10 mm are 100 pixels"
        picture(page, "viewer-mirrored")


def test_inverted_files_are_shown_upright_and_it_is_said(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        drop(page, ("x_L_CC.png", drawn(EXAMPLES[3])[0].content))
        drawn_in_full(page)
        expect(page.locator("figcaption")).to_contain_text("black and white inverted in the file, shown upright")
        shown = view_of(page, "L CC")
        press(page, shown, "1", "h")
        file = np.asarray(Image.open(io.BytesIO(drawn(EXAMPLES[3])[0].content))).astype(np.int64)
        values, seen = part(shown, file)
        np.testing.assert_array_equal(seen[..., 0], 255 - values)


def test_two_fingers_zoom_on_a_phone(browser: Browser, url: str) -> None:
    with opened(browser, url, PHONE) as page:
        drop(page, ("L_CC.png", png(0)))
        drawn_in_full(page)
        shown = view_of(page, "L CC")
        shown.scroll_into_view_if_needed()
        box, before = shown.bounding_box(), lies(shown)
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = page.context.new_cdp_session(page)

        def fingers(kind: str, apart: float) -> None:
            points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}] if apart else []
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        fingers("touchStart", 20)
        for apart in (30, 40, 60):
            fingers("touchMove", apart)
        fingers("touchEnd", 0)
        expect(shown).not_to_have_attribute("data-width", re.compile(f"^{before[2]:g}$"))
        assert lies(shown)[2] > 2 * before[2]
        picture(page, "viewer-phone")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_have_names_focus_and_contrast(browser: Browser, url: str, scheme: str) -> None:
    with opened(browser, url, DESKTOP, scheme) as page:
        drop(page, ("L_CC.dcm", dicom(grey(0), "L", "CC")), ("L_MLO.png", png(0, 1)))
        drawn_in_full(page)
        for role in ("button", "combobox", "slider"):
            for control in page.locator(".viewer").get_by_role(role).all():
                assert control.evaluate("e => e.ariaLabel || e.textContent.trim() || e.labels?.[0].textContent.trim()")
        page.get_by_role("button", name="1:1").focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert page.get_by_role("button", name="1:1").evaluate("e => parseFloat(getComputedStyle(e).outlineWidth)") >= 2
        for control in page.locator(".controls button:visible, .controls select, figcaption small").all():
            assert contrast(control) >= 4.5
        picture(page, f"viewer-{scheme}")


def contrast(control: Locator) -> float:
    """Return the contrast ratio of a control's text and its background, as WCAG 2 defines it."""
    told = control.evaluate(
        """e => {
            const rgba = text => {
                const context = new OffscreenCanvas(1, 1).getContext('2d');
                context.fillStyle = text;
                context.fillRect(0, 0, 1, 1);
                return [...context.getImageData(0, 0, 1, 1).data];
            };
            let behind = e, back;
            while ((back = rgba(getComputedStyle(behind).backgroundColor))[3] === 0)
                behind = behind.parentElement ?? behind.getRootNode().host;
            return [rgba(getComputedStyle(e).color), back];
        }"""
    )
    text, back = (np.array(colour[:3]) / 255 for colour in told)
    share = told[0][3] / 255
    light = sorted(luminance(colour) for colour in (text * share + back * (1 - share), back))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(colour: NDArray[np.float64]) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
