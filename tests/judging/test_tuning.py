import numpy as np
import pytest

from mammolens.judging.tuning import best_of_many, judge_held_out, paired_gain
from mammolens.measures.metrics import roc_auc
from mammolens.model.decisions import Subjects

PATIENTS = [f"p{number // 2}" for number in range(200)]
LABELS = np.tile([0.0, 0.0, 1.0, 0.0], 50)
ONCE = np.ones((1, 200))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(200)


def test_the_best_of_many_that_know_nothing_is_worth_nothing() -> None:
    measures = [roc_auc(LABELS, noise(seed)) for seed in range(30)]
    best = max(float(measure(ONCE)[0]) for measure in measures)
    worth = best_of_many(measures, PATIENTS)
    assert worth
    assert best > 0.58
    assert worth.value < 0.55
    assert worth.low < 0.5


def test_what_is_better_by_far_keeps_its_worth() -> None:
    good = roc_auc(LABELS, LABELS + 0.8 * noise(99))
    worth = best_of_many([good, *(roc_auc(LABELS, noise(seed)) for seed in range(5))], PATIENTS)
    assert worth
    assert worth.value == pytest.approx(float(good(ONCE)[0]), abs=0.01)


def test_of_one_alone_nothing_was_chosen() -> None:
    measure = roc_auc(LABELS, noise(0))
    assert best_of_many([measure], PATIENTS) is None
    assert paired_gain(measure, measure, PATIENTS).value == 0


def test_held_out_patients_are_judged_in_pairs() -> None:
    admitted = np.ones(200, dtype=bool)
    better, worse = (Subjects(LABELS, scores, PATIENTS, admitted) for scores in (LABELS + 2 * noise(1), noise(1)))
    held = judge_held_out(better, worse, looks=1)
    assert (held.images, held.patients, held.tumors) == (200, 100, 50)
    assert held.difference.value == pytest.approx(held.best.value - held.start.value)
    assert held.difference.low > 0
