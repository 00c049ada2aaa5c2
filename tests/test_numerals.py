import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammolens import numerals


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0.0 %"),
        (1, "100.0 %"),
        (0.732, "73.2 %"),
        (0.005, "0.5 %"),
        (0.9996, "99.96 %"),
        (0.0002, "0.02 %"),
        (0.99999996, "> 99.9999 %"),
        (1e-9, "< 0.0001 %"),
        (math.nan, "not defined"),
    ],
)
def test_shares(share: float, text: str) -> None:
    assert numerals.percent(share) == text


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_what_is_not_certain_is_not_written_as_certain(value: float) -> None:
    assert numerals.percent(value) not in {"0.0 %", "100.0 %"}
    assert numerals.probability(value) not in {"0.0000", "1.0000"}
    assert numerals.p_value(value) != "0.000"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0112, "1 in 90"),
        (0.0026, "1 in 400"),
        (0.0083, "1 in 120"),
        (0.04, "1 in 25"),
        (0.29, "1 in 3"),
        (0.54, "5 in 10"),
        (0.9999, "more than 9 in 10"),
        (0, "less than 1 in 10,000"),
        (0.0002, "1 in 5,000"),
    ],
)
def test_shares_as_people_count(share: float, text: str) -> None:
    assert numerals.one_in(share) == text


@given(st.floats(0.0001, 0.95))
def test_counts_are_near_their_shares(value: float) -> None:
    said, _, of = numerals.one_in(value).removeprefix("more than ").partition(" in ")
    assert int(said) / int(of.replace(",", "")) == pytest.approx(value, rel=0.2)


def test_probabilities_and_p_values() -> None:
    written = [numerals.probability(value) for value in (0, 1, 0.5, 0.99999, 0.00001)]
    assert written == ["0.0000", "1.0000", "0.5000", "> 0.9999", "< 0.0001"]
    assert [numerals.p_value(p) for p in (0.0004, 0.021, 1, 0)] == [
        "< 0.001",
        "0.021",
        "1.000",
        "< 0.001",
    ]
    assert numerals.p_value(math.nan) == "not defined"


def test_figures_and_intervals() -> None:
    assert numerals.figure(-0.0004) == "0.000"
    assert numerals.figure(-0.12) == "\N{MINUS SIGN}0.120"
    assert numerals.figure(math.inf) == "unbounded"
    assert numerals.interval("0.1", "0.2") == "(0.1 to 0.2)"
    assert numerals.interval("not defined", "not defined") == "(no interval)"


def test_shares_that_are_read_have_no_false_digits() -> None:
    shares = (0, 0.0049, 0.0051, 0.543, 0.994, 0.996, 1)
    assert [numerals.whole_percent(one) for one in shares] == ["0 %", "< 1 %", "1 %", "54 %", "99 %", "> 99 %", "100 %"]
    assert [numerals.points(one) for one in (0.3349, -0.041, 0.001, -0.001)] == ["+33", "−4", "0", "0"]
