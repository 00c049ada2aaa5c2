"""The second answer: what DICOM headers tell of age, joined with what the picture tells."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom import mammogram, save

from brightness import bundle, flat
from conftest import Typed
from mammolens.errors import BundleError
from mammolens.model.age import WithAge
from mammolens.reports.answers import COLUMNS
from mammolens.serving.predictor import Predictor

BOTH = WithAge(picture=0.8, decade=0.5, intercept=-0.1, data="rsna", images=538, patients=151)

VIEWS = {
    "ann-cc": (0.25, {"PatientAge": "063Y"}),
    "ann-mlo": (0.75, {"PatientAge": "063Y"}),
    "bea": (0.25, {"PatientBirthDate": "19580203", "StudyDate": "20480203"}),
    "cat": (0.25, {"PatientAge": "005Y"}),
    "dot": (0.25, {}),
}
AGES = {"ann-cc": 63, "ann-mlo": 63, "bea": 90, "cat": None, "dot": None, "photo": None, "broken": None}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "dicom"
    folder.mkdir()
    for name, (level, header) in VIEWS.items():
        stored = np.full((64, 48), round(level * 4095), np.uint16)
        patient = name.partition("-")[0]
        save(folder / f"{name}.dcm", mammogram(stored, bits=12, PatientID=patient, ImageLaterality="L", **header))
    Image.fromarray(flat(204)).save(folder / "photo.png")
    (folder / "broken.dcm").write_bytes(b"nothing")
    return sorted(folder.iterdir())


@pytest.fixture
def aged(tmp_path: Path) -> Path:
    return bundle(tmp_path / "aged", with_age=BOTH).folder


def test_where_age_is_known_there_is_a_second_answer(aged: Path, files: list[Path]) -> None:
    predictor = Predictor.load(aged)
    plain, answers = predictor.predict(files), predictor.predict(files, with_age=True)
    assert {one.path.stem: one.age for one in answers} == AGES
    for one, before in zip(answers, plain, strict=True):
        assert (one.probability, one.decision, one.reason) == (before.probability, before.decision, before.reason)
        assert before.probability_with_age is None
        assert (one.probability_with_age is None) == (one.age is None)
    found = {one.path.stem: one.probability_with_age for one in answers}
    for name, picture, age in (("ann-cc", 0.25, 63), ("ann-mlo", 0.75, 63), ("bea", 0.25, 90)):
        odds = 0.8 * np.log(picture / (1 - picture)) + 0.5 * (age - 60) / 10 - 0.1
        assert found[name] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-3)


def test_a_breast_has_one_second_answer(aged: Path, files: list[Path]) -> None:
    answers = {one.path.stem: one for one in Predictor.load(aged).predict(files, level="breast", with_age=True)}
    ann = answers["ann-cc"]
    assert [one.path.stem for one in ann.views] == ["ann-cc", "ann-mlo"]
    assert ann.probability == pytest.approx(0.5, abs=1e-3)
    assert (ann.age, ann.probability_with_age) == (63, float(BOTH(ann.probability or 0, 63)))


@pytest.mark.parametrize("level", ["breast", "exam"])
def test_pictures_that_cannot_be_of_one_age_give_none(aged: Path, files: list[Path], level: str) -> None:
    other = mammogram(np.full((64, 48), 2000, np.uint16), bits=12, PatientID="ann", ImageLaterality="L")
    other.PatientAge = "064Y"  # her birthday may lie between two pictures
    path = save(files[0].parent / "ann-other.dcm", other)
    predictor = Predictor.load(aged)
    assert next(iter(predictor.predict([files[0], path], level=level, with_age=True))).age in {63, 64}
    other.PatientAge = "036Y"
    save(path, other)
    ann = next(iter(predictor.predict([files[0], path], level=level, with_age=True)))
    assert (ann.age, ann.probability_with_age) == (None, None)
    assert "the pictures differ in age, from 36 to 63 years: none is taken" in ann.warnings


def test_an_examination_has_one_second_answer_and_one_a_breast(aged: Path, files: list[Path], tmp_path: Path) -> None:
    right = mammogram(np.full((64, 48), 3000, np.uint16), bits=12, PatientID="ann", ImageLaterality="R")
    right.PatientAge = "063Y"
    save(tmp_path / "right.dcm", right)
    exam, *_ = Predictor.load(aged).predict([*files, tmp_path / "right.dcm"], level="exam", with_age=True)
    assert exam.probability == pytest.approx(3000 / 4095, abs=1e-3)
    for one in (exam, *exam.breasts):
        assert (one.age, one.probability_with_age) == (63, float(BOTH(one.probability or 0, 63)))
    assert Predictor.load(aged).predict(files, level="exam")[0].probability_with_age is None


def test_a_model_without_it_is_refused_in_a_line(tmp_path: Path, files: list[Path]) -> None:
    plain = bundle(tmp_path / "plain").folder
    for model in (plain, "phantom"):
        with pytest.raises(BundleError, match=r"has no answer with age: .* Export it anew .* or leave out --age"):
            Predictor.load(model).predict(files, with_age=True)


def test_as_typed(mammolens: Typed, aged: Path, files: list[Path], tmp_path: Path) -> None:
    words = ["predict", *files, "--model", aged, "-q", "--out"]
    said = mammolens(*words, tmp_path / "aged.csv", "--age")
    assert "3 of 7 inputs tell no age of 18 to 110 years in a DICOM header: no probability with age" in said.err
    assert "with age" in said.out
    header, *rows = (tmp_path / "aged.csv").read_text(encoding="utf-8").splitlines()
    assert header == ",".join([*COLUMNS, "age", "probability_with_age"])
    expected = float(BOTH(0.25, 63))
    told = {row.split(",")[0].rsplit("/")[-1]: row.rsplit(",", 2)[1:] for row in rows}
    assert told["ann-cc.dcm"][0] == "63"
    assert float(told["ann-cc.dcm"][1]) == pytest.approx(expected, abs=1e-3)
    assert told["cat.dcm"] == told["photo.png"] == told["broken.dcm"] == ["", ""]
    plain = mammolens(*words, tmp_path / "plain.csv")
    assert "age" not in plain.err.replace("image", "")
    assert (tmp_path / "plain.csv").read_text(encoding="utf-8").startswith(",".join(COLUMNS) + "\n")
    without = mammolens("predict", *files, "--model", bundle(tmp_path / "plain").folder, "-q", "--age")
    assert (without.code, without.out) == (1, "")
    assert f"{tmp_path}/plain: has no answer with age" in without.err
