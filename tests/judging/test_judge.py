from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mammolens.data.manifest import Manifest
from mammolens.errors import DataError
from mammolens.judging.comparison import compare, subgroups
from mammolens.judging.judge import EvaluationSet, judge, judge_scores
from mammolens.judging.predictions import write_predictions
from mammolens.judging.schema import Model, Report
from mammolens.levels import Level
from mammolens.measures.shortcuts import image_table
from mammolens.model.age import WithAge
from mammolens.model.decisions import FIXED, Rules, fit_conformal, unmeasured
from mammolens.records import Mammogram, Prediction, Split

# Two test patients with two images each; patient "a" was trained on too.
LABELS = {"a1": 1, "a2": 1, "b1": 0, "b2": 0, "c1": None, "d1": 1, "t1": 1, "t2": 0}
PROBABILITIES = {"a1": 0.9, "a2": 0.4, "b1": 0.6, "b2": 0.1, "c1": 0.5, "d1": None}
RATES = ("sensitivity", "specificity")
HALF = Rules(FIXED, {level: {FIXED: unmeasured(0.5)} for level in Level})


def manifest() -> Manifest:
    return Manifest(
        tuple(
            Mammogram(
                path=Path(name),
                label=label,  # type: ignore[arg-type]
                patient_id="a" if name == "t1" else name[0],
                laterality="L",  # type: ignore[arg-type]  # pydantic turns it
                split=Split.TRAIN if name[0] == "t" else Split.TEST,
            )
            for name, label in LABELS.items()
        )
    )


def answers() -> list[Prediction]:
    return [
        Prediction.failure(Path(name), "cut short", 0.5) if probability is None else Prediction(Path(name), probability)
        for name, probability in PROBABILITIES.items()
    ]


def evaluated(split: Split | None = Split.TEST) -> EvaluationSet:
    return EvaluationSet(manifest(), split, "phantoms", "mammolens evaluate run")


def report() -> Report:
    return judge(answers(), evaluated(), HALF, Model(name="run"))


def cohort(patients: int = 120, seed: int = 0) -> tuple[Manifest, np.ndarray]:
    """Two views of each of two breasts a patient, a tumor in one breast of every third patient."""
    generator = np.random.default_rng(seed)
    images, scores = [], []
    for patient in range(patients):
        for side in ("L", "R"):
            ill = patient % 3 == 0 and side == "L"
            for view in ("CC", "MLO"):
                images.append(
                    Mammogram(
                        path=Path(f"{patient}{side}{view}.png"),
                        label=int(ill),  # type: ignore[arg-type]
                        patient_id=str(patient),
                        laterality=side,  # type: ignore[arg-type]
                        view=view,  # type: ignore[arg-type]
                        split=Split.TEST if patient % 2 else Split.VALID,
                        metadata={"age": str(40 + patient % 45), "machine_id": str(patient % 2)},
                    )
                )
                scores.append(1 / (1 + np.exp(1 - 2 * ill - generator.standard_normal())))
    return Manifest(tuple(images)), np.array(scores)


def answered(manifest: Manifest, scores: np.ndarray) -> list[Prediction]:
    return [Prediction(p, float(s)) for p, s in zip(manifest.paths, scores, strict=True)]


def test_every_image_is_judged_or_accounted_for() -> None:
    counts = report().counts
    assert (counts.images, counts.patients, counts.tumors) == (4, 2, 2)
    assert (counts.without_label, counts.without_answer) == (1, 1)
    assert counts.patients_also_in_training == 1
    assert counts.not_like_training == 0
    odd = [Prediction(Path(n), 0.5) for n in LABELS]
    odd[0] = Prediction(odd[0].path, 0.5, admitted=False)
    assert judge(odd, evaluated(), HALF, Model(name="")).counts.not_like_training == 1


def test_figures_by_image_are_what_hand_and_paper_give() -> None:
    images = report().images
    decision = images.decisions[FIXED]
    assert decision.confusion == ((1, 1), (1, 1))
    assert images.majority_accuracy == 0.5
    values = {name: figure.value for name, figure in images.discrimination.items()}
    assert values["roc_auc"] == pytest.approx(0.75)
    assert values["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean())
    for name in ("accuracy", "sensitivity", "specificity", "precision", "f1"):
        assert decision.measures[name].value == pytest.approx(0.5)


def test_breasts_have_the_mean_of_their_views_and_patients_the_larger_breast() -> None:
    listed, scores = cohort()
    judged = judge(answered(listed, scores), EvaluationSet(listed), HALF, Model(name=""))
    by_breast, by_patient = judged.levels[Level.BREAST], judged.levels[Level.PATIENT]
    assert (judged.images.subjects, by_breast.subjects, by_patient.subjects) == (480, 240, 120)
    assert (judged.images.tumors, by_breast.tumors, by_patient.tumors) == (80, 40, 40)
    means = scores.reshape(240, 2).mean(axis=1)
    labels = listed.labels.reshape(240, 2)[:, 0]
    expected = roc_auc_score(labels, means)
    assert by_breast.discrimination["roc_auc"].value == pytest.approx(expected, abs=1e-6)
    assert by_breast.delong.value == pytest.approx(expected, abs=1e-6)
    larger = means.reshape(120, 2).max(axis=1)
    expected = roc_auc_score(labels.reshape(120, 2).max(axis=1), larger)
    assert by_patient.discrimination["roc_auc"].value == pytest.approx(expected, abs=1e-6)


def test_picture_age_and_both_are_judged_on_the_images_whose_age_is_known() -> None:
    listed, scores = cohort()
    strange = {"0LCC.png": "", "1RCC.png": "17", "2LCC.png": "old"}
    told = Manifest(tuple(replace(m, metadata={"age": strange.get(m.path.name, m.metadata["age"])}) for m in listed))
    both = WithAge(picture=0.8, decade=0.5, intercept=-0.1, data="valid", images=9, patients=9)
    judged = judge(answered(told, scores), EvaluationSet(told), HALF, Model(name=""), with_age=both)
    figures = judged.with_age[Level.IMAGE]
    known = np.array([m.path.name not in strange for m in listed])
    labels, picture = listed.labels[known], scores[known]
    ages = np.array([float(m.metadata["age"]) for m in listed])[known]
    together = both(picture, ages)
    assert (figures.subjects, figures.patients, figures.tumors) == (477, 120, int(labels.sum()))
    expected = [roc_auc_score(labels, one) for one in (picture, ages, together)]
    found = [figures.picture.value, figures.age.value, figures.both.value]
    assert found == pytest.approx(expected, abs=1e-6)
    assert figures.difference.value == pytest.approx(expected[2] - expected[0], abs=1e-6)
    assert figures.difference.low < figures.difference.value < figures.difference.high
    breasts = judged.with_age[Level.BREAST]
    means = np.round(scores.reshape(240, 2).mean(axis=1), 6)
    means[[0, 3, 4]] = np.round(scores[[1, 7, 9]], 6)  # the view whose age is known
    years = np.array([float(m.metadata["age"]) for m in listed]).reshape(240, 2)[:, 0]
    expected_both = roc_auc_score(listed.labels.reshape(240, 2)[:, 0], both(means, years))
    assert breasts.both.value == pytest.approx(expected_both, abs=1e-6)
    plain = judge(answered(told, scores), EvaluationSet(told), HALF, Model(name=""))
    assert plain.with_age == {}
    assert plain.levels == judged.levels
    ageless = Manifest(tuple(replace(m, metadata={}) for m in listed))
    assert judge(answered(ageless, scores), EvaluationSet(ageless), HALF, Model(name=""), with_age=both).with_age == {}


def test_what_gets_no_decision_in_use_is_judged_counted_and_once_counted_as_wrong() -> None:
    listed, scores = cohort(36)
    odd = [m.path for m in listed if m.label == 1][:8] + [m.path for m in listed if not m.label][:4]
    fitted = fit_conformal(listed.labels, scores)
    rules = Rules(FIXED, HALF.points, {Level.IMAGE: fitted})
    known = answered(listed, scores)
    marked = [replace(one, admitted=one.path not in odd) for one in known]
    before = judge(known, EvaluationSet(listed), rules, Model(name="")).images
    report = judge(marked, EvaluationSet(listed), rules, Model(name=""))
    found = report.images
    assert (report.counts.images, report.counts.not_like_training) == (144, 12)
    assert (before.not_admitted, found.not_admitted) == ((0, 0), (4, 8))
    assert found.discrimination == before.discrimination
    decision = found.decisions[FIXED]
    assert decision.confusion == before.decisions[FIXED].confusion
    right = np.array([(s >= 0.5) == (m.label == 1) for m, s in zip(listed, scores, strict=True)])
    right &= np.array([m.path not in odd for m in listed])
    worst = {name: decision.measures[f"{name}_missing_as_wrong"].value for name in RATES}
    assert worst["sensitivity"] == pytest.approx(right[listed.labels == 1].mean())
    assert worst["specificity"] == pytest.approx(right[listed.labels == 0].mean())
    assert not any("missing" in name for name in before.decisions[FIXED].measures)
    assert found.conformal is not None
    certain = [
        fitted.prediction_set(float(s)) == (int(s >= 0.5),) and m.path not in odd
        for m, s in zip(listed, scores, strict=True)
    ]
    assert found.conformal.uncertain.value == pytest.approx(1 - np.mean(certain))
    assert Report.model_validate_json(report.model_dump_json()).images.not_admitted == (4, 8)


def test_an_answer_without_a_probability_is_counted() -> None:
    """Such as those of a predictor that was not asked for what its gate turns away."""
    refused = [replace(one, admitted=False, probability=None) for one in answers()[:1]]
    counts = judge([*refused, *answers()[1:]], evaluated(), HALF, Model(name="")).counts
    assert (counts.images, counts.without_answer, counts.not_like_training) == (3, 2, 0)


def test_predictive_values_are_rescaled_to_screening() -> None:
    listed, scores = cohort()
    decision = judge(answered(listed, scores), EvaluationSet(listed), HALF, Model(name="")).images
    chosen = decision.decisions[FIXED]
    (tn, fp), (fn, tp) = chosen.confusion
    assert chosen.at_own_prevalence.positive.value == pytest.approx(tp / (tp + fp))
    assert chosen.at_own_prevalence.negative.value == pytest.approx(tn / (tn + fn))
    rates = tp / (tp + fn), fp / (fp + tn)
    called = rates[0] * 0.005 + rates[1] * 0.995
    there = chosen.at_screening_prevalence.positive
    assert there.value == pytest.approx(rates[0] * 0.005 / called)
    assert there.low < there.value < there.high


def test_conformal_coverage_is_measured_on_what_is_judged() -> None:
    listed, scores = cohort(400)
    valid, test = listed.of_split(Split.VALID), listed.of_split(Split.TEST)
    known = dict(zip(listed.paths, scores, strict=True))
    fitted = fit_conformal(valid.labels, [known[path] for path in valid.paths])
    rules = Rules(FIXED, HALF.points, {Level.IMAGE: fitted})
    images = judge(answered(listed, scores), EvaluationSet(listed, Split.TEST), rules, Model(name="")).images
    assert images.conformal is not None
    assert images.conformal.promised == pytest.approx(0.9)
    for figure in images.conformal.coverage.values():
        assert figure.low - 0.02 <= 0.9 <= figure.high + 0.02
    sets = [fitted.prediction_set(float(known[path])) for path in test.paths]
    decided = [(int(known[path] >= 0.5),) for path in test.paths]  # a set that says otherwise is
    certain = np.array([a == b for a, b in zip(sets, decided, strict=True)])  # no certain answer
    assert images.conformal.uncertain.value == pytest.approx(1 - certain.mean())
    right = np.array([label in s for label, s in zip(test.labels, sets, strict=True)])
    assert images.conformal.error.value == pytest.approx(1 - right[certain].mean())


def test_curves_start_and_end_where_they_must() -> None:
    listed, scores = cohort()
    images = judge(answered(listed, scores), EvaluationSet(listed), HALF, Model(name="")).images
    assert (images.roc.x[0], images.roc.y[0]) == (0, 0)
    assert (images.roc.x[-1], images.roc.y[-1]) == (1, 1)
    area = np.trapezoid(images.roc.y, images.roc.x)
    assert area == pytest.approx(images.discrimination["roc_auc"].value, abs=0.01)
    assert images.precision_recall.x[0] == 0
    assert images.precision_recall.y[-1] == pytest.approx(80 / 480, abs=1e-4)
    assert images.risk_coverage.x[-1] == 1
    wrong = 1 - images.decisions[FIXED].measures["accuracy"].value
    assert images.risk_coverage.y[-1] == pytest.approx(wrong, abs=1e-4)


def test_the_surest_mistakes_are_named() -> None:
    listed, scores = cohort()
    found = judge(answered(listed, scores), EvaluationSet(listed), HALF, Model(name="")).mistakes
    known = dict(zip(map(str, listed.paths), zip(scores, listed.labels, strict=True), strict=True))
    false_calls = [m for m in found if m.truth == "no tumor"]
    worst = sorted((s for s, label in known.values() if label == 0), reverse=True)[:6]
    assert [m.probability for m in false_calls] == pytest.approx(worst)
    for mistake in found:
        score, label = known[mistake.path]
        assert (score >= 0.5) != (label == 1)


def test_a_class_that_is_never_called_has_no_precision() -> None:
    quiet = [Prediction(Path(name), 0.1) for name in LABELS]
    judged = judge(quiet, evaluated(), HALF, Model(name="run"))
    decision = judged.images.decisions[FIXED]
    assert np.isnan(decision.measures["precision"].value)
    assert np.isnan(decision.at_own_prevalence.positive.value)
    assert Report.model_validate_json(judged.model_dump_json()).images.subjects == 5


def test_one_class_alone_has_no_curves_but_a_report() -> None:
    healthy = Manifest(tuple(m for m in manifest() if m.label == 0))
    found = [Prediction(path, 0.2) for path in healthy.paths]
    images = judge(found, EvaluationSet(healthy), HALF, Model(name="")).images
    assert images.calibration is None
    assert images.roc.x == ()
    assert np.isnan(images.discrimination["roc_auc"].value)


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(DataError, match="split valid has no labelled image"):
        judge(answers(), evaluated(Split.VALID), HALF, Model(name=""))
    with pytest.raises(DataError, match=r"a1: no prediction for it \(6 are missing\)"):
        judge([], evaluated(), HALF, Model(name=""))


def test_a_machine_on_which_the_model_fails_stands_out_and_chance_does_not() -> None:
    listed, scores = cohort(400)
    broken = scores.copy()
    on_one = np.array([m.metadata["machine_id"] == "1" for m in listed])
    broken[on_one] = np.random.default_rng(1).random(on_one.sum())
    found = {(g.variable, g.value): g for g in subgroups(image_table(listed), broken)}
    assert found["machine_id", "1"].stands_out
    assert found["machine_id", "1"].difference.high < 0
    assert {g.variable for g in found.values()} == {"view", "laterality", "age", "machine_id"} - (
        {"laterality"}  # tumors are all on the left: no AUC on the right
    )
    fair = subgroups(image_table(listed), scores)
    assert not any(group.stands_out for group in fair)
    assert all(group.adjusted >= group.p_value for group in fair)


def test_a_better_model_is_told_from_an_equal_one(tmp_path: Path) -> None:
    listed, scores = cohort()
    worse = scores + np.random.default_rng(5).normal(0, 0.4, len(scores))
    write_predictions(answered(listed, scores), listed, tmp_path / "good")
    write_predictions(answered(listed, worse.clip(0, 1))[::-1], listed, tmp_path / "worse")
    same = compare(tmp_path / "good", tmp_path / "good").levels[Level.IMAGE]
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    found = compare(tmp_path / "good", tmp_path / "worse").levels
    images = found[Level.IMAGE]
    assert images.first.value == pytest.approx(roc_auc_score(listed.labels, scores))
    assert images.difference.high < 0
    assert images.delong.value == pytest.approx(images.difference.value)
    assert images.p_value < 0.01
    assert (found[Level.BREAST].subjects, found[Level.PATIENT].subjects) == (240, 120)


def test_reports_of_other_images_or_labels_are_not_compared(tmp_path: Path) -> None:
    listed, scores = cohort(30)
    write_predictions(answered(listed, scores), listed, tmp_path / "all")
    part = Manifest(listed.mammograms[:40])
    write_predictions(answered(part, scores[:40]), part, tmp_path / "part")
    with pytest.raises(DataError, match="80 are only in the first, 0 only in the second"):
        compare(tmp_path / "all", tmp_path / "part")
    turned = Manifest(tuple(replace(m, label=1 - m.label) for m in listed))  # type: ignore[arg-type,operator]
    write_predictions(answered(turned, scores), turned, tmp_path / "turned")
    with pytest.raises(DataError, match="different labels"):
        compare(tmp_path / "all", tmp_path / "turned")


def test_arrays_alone_are_judged_as_a_data_set_is() -> None:
    listed, scores = cohort(60)
    sideless = Manifest(
        tuple(
            Mammogram(path=Path(str(place)), label=m.label, patient_id=m.patient_id) for place, m in enumerate(listed)
        )
    )
    expected = judge(answered(sideless, scores), EvaluationSet(sideless), HALF, Model(name="scores"))
    report = judge_scores(listed.labels, scores, listed.patients)
    assert report.model_dump_json() == expected.model_dump_json()
    assert (report.images.patients, report.levels[Level.PATIENT].subjects) == (60, 60)
    place = int(report.mistakes[0].path)
    assert report.mistakes[0].probability == scores[place]
    assert report.mistakes[0].truth == "no tumor"


def test_arrays_without_patients_have_each_image_for_a_patient() -> None:
    labels, scores = [0, 1, 0, 1, True], [0.2, 0.9, 0.6, 0.7, 0.1]
    alone = judge_scores(labels, scores, threshold=0.65)
    assert (alone.counts.patients, alone.counts.without_patient) == (5, 5)
    assert alone.images.decisions[FIXED].confusion == ((2, 0), (1, 2))
    mixed = judge_scores(pd.Series(labels), np.array(scores, np.float32), ["a", "a", None, np.nan, 7])
    assert (mixed.counts.patients, mixed.counts.without_patient) == (4, 2)
    healthy = judge_scores([0, 0], [0.1, 0.2]).images
    assert np.isnan(healthy.discrimination["roc_auc"].value)
    assert healthy.decisions[FIXED].measures["specificity"].value == 1


@pytest.mark.parametrize(
    ("labels", "probabilities", "patients", "said"),
    [
        ([0, 1], [0.1], None, "2 labels, 1 probabilities and 2 patients"),
        ([0, 1], [0.1, 0.2], ["a"], "2 labels, 2 probabilities and 1 patients"),
        ([], [], None, "at least one image"),
        ([0, np.nan], [0.1, 0.2], None, r"labels\[1\] is nan: expected 0 or 1"),
        ([0, 2], [0.1, 0.2], None, r"labels\[1\] is 2: expected 0 or 1"),
        ([0, None], [0.1, 0.2], None, r"labels\[1\] is nan"),
        (["no", "yes"], [0.1, 0.2], None, "labels are not numbers"),
        ([0, 1], [0.1, 1.5], None, r"probabilities\[1\] is 1.5: expected in \[0, 1\]"),
        ([0, 1], [np.nan, 0.5], None, r"probabilities\[0\] is nan"),
        ([0, 1], [[0.1, 0.9], [0.5, 0.5]], None, r"probabilities have the shape \(2, 2\)"),
    ],
)
def test_arrays_that_cannot_be_judged_are_refused(
    labels: list[object], probabilities: list[object], patients: list[object] | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        judge_scores(labels, probabilities, patients)  # type: ignore[arg-type]


def test_a_threshold_that_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match=r"threshold is 50: expected a number in \[0, 1\]"):
        judge_scores([0, 1], [0.1, 0.9], threshold=50)
