from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammolens.data.manifest import Manifest
from mammolens.levels import Level, ServedLevel
from mammolens.measures.intervals import Estimate
from mammolens.model.decisions import (
    BALANCED,
    FIXED,
    SENSITIVITY_90,
    SPECIFICITY_90,
    Conformal,
    Decision,
    OperatingPoints,
    Rules,
    aggregated,
    at_prevalence,
    by_level,
    decide,
    decided,
    operating_points,
    predictive_value,
    unmeasured,
)
from mammolens.records import LABEL_NAMES, Mammogram, Prediction, Reason

SIX_DIGITS = st.integers(0, 10**6).map(lambda millionths: millionths / 10**6)
CLASSES = st.tuples(st.lists(SIX_DIGITS, min_size=1, max_size=25), st.lists(SIX_DIGITS, min_size=1, max_size=25))
"""Probabilities of some tumors and of some others."""


def points(tumors: list[float], others: list[float]) -> OperatingPoints:
    """Operating points of images that each stand for a patient."""
    labels = [1] * len(tumors) + [0] * len(others)
    return operating_points(labels, [*tumors, *others], [str(i) for i in range(len(labels))])


def sensitivity(tumors: list[float], threshold: float) -> float:
    return float(np.mean([probability >= threshold for probability in tumors]))


def specificity(others: list[float], threshold: float) -> float:
    return float(np.mean([probability < threshold for probability in others]))


@given(CLASSES)
def test_no_other_threshold_is_better(classes: tuple[list[float], list[float]]) -> None:
    """Against brute force over every score, and every place right above a score."""
    tumors, others = classes
    found = points(tumors, others)
    scores = sorted({*tumors, *others})
    all_others_pass = 1.0 not in others  # no threshold lies above 1
    enough = [t for t in scores if sensitivity(tumors, t) >= 0.9]
    assert found[SENSITIVITY_90].threshold == max(enough)
    above = [round(score + 1e-6, 6) for score in scores]
    quiet = [t for t in [*scores, *above] if t <= 1 and specificity(others, t) >= 0.9]
    if all_others_pass:
        assert found[SPECIFICITY_90].threshold == min(quiet)
    best = max(sensitivity(tumors, t) + specificity(others, t) for t in scores)
    at = found[BALANCED].threshold
    assert sensitivity(tumors, at) + specificity(others, at) == pytest.approx(best)


@given(CLASSES)
def test_what_is_said_of_a_threshold_is_what_it_does(
    classes: tuple[list[float], list[float]],
) -> None:
    tumors, others = classes
    for point in points(tumors, others).values():
        assert point.sensitivity.value == pytest.approx(sensitivity(tumors, point.threshold))
        assert point.specificity.value == pytest.approx(specificity(others, point.threshold))
        assert point.subjects == point.patients == len(tumors) + len(others)


def test_ties_go_together() -> None:
    found = points([0.5] * 9 + [0.2], [0.5] * 2 + [0.1] * 8)
    assert found[SENSITIVITY_90].threshold == 0.5
    assert found[SPECIFICITY_90].threshold == pytest.approx(0.500001)
    assert (found[BALANCED].threshold, found[BALANCED].specificity.value) == (0.2, 0.8)


def test_one_of_each_is_enough_and_one_class_is_not() -> None:
    found = points([0.7], [0.4])
    assert {name: point.threshold for name, point in found.items()} == {
        BALANCED: 0.7,
        SENSITIVITY_90: 0.7,
        SPECIFICITY_90: pytest.approx(0.400001),
    }
    for tumors, others in (([0.7], []), ([], [0.7])):
        with pytest.raises(ValueError, match="both classes"):
            points(tumors, others)


def test_a_threshold_that_was_fixed_is_measured_too() -> None:
    found = operating_points([1, 1, 0, 0], [0.9, 0.3, 0.6, 0.1], ["a", "b", "c", "c"], 0.5)
    assert found[FIXED].threshold == 0.5
    assert found[FIXED].sensitivity.value == 0.5
    assert found[FIXED].specificity.value == 0.5
    assert (found[FIXED].subjects, found[FIXED].patients) == (4, 3)


def at(sensitive: float, specific: float) -> OperatingPoints:
    point = points([0.7], [0.4])[BALANCED]
    thresholds = {SENSITIVITY_90: sensitive, SPECIFICITY_90: specific}
    return {name: point.model_copy(update={"threshold": t}) for name, t in thresholds.items()}


def test_uncertain_is_between_ruling_out_and_ruling_in() -> None:
    wide, crossed = at(0.2, 0.6), at(0.7, 0.5)
    said = [made(p, wide).reason for p in (0, 0.199999, 0.2, 0.4, 0.599999, 0.6, 1)]
    assert said == [None, None, *[Reason.BETWEEN] * 3, None, None]
    assert not any(made(p, crossed).uncertain for p in np.linspace(0, 1, 101).tolist())
    only = {FIXED: points([0.7], [0.4])[BALANCED]}
    assert decide(0.4, Level.IMAGE, FIXED, by_image(only)) == Decision("no tumor", False, None)


def by_image(found: OperatingPoints, conformal: Conformal | None = None) -> Rules:
    fitted = {} if conformal is None else {Level.IMAGE: conformal}
    return Rules(next(iter(found)), {Level.IMAGE: found}, fitted)


def made(probability: float | None, found: OperatingPoints, conformal: Conformal | None = None) -> Decision:
    """What the point ``sensitivity-90`` makes of a probability."""
    return decide(probability, Level.IMAGE, SENSITIVITY_90, by_image(found, conformal))


def test_the_threshold_itself_is_called_tumor() -> None:
    assert made(0.5, at(0.5, 0.5)).decision == "tumor"
    assert made(0.499999, at(0.5, 0.5)).decision == "no tumor"


@pytest.mark.parametrize(
    ("thresholds", "probability", "expected"),
    [
        ((0.5, 0.7), 0.1, Decision("no tumor", False, None)),
        ((0.5, 0.7), 0.4, Decision("tumor", True, Reason.BOTH)),
        ((0.5, 0.7), 0.29, Decision("no tumor", False, None)),
        ((0.5, 0.7), 0.9, Decision("tumor", False, None)),
        ((0.35, 0.4), 0.32, Decision("tumor", True, Reason.AGAINST)),
        ((0.2, 0.75), 0.27, Decision("no tumor", True, Reason.AGAINST)),
        ((0.2, 0.4), 0.5, Decision("tumor", True, Reason.NEITHER)),
        ((0.2, 0.4), 0.25, Decision("no tumor", True, Reason.NEITHER)),
    ],
)
def test_a_decision_is_certain_only_where_its_class_alone_is_possible(
    thresholds: tuple[float, float], probability: float, expected: Decision
) -> None:
    fitted = Conformal(alpha=0.1, thresholds=thresholds, subjects=(50, 50))
    assert made(probability, at(0.3, 0.9), fitted) == expected


@given(SIX_DIGITS, st.tuples(SIX_DIGITS, SIX_DIGITS), st.tuples(SIX_DIGITS, SIX_DIGITS))
def test_a_decision_has_a_reason_exactly_where_it_is_uncertain(
    probability: float, thresholds: tuple[float, float], of_points: tuple[float, float]
) -> None:
    fitted = Conformal(alpha=0.1, thresholds=thresholds, subjects=(50, 50))
    for conformal in (None, fitted):
        rules = by_image(at(*of_points), conformal)
        for point, threshold in zip((SENSITIVITY_90, SPECIFICITY_90), of_points, strict=True):
            found = decide(probability, Level.IMAGE, point, rules)
            assert found.decision == LABEL_NAMES[probability >= threshold]
            assert found.uncertain == (found.reason is not None)
            refused = decide(probability, Level.IMAGE, point, rules, admitted=False)
            assert refused == Decision(None, True, Reason.NOT_A_MAMMOGRAM)
            assert decide(None, Level.IMAGE, point, rules, admitted=False) == refused
            assert decide(None, Level.IMAGE, point, rules) == Decision(None, False, None)


def test_deciding_again_leaves_nothing_of_the_decision_before() -> None:
    rules = by_image(at(0.2, 0.6))
    first = decided(Prediction(Path("a"), 0.4), ServedLevel.IMAGE, SENSITIVITY_90, rules)
    assert (first.decision, first.uncertain, first.threshold) == ("tumor", True, 0.2)
    certain = by_image({FIXED: points([0.7], [0.4])[BALANCED]})
    again = decided(first, ServedLevel.IMAGE, FIXED, certain)
    assert (again.decision, again.uncertain, again.reason) == ("no tumor", False, None)
    assert (again.threshold, again.operating_point) == (0.7, FIXED)


def test_what_is_not_admitted_has_no_say_unless_nothing_else_is_there() -> None:
    listed = Manifest(
        tuple(
            Mammogram(
                path=Path(name),
                label=int(name.startswith("annL")),  # type: ignore[arg-type]
                patient_id=name[:3],
                laterality=name[3],  # type: ignore[arg-type]
            )
            for name in ("annLcc", "annLmlo", "annRcc", "beaLcc", "beaLmlo")
        )
    )
    scores = np.array([0.2, 0.8, 0.9, 0.4, 0.6])
    admitted = [True, False, False, False, False]
    found = by_level(listed, scores, admitted)
    assert found[Level.IMAGE].probabilities.tolist() == scores.tolist()
    assert found[Level.BREAST].probabilities.tolist() == [0.2, 0.9, 0.5]
    assert found[Level.BREAST].admitted.tolist() == [True, False, False]
    assert found[Level.PATIENT].probabilities.tolist() == [0.2, 0.5]
    assert found[Level.PATIENT].labels.tolist() == [1, 0]
    assert found[Level.PATIENT].admitted.tolist() == [True, False]
    assert by_level(listed, scores)[Level.BREAST].probabilities.tolist() == [0.5, 0.9, 0.5]


def test_prevalence_by_bayes_formula_worked_by_hand() -> None:
    """At 40 % prevalence, 0.8 means odds of 4 = prior odds 2/3 × likelihood ratio 6.

    At 0.5 % prevalence prior odds are 1/199, so odds are 6/199 and the probability is 6/205.
    """
    assert at_prevalence(0.8, seen=0.4, expected=0.005) == pytest.approx(6 / 205, abs=1e-9)
    assert at_prevalence(0.4, seen=0.4, expected=0.005) == pytest.approx(0.005, abs=1e-9)


@given(*(st.floats(0.02, 0.98) for _ in range(3)))
def test_prevalence_goes_there_and_back(probability: float, seen: float, expected: float) -> None:
    there = at_prevalence(probability, seen, expected)
    assert at_prevalence(there, expected, seen) == pytest.approx(probability, abs=1e-6)
    likelihood_ratio = probability / (1 - probability) * (1 - seen) / seen
    odds = likelihood_ratio * expected / (1 - expected)
    assert there == pytest.approx(odds / (1 + odds), abs=1e-6)
    assert (there > probability) == (expected > seen) or there == pytest.approx(probability)


def test_a_breast_is_the_mean_of_its_views_and_a_patient_her_larger_breast() -> None:
    probabilities = [0.2, 0.5, 0.4, 0.9, 0.8]
    breasts = ["ann L", "bea R", "ann L", "image x", "ann R"]
    patients = ["ann", "bea", "ann", "image x", "ann"]
    np.testing.assert_allclose(aggregated(probabilities, breasts, patients, Level.BREAST), [0.3, 0.5, 0.3, 0.9, 0.8])
    np.testing.assert_allclose(aggregated(probabilities, breasts, patients, Level.PATIENT), [0.8, 0.5, 0.8, 0.9, 0.8])
    np.testing.assert_array_equal(aggregated(probabilities, breasts, patients, Level.IMAGE), probabilities)


@pytest.mark.parametrize("level", list(Level))
def test_nothing_together_is_nothing(level: Level) -> None:
    assert aggregated([], [], [], level).shape == (0,)


@given(st.lists(st.tuples(SIX_DIGITS, st.integers(0, 3), st.integers(0, 2)), min_size=1))
def test_levels_rise_and_keep_to_what_went_in(views: list[tuple[float, int, int]]) -> None:
    probabilities = [probability for probability, _, _ in views]
    patients = [str(patient) for _, patient, _ in views]
    breasts = [f"{patient} {side}" for _, patient, side in views]
    by_breast = aggregated(probabilities, breasts, patients, Level.BREAST)
    by_patient = aggregated(probabilities, breasts, patients, Level.PATIENT)
    assert (by_patient >= by_breast).all()
    for joined, keys in ((by_breast, breasts), (by_patient, patients)):
        assert joined.min() >= min(probabilities) - 1e-6
        assert joined.max() <= max(probabilities) + 1e-6
        for (one, key), (other, same) in product(zip(joined, keys, strict=True), repeat=2):
            assert key != same or one == other


@given(SIX_DIGITS, SIX_DIGITS)
def test_a_threshold_chosen_on_breasts_meets_the_breast_it_was_chosen_on(one: float, other: float) -> None:
    """A mean of two has seven digits; what is served has six, and so has what is chosen on."""
    (mean, _) = aggregated([one, other], ["ann L"] * 2, ["ann"] * 2, Level.BREAST)
    assert mean == round(mean, 6)


def test_a_decision_at_another_prevalence_has_an_interval() -> None:
    """By hand: 0.9 of 0.005 found, and 0.1 of 0.995 called beside; at the ends likewise."""
    point = unmeasured(0.5).model_copy(
        update={"sensitivity": Estimate(0.9, 0.7, 1.0), "specificity": Estimate(0.9, 0.8, 1.0)}
    )
    called = predictive_value(point, "tumor", 0.005)
    assert called.value == pytest.approx(0.0045 / (0.0045 + 0.0995))
    assert (called.low, called.high) == pytest.approx((0.0035 / (0.0035 + 0.199), 1))
    passed = predictive_value(point, "no tumor", 0.005)
    assert passed.low == pytest.approx(0.796 / (0.796 + 0.0015))
    assert passed.low < passed.value < passed.high == 1
    assert np.isnan(predictive_value(unmeasured(0.5), "tumor", 0.005).value)
