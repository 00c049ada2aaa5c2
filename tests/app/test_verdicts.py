"""What is suspected where: on the page as in the library, to the last digit; chosen, uncertain, translated."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import (
    MASS,
    NOTHING,
    answer,
    four_views,
    looked_at,
    opened,
    phantom,
    read,
    settled,
    shown,
    text_of,
    with_example,
    with_files,
)
from streamlit.testing.v1 import AppTest

import mammolens
from mammolens.app.cases import examinations
from mammolens.app.uploads import EXAMPLES
from mammolens.levels import Level, ServedLevel
from mammolens.model.bundle import Bundle, write_bundle
from mammolens.model.decisions import at_prevalence
from mammolens.numerals import one_in, whole_percent
from mammolens.reports.case import share
from mammolens.reports.pages import TERMS
from mammolens.serving.exams import joined
from mammolens.serving.predictor import Predictor


def test_an_uncertain_answer_is_called_uncertain(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = bundle.record.operating_points
    wide = points[Level.IMAGE] | {
        "sensitivity-90": points[Level.IMAGE]["balanced"].model_copy(update={"threshold": 0.0}),
        "specificity-90": points[Level.IMAGE]["balanced"].model_copy(update={"threshold": 1.0}),
    }
    record = bundle.record.model_copy(update={"operating_points": dict.fromkeys(points, wide)})
    write_bundle(record, bundle.model, tmp_path / "bundle")
    text = answer(with_example(opened(monkeypatch, str(tmp_path / "bundle")), MASS))
    assert "Left breast Uncertain, above the threshold" in text
    assert "Examination Uncertain, above the threshold" in text
    assert TERMS["uncertain"]["BETWEEN"] in text


def test_prevalence_moves_what_the_answer_means(page: AppTest, bundle: Bundle) -> None:
    with_example(page, MASS)
    data = bundle.record.training_data
    assert data is not None
    (exam,) = joined([case.answer for case in looked_at(page)], ServedLevel.EXAM, "balanced", bundle.record.rules())
    assert exam.probability is not None
    text = answer(page)
    assert f"where {share(data.prevalence)} of pictures have one" in text
    at_screening = at_prevalence(exam.probability, data.prevalence, 0.005)
    assert f"in screening about {one_in(at_screening)}" in text
    settled(page.select_slider(key="prevalence").set_value(0.1).run())
    chosen = at_prevalence(exam.probability, data.prevalence, 0.1)
    assert re.search(rf"where 10 % have a tumor, (about )?{one_in(chosen)}", answer(page))


@pytest.mark.parametrize("files", [four_views(), four_views()[:3], [*four_views(), ("ann_L_CC.PNG", phantom(NOTHING))]])
def test_the_verdict_on_an_examination_is_the_librarys_to_the_last_digit(
    page: AppTest, files: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    for name, content in files:
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name, _ in files]
    (exam,) = mammolens.predict(paths, model="phantom", level="exam")
    breasts = mammolens.predict(paths, model="phantom", level="breast")
    with_files(page, *files)
    cases = looked_at(page)
    rules = Predictor.load("phantom").bundle.record.rules()
    (mine,) = examinations(cases, "balanced", rules)
    assert mine.answer.probability == exam.probability
    assert mine.answer.warnings == exam.warnings
    assert {one.laterality: one.probability for one in mine.breasts} == {
        one.laterality: one.probability for one in breasts
    }
    text = answer(page)
    for where, one in [("Left breast", exam.breasts[0]), ("Right breast", exam.breasts[1]), ("Examination", exam)]:
        side = "Above" if one.decision == "tumor" else "Below"
        assert re.search(
            rf"{where} (Uncertain, )?{side} the threshold {whole_percent(one.probability or 0)}", text, re.IGNORECASE
        )
    for warning in exam.warnings:
        assert f"{warning[:1].upper()}{warning[1:]}." in text


def test_the_examinations_report_says_of_each_breast_what_the_page_says(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: dict[str, Callable[[], str]] = {}
    monkeypatch.setattr("streamlit.download_button", lambda label, content, *_, **__: offered.update({label: content}))
    monkeypatch.setattr("mammolens.app.downloads._kept", lambda content, *_: content)  # which needs a server
    label = "Report of this examination (HTML, prints on A4)"
    with_files(page, ("DOE_L_CC.png", phantom()))
    assert label not in offered, "of one picture, there is that of the picture"
    settled(page.button(key="away").click().run())
    with_files(page, *four_views("DOE")[:3], ("DOE_bad.png", b"no picture"))
    said, report = answer(page), offered[label]()
    assert report.count("<img ") == 3
    assert "DOE" not in report
    assert "Not readable among what was given: 1 file" in report
    assert "Not a medical device" in report
    of_page = {
        where: told
        for where, *told in re.findall(rf"(Left breast|Right breast|Examination) {_STANDING} {_PERCENT} {_RARER}", said)
    }
    of_report = {
        where.removeprefix("The ").capitalize(): [stands, percent, rarer]
        for where, stands, percent, rarer in re.findall(
            rf"(Left breast|Right breast|The examination): [a-z ]+ {_STANDING} called [a-z ]+? {_PERCENT} "
            rf"probability of a tumor; {_RARER}",
            text_of(report),
        )
    }
    assert of_page == of_report
    assert of_page.keys() == {"Left breast", "Right breast", "Examination"}


_STANDING, _PERCENT = "((?:Uncertain, )?(?:[Aa]bove|[Bb]elow) the threshold)", r"((?:[<>] )?\d+ %)"
_RARER = r"in screening ((?:about|less than|more than) \d+ in [\d,]+)"


def test_the_most_suspicious_picture_is_opened_first(page: AppTest) -> None:
    with_files(page, *four_views()[::-1])
    most = max(range(4), key=lambda number: looked_at(page)[number].answer.probability or 0)
    assert page.selectbox(key="shown").value == most == shown(page)["number"]
    assert "Right breast" in read(page)


def test_two_examinations_have_a_verdict_each_to_choose_between(page: AppTest) -> None:
    with_files(page, *four_views("ann", NOTHING), *four_views("eve"))
    choice = page.radio(key="examination")
    assert len(choice.options) == 2
    assert re.search(r"Right: below the threshold, (< )?\d+ % · ann", choice.options[0].replace("\\", ""))
    assert re.search(
        r"Left: below the threshold, .*; right: above the threshold, .* · eve", choice.options[1].replace("\\", "")
    )
    assert choice.value == 1, "the more suspicious"
    assert "Left breast" in answer(page)
    settled(page.radio(key="examination").set_value(0).run())
    assert "Left breast Below" not in answer(page)
    assert "Standard views not found: L CC, L MLO." in answer(page)
    assert page.selectbox(key="shown").value in (0, 1)
    settled(page.selectbox(key="shown").set_value(2).run())
    assert page.radio(key="examination").value == 1


def test_pictures_of_many_patients_are_chosen_from_a_list(page: AppTest) -> None:
    with_files(page, *((f"{name}.png", phantom(NOTHING)) for name in "abcdef"))
    assert len(page.selectbox(key="examination").options) == 6
    assert not page.radio


def test_the_examples_are_pictures_on_their_buttons(page: AppTest) -> None:
    style = next(block.value for block in page.html if "::before" in block.value and "base64" in block.value)
    assert len(set(re.findall(r"base64,([^)]+)", style))) == len(EXAMPLES)
    assert [page.button(key=f"example {number}").label for number in range(len(EXAMPLES))] == [
        one.title for one in EXAMPLES
    ]
