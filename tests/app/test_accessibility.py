"""What everybody can use: axe-core on each kind of page, in both themes; the new controls by keyboard alone."""

from pathlib import Path

import pytest
from browsing import (
    DESKTOP,
    NEEDED,
    PHONE,
    drawn_in_full,
    drop,
    open_uploader,
    opened,
    picture,
    png,
    settle,
    show_example,
)
from playwright.sync_api import Browser, Page, expect

from mammolens.app.uploads import EXAMPLES

AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = [*NEEDED, pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: make browser")]

STANDARD = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Page) -> list[str]:
    """Return what axe-core finds, a line each: rule, place, how to mend it."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        """async tags => {
            const { violations } = await axe.run(document, { runOnly: tags });
            return violations.flatMap(one => one.nodes.map(node =>
                `${one.id}: ${node.target.flat().join(' ')}: ${node.failureSummary} ${node.html.slice(0, 200)}`));
        }""",
        STANDARD,
    )
    return list(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser: Browser, url: str, size: tuple[int, int], scheme: str) -> None:
    with opened(browser, url, size, scheme) as page:
        assert violations(page) == []
        picture(page, f"welcome-{scheme}-{size[0]}")
        show_example(page, 4)
        assert violations(page) == []
        open_uploader(page)
        page.get_by_role("button", name="Take all pictures away").click()
        expect(page.get_by_text("Three steps")).to_be_visible()
        settle(page)
        drop(page, ("x_L_CC.png", png(0)), ("note.png", b"I am a letter."))
        drawn_in_full(page)
        assert violations(page) == []


def test_examples_examinations_and_pictures_are_chosen_by_keyboard(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        button = page.get_by_role("button", name=EXAMPLES[4].title)
        button.focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Shift+Tab")
        assert button.evaluate(
            "e => { const s = getComputedStyle(e); return s.outlineWidth !== '0px' || s.boxShadow; }"
        )
        page.keyboard.press("Enter")
        expect(page.locator(".m-line")).to_have_count(3)
        settle(page)
        drawn_in_full(page)
        assert page.locator(".m-where").all_inner_texts() == ["Left breast", "Right breast", "Examination"]
        page.get_by_text("Drop mammograms, or choose an example").focus()
        files = [
            (f"{who}_L_{view}.png", png(number, at))
            for who, number in (("ann", 0), ("eve", 1))
            for at, view in enumerate(("CC", "MLO"))
        ]
        drop(page, *files)
        drawn_in_full(page)
        choices = page.get_by_role("radio")
        expect(choices).to_have_count(2)
        first = page.locator(".m-subject").inner_text()
        chosen = page.get_by_role("radio", checked=True)
        chosen.focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator(".m-subject")).not_to_have_text(first)
        settle(page)
        drawn_in_full(page)
        shown = page.get_by_role("combobox", name="Picture shown")
        shown.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        settle(page)
        slider = page.get_by_role("slider", name="Share with a tumor")
        before = page.locator(".m-rarer").first.inner_text()
        slider.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".m-rarer").first).not_to_have_text(before)


def test_a_row_of_the_table_opens_its_picture(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        show_example(page, 4)
        expect(page.locator(".m-subject")).to_contain_text("Right breast")
        table = page.get_by_test_id("stDataFrame")
        table.scroll_into_view_if_needed()
        box = table.bounding_box()
        assert box
        page.mouse.click(box["x"] + 15, box["y"] + 35 * 4.5)
        expect(page.locator(".m-subject")).to_contain_text("Left breast, mediolateral oblique")
        settle(page)
