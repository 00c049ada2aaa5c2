from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from mammolens.model.calibration import Calibration, fit_calibration, fit_platt, fit_temperature

Array = NDArray[np.float64]
Curve = Callable[[Array], Array]

FITS = (fit_temperature, fit_platt)
IMAGES = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60)
"""Labels and scores, as wild as may be."""


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits)))


def drawn(curve: Curve, count: int, seed: int = 7, views: int = 1) -> tuple[Array, Array]:
    """Labels and scores of a network whose logits mean those of `curve`; `views` are alike."""
    generator = np.random.default_rng(seed)
    logits = np.repeat(generator.normal(0, 2, count // views), views)
    labels = np.repeat(generator.random(count // views), views) < sigmoid(curve(logits))
    return labels.astype(np.float64), sigmoid(logits)


def simulated(slope: float, intercept: float, count: int = 40_000) -> tuple[Array, Array]:
    """Labels and scores of a network whose calibration is known."""
    return drawn(lambda logits: slope * logits + intercept, count)


def chosen(curve: Curve, count: int, seed: int) -> Calibration:
    labels, scores = drawn(curve, count, seed)
    return fit_calibration(labels, scores, list(map(str, range(count))))


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.4, -1.5), (2, 1)])
def test_platt_finds_the_truth_and_agrees_with_scikit_learn(slope: float, intercept: float) -> None:
    labels, scores = simulated(slope, intercept)
    fitted = fit_platt(labels, scores)
    assert fitted.method == "platt"
    assert fitted.slope == pytest.approx(slope, rel=0.05)
    assert fitted.intercept == pytest.approx(intercept, abs=0.05)
    logits = np.log(scores / (1 - scores))[:, np.newaxis]
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logits, labels)
    assert fitted.slope == pytest.approx(reference.coef_[0, 0], abs=2e-3)
    assert fitted.intercept == pytest.approx(reference.intercept_[0], abs=2e-3)


@pytest.mark.parametrize("slope", [0.3, 1.5])
def test_temperature_finds_the_truth_and_agrees_with_scikit_learn(slope: float) -> None:
    labels, scores = simulated(slope, 0)
    fitted = fit_temperature(labels, scores)
    assert (fitted.method, fitted.intercept) == ("temperature", 0)
    assert fitted.slope == pytest.approx(slope, rel=0.05)
    logits = np.log(scores / (1 - scores))[:, np.newaxis]
    reference = LogisticRegression(C=np.inf, tol=1e-10, fit_intercept=False).fit(logits, labels)
    assert fitted.slope == pytest.approx(reference.coef_[0, 0], abs=2e-3)


@pytest.mark.parametrize("shrunk", [1e-1, 1e-2, 1e-4])
def test_calibration_does_not_depend_on_how_far_a_network_dares_to_go(shrunk: float) -> None:
    """A network after one epoch says 0.49 and 0.51 for what another says 0.1 and 0.9."""
    labels, scores = simulated(0.4, 0.2, 2000)
    shrunken = sigmoid(shrunk * np.log(scores / (1 - scores)))
    bold, shy = fit_platt(labels, scores), fit_platt(labels, shrunken)
    np.testing.assert_allclose(shy(shrunken), bold(scores), atol=2e-3)


def test_a_young_network_can_be_sure_after_platt_scaling() -> None:
    labels, scores = simulated(0.4, 0.2, 2000)
    shy = fit_platt(labels, sigmoid(1e-2 * np.log(scores / (1 - scores))))
    assert list(shy([0, 1])) == [0, 1]


def test_classes_that_do_not_overlap_give_no_certainty() -> None:
    fitted = fit_platt([0] * 20 + [1] * 20, np.linspace(0.1, 0.9, 40))
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    low, high = fitted([0.1, 0.9])
    assert 0 < low < 1 / 22
    assert 21 / 22 < high < 1
    few = fit_platt([0, 1], [0.0, 1.0])
    np.testing.assert_allclose(few([0.0, 1.0]), [1 / 3, 2 / 3], atol=1e-6)


def test_a_network_is_distrusted_but_never_turned_round() -> None:
    labels, scores = simulated(1, -1, 2000)
    fitted = fit_platt(1 - labels, scores)
    assert fitted(scores).mean() == pytest.approx(1 - labels.mean(), abs=0.01)
    assert (np.diff(fitted(np.sort(scores))) >= 0).all()
    assert np.ptp(fitted(np.sort(scores)[20:-20])) < 0.15


def test_scores_that_are_all_alike_give_the_prevalence() -> None:
    for score in (0.0, 0.3, 1.0):
        fitted = fit_platt([1, 0, 0, 0] * 50, [score] * 200)
        assert float(fitted(score)) == pytest.approx(0.25, abs=0.005)


@given(IMAGES)
def test_no_method_reverses_an_order_or_leaves_the_unit_interval(
    images: list[tuple[int, float]],
) -> None:
    labels, scores = map(list, zip(*images, strict=True))
    everywhere = np.unique([*np.linspace(0, 1, 101), *scores])
    for fit in FITS:
        fitted = fit(labels, scores)
        probabilities = fitted(everywhere)
        assert np.isfinite(probabilities).all()
        assert (np.diff(probabilities) >= 0).all()
        assert probabilities[0] >= 0
        assert probabilities[-1] <= 1
        assert Calibration.model_validate_json(fitted.model_dump_json()) == fitted


def test_no_calibration_changes_nothing_that_can_be_seen() -> None:
    assert Calibration().method == "none"
    np.testing.assert_allclose(Calibration()([0, 0.25, 0.5, 1]), [0, 0.25, 0.5, 1], atol=1e-6)
    assert Calibration()(np.full((2, 3), 0.5)).shape == (2, 3)


@pytest.mark.parametrize(
    ("curve", "method"),
    [
        (lambda logits: logits, "none"),
        (lambda logits: 0.5 * logits, "temperature"),
        (lambda logits: 0.5 * logits - 1.5, "platt"),
    ],
    ids=["none", "temperature", "platt"],
)
def test_the_truth_is_chosen(curve: Curve, method: str) -> None:
    """Most often; else something less simple, which costs little."""
    found = [str(chosen(curve, 2000, seed=seed).method) for seed in range(20)]
    assert found.count(method) > 10, found
    simple_first = ("none", "temperature", "platt")
    assert min(map(simple_first.index, found)) == simple_first.index(method)


def test_a_superfluous_parameter_does_no_harm() -> None:
    """Where "none" is true and something else is chosen, it is next to none."""
    for seed in range(10):
        fitted = chosen(lambda logits: logits, 2000, seed=seed)
        np.testing.assert_allclose(fitted([0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.05)


def test_too_few_patients_to_compare_get_platt_scaling() -> None:
    labels, scores = [0, 1] * 4, np.linspace(0.2, 0.8, 8)
    assert fit_calibration(labels, scores, list("abcdefgh")) == fit_platt(labels, scores)
    one_class = fit_calibration([0] * 20, [0.1] * 20, [str(i) for i in range(20)])
    assert float(one_class(0.1)) == pytest.approx(1 / 22, abs=0.01)


def test_patients_with_a_tumor_in_one_breast_alone_count_for_both_classes() -> None:
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    scores = sigmoid(generator.normal(2 * labels - 1, 1))
    assert fit_calibration(labels, scores, [str(i // 2) for i in range(120)]).method


def test_the_choice_is_the_same_every_time_and_in_any_order() -> None:
    labels, scores = drawn(lambda logits: 0.5 * logits - 1, 1200, views=2)
    patients = np.array([f"patient {i // 2}" for i in range(1200)])
    order = np.random.default_rng(0).permutation(1200)
    one = fit_calibration(labels, scores, list(patients))
    other = fit_calibration(labels[order], scores[order], list(patients[order]))
    assert one == fit_calibration(labels, scores, list(patients))
    assert one.method == other.method
    np.testing.assert_allclose(one(scores), other(scores), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"slope": 0}, "greater than 0"),
        ({"slope": 2, "method": "platt"}, "those of temperature, not of platt"),
        ({"knots": [[0.0, 0.1], [1.0, 0.9]], "method": "isotonic"}, "isotonic regression is a method no longer"),
        ({"slope": 2, "method": "isotonic"}, "isotonic regression is a method no longer"),
        ({"slope": 2, "bias": 1}, "Extra inputs"),
    ],
)
def test_what_is_no_calibration_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Calibration.model_validate(fields)


@pytest.mark.parametrize("more", ["", ', "knots": [], "method": "platt"'])
def test_what_bundles_that_ship_say_is_read_and_applied_as_it_stands(more: str) -> None:
    old = Calibration.model_validate_json(f'{{"slope": 0.7670241670891348, "intercept": 0.5623257{more}}}')
    assert old.method == "platt"
    scores = np.linspace(0, 1, 101)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    logits = old.slope * np.log(clipped / (1 - clipped)) + old.intercept
    np.testing.assert_array_equal(old(scores), np.round(np.exp(-np.logaddexp(0, -logits)), 6))
