"""Answers for a breast or an examination: one row each, with all that it rests on."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom import mammogram, save

from brightness import bundle, flat, point
from mammolens.levels import Level, ServedLevel
from mammolens.model.bundle import open_bundle, packaged_bundles
from mammolens.model.decisions import Rules, aggregated
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import ImageWarning, Laterality, Prediction, Reason, View
from mammolens.serving.exams import joined
from mammolens.serving.predictor import Predictor

BREAST, EXAM = ServedLevel.BREAST, ServedLevel.EXAM
LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT

VIEWS = {
    "ann-lcc": ("ann", "L", "CC", 0.2),
    "ann-lmlo": ("ann", "L", "MLO", 0.7),
    "ann-rcc": ("ann", "R", "CC", 0.9),
    "bea-lcc": ("bea", "L", "CC", 0.3),
    "bea-rcc": ("bea", "R", "CC", 0.35),
    "cat-1": ("cat", "", "", 0.1),
    "cat-2": ("cat", "", "", 0.6),
    "nobody": ("", "L", "CC", 0.5),
}
"""Patient, side, view and brightness of each file."""

BY_BREAST = {
    ("ann-lcc", "ann-lmlo"): 0.45,
    ("ann-rcc",): 0.9,
    ("bea-lcc",): 0.3,
    ("bea-rcc",): 0.35,
    ("broken",): None,
    ("cat-1",): 0.1,
    ("cat-2",): 0.6,
    ("nobody",): 0.5,
    ("photo",): 0.8,
}
BY_EXAM = {
    ("ann-lcc", "ann-lmlo", "ann-rcc"): 0.9,
    ("bea-lcc", "bea-rcc"): 0.35,
    ("broken",): None,
    ("cat-1", "cat-2"): 0.6,
    ("nobody",): 0.5,
    ("photo",): 0.8,
}
UNSIDED = {"cat-1", "cat-2", "photo"}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(bundle(tmp_path_factory.mktemp("bundles") / "brightness").folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """DICOM files of several patients, a PNG, and a file that cannot be read."""
    folder = tmp_path_factory.mktemp("dicom")
    for name, (patient, side, view, level) in VIEWS.items():
        stored = np.full((64, 48), round(level * 4095), np.uint16)
        dataset = mammogram(stored, bits=12, PatientID=patient, ViewPosition=view)
        dataset.ImageLaterality = side
        save(folder / f"{name}.dcm", dataset)
    Image.fromarray(flat(204)).save(folder / "photo.png")
    (folder / "broken.dcm").write_bytes(b"nothing")
    return sorted(folder.iterdir())


def rests_on(answer: Prediction) -> tuple[str, ...]:
    return tuple(one.path.stem for one in answer.pictures)


def kinds(answer: Prediction) -> set[ImageWarning]:
    return {warning.kind for warning in answer.warnings}


def test_a_header_says_whose_breast_it_is(predictor: Predictor, files: list[Path]) -> None:
    answers = {one.path.stem: one for one in predictor.predict(files)}
    seen = answers["ann-lmlo"]
    assert (seen.patient_id, seen.laterality, seen.view, seen.by_name) == ("ann", LEFT, View.MLO, False)
    photo = answers["photo"]
    assert (photo.patient_id, photo.laterality, photo.view) == (None, None, None)
    found = {name: a.probability for name, a in answers.items() if a.probability is not None}
    expected = {name: level for name, (_, _, _, level) in VIEWS.items()} | {"photo": 0.8}
    assert found == pytest.approx(expected, abs=1e-3)
    assert {answer.level for answer in answers.values()} == {ServedLevel.IMAGE}


@pytest.mark.parametrize(("level", "expected", "threshold"), [(BREAST, BY_BREAST, 0.4), (EXAM, BY_EXAM, 0.45)])
def test_there_is_one_answer_a_breast_or_examination(
    predictor: Predictor,
    files: list[Path],
    level: ServedLevel,
    expected: dict[tuple[str, ...], float | None],
    threshold: float,
) -> None:
    answers = list(predictor.predict(files, level=level))
    assert [rests_on(answer) for answer in answers] == list(expected)
    alone = {one.path: one.probability for one in predictor.predict(files)}
    for answer, probability in zip(answers, expected.values(), strict=True):
        assert (answer.level, answer.threshold) == (level, threshold)
        assert (answer.error is None) == (probability is not None)
        if probability is None:
            assert answer.views == ()
            continue
        assert answer.probability == pytest.approx(probability, abs=1e-3)
        assert (answer.decision == "tumor") == (probability >= threshold)
        assert answer.uncertain == (0.3 <= (answer.probability or 0) < 0.6)
        assert {one.path: one.probability for one in answer.views}.items() <= alone.items()
        assert all(one.score_map is not None for one in answer.views), "where it looked is said of each picture"
        assert (ImageWarning.NO_SIDE in kinds(answer)) == (not UNSIDED.isdisjoint(rests_on(answer)))
    assert all(one.score_map is None for one in predictor.predict(files, level=level, maps=False)[0].views)


def test_an_examination_tells_of_both_breasts_and_their_difference(predictor: Predictor, files: list[Path]) -> None:
    ann, bea, _, cat, *_ = predictor.predict(files, level=EXAM)
    by_breast = list(predictor.predict(files, level=BREAST))
    assert [(one.laterality, one.probability, one.decision, one.uncertain) for one in ann.breasts] == [
        (one.laterality, one.probability, one.decision, one.uncertain) for one in by_breast[:2]
    ]
    left, right = ann.breasts
    assert (left.decision, left.uncertain, right.decision, right.uncertain) == ("tumor", True, "tumor", False)
    assert left.threshold == right.threshold == 0.4
    assert ann.difference == pytest.approx(0.45 - 0.9, abs=1e-3)
    assert bea.difference == pytest.approx(-0.05, abs=1e-3)
    assert (ann.patient_id, ann.laterality, ann.view) == ("ann", None, None)
    assert (bea.laterality, bea.view) == (None, View.CC)
    assert (cat.breasts, cat.difference, cat.breast(LEFT)) == ((), None, None)


def test_missing_and_doubled_views_are_said(predictor: Predictor, files: list[Path], tmp_path: Path) -> None:
    ann, bea, _, cat, nobody, photo = predictor.predict(files, level=EXAM)
    assert "standard views not found: R MLO" in ann.warnings
    assert "standard views not found: L MLO, R MLO" in bea.warnings
    assert "standard views not found: L MLO, R CC, R MLO" in nobody.warnings
    assert "side of cat-1.dcm, cat-2.dcm is not known: taken for a breast of its own" in cat.warnings
    assert ImageWarning.MISSING_VIEW not in kinds(cat) | kinds(photo)
    breast = predictor.predict(files, level=BREAST)[1]
    assert [str(one) for one in breast.warnings if one.kind is ImageWarning.MISSING_VIEW] == [
        "standard views not found: R MLO"
    ]
    for number, grey in enumerate((100, 150, 200)):
        dataset = mammogram(flat(grey), PatientID="ann", ViewPosition="CC", ImageLaterality="R")
        save(tmp_path / f"{number}.dcm", dataset)
    (doubled,) = predictor.predict(tmp_path, level=EXAM)
    assert doubled.probability == pytest.approx(150 / 255, abs=1e-4)
    assert "more than one picture of R CC: all count" in doubled.warnings


@pytest.mark.parametrize("level", [BREAST, EXAM])
def test_the_order_of_files_makes_no_difference(predictor: Predictor, files: list[Path], level: ServedLevel) -> None:
    def found(paths: Iterable[Path]) -> dict[frozenset[str], tuple[object, ...]]:
        answers = predictor.predict(paths, level=level)
        return {frozenset(rests_on(a)): (a.probability, a.decision, a.difference) for a in answers}

    mixed = [*files[1::2], *files[::2][::-1]]
    assert sorted(mixed) == files
    assert found(mixed) == found(files)


def test_what_is_served_is_what_is_judged(predictor: Predictor, files: list[Path]) -> None:
    """By the rule that patients are judged by, to the last digit."""
    images = [one for one in predictor.predict(files) if one.patient_id]
    breasts = [f"{one.patient_id} {one.laterality or one.path}" for one in images]
    patients = [str(one.patient_id) for one in images]
    judged = dict(
        zip(patients, aggregated([a.probability or 0 for a in images], breasts, patients, Level.PATIENT), strict=True)
    )
    served = {one.patient_id: one.probability for one in predictor.predict(files, level=EXAM) if one.patient_id}
    assert served == judged


@pytest.mark.parametrize("level", [BREAST, EXAM])
def test_what_is_no_mammogram_has_no_say_and_is_named(tmp_path: Path, level: ServedLevel) -> None:
    """Noise that a header calls a view of the same breast."""
    gate = open_bundle(packaged_bundles()["phantom"]).record.gate
    predictor = Predictor.load(bundle(tmp_path / "bundle", gate=gate).folder)
    breast, noise = draw_patient(0, 1).left, np.random.default_rng(0)
    pictures = {
        view: draw_view(breast, view, size=512).pixels.astype(np.uint16) * 16 for view in (View.CC, View.MLO)
    } | {View.ML: noise.integers(0, 4096, (200, 180)).astype(np.uint16)}
    paths = [tmp_path / f"{view}.dcm" for view in pictures]
    for path, (view, stored) in zip(paths, pictures.items(), strict=True):
        dataset = mammogram(stored, bits=12, PatientID="ann", ViewPosition=view)
        dataset.ImageLaterality = "L"
        save(path, dataset)
    *alone, refused = predictor.predict(paths)
    mean = np.mean([one.probability or 0 for one in alone])
    (answer,) = predictor.predict(paths, level=level)
    assert answer.probability == pytest.approx(mean, abs=1e-6)
    assert answer.admitted
    assert "ML.dcm does not look like a mammogram and has no say" in answer.warnings
    assert ImageWarning.NOT_LIKE_TRAINING not in kinds(answer)
    (only,) = predictor.predict(paths[2:], level=level)
    for one in (refused, answer.views[2], only):
        assert (one.probability, one.decision, one.score_map) == (None, None, None)
        assert (one.uncertain, one.reason) == (True, Reason.NOT_A_MAMMOGRAM)
        assert ImageWarning.NOT_LIKE_TRAINING not in one.warnings
        assert one.threshold == predictor.threshold(one.level)
    (asked,) = predictor.predict(paths, level=level, ungated=True)
    assert asked.probability == answer.probability
    assert asked.views[2].probability is not None
    assert (asked.views[2].decision, asked.views[2].reason) == (None, Reason.NOT_A_MAMMOGRAM)


def test_a_breast_of_which_nothing_is_admitted_has_no_answer() -> None:
    left = Prediction(Path("l_cc"), 0.3, laterality=LEFT, view=View.CC, patient_id="ann")
    right = replace(left, path=Path("r_cc"), probability=None, laterality=RIGHT, admitted=False)
    points = {"balanced": point(0.5)}
    rules = Rules("balanced", dict.fromkeys(Level, points))
    (exam,) = joined([left, right], EXAM, "balanced", rules)
    assert (exam.probability, exam.decision, exam.difference) == (0.3, "no tumor", None)
    assert [(one.probability, one.decision) for one in exam.breasts] == [(0.3, "no tumor"), (None, None)]
    assert exam.breasts[1].reason is Reason.NOT_A_MAMMOGRAM
