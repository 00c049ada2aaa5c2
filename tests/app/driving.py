"""The page without a browser, by Streamlit's own test client: what its tests share."""

import json
import re
import sys
from html import unescape
from typing import Any

import pytest

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from streamlit.testing.v1 import AppTest

from mammolens.app.server import PAGE
from mammolens.app.uploads import EXAMPLES, Example, drawn
from mammolens.reports.case import Case

MASS, CALCIFICATIONS, NOTHING, INVERTED, FOUR = EXAMPLES


def opened(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> AppTest:
    monkeypatch.setattr(sys, "argv", [str(PAGE), *arguments])
    return settled(AppTest.from_file(str(PAGE), default_timeout=60).run())


def settled(page: AppTest) -> AppTest:
    assert not page.exception, page.exception[0].stack_trace
    return page


def with_example(page: AppTest, example: Example) -> AppTest:
    return settled(page.button(key=f"example {EXAMPLES.index(example)}").click().run())


def with_files(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    for name, content in files:
        page.file_uploader[0].upload(name, content)
    return settled(page.run())


def read(page: AppTest) -> str:
    """All that is on the page as HTML, markup left out."""
    return text_of("\n".join(block.value for block in page.html))


def answer(page: AppTest) -> str:
    """The answer as the page words it."""
    return text_of(next(block.value for block in page.html if '<section class="m-verdicts"' in block.value))


def looked_at(page: AppTest) -> list[Case]:
    """All cases of the page, as they were looked at."""
    return list(page.session_state["looked at"].shown)


def text_of(markup: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", markup)))


def complaints(page: AppTest) -> str:
    return " ".join(error.value.replace("\\", "") for error in page.error)


def phantom(example: Example = MASS, number: int = 0) -> bytes:
    return drawn(example)[number].content


def shown(page: AppTest) -> dict[str, Any]:
    """All that the viewer is told."""
    (element,) = page.get("bidi_component")
    return dict(json.loads(element.proto.json))


def four_views(patient: str = "ann", example: Example = FOUR) -> list[tuple[str, bytes]]:
    """The views of an example, as files whose names differ in side and view alone."""
    return [(f"{patient}_{'_'.join(one.name[:-4].split('-')[-2:])}.png", one.content) for one in drawn(example)]
