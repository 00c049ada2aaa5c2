"""The table of answers on a screen: whole words in 80 columns, percent, no markup."""

import io
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mammolens.levels import ServedLevel
from mammolens.records import ImageWarning, Laterality, Prediction, Reason, Special, View
from mammolens.reports.answers import MOST_ROWS
from mammolens.reports.answers_table import answers_table

ONE = Prediction(
    Path("20586908_6c613a14b80a8591_MG_L_MLO_ANON.dcm"),
    probability=0.543211,
    decision="no tumor",
    threshold=0.6,
    operating_point="balanced",
    uncertain=True,
    reason=Reason.BETWEEN,
    laterality=Laterality.LEFT,
    view=View.MLO,
    warnings=tuple(ImageWarning),
)
FAILED = Prediction.failure(Path("c, d.png"), 'c, d.png: cut short\nat byte "9"', 0.5)
REFUSED = Prediction(Path("flower.jpg"), None, uncertain=True, reason=Reason.NOT_A_MAMMOGRAM, admitted=False)
RIGHT = replace(ONE, laterality=Laterality.RIGHT, probability=0.213, uncertain=False, reason=None)
BREAST = replace(ONE, level=ServedLevel.BREAST, views=(ONE, replace(REFUSED, view=View.CC)), view=None)
EXAM = replace(ONE, level=ServedLevel.EXAM, views=(ONE, RIGHT), breasts=(BREAST, RIGHT))
LEVELS = {ServedLevel.IMAGE: ONE, ServedLevel.BREAST: BREAST, ServedLevel.EXAM: EXAM}


def shown(answers: Sequence[Prediction], hidden: int = 0, *, width: int = 160, **options: object) -> str:
    stream = io.StringIO()
    table = answers_table(answers, hidden, width=width, **options)  # type: ignore[arg-type]
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


def cells(text: str) -> list[list[str]]:
    """The lines of each column."""
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in column if cell.strip()] for column in zip(*lines, strict=True)]


@pytest.mark.parametrize("level", list(ServedLevel))
@pytest.mark.parametrize("with_age", [False, True])
def test_it_fits_80_columns_and_breaks_no_word(level: ServedLevel, with_age: bool) -> None:
    special = tuple(ImageWarning.VIEW.about(one) for one in Special)
    answer = replace(LEVELS[level], age=63, probability_with_age=0.25, warnings=(*ImageWarning, *special))
    text = shown([answer, FAILED], level=level, with_age=with_age, width=80)
    assert max(map(len, text.splitlines())) <= 80
    *_, said = cells(text)
    words = {word for warning in answer.warnings for word in warning.split()}
    assert words <= set(" ".join(said).split())
    assert text.splitlines()[1].split("┃")[1].strip() == level.value, "no head is cut"
    assert "ANON.dcm" in cells(text)[0][0], "of a long name, the end is shown"


def test_numbers_are_read_in_percent() -> None:
    _, side, view, tumor, said = cells(shown([ONE, replace(ONE, probability=0.0004), FAILED]))
    assert (side, view, tumor) == (["L", "L"], ["MLO", "MLO"], ["54 %", "< 1 %"])
    assert "no tumor (uncertain): between ruling a tumor out and ruling it in" in said
    assert "polarity is uncertain" in said
    assert "cut short" in said, "the name is not said twice"
    aged = [replace(ONE, age=63, probability_with_age=0.25)]
    assert "with age, 63 years: 25 %" in cells(shown(aged, with_age=True))[-1]
    assert "with age" not in shown(aged)


def test_a_breast_shows_its_views_and_an_examination_its_breasts() -> None:
    name, side, views, tumor, _ = cells(shown([BREAST], level=ServedLevel.BREAST))
    assert name[0].endswith("ANON.dcm +1")
    assert (side, views, tumor) == (["L"], ["MLO 54 %", "CC none"], ["54 %"])
    _, left, right, difference, _, said = cells(shown([EXAM], level=ServedLevel.EXAM))
    assert (left, right, difference) == (["54 %"], ["21 %"], ["+33"])
    assert "left: no tumor (uncertain): between ruling a tumor out and ruling it in" in said
    assert "right: no tumor" in said
    assert "Probability of the exam, operating point balanced. Research use only." in shown([EXAM], level=EXAM.level)


def test_what_is_no_mammogram_is_told() -> None:
    assert "none: does not look like a mammogram" in shown([REFUSED])


def test_the_table_is_cut_and_says_so() -> None:
    many = [Prediction(Path(f"{index}.png"), 0.5) for index in range(MOST_ROWS + 2)]
    text = shown(many, hidden=10)
    assert f"{MOST_ROWS - 1}.png" in text
    assert f"{MOST_ROWS}.png" not in text
    assert "... and 12 more." in text
    assert "more" not in shown(many[:3])
    assert "Research use only" in re.sub(r"\s+", " ", shown([]))


def test_names_are_shown_as_they_are() -> None:
    """Whatever looks like markup, and bytes that are no text."""
    name, old = "[red]x[/red] [/] [link=a]y.png", Path(os.fsdecode(b"m\xe4dchen.png"))
    loud = Prediction(Path(name), 0.5, "tumor", 0.5, warnings=(ImageWarning.VIEW.about("[bold]loud[/bold]"),))
    text = shown([loud, Prediction.failure(Path("z.png"), "[blue]broken", 0.5), Prediction(old, 0.5)])
    for said in (name, "[bold]loud[/bold]", "[blue]broken", r"m\udce4dchen.png"):
        assert said in text
    text.encode()
