"""Answers as a table on a screen: what is read at one look, in percent; files have every digit."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from mammolens import numerals
from mammolens.levels import ServedLevel
from mammolens.records import Laterality, Prediction
from mammolens.reports.answers import MOST_ROWS, text_of

_NAME, _ANSWER = 12, 24  # characters that they have, however narrow the screen
_FRAME = 3  # characters, of a column

_PLACES = {
    ServedLevel.IMAGE: ("side", "view"),
    ServedLevel.BREAST: ("side", "views"),
    ServedLevel.EXAM: ("left", "right", "L−R"),
}
"""Columns between an answer's name and its probability."""

_NUMBERS = ("left", "right", "L−R", "tumor")


def answers_table(
    answers: Sequence[Prediction],
    hidden: int = 0,
    *,
    level: ServedLevel = ServedLevel.IMAGE,
    with_age: bool = False,
    width: int = 80,
) -> Table:
    """Show the first answers, and how many more there are.

    Args:
        answers: at `level`.
        hidden: how many more there are beside these.
        level: what they are about.
        with_age: whether age and the second answer are shown.
        width: of the screen, in characters: names that do not fit lose their beginning.
    """
    shown = answers[:MOST_ROWS]
    heads = (level.value, *_PLACES[level], "tumor", "answer")
    rows = [_row(answer, level, with_age=with_age) for answer in shown]
    widths = [max(map(_wide, column)) for column in zip(heads, *rows, strict=True)]
    room = width - sum(widths[1:-1]) - _FRAME * len(heads) - 1 - min(widths[-1], _ANSWER)
    widths[0] = min(widths[0], max(room, _NAME))
    table = Table(caption=_caption(shown, hidden + len(answers) - len(shown), level))
    for head, wide in zip(heads[:-1], widths, strict=False):
        table.add_column(head, width=wide, no_wrap=True, justify="right" if head in _NUMBERS else "left")
    table.add_column(heads[-1], overflow="fold")
    for answer, (name, *cells, said) in zip(shown, rows, strict=True):
        first, *more = said.split("\n")
        told = [Text(first, "" if answer.error is None else "red"), *(Text(line, "dim") for line in more)]
        table.add_row(Text(_end(name, widths[0])), *map(Text, cells), Text("\n").join(told))
    return table


def _caption(shown: Sequence[Prediction], hidden: int, level: ServedLevel) -> Text:
    more = f"... and {hidden} more. " if hidden > 0 else ""
    point = f", operating point {shown[0].operating_point}" if shown else ""
    return Text(f"{more}Probability of the {level}{point}. Research use only.")


def _row(answer: Prediction, level: ServedLevel, *, with_age: bool) -> tuple[str, ...]:
    further = len(answer.views) - 1
    name = text_of(answer.path) + (f" +{further}" if further > 0 else "")
    return name, *_places(answer, level), _percent(answer.probability), _said(answer, with_age=with_age)


def _places(answer: Prediction, level: ServedLevel) -> tuple[str, ...]:
    """Return the cells under `_PLACES`."""
    if level is ServedLevel.IMAGE:
        return answer.laterality or "", answer.view or ""
    if level is ServedLevel.BREAST:
        views = (f"{view.view or '?'} {_percent(view.probability) or 'none'}" for view in answer.views)
        return answer.laterality or "", "\n".join(views)
    breasts = [answer.breast(side) for side in Laterality]
    difference = "" if answer.difference is None else numerals.points(answer.difference)
    return *("" if one is None else _percent(one.probability) for one in breasts), difference


def _percent(probability: float | None) -> str:
    return "" if probability is None else numerals.whole_percent(probability)


def _said(answer: Prediction, *, with_age: bool) -> str:
    """Return a line each: decision, or why there is none; second answer; each breast's decision; warnings."""
    if answer.error is not None:
        return text_of(answer.error.removeprefix(f"{answer.path}: "))
    breasts = [f"{one.laterality.word}: {_decision(one)}" for one in answer.breasts if one.laterality]
    second = f"with age, {answer.age} years: {_percent(answer.probability_with_age) or 'none'}"
    ages = [second] if with_age and answer.age is not None else []
    return text_of("\n".join([_decision(answer), *ages, *breasts, *answer.warnings]))


def _decision(answer: Prediction) -> str:
    """Return what is decided, whether it is to be relied on, and why not."""
    uncertain = " (uncertain)" if answer.decision and answer.uncertain else ""
    why = f": {answer.reason}" if answer.reason else ""
    return f"{answer.decision or 'none'}{uncertain}{why}"


def _wide(cell: str) -> int:
    return max(map(cell_len, cell.split("\n")))


def _end(name: str, width: int) -> str:
    """Return as much of the end of a name as fits."""
    if cell_len(name) <= width:
        return name
    while cell_len(name) >= width:
        name = name[1:]
    return f"…{name}"
