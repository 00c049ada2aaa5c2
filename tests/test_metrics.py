import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as sklearn_metrics

from mammolens import metrics
from mammolens.metrics import estimate, patient_weights

ONE = np.ones((1, 200))


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
        assert auc[row] == pytest.approx(
            sklearn_metrics.roc_auc_score(label, repeated(scores, drawn))
        )
        assert average[row] == pytest.approx(
            sklearn_metrics.average_precision_score(label, repeated(scores, drawn))
        )
        assert loss[row] == pytest.approx(sklearn_metrics.log_loss(label, repeated(clipped, drawn)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_decisions_equal_scikit_learn(seed: int, threshold: float) -> None:
    labels, scores = sample(seed)
    called = (scores >= threshold).astype(int)
    counts = metrics.confusion(labels, scores, threshold)(ONE)
    expected = sklearn_metrics.confusion_matrix(labels, called, labels=[0, 1]).ravel()
    assert [float(count[0]) for count in counts] == expected.tolist()
    measured = {
        name: float(measure(ONE)[0])
        for name, measure in metrics.decision_measures(labels, scores, threshold).items()
    }
    assert measured["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, called))
    assert measured["sensitivity"] == pytest.approx(sklearn_metrics.recall_score(labels, called))
    assert measured["specificity"] == pytest.approx(
        sklearn_metrics.recall_score(labels, called, pos_label=0)
    )
    assert measured["f1"] == pytest.approx(sklearn_metrics.f1_score(labels, called))
    if called.any():
        assert measured["precision"] == pytest.approx(
            sklearn_metrics.precision_score(labels, called)
        )
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
    figure = estimate(metrics.roc_auc(np.ones(200), sample(0)[1]), np.ones((50, 200)))
    assert np.isnan(figure.value)
    assert np.isnan(figure.low)


def test_images_of_a_patient_are_drawn_together() -> None:
    patients = ["a", "b", "b", "c", "c", "c", "d"]
    weights = patient_weights(patients, resamples=500, seed=1)
    assert weights.shape == (500, 7)
    np.testing.assert_array_equal(weights[:, 1], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    np.testing.assert_array_equal(weights[:, [0, 1, 3, 6]].sum(axis=1), 4)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)
    np.testing.assert_array_equal(weights, patient_weights(patients, resamples=500, seed=1))


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
        counts = metrics.confusion(labels, scores, threshold)(ONE)
        tn, fp, fn, tp = (float(count[0]) for count in counts)
        return tp / (tp + fn) + tn / (tn + fp)

    assert gain(best) == pytest.approx(max(gain(score) for score in scores))
