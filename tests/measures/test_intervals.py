"""Intervals that hold where every resample is alike."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from mammolens.measures import metrics
from mammolens.measures.curves import decision_measures, predictive_values
from mammolens.measures.intervals import (
    Measure,
    PatientWeights,
    area_bounds,
    effective_number,
    estimate,
    melded_bounds,
    patient_weights,
    share_bounds,
)
from mammolens.measures.metrics import share_of

Array = NDArray[np.float64]


def whose(sizes: list[int]) -> NDArray[np.intp]:
    return np.repeat(np.arange(len(sizes)), sizes)


def weights_of(patients: NDArray[np.intp], resamples: int = 200) -> PatientWeights:
    return patient_weights([str(one) for one in patients], resamples)


@pytest.mark.parametrize(("seen", "count"), [(0, 5), (1, 5), (19, 40), (39, 40), (40, 40)])
def test_one_image_a_patient_gives_clopper_and_pearson(seen: int, count: int) -> None:
    hits = np.arange(count) < seen
    figure = estimate(share_of(hits), weights_of(np.arange(count)))
    exact = binomtest(seen, count).proportion_ci(method="exact")
    assert (figure.low, figure.high) == pytest.approx((exact.low, exact.high))
    assert figure.low <= figure.value <= figure.high


def test_59_of_59_images_of_40_patients_are_worth_40_of_40() -> None:
    patients = whose([1] * 21 + [2] * 19)
    for hits in (np.ones(59), np.zeros(59)):
        assert effective_number(hits, patients) == pytest.approx(40, rel=0.03)
        figure = estimate(share_of(hits), weights_of(patients))
        exact = binomtest(int(hits[0]) * 40, 40).proportion_ci(method="exact")
        assert (figure.low, figure.high) == pytest.approx((exact.low, exact.high), abs=0.005)


def test_images_are_worth_what_patients_are_where_they_agree_and_themselves_where_not() -> None:
    generator = np.random.default_rng(0)
    patients = whose([4] * 300)
    alike = np.repeat(generator.random(300) < 0.7, 4).astype(float)
    assert effective_number(alike, patients) == pytest.approx(300, rel=0.02)
    apart = (generator.random(1200) < 0.7).astype(float)
    assert 900 < effective_number(apart, patients) <= 1200


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=10, max_size=60), st.integers(0, 2**31))
def test_one_mistake_more_never_lifts_the_low_end(sizes: list[int], seed: int) -> None:
    """From all right on: no step down in the share is a step up in what is promised."""
    patients = whose(sizes)
    order = np.random.default_rng(seed).permutation(len(patients))
    hits, lows = np.ones(len(patients)), []
    for place in (*order[:3], None):
        lows.append(share_bounds(float(hits.mean()), effective_number(hits, patients))[0])
        if place is not None:
            hits[place] = 0
    assert all(after <= before + 0.01 for before, after in pairwise(lows))


def drawn(generator: np.random.Generator, patients: int, share: float, alike: float) -> Array:
    """Return patient and value of images, one to four a patient, correlated at `alike`."""
    who = whose(generator.integers(1, 5, patients).tolist())
    common = (generator.random(patients) < share)[who]
    own = generator.random(len(who)) < share
    shared = generator.random(len(who)) < np.sqrt(alike)
    return np.stack([who, np.where(shared, common, own)]).astype(np.float64)


@pytest.mark.parametrize("alike", [0, 0.3, 1])
@pytest.mark.parametrize("share", [0.6, 0.9, 0.97, 0.99])
def test_shares_are_covered_as_often_as_promised(share: float, alike: float) -> None:
    """Of 600 samples of 40 patients: 93 % is 2.2 standard errors below 95 %, and rarely so."""
    generator, covered = np.random.default_rng(1), 0
    for _ in range(600):
        who, hits = drawn(generator, 40, share, alike)
        low, high = share_bounds(float(hits.mean()), effective_number(hits, who.astype(np.intp)))
        covered += low <= share <= high
    assert covered / 600 >= 0.93


PERFECT = np.repeat([0.0, 1.0], [59, 20])
OWN = np.concatenate([whose([1] * 21 + [2] * 19), 40 + np.arange(20)])


@pytest.mark.parametrize("threshold", [0.5, 0.0, 2.0], ids=["all right", "all called", "none"])
def test_no_figure_of_a_decision_is_given_without_a_width(threshold: float) -> None:
    drawn_patients = weights_of(OWN)
    measures = decision_measures(PERFECT, PERFECT, threshold)
    measures |= dict(zip(("ppv", "npv"), predictive_values(PERFECT, PERFECT, threshold, 0.005), strict=True))
    for name, measure in measures.items():
        figure = estimate(measure, drawn_patients)
        if np.isnan(figure.value):
            assert np.isnan(figure.low) or figure.low < figure.high, name
        else:
            assert figure.low <= figure.value <= figure.high, name
            assert figure.high - figure.low > 1e-6, name


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_a_decision_lie_in_their_intervals(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random(160) < 0.4).astype(float)
    scores = labels * 0.6 + generator.random(160)
    for measure in (
        *decision_measures(labels, scores, 0.8).values(),
        *predictive_values(labels, scores, 0.8, 0.005),
    ):
        figure = estimate(measure, weights_of(whose([2] * 80)))
        assert figure.low < figure.value < figure.high


def test_rescaled_values_of_a_perfect_decision_are_what_bayes_makes_of_the_low_ends() -> None:
    positive, negative = (estimate(one, weights_of(OWN)) for one in predictive_values(PERFECT, PERFECT, 0.5, 0.005))
    assert (positive.value, positive.high, negative.value, negative.high) == (1, 1, 1, 1)
    assert 0.03 < positive.low < 0.1  # 0.005 against false alarms of up to 9 %
    assert 0.999 < negative.low < 1  # misses of up to 17 % of 0.5 %


def test_melded_ends_of_one_known_share_are_its_own() -> None:
    low, high = melded_bounds(lambda one, _: one, (0.9, 40), (0.5, 10))
    assert (low, high) == pytest.approx(share_bounds(0.9, 40), abs=1e-3)


RANKINGS: dict[str, Callable[[Array, Array], Measure]] = {
    "auc": metrics.roc_auc,
    "partial": lambda labels, scores: metrics.partial_auc(labels, scores, 0.8),
    "precision": metrics.average_precision,
    "sensitivity": lambda labels, scores: metrics.sensitivity_at_specificity(labels, scores, 0.9),
    "specificity": lambda labels, scores: metrics.specificity_at_sensitivity(labels, scores, 0.9),
}


@pytest.mark.parametrize("name", sorted(RANKINGS))
def test_a_perfect_ranking_is_not_known_to_be_perfect(name: str) -> None:
    figure = estimate(RANKINGS[name](PERFECT, PERFECT), weights_of(OWN))
    assert (figure.value, figure.high) == (1, 1)
    assert 0.75 < figure.low < 0.99
    few = np.array([0.0, 0, 1, 1])
    assert estimate(RANKINGS[name](few, few), weights_of(np.arange(4))).low < 0.75


def test_an_auc_of_one_has_newcombes_interval() -> None:
    """Solved by hand: for 20 and 20, 1 - low = 1.96 standard errors of an AUC of `low`."""
    low, high = area_bounds(1, 20, 20)
    more = 19
    spread = 1 + more * (1 - low) / (2 - low) + more * low / (1 + low)
    assert 1 - low == pytest.approx(1.959964 * np.sqrt(low * (1 - low) * spread / 400))
    assert high == 1
    back = area_bounds(0, 20, 20)
    assert (back[0], 1 - back[1]) == pytest.approx((0, low), abs=1e-9)
    assert np.isnan(area_bounds(np.nan, 20, 20)).all()


def test_far_from_the_edge_an_auc_has_the_bootstraps_interval() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(200) < 0.4).astype(float)
    measure = metrics.roc_auc(labels, labels + generator.normal(size=200))
    weights = weights_of(whose([2] * 100), 400)
    figure = estimate(measure, weights)
    expected = np.percentile(weights.resampled(measure), [2.5, 97.5])
    assert (figure.low, figure.high) == pytest.approx(tuple(expected))
