import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resampled import COUNT, ONE, SEEDS, Array, drawn_weights, same
from scipy.stats import norm
from sklearn import metrics as sklearn_metrics

from mammolens.measures import decisions, metrics
from mammolens.measures.intervals import Measure
from mammolens.measures.metrics import PatientWeights, estimate, patient_weights

Ranking = Callable[[Array, Array], Measure]

RANKINGS: dict[str, Ranking] = {
    "auc": metrics.roc_auc,
    "partial": metrics.partial_auc,
    "sensitivity": lambda y, s: metrics.sensitivity_at_specificity(y, s, 0.9),
    "specificity": lambda y, s: metrics.specificity_at_sensitivity(y, s, 0.87),
}


def sample(seed: int, count: int = 200, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.35).astype(float)
    labels[:2] = 0, 1
    scores = 1 / (1 + np.exp(-(labels + generator.normal(0, 1, count))))
    return labels, np.round(scores, 1) if ties else scores


def repeated(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.repeat(values, weights.astype(int))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_measures_equal_scikit_learn_with_and_without_weights(seed: int, ties: bool) -> None:
    labels, scores = sample(seed, ties=ties)
    weights = np.random.default_rng(seed).integers(0, 4, (3, 200)).astype(float)
    weights[0] = 1
    auc = metrics.roc_auc(labels, scores)(weights)
    average = metrics.average_precision(labels, scores)(weights)
    loss = metrics.log_loss(labels, scores)(weights)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    for row, drawn in enumerate(weights):
        label = repeated(labels, drawn)
        assert auc[row] == pytest.approx(sklearn_metrics.roc_auc_score(label, repeated(scores, drawn)))
        assert average[row] == pytest.approx(sklearn_metrics.average_precision_score(label, repeated(scores, drawn)))
        assert loss[row] == pytest.approx(sklearn_metrics.log_loss(label, repeated(clipped, drawn)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_decisions_equal_scikit_learn(seed: int, threshold: float) -> None:
    labels, scores = sample(seed)
    called = (scores >= threshold).astype(int)
    counts = decisions.confusion(labels, scores, threshold)(ONE)
    expected = sklearn_metrics.confusion_matrix(labels, called, labels=[0, 1]).ravel()
    assert [float(count[0]) for count in counts] == expected.tolist()
    measured = {
        name: float(measure(ONE)[0]) for name, measure in decisions.decision_measures(labels, scores, threshold).items()
    }
    assert measured["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, called))
    assert measured["sensitivity"] == pytest.approx(sklearn_metrics.recall_score(labels, called))
    assert measured["specificity"] == pytest.approx(sklearn_metrics.recall_score(labels, called, pos_label=0))
    assert measured["f1"] == pytest.approx(sklearn_metrics.f1_score(labels, called))
    if called.any():
        assert measured["precision"] == pytest.approx(sklearn_metrics.precision_score(labels, called))
    else:
        assert np.isnan(measured["precision"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_auc_ignores_monotone_transforms_and_mirrors_a_label_swap(seed: int) -> None:
    labels, scores = sample(seed)
    auc = metrics.roc_auc(labels, scores)(ONE)[0]
    assert metrics.roc_auc(labels, np.log(scores) * 3 + 1)(ONE)[0] == pytest.approx(auc)
    assert metrics.roc_auc(1 - labels, scores)(ONE)[0] == pytest.approx(1 - auc)


def test_one_class_alone_has_no_auc() -> None:
    figure = estimate(metrics.roc_auc(np.ones(200), sample(0)[1]), patient_weights(["a"] * 200, 50))
    assert np.isnan(figure.value)
    assert np.isnan(figure.low)


def test_images_of_a_patient_are_drawn_together() -> None:
    patients = ["a", "b", "b", "c", "c", "c", "d"]
    weights = patient_weights(patients, resamples=500, seed=1).drawn
    assert weights.shape == (500, 7)
    np.testing.assert_array_equal(weights[:, 1], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    np.testing.assert_array_equal(weights[:, [0, 1, 3, 6]].sum(axis=1), 4)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)
    again = patient_weights(patients, resamples=500, seed=1).drawn
    np.testing.assert_array_equal(weights, again)


def test_intervals_by_patient_are_wider_where_images_of_a_patient_agree() -> None:
    generator = np.random.default_rng(0)
    per_patient = generator.random(60)
    labels = np.repeat((generator.random(60) < 0.5).astype(float), 4)
    scores = np.repeat(per_patient, 4)
    measure = metrics.roc_auc(labels, scores)
    by_patient = estimate(measure, patient_weights([str(i // 4) for i in range(240)]))
    by_image = estimate(measure, patient_weights([str(i) for i in range(240)]))
    assert by_patient.high - by_patient.low > 1.6 * (by_image.high - by_image.low)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """120 samples of 80 patients with 3 correlated images each; the true AUC is known.

    95 % of 120 is 114; fewer than 106 or more than 120 would happen once in thousands.
    """
    generator = np.random.default_rng(7)
    truth = norm.cdf(1 / np.sqrt(2))
    covered = 0
    for _ in range(120):
        labels = np.repeat((generator.random(80) < 0.4).astype(float), 3)
        shared = np.repeat(generator.normal(0, np.sqrt(0.5), 80), 3)
        scores = labels + shared + generator.normal(0, np.sqrt(0.5), 240)
        patients = [str(index // 3) for index in range(240)]
        figure = estimate(metrics.roc_auc(labels, scores), patient_weights(patients, 400))
        covered += figure.low <= truth <= figure.high
    assert 106 <= covered <= 120


def test_youden_takes_the_best_sum_of_sensitivity_and_specificity() -> None:
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    threshold = metrics.youden_threshold(labels, scores)
    assert threshold == pytest.approx(0.6)
    labels, scores = sample(3)
    best = metrics.youden_threshold(labels, scores)

    def gain(threshold: float) -> float:
        counts = decisions.confusion(labels, scores, threshold)(ONE)
        tn, fp, fn, tp = (float(count[0]) for count in counts)
        return tp / (tp + fn) + tn / (tn + fp)

    assert gain(best) == pytest.approx(max(gain(score) for score in scores))


# Thresholds chosen by their sensitivity or specificity, and part of the ROC curve


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 1.0]))
def test_operating_points_are_the_best_of_the_roc_curve(seed: int, ties: bool, target: float) -> None:
    labels, scores = sample(seed, ties=ties)
    weights = drawn_weights(seed)
    found = metrics.sensitivity_at_specificity(labels, scores, target)(weights)
    spared = metrics.specificity_at_sensitivity(labels, scores, target)(weights)
    for row, drawn in enumerate(weights):
        false_positive_rate, sensitivity, _ = sklearn_metrics.roc_curve(
            labels, scores, sample_weight=drawn, drop_intermediate=False
        )
        specific = 1 - false_positive_rate >= target - 1e-9
        sensitive = sensitivity >= target - 1e-9
        assert same(found[row], sensitivity[specific].max())
        assert same(spared[row], (1 - false_positive_rate)[sensitive].max())


def test_two_false_calls_of_ten_are_a_specificity_of_080() -> None:
    labels = np.array([0.0] * 10 + [1.0] * 4)
    scores = np.array([*range(10), 7.5, 8.5, 9.5, 0.5])
    assert metrics.sensitivity_at_specificity(labels, scores, 0.8)(np.ones((1, 14)))[0] == 0.75
    assert metrics.sensitivity_at_specificity(labels, scores, 0.9)(np.ones((1, 14)))[0] == 0.5
    assert metrics.specificity_at_sensitivity(labels, scores, 0.75)(np.ones((1, 14)))[0] == 0.8


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from([0.0, 0.5, 0.8, 0.95]))
def test_partial_auc_equals_scikit_learn(seed: int, ties: bool, lowest: float) -> None:
    labels, scores = sample(seed, ties=ties)
    weights = drawn_weights(seed)
    measured = metrics.partial_auc(labels, scores, lowest)(weights)
    for row, drawn in enumerate(weights):
        expected = sklearn_metrics.roc_auc_score(labels, scores, sample_weight=drawn, max_fpr=1 - lowest)
        assert same(measured[row], expected)


def test_partial_auc_runs_from_chance_to_perfection() -> None:
    labels = np.repeat([0.0, 1.0], 100)
    assert metrics.partial_auc(labels, labels)(ONE)[0] == pytest.approx(1)
    assert metrics.partial_auc(labels, np.zeros(200))(ONE)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("name", RANKINGS)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_ranking_measures_ignore_monotone_transforms(name: str, seed: int) -> None:
    labels, scores = sample(seed)
    measure = RANKINGS[name]
    moved = measure(labels, 3 * np.log(scores) + 7)(ONE)[0]
    assert moved == pytest.approx(measure(labels, scores)(ONE)[0])


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans())
def test_swapped_labels_mirror_the_auc_and_its_interval(seed: int, ties: bool) -> None:
    labels, scores = sample(seed, ties=ties)
    weights = drawn_weights(seed)
    swapped = metrics.roc_auc(1 - labels, scores)(weights)
    np.testing.assert_allclose(swapped, 1 - metrics.roc_auc(labels, scores)(weights))
    there, back = metrics.delong(labels, scores), metrics.delong(1 - labels, scores)
    assert (back.value, back.low, back.high) == pytest.approx((1 - there.value, 1 - there.high, 1 - there.low))


@pytest.mark.parametrize("name", RANKINGS)
def test_one_class_has_no_ranking(name: str) -> None:
    for labels in (np.zeros(200), np.ones(200)):
        assert np.isnan(RANKINGS[name](labels, sample(0)[1])(ONE)[0])


@pytest.mark.parametrize("target", [-0.1, 1.1, math.nan])
def test_impossible_targets_are_refused(target: float) -> None:
    labels, scores = sample(0)
    for measure in (metrics.sensitivity_at_specificity, metrics.specificity_at_sensitivity):
        with pytest.raises(ValueError, match="target must be in"):
            measure(labels, scores, target)
    with pytest.raises(ValueError, match="lowest_specificity must be in"):
        metrics.partial_auc(labels, scores, target)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(sorted(RANKINGS)))
def test_an_estimate_lies_inside_its_interval(seed: int, name: str) -> None:
    labels, scores = sample(seed)
    weights = patient_weights([str(index // 2) for index in range(COUNT)], 200)
    figure = estimate(RANKINGS[name](labels, scores), weights)
    assert figure.low <= figure.value <= figure.high
    exact = metrics.delong(labels, scores)
    assert 0 <= exact.low <= exact.value <= exact.high <= 1


def test_resamples_measured_in_blocks_are_those_measured_at_once() -> None:
    labels, scores = sample(1)
    weights = drawn_weights(1, 201)
    patients = np.arange(weights.shape[1])
    measure = metrics.partial_auc(labels, scores)
    low, high = np.percentile(measure(weights), [2.5, 97.5])
    figure = estimate(measure, PatientWeights(weights, patients))
    assert (figure.low, figure.high) == pytest.approx((low, high))
    assert np.isnan(estimate(measure, PatientWeights(weights[:0], patients)).low)


# Decisions at a threshold


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0.25, 0.65))
def test_decision_measures_equal_scikit_learn_with_weights(seed: int, threshold: float) -> None:
    labels, scores = sample(seed)
    called = (scores >= threshold).astype(float)
    weights = drawn_weights(seed)
    measured = {
        name: measure(weights) for name, measure in decisions.decision_measures(labels, scores, threshold).items()
    }
    for row, drawn in enumerate(weights):
        ratios = sklearn_metrics.class_likelihood_ratios(labels, called, sample_weight=drawn)
        expected = {
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, called, sample_weight=drawn),
            "mcc": sklearn_metrics.matthews_corrcoef(labels, called, sample_weight=drawn),
            "negative_predictive_value": sklearn_metrics.precision_score(
                labels, called, pos_label=0, sample_weight=drawn
            ),
            "positive_likelihood_ratio": ratios[0],
            "negative_likelihood_ratio": ratios[1],
        }
        for name, value in expected.items():
            assert same(measured[name][row], value), name


def test_ratios_over_nothing_are_not_defined() -> None:
    labels = np.repeat([0.0, 1.0], 100)
    quiet = {k: m(ONE)[0] for k, m in decisions.decision_measures(labels, labels, 2).items()}
    assert np.isnan([quiet["mcc"], quiet["positive_likelihood_ratio"], quiet["precision"]]).all()
    assert (quiet["negative_likelihood_ratio"], quiet["negative_predictive_value"]) == (1, 0.5)
    loud = {k: m(ONE)[0] for k, m in decisions.decision_measures(labels, labels, 0).items()}
    assert np.isnan([loud["negative_likelihood_ratio"], loud["negative_predictive_value"]]).all()
    alone = decisions.decision_measures(np.ones(200), labels, 0.5)["balanced_accuracy"]
    assert np.isnan(alone(ONE)[0])


def test_resamples_that_are_all_alike_give_no_interval() -> None:
    labels, scores = np.array([1.0, 0.0]), np.array([0.9, 0.1])
    for patients, measure in (
        (["a", "a"], metrics.log_loss(labels, scores)),
        (["a", "b"], metrics.brier(labels, scores)),
        (["a", "b"], metrics.partial_auc(labels, scores[::-1])),
    ):
        found = estimate(measure, patient_weights(patients))
        assert math.isfinite(found.value)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
