"""What a prediction set promises, against the definition by hand and in simulation."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from brightness import bundle, flat
from mammolens.levels import Level, ServedLevel
from mammolens.model.bundle import open_bundle
from mammolens.model.decisions import ALPHA, Conformal, fit_conformal
from mammolens.serving.predictor import Predictor

Array = NDArray[np.float64]

SIX_DIGITS = st.integers(0, 10**6).map(lambda millionths: millionths / 10**6)
SUBJECTS = st.lists(st.tuples(st.integers(0, 1), SIX_DIGITS), max_size=60)
RATES = st.floats(0.01, 0.99)


def thresholds(without: float, tumor: float) -> Conformal:
    return Conformal(alpha=ALPHA, thresholds=(without, tumor), subjects=(50, 50))


def drawn(generator: np.random.Generator, patients: int, views: int = 1) -> tuple[Array, Array]:
    """Labels and probabilities at a prevalence of 30 %; views of a patient differ a little."""
    labels = np.repeat(generator.random(patients) < 0.3, views).astype(np.float64)
    shared = np.repeat(generator.normal(0, 1, patients), views)
    logits = 1.5 * labels - 1 + shared + generator.normal(0, 0.3, len(labels))
    return labels, np.round(1 / (1 + np.exp(-logits)), 6)


def coverage(fitted: Conformal, labels: Array, probabilities: Array) -> Array:
    """Share of either class whose set holds it."""
    kept = [
        int(label) in fitted.prediction_set(probability)
        for label, probability in zip(labels, probabilities.tolist(), strict=True)
    ]
    return np.array([np.mean(np.array(kept)[labels == label]) for label in (0, 1)])


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_either_class_is_covered_as_promised(alpha: float) -> None:
    """On fresh subjects, over many validation sets: neither less than promised nor much more."""
    generator = np.random.default_rng(1)
    found = [coverage(fit_conformal(*drawn(generator, 200), alpha), *drawn(generator, 200)) for _ in range(300)]
    assert np.mean(found, axis=0) == pytest.approx([1 - alpha] * 2, abs=0.02)


def test_views_of_a_patient_leave_it_about_true() -> None:
    """Four like views a patient: the mean stays near the promise, single validation sets stray."""
    generator = np.random.default_rng(2)
    alone, together = (
        np.array(
            [
                coverage(fit_conformal(*drawn(generator, patients, views)), *fresh)
                for fresh in (drawn(generator, 200) for _ in range(200))
            ]
        )
        for patients, views in ((400, 1), (100, 4))
    )
    assert together.mean(axis=0) == pytest.approx([0.9, 0.9], abs=0.03)
    assert (together.std(axis=0) > alone.std(axis=0)).all()


def test_thresholds_worked_by_hand() -> None:
    """Of 19 the ⌈20 · 0.9⌉ = 18th, of 9 the 9th: the largest."""
    without = [i / 100 for i in range(1, 20)]
    tumors = [1 - i / 10 for i in range(1, 10)]
    fitted = fit_conformal([0] * 19 + [1] * 9, without + tumors)
    assert fitted.thresholds == (0.18, 0.9)
    assert fitted.subjects == (19, 9)
    assert fitted.alpha == 0.1


@pytest.mark.parametrize("few", [0, 1, 8])
def test_a_class_of_which_too_little_is_known_is_in_every_set(few: int) -> None:
    fitted = fit_conformal([0] * 50 + [1] * few, [0.1] * 50 + [0.9] * few)
    assert fitted.thresholds == (0.1, 1.0)
    for probability in (0, 0.1, 0.5, 1):
        assert 1 in fitted.prediction_set(probability)
    assert fitted.prediction_set(0.1) == (0, 1)


def test_too_small_an_error_rate_for_so_few_is_kept_by_saying_nothing() -> None:
    fitted = fit_conformal([0, 1] * 50, np.linspace(0, 1, 100), alpha=0.001)
    assert fitted.prediction_set(0) == fitted.prediction_set(1) == (0, 1)


@given(SUBJECTS, RATES, RATES, SIX_DIGITS)
def test_a_smaller_error_rate_never_takes_a_class_away(
    subjects: list[tuple[int, float]], one: float, other: float, probability: float
) -> None:
    labels, probabilities = [y for y, _ in subjects], [p for _, p in subjects]
    strict, loose = (fit_conformal(labels, probabilities, a) for a in sorted((one, other)))
    assert set(loose.prediction_set(probability)) <= set(strict.prediction_set(probability))


@given(SUBJECTS, RATES)
def test_those_it_was_fitted_on_are_covered(subjects: list[tuple[int, float]], alpha: float) -> None:
    """Ties and rounding included; and what is served is what was fitted, through JSON."""
    labels, probabilities = [y for y, _ in subjects], [p for _, p in subjects]
    fitted = fit_conformal(labels, probabilities, alpha)
    served = Conformal.model_validate_json(fitted.model_dump_json())
    for label in (0, 1):
        own = [p for y, p in subjects if y == label]
        kept = sum(label in served.prediction_set(p) for p in own)
        assert kept >= (1 - alpha) * len(own) - 1e-9


@given(SIX_DIGITS, SIX_DIGITS, SIX_DIGITS)
def test_sets_follow_the_probability(without: float, tumor: float, probability: float) -> None:
    found = thresholds(without, tumor).prediction_set(probability)
    assert (0 in found) == (probability <= without)
    assert (1 in found) == (round(1 - probability, 6) <= tumor)


def served(out: Path, conformal: Conformal) -> Path:
    return bundle(out, conformal=dict.fromkeys((Level.IMAGE, Level.BREAST), conformal)).folder


def test_certain_is_a_set_of_the_class_decided_on_alone(tmp_path: Path) -> None:
    """Both, or none, or only the other class are uncertain. 0.2, 0.4, 0.55 and 0.8 are shown."""
    pictures = [flat(level) for level in (51, 102, 140, 204)]
    cases = {
        "both": (thresholds(0.5, 0.7), [False, True, False, False]),
        "none": (thresholds(0.3, 0.3), [False, True, True, False]),
        "never": (thresholds(1.0, 1.0), [True] * 4),
        "the other": (thresholds(0.3, 0.65), [False, True, False, False]),
    }
    for name, (conformal, uncertain) in cases.items():
        predictor = Predictor.load(served(tmp_path / name, conformal))
        answers = list(predictor.predict(pictures))
        assert [answer.uncertain for answer in answers] == uncertain, name
        assert [answer.decision == "tumor" for answer in answers] == [False, False, True, True]
    eager = Predictor.load(tmp_path / "the other", "sensitivity-90")  # from 0.3
    assert not any(answer.uncertain for answer in eager.predict(pictures))


def test_each_level_has_its_own_sets_and_where_there_are_none_the_points_tell(
    tmp_path: Path,
) -> None:
    predictor = Predictor.load(served(tmp_path / "bundle", thresholds(1.0, 1.0)))
    pictures = [flat(51), flat(102)]
    for level, uncertain in (
        (ServedLevel.IMAGE, [True, True]),
        (ServedLevel.BREAST, [True, True]),
        (ServedLevel.EXAM, [False, True]),  # between the points at 0.3 and 0.6
    ):
        answers = predictor.predict(pictures, level=level)
        assert [answer.uncertain for answer in answers] == uncertain


def test_sets_travel_in_the_bundle_and_older_ones_have_none(tmp_path: Path) -> None:
    conformal = thresholds(0.4, 0.7)
    folder = served(tmp_path / "bundle", conformal)
    assert open_bundle(folder).record.conformal[Level.IMAGE] == conformal
    fields = json.loads((folder / "bundle.json").read_text())
    del fields["conformal"]
    (folder / "bundle.json").write_text(json.dumps(fields))
    assert open_bundle(folder).record.conformal == {}
