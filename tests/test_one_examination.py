"""A study of four views, in every form that people have it, by every door: one same answer, to the last digit."""

import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_dicom import mammogram, save
from typer.testing import CliRunner

import brightness
from mammolens import library
from mammolens.cli import app
from mammolens.errors import DataError
from mammolens.levels import ServedLevel
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import ImageWarning, Laterality, Prediction, View
from mammolens.reports.answers import columns_of, row_of
from mammolens.serving.exams import STANDARD, joined
from mammolens.serving.predictor import Predictor

FORMS = ("DICOM", "ZIP of DICOM", "PNG", "ZIP of PNG", "PNG and a table", "DICOM and a table")
SAID = ("probability", "decision", "uncertain", "threshold", "left_probability", "left_decision", "left_uncertain")
OF_RIGHT = ("right_probability", "right_decision", "right_uncertain", "difference")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each form of one patient's four views; two have a table beside them."""
    place = tmp_path_factory.mktemp("study")
    patient = draw_patient(54, 2026)
    for form in FORMS:
        (place / form).mkdir()
    lines = ["path,laterality,view,patient_id,study_id"]
    for number, (side, view) in enumerate(STANDARD):
        breast = patient.left if side is Laterality.LEFT else patient.right
        pixels = draw_view(breast, view).pixels
        header: dict[str, Any] = {
            "PatientID": "ann",
            "StudyInstanceUID": "1.2.3",
            "ViewPosition": view,
            "ImageLaterality": side,
        }
        save(place / "DICOM" / f"{number}.dcm", mammogram(pixels, **header))
        save(place / "DICOM and a table" / f"{number}.dcm", mammogram(pixels))
        Image.fromarray(pixels).save(place / "PNG" / f"ann_{side}_{view}.png")
        Image.fromarray(pixels).save(place / "PNG and a table" / f"{number}.png")
        lines.append(f"{number}.SUFFIX,{side},{view},ann,1")
    for form, suffix in (("PNG", "png"), ("DICOM", "dcm")):
        table = "\n".join(lines).replace("SUFFIX", suffix)
        (place / f"{form} and a table" / "table.csv").write_text(table)
        with zipfile.ZipFile(place / f"ZIP of {form}" / "study.zip", "w") as archive:
            for path in (place / form).iterdir():
                archive.write(path, f"visit/{path.name}")
    return place


def told(row: dict[str, Any]) -> dict[str, Any]:
    """What must be equal: all that is said of the examination, its breasts and its views."""
    views = sorted((view["laterality"], view["view"], view["probability"]) for view in row["views"])
    return {name: row[name] for name in (*SAID, *OF_RIGHT)} | {"views": views}


def row(answer: Prediction) -> dict[str, Any]:
    return row_of(answer, columns_of(ServedLevel.EXAM))


def typed(out: Path, *words: object) -> list[dict[str, Any]]:
    """The rows of `mammolens predict --level exam`."""
    command = ["predict", *map(str, words), "--level", "exam", "--out", str(out), "--quiet"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    return list(json.loads(out.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def expected(study: Path) -> dict[str, Any]:
    """As the library tells it of the PNG files."""
    (answer,) = library.predict(study / "PNG", "phantom", level="exam")
    assert len(answer.views) == len(STANDARD)
    assert (answer.warnings, answer.difference is None) == ((), False)
    return told(row(answer))


def table_of(study: Path, form: str) -> Path | None:
    return study / form / "table.csv" if "table" in form else None


@pytest.mark.parametrize("form", FORMS)
def test_library_and_command_line_say_the_same_of_every_form(
    study: Path, expected: dict[str, Any], tmp_path: Path, form: str
) -> None:
    data = table_of(study, form)
    (called,) = library.predict(study / form, "phantom", level="exam", data=data)
    assert told(row(called)) == expected
    assert called.warnings == ()
    assert called.by_name == ("table" not in form and "PNG" in form)
    words = ["--data", data] if data else []
    (on_file,) = typed(tmp_path / "exam.json", study / form, "--model", "phantom", *words)
    assert told(on_file) == expected
    assert on_file["patient_id"] == (None if called.by_name else "ann")


@pytest.mark.parametrize("form", [form for form in FORMS if "table" not in form])
def test_the_page_says_the_same_of_every_form(
    study: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")
    from streamlit.testing.v1 import AppTest  # noqa: PLC0415

    from mammolens.app.cases import hung  # noqa: PLC0415
    from mammolens.app.server import PAGE  # noqa: PLC0415

    monkeypatch.setattr(sys, "argv", [str(PAGE), "phantom"])
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    for path in sorted((study / form).iterdir()):
        page.file_uploader[0].upload(path.name, path.read_bytes())
    page.run()
    assert not page.exception
    cases = page.session_state["looked at"].shown
    model = Predictor.load("phantom")
    rules = model.bundle.record.rules()
    (answer,) = joined([case.answer for case in cases], ServedLevel.EXAM, model.operating_point, rules)
    assert told(row(answer)) == expected
    rows = hung(cases[0], cases)
    assert [[one and one.place for one in row] for row in rows] == [
        [(side, view) for side in (Laterality.RIGHT, Laterality.LEFT)] for view in (View.CC, View.MLO)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness.bundle(tmp_path_factory.mktemp("bundles") / "brightness").folder


def greys(folder: Path, **levels: int) -> None:
    """Flat PNG files by name."""
    folder.mkdir(parents=True)
    for name, level in levels.items():
        Image.fromarray(brightness.flat(level)).save(folder / f"{name}.png")


def names(answers: Iterable[Prediction]) -> list[list[str]]:
    return [[str(one.path.name) for one in answer.pictures] for answer in answers]


def test_two_patients_with_equal_names_are_two_rows(model: Path, tmp_path: Path) -> None:
    for patient, level in (("ann", 51), ("bea", 204)):
        greys(tmp_path / "in" / patient, L_CC=level, L_MLO=level, R_CC=level, R_MLO=level)
    rows = typed(tmp_path / "exam.json", tmp_path / "in", "--model", model)
    assert [one["probability"] for one in rows] == pytest.approx([0.2, 0.8], abs=1e-4)
    assert [{Path(view["path"]).parent.name for view in one["views"]} for one in rows] == [{"ann"}, {"bea"}]


def test_one_broken_file_among_four_keeps_its_row(model: Path, tmp_path: Path) -> None:
    greys(tmp_path / "in", L_CC=51, L_MLO=51, R_CC=204)
    (tmp_path / "in" / "R_MLO.png").write_text("no picture")
    out = tmp_path / "exam.csv"
    command = ["predict", str(tmp_path / "in"), "--model", str(model), "--level", "exam", "--out", str(out), "-q"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 1
    assert "1 of 4 inputs got no answer" in said.stderr
    whole, broken = library.predict(tmp_path / "in", model, level="exam")
    assert names([whole, broken]) == [["L_CC.png", "L_MLO.png", "R_CC.png"], ["R_MLO.png"]]
    assert "standard views not found: R MLO" in whole.warnings
    assert "not an image" in (broken.error or "")
    assert out.read_text(encoding="utf-8").count("\n") == 3


def test_a_table_goes_before_header_and_name(model: Path, tmp_path: Path) -> None:
    pixels = np.full((64, 48), 1024, np.uint16)
    header = {"PatientID": "ann", "ImageLaterality": "R", "ViewPosition": "CC"}
    save(tmp_path / "L_CC.dcm", mammogram(pixels, bits=12, **header))
    (plain,) = library.predict(tmp_path / "L_CC.dcm", model)
    assert plain.laterality is Laterality.RIGHT
    assert [one.kind for one in plain.warnings].count(ImageWarning.CONTRADICTION) == 1
    (tmp_path / "t.csv").write_text("path,laterality,view,patient_id\nL_CC.dcm,L,MLO,bea\n")
    (listed,) = library.predict(tmp_path / "L_CC.dcm", model, data=tmp_path / "t.csv")
    assert (listed.laterality, listed.view, listed.patient_id) == (Laterality.LEFT, View.MLO, "bea")
    assert [one.kind for one in listed.warnings].count(ImageWarning.CONTRADICTION) == 3


def test_a_table_without_sides_still_tells_patients(model: Path, tmp_path: Path) -> None:
    greys(tmp_path / "in", a=51, b=204, c=102)
    (tmp_path / "t.csv").write_text("path;patient_id\na.png;1\nb.png;1\nc.png;2\n")
    answers = library.predict(tmp_path / "in", model, level="exam", data=tmp_path / "t.csv")
    assert names(answers) == [["a.png", "b.png"], ["c.png"]]
    assert [one.probability for one in answers] == pytest.approx([0.8, 0.4], abs=1e-4)
    assert all(ImageWarning.NO_SIDE in [w.kind for w in one.warnings] for one in answers)
    assert [one.breasts for one in answers] == [(), ()]
    with pytest.raises(DataError, match="no such folder or file"):
        library.predict(tmp_path / "in", model, data=tmp_path / "gone.csv")
