"""Answers for a breast or a patient: what DICOM headers say decides who belongs together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom import mammogram, save

from brightness import bundle, flat
from mammolens.model.bundle import open_bundle, packaged_bundles
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import ImageWarning, Laterality, Level, Prediction, Reason, View
from mammolens.serving.predictor import Predictor

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
    "ann-lcc": 0.45,
    "ann-lmlo": 0.45,
    "ann-rcc": 0.9,
    "bea-lcc": 0.3,
    "bea-rcc": 0.35,
    "cat-1": 0.1,
    "cat-2": 0.6,
    "nobody": 0.5,
    "photo": 0.8,
}
BY_PATIENT = {
    "ann-lcc": 0.9,
    "ann-lmlo": 0.9,
    "ann-rcc": 0.9,
    "bea-lcc": 0.35,
    "bea-rcc": 0.35,
    "cat-1": 0.6,
    "cat-2": 0.6,
    "nobody": 0.5,
    "photo": 0.8,
}
ALONE = {"cat-1", "cat-2", "nobody", "photo"}


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


def by_name(answers: list[Prediction]) -> dict[str, Prediction]:
    return {answer.path.stem: answer for answer in answers}


def test_a_header_says_whose_breast_it_is(predictor: Predictor, files: list[Path]) -> None:
    answers = by_name(list(predictor.predict(files)))
    seen = answers["ann-lmlo"]
    assert (seen.patient_id, seen.laterality, seen.view) == ("ann", Laterality.LEFT, View.MLO)
    photo = answers["photo"]
    assert (photo.patient_id, photo.laterality, photo.view) == (None, None, None)
    found = {name: a.probability for name, a in answers.items() if a.probability is not None}
    expected = {name: level for name, (_, _, _, level) in VIEWS.items()} | {"photo": 0.8}
    assert found == pytest.approx(expected, abs=1e-3)
    assert {answer.level for answer in answers.values()} == {Level.IMAGE}


@pytest.mark.parametrize(
    ("level", "expected", "threshold"),
    [(Level.BREAST, BY_BREAST, 0.4), (Level.PATIENT, BY_PATIENT, 0.45)],
)
def test_views_of_a_breast_or_patient_are_answered_together(
    predictor: Predictor,
    files: list[Path],
    level: Level,
    expected: dict[str, float],
    threshold: float,
) -> None:
    answers = list(predictor.predict(files, level=level))
    assert [answer.path for answer in answers] == files
    named = by_name(answers)
    failed = named.pop("broken")
    assert (failed.level, failed.threshold, failed.probability) == (level, threshold, None)
    assert {name: a.probability for name, a in named.items()} == pytest.approx(expected, abs=1e-3)
    for name, answer in named.items():
        assert (answer.level, answer.threshold) == (level, threshold)
        assert (answer.decision == "tumor") == (expected[name] >= threshold)
        assert answer.uncertain == (0.3 <= (answer.probability or 0) < 0.6)
        assert (ImageWarning.NO_SIDE in answer.warnings) == (name in ALONE)
        assert answer.score_map is not None, "where it looked is said of each picture"
    assert named["ann-lcc"].probability == named["ann-lmlo"].probability


@pytest.mark.parametrize("level", [Level.BREAST, Level.PATIENT])
def test_the_order_of_files_makes_no_difference(predictor: Predictor, files: list[Path], level: Level) -> None:
    expected = by_name(list(predictor.predict(files, level=level)))
    mixed = [*files[1::2], *files[::2][::-1]]
    assert sorted(mixed) == files
    for name, answer in by_name(list(predictor.predict(mixed, level=level))).items():
        assert answer.probability == expected[name].probability
        assert answer.decision == expected[name].decision


@pytest.mark.parametrize("level", [Level.BREAST, Level.PATIENT])
def test_what_is_no_mammogram_has_no_say_in_its_breast(tmp_path: Path, level: Level) -> None:
    """Noise that a header calls a view of the same breast."""
    gate = open_bundle(packaged_bundles()["phantom"]).record.gate
    predictor = Predictor.load(bundle(tmp_path / "bundle", gate=gate).folder)
    breast, noise = draw_patient(0, 1).left, np.random.default_rng(0)
    pictures = {
        view: draw_view(breast, view, size=200).pixels.astype(np.uint16) * 16 for view in (View.CC, View.MLO)
    } | {View.ML: noise.integers(0, 4096, (200, 180)).astype(np.uint16)}
    paths = [tmp_path / f"{view}.dcm" for view in pictures]
    for path, (view, stored) in zip(paths, pictures.items(), strict=True):
        dataset = mammogram(stored, bits=12, PatientID="ann", ViewPosition=view)
        dataset.ImageLaterality = "L"
        save(path, dataset)
    *alone, refused = predictor.predict(paths)
    mean = np.mean([one.probability or 0 for one in alone])
    cc, mlo, noisy = predictor.predict(paths, level=level)
    assert cc.probability == mlo.probability == pytest.approx(mean, abs=1e-6)
    assert noisy.level is level
    for one in (refused, noisy):
        assert (one.probability, one.decision, one.score_map) == (None, None, None)
        assert (one.uncertain, one.reason) == (True, Reason.NOT_A_MAMMOGRAM)
        assert ImageWarning.NOT_LIKE_TRAINING in one.warnings
        assert one.threshold == predictor.threshold(one.level)
    cc_again, _, asked = predictor.predict(paths, level=level, ungated=True)
    assert cc_again.probability == cc.probability
    assert asked.probability is not None
    assert (asked.decision, asked.reason) == (None, Reason.NOT_A_MAMMOGRAM)
