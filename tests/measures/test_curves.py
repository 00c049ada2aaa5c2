"""Decisions, calibration and curves against other libraries, papers and simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resampled import COUNT, ONE, SEEDS, Array, drawn_weights, same
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from mammolens.measures import curves, metrics


def sample(seed: int, count: int = COUNT, *, ties: bool = False) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.35).astype(float)
    labels[:4] = 0, 1, 0, 1
    scores = expit(1.5 * labels - 1 + generator.normal(0, 1, count))
    return labels, np.round(scores, 1) if ties else scores


# Decisions at a threshold


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_decisions_equal_scikit_learn(seed: int, threshold: float) -> None:
    labels, scores = sample(seed)
    called = (scores >= threshold).astype(int)
    expected = sklearn_metrics.confusion_matrix(labels, called, labels=[0, 1])
    assert curves.confusion(labels, scores, threshold).tolist() == expected.tolist()
    measured = {name: one.value for name, one in curves.decision_measures(labels, scores, threshold).items()}
    assert measured["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, called))
    assert measured["sensitivity"] == pytest.approx(sklearn_metrics.recall_score(labels, called))
    assert measured["specificity"] == pytest.approx(sklearn_metrics.recall_score(labels, called, pos_label=0))
    assert measured["f1"] == pytest.approx(sklearn_metrics.f1_score(labels, called))
    if called.any():
        assert measured["precision"] == pytest.approx(sklearn_metrics.precision_score(labels, called))
    else:
        assert np.isnan(measured["precision"])


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0.25, 0.65))
def test_what_follows_from_decisions_equals_scikit_learn(seed: int, threshold: float) -> None:
    labels, scores = sample(seed)
    called = (scores >= threshold).astype(float)
    measured = curves.decision_measures(labels, scores, threshold)
    ratios = sklearn_metrics.class_likelihood_ratios(labels, called)
    expected = {
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, called),
        "mcc": sklearn_metrics.matthews_corrcoef(labels, called),
        "negative_predictive_value": sklearn_metrics.precision_score(labels, called, pos_label=0),
        "positive_likelihood_ratio": ratios[0],
        "negative_likelihood_ratio": ratios[1],
    }
    for name, value in expected.items():
        assert same(measured[name].value, value), name


def test_ratios_over_nothing_are_not_defined() -> None:
    labels = np.repeat([0.0, 1.0], 100)
    quiet = {name: one.value for name, one in curves.decision_measures(labels, labels, 2).items()}
    assert np.isnan([quiet["mcc"], quiet["positive_likelihood_ratio"], quiet["precision"]]).all()
    assert (quiet["negative_likelihood_ratio"], quiet["negative_predictive_value"]) == (1, 0.5)
    loud = {name: one.value for name, one in curves.decision_measures(labels, labels, 0).items()}
    assert np.isnan([loud["negative_likelihood_ratio"], loud["negative_predictive_value"]]).all()
    alone = curves.decision_measures(np.ones(200), labels, 0.5)["balanced_accuracy"]
    assert np.isnan(alone.value)


# Calibration


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_brier_equals_scikit_learn(seed: int) -> None:
    labels, scores = sample(seed)
    weights = drawn_weights(seed)
    for row, value in enumerate(metrics.brier(labels, scores)(weights)):
        expected = sklearn_metrics.brier_score_loss(labels, scores, sample_weight=weights[row])
        assert same(value, expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_murphys_parts_add_up_where_a_bin_has_one_probability(seed: int) -> None:
    labels, _ = sample(seed)
    scores = np.random.default_rng(seed).permutation(np.repeat(np.arange(0.05, 1, 0.1), COUNT // 10))
    reliability, resolution, uncertainty = curves.brier_decomposition(labels, scores)
    assert reliability - resolution + uncertainty == pytest.approx(metrics.brier(labels, scores)(ONE)[0])
    assert uncertainty == pytest.approx(labels.var())


def test_murphys_parts_of_eight_images() -> None:
    labels = np.array([0, 0, 1, 0, 1, 1, 0, 1])
    probabilities = np.repeat([0.3, 0.7], 4)
    parts = curves.brier_decomposition(labels, probabilities)
    assert parts == pytest.approx((0.05**2, 0.25**2, 0.25))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_calibration_error_is_the_gap_over_ten_equal_bins(seed: int) -> None:
    labels, scores = sample(seed)
    weights = drawn_weights(seed)
    measured = curves.expected_calibration_error(labels, scores)(weights)
    parts = np.array_split(np.argsort(scores), 10)
    for row, drawn in enumerate(weights):
        gaps = [abs(drawn[part] @ (labels - scores)[part]) for part in parts]
        assert same(measured[row], sum(gaps) / drawn.sum())
    shuffled = np.random.default_rng(seed).permutation(COUNT)
    again = curves.expected_calibration_error(labels[shuffled], np.round(scores, 1)[shuffled])
    tied = curves.expected_calibration_error(labels, np.round(scores, 1))
    assert same(again(ONE)[0], tied(ONE)[0])


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_reliability_curve_equals_scikit_learn(seed: int) -> None:
    labels, scores = sample(seed)
    observed, probability = calibration_curve(labels, scores, n_bins=10, strategy="quantile")
    drawn = curves.reliability_curve(labels, scores)
    assert [one.subjects for one in drawn] == [20] * 10
    np.testing.assert_allclose([one.mean_probability for one in drawn], probability)
    np.testing.assert_allclose([one.observed.value for one in drawn], observed)
    assert drawn[0].observed == metrics.wilson(round(20 * observed[0]), 20)


def test_equal_probabilities_share_a_bin() -> None:
    (only,) = curves.reliability_curve([0, 1, 1, 0], [0.4] * 4)
    assert only.subjects == 4
    assert only.mean_probability == pytest.approx(0.4)


def line_of(labels: Array, probabilities: Array, weights: Array) -> tuple[Array, Array]:
    """Slope and calibration-in-the-large, each of shape (resamples,)."""
    slope = curves.calibration_slope(labels, probabilities)
    return slope(weights), curves.calibration_in_the_large(labels, probabilities)(weights)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.2, 2))
def test_calibration_line_equals_scikit_learn_and_scipy(seed: int, sharpness: float) -> None:
    labels, scores = sample(seed)
    logits = sharpness * logit(scores)
    weights = drawn_weights(seed)
    slope, intercept = line_of(labels, expit(logits), weights)
    for row, drawn in enumerate(weights):
        plain = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky")
        plain.fit(logits[:, None], labels, sample_weight=drawn)
        assert slope[row] == pytest.approx(plain.coef_[0, 0], rel=1e-5)

        def excess(shift: float, drawn: Array = drawn) -> float:
            return float(drawn @ (labels - expit(logits + shift)))

        assert intercept[row] == pytest.approx(brentq(excess, -20, 20), abs=1e-6)


def test_a_perfect_calibration_has_slope_1_and_intercept_0() -> None:
    """With 40,000 images the standard errors are about 0.013; a logit halved or moved shows."""
    generator = np.random.default_rng(5)
    logits = generator.normal(-0.5, 1.2, 40_000)
    labels = (generator.random(40_000) < expit(logits)).astype(float)
    one = np.ones((1, 40_000))
    for sharpness, shift in ((1.0, 0.0), (2.0, 0.0), (1.0, 0.7)):
        slope, intercept = line_of(labels, expit(sharpness * logits + shift), one)
        assert slope[0] == pytest.approx(1 / sharpness, abs=0.05)
        if sharpness == 1:
            assert intercept[0] == pytest.approx(-shift, abs=0.05)
    assert curves.expected_calibration_error(labels, expit(logits))(one)[0] < 0.012


def test_a_line_that_is_not_there_is_nan_and_says_nothing_else() -> None:
    labels, scores = np.array([0, 0, 0, 1, 1, 1.0]), np.array([0.1, 0.2, 0.6, 0.5, 0.8, 1.0])
    mixed, separable, none, one_class = np.ones(6), np.ones(6), np.zeros(6), np.ones(6)
    separable[2] = 0
    one_class[3:] = 0
    weights = np.stack([mixed, separable, none, one_class])
    slope, intercept = line_of(labels, scores, weights)
    assert np.isfinite(slope).tolist() == [True, False, False, False]
    assert np.isfinite(intercept).tolist() == [True, True, False, False]
    for probabilities in (labels, np.full(6, 0.3)):
        assert np.isnan(curves.calibration_slope(labels, probabilities)(weights)).all()
    assert np.isfinite(curves.calibration_in_the_large(labels, labels)(weights)[0])
    assert np.isnan(curves.calibration_in_the_large(np.ones(6), scores)(weights)).all()


def test_steps_from_far_away_arrive() -> None:
    labels = np.repeat([0.0, 1.0, 0.0, 1.0], [97, 3, 40, 60])
    scores = np.repeat([1 - 1e-5, 1 - 2e-6], 100)
    slope, intercept = line_of(labels, scores, ONE)
    rise = logit(0.6) - logit(0.03)
    assert slope[0] == pytest.approx(rise / (logit(1 - 2e-6) - logit(1 - 1e-5)))
    assert -14 < intercept[0] < -11


# Acting on probabilities


def test_net_benefit_of_ten_images() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    probabilities = np.array([0.9, 0.6, 0.1, 0.51, 0.25, 0, 0, 0, 0, 0])
    curve = curves.decision_curve(labels, probabilities)
    places = [curve.thresholds.index(threshold) for threshold in (0.2, 0.5)]
    assert [curve.model[place] for place in places] == pytest.approx([0.2 - 0.2 / 4, 0.2 - 0.1])
    assert [curve.treat_all[place] for place in places] == pytest.approx([0.3 - 0.7 / 4, 0.3 - 0.7])
    assert (curve.thresholds[0], curve.thresholds[-1]) == (0.01, 0.99)
    assert curve.treat_all[0] == pytest.approx(0.3 - 0.7 / 99, abs=1e-5)


def test_risk_rises_with_coverage_by_confidence_of_either_side() -> None:
    """Confidence with threshold 0.2: 0.8 (wrong), 0.5 twice (one wrong), 0.25 (wrong) and 0."""
    labels = np.array([1, 1, 0, 1, 1])
    probabilities = np.array([0.04, 0.6, 0.6, 0.15, 0.2])
    curve = curves.risk_coverage(labels, probabilities, 0.2)
    assert curve.x == pytest.approx([0.2, 0.6, 0.8, 1])
    assert curve.y == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5], abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_everything_answered_risks_what_is_not_accurate(seed: int, threshold: float) -> None:
    labels, scores = sample(seed, ties=True)
    curve = curves.risk_coverage(labels, scores, threshold)
    accuracy = curves.decision_measures(labels, scores, threshold)["accuracy"].value
    assert curve.x[-1] == 1
    assert curve.y[-1] == pytest.approx(1 - accuracy)
    assert (np.diff(curve.x) > 0).all()
