"""The report of an examination: what it says, how views hang, and what it does not tell."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from html_page import Page

from mammolens.levels import Identifier, Level, ServedLevel
from mammolens.measures.intervals import Estimate
from mammolens.model.bundle import BundleRecord, find_bundle, open_bundle
from mammolens.records import ImageWarning, Laterality, Prediction, Reason, View
from mammolens.reports.case import count_at, standing
from mammolens.reports.examination import Print, examination_page, hung
from mammolens.serving.exams import STANDARD, joined

LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT
SECRETS = ("DOE", "JANE", "4711", "1.2.840.99")
LOOKED = "Where it looked."


@pytest.fixture(scope="module")
def record() -> BundleRecord:
    return open_bundle(find_bundle("phantom")).record


def view(
    side: Laterality | None, projection: View | None, probability: float | None = 0.2, **more: object
) -> Prediction:
    name = Path(f"DOE/JANE_{side}_{projection}.png")
    known = {"laterality": side, "view": projection, "patient_id": "JANE-4711", "study_id": "1.2.840.99"}
    return Prediction(name, probability, **known | more)  # type: ignore[arg-type]


def exam_of(views: Sequence[Prediction], record: BundleRecord) -> Prediction:
    (exam,) = joined(views, ServedLevel.EXAM, "balanced", record.rules())
    return exam


def page(exam: Prediction, record: BundleRecord, *identifiers: Identifier, unread: int = 0) -> str:
    prints = {one: Print(b"jpeg", "", inverted=False, mirrored=False) for one in exam.views}
    return examination_page(exam, record, prints, looked=LOOKED, identifiers=identifiers, unread=unread)


def four(*probabilities: float) -> list[Prediction]:
    return [view(*place, probability) for place, probability in zip(STANDARD, probabilities, strict=True)]


def words(text: str) -> str:
    return Page(text).all_words


def places(views: Sequence[Prediction]) -> list[list[str]]:
    rows, _ = hung(views)
    return [[f"{' '.join(one.place or ())}{'' if one.view else '?'}" for one in row] for row in rows]


def test_views_hang_right_breast_left_and_cc_on_top() -> None:
    assert places(four(0.1, 0.1, 0.1, 0.1)[::-1]) == [["R CC", "L CC"], ["R MLO", "L MLO"]]
    alone = [view(LEFT, View.MLO), view(LEFT, View.CC)]
    assert places(alone) == [["L CC", "L MLO"]]
    assert places([*alone, view(RIGHT, View.CC)]) == [["R CC", "L CC"], ["R MLO?", "L MLO"]]
    assert places([view(None, None)]) == []


def test_a_doubled_view_and_an_odd_one_stand_below(record: BundleRecord) -> None:
    first, second, odd, nowhere = view(LEFT, View.CC), view(LEFT, View.CC), view(LEFT, View.ML), view(None, None)
    rows, further = hung([first, second, odd, nowhere])
    assert rows[0][0].view is first
    assert [one.view for one in further] == [second, odd, nowhere]
    text = words(page(exam_of([first, second, odd], record), record))
    assert "More than one picture of L CC: all count." in text
    assert "Further pictures" in text


def test_both_breasts_answers_stand_beside_their_thresholds(record: BundleRecord) -> None:
    exam = exam_of(four(0.002, 0.002, 0.9999, 0.9999), record)
    text = words(page(exam, record))
    right, left = text.index("Right breast: the mean of its views"), text.index("Left breast: the mean of its views")
    assert right < left
    assert "Above the threshold called tumor > 99 %" in text[right:left]
    assert "Below the threshold called no tumor < 1 %" in text[left:]
    assert "The examination: the larger of its breasts Above the threshold" in text
    assert page(exam, record).count("<img ") == 4


@pytest.mark.parametrize(("away", "side"), [(-0.001, "below"), (0.001, "above")])
def test_uncertain_is_said_before_the_class_and_why(away: float, side: str) -> None:
    ours = open_bundle(find_bundle("accurate")).record
    probability = ours.operating_points[Level.PATIENT][ours.default_operating_point].threshold + away
    exam = exam_of(four(*[probability] * 4), ours)
    assert exam.reason is Reason.BOTH
    assert standing(exam) == f"Uncertain, {side} the threshold"
    text = words(page(exam, ours))
    assert f"Uncertain, {side} the threshold called {exam.decision}" in text
    assert text.count("such a probability was common with a tumor and without one") == 1, "said once, not thrice"


def test_a_missing_view_leaves_its_place_and_is_said(record: BundleRecord) -> None:
    exam = exam_of(four(0.1, 0.1, 0.1, 0.1)[:3], record)
    text = words(page(exam, record, unread=2))
    assert "R MLO: not found" in text
    assert "Standard views not found: R MLO." in text
    assert "Not readable among what was given: 2 files" in text
    whole = words(page(exam_of(four(0.1, 0.1, 0.1, 0.1), record), record, unread=2))
    assert "not readable" not in whole, "nothing is missing"
    one_breast = words(page(exam_of(four(0.1, 0.1, 0.1, 0.1)[:2], record), record))
    assert "There is no picture of it." in one_breast


def test_what_is_no_mammogram_gets_no_decision(record: BundleRecord) -> None:
    odd = view(RIGHT, View.MLO, None, admitted=False, warnings=(ImageWarning.NOT_LIKE_TRAINING,))
    text = words(page(exam_of([*four(0.1, 0.1, 0.1, 0.1)[:3], odd], record), record))
    assert "R MLO · does not look like a mammogram: no decision" in text
    assert "Unlike mammograms, without a say: 1 picture." in text
    alone = exam_of([odd], record)
    assert alone.reason is Reason.NOT_A_MAMMOGRAM
    assert "No decision No picture of it looks like a mammogram" in words(page(alone, record))


def test_nobody_is_named_unless_asked_for(record: BundleRecord) -> None:
    odd = view(LEFT, View.ML, None, admitted=False)
    exam = exam_of([*four(0.1, 0.1, 0.1, 0.1)[:3], odd, view(None, None)], record)
    assert {ImageWarning.NO_SAY, ImageWarning.NO_SIDE} <= {one.kind for one in exam.warnings}
    assert any("JANE" in one for one in exam.warnings)
    bare = page(exam, record, unread=1)
    assert not [secret for secret in SECRETS if secret in bare]
    assert "Of a side that is not known, each taken for a breast of its own: 1 picture." in words(bare)
    asked = {one: page(exam, record, one) for one in Identifier}
    assert "JANE-4711" in asked[Identifier.PATIENT]
    assert "1.2.840.99" not in asked[Identifier.PATIENT]
    assert "JANE_" not in asked[Identifier.PATIENT]
    assert "1.2.840.99" in asked[Identifier.STUDY]
    assert "JANE" not in asked[Identifier.STUDY]
    assert "JANE_L_CC.png" in asked[Identifier.FILES]
    assert "4711" not in asked[Identifier.FILES]


def test_it_says_what_it_is_worth_and_which_model_answered(record: BundleRecord) -> None:
    raw = page(exam_of(four(0.1, 0.1, 0.1, 0.1), record), record)
    text = words(raw)
    point = record.operating_points[ServedLevel.EXAM.judged]["balanced"]
    assert f"{100 * point.sensitivity.value:.1f} %" in text
    for wanted in ("Research", "AUC on validation", "In screening", "Notes of the reader", record.name, LOOKED):
        assert wanted in text
    assert record.files["model.onnx"] in text, "the whole checksum"
    assert text.count("For research use only. Not a medical device.") == 2
    assert "<script" not in raw
    assert not re.search(r'(?:src|href)="(?!data:|#terms)', raw)


def test_a_model_that_is_not_calibrated_says_nothing_of_screening(record: BundleRecord) -> None:
    bare = record.model_copy(update={"training_data": None, "metrics": {"roc_auc": Estimate(float("nan"), 0, 0)}})
    text = words(page(exam_of(four(0.1, 0.1, 0.1, 0.1), bare), bare))
    assert "in screening" not in text[: text.index("Notes of the reader")].lower()
    assert "raw scores" in text
    assert "AUC on validation" not in text


def test_what_an_answer_means_in_screening_is_counted(record: BundleRecord) -> None:
    assert count_at(None, record, 0.005) == ""
    assert count_at(0.5, record.model_copy(update={"training_data": None}), 0.005) == ""
    assert re.fullmatch(r"about 1 in [\d,]+", count_at(0.5, record, 0.005))
    assert count_at(1e-6, record, 0.005) == "less than 1 in 10,000"
    assert count_at(1.0, record, 0.005) == "more than 9 in 10"
