"""`import mammolens`: few names, light, documented by examples that run; the same answers as the command line's."""

import doctest
import inspect
import json
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from test_dicom import mammogram, save

import brightness
import mammolens
from conftest import QUICK, Typed
from mammolens import library
from mammolens.errors import BundleError, DataError, MissingExtra, RecipeError, RunError
from mammolens.levels import ServedLevel
from mammolens.model.bundle import Outputs
from mammolens.model.recipe import read_recipe
from mammolens.reports.answers import COLUMNS, Predictions
from mammolens.serving.predictor import Predictor

SIGNATURES = {
    "load": "(model=None, point=None)",
    "predict": "(items, model=None, *, point=None, level='image', data=None, ungated=False, overlay=None, maps=True, "
    "with_age=False, report=None, identify=(), dicom=None, progress=False)",
    "examine": "(data, *, positive=None, progress=False)",
    "train": "(data, recipe='baseline', *, out, changes=None, also=(), progress=False)",
    "judge": "(labels, probabilities, patients=None, *, threshold=0.5, name='scores')",
}
TYPES = ("MammolensError", "Prediction", "Predictions", "Predictor")


def bare(function: object) -> str:
    """A signature without its annotations."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    named = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=named, return_annotation=signature.empty))


def test_the_names_and_signatures_that_others_build_on() -> None:
    assert sorted(mammolens.__all__) == sorted([*SIGNATURES, *TYPES])
    assert {*mammolens.__all__, "__version__"} == set(dir(mammolens))
    assert {name: bare(getattr(mammolens, name)) for name in SIGNATURES} == SIGNATURES
    for name in mammolens.__all__:
        assert inspect.getdoc(getattr(mammolens, name)), name
    with pytest.raises(AttributeError, match="module 'mammolens' has no attribute 'foretell'"):
        _ = mammolens.foretell


def test_to_import_it_loads_nothing_heavy() -> None:
    heavy = ["numpy", "pandas", "PIL", "pydicom", "pydantic", "rich", "typer", "onnxruntime", "sklearn", "keras"]
    script = (
        "import sys, mammolens; from mammolens import load, train; dir(mammolens); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def drawn(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds ``phantoms``."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "phantoms").symlink_to(phantoms)
    return folder


@pytest.mark.parametrize("name", [*SIGNATURES, "Predictions"])
def test_examples_are_true(name: str, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(drawn)
    known = {"mammolens": mammolens, "numpy": np}
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(mammolens, name), name, globs=known)
    assert example.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return library.load(brightness.bundle(tmp_path_factory.mktemp("bundles") / "brightness").folder)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of a PNG and an archive, and beside it a DICOM file."""
    folder = tmp_path / "files"
    folder.mkdir()
    Image.fromarray(brightness.flat(204)).save(folder / "a.png")
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.write(folder / "a.png", "deep/c.png")
    stored = np.full((64, 48), 1024, np.uint16)
    save(tmp_path / "d.dcm", mammogram(stored, bits=12, PatientID="ann", ImageLaterality="L"))
    return folder


def test_whatever_holds_pictures_is_answered_in_order(model: Predictor, files: Path) -> None:
    dicom = files.parent / "d.dcm"
    in_memory = Image.fromarray(brightness.flat(51))
    given: list[Any] = [
        str(files),
        dicom,
        pydicom.dcmread(dicom),
        mammogram(np.full((64, 48), 1024, np.uint16), bits=12),
        brightness.flat(102),
        in_memory,
        Image.open(files / "a.png"),
        files / "gone.png",
        {"no": "picture"},
        np.zeros((3, 64, 48)),
        None,
        b"a.png",
    ]
    answers = model.predict(item for item in given)
    assert [str(answer.path) for answer in answers] == [
        *(f"{files}/{name}" for name in ("a.png", "b.zip/deep/c.png")),
        str(dicom),
        str(dicom),
        "data set 4",
        "array 5",
        "image 6",
        f"{files}/a.png",
        f"{files}/gone.png",
        "item 9",
        "array 10",
        "item 11",
        "item 12",
    ]
    probabilities = [answer.probability for answer in answers]
    assert probabilities[:8] == pytest.approx([0.8, 0.8, 0.25, 0.25, 0.25, 0.4, 0.2, 0.8], abs=1e-3)
    assert [answer.patient_id for answer in answers[2:4]] == ["ann", "ann"]
    assert probabilities[8:] == [None] * 5
    for answer in answers[8:]:
        assert answer.error is not None
        assert str(answer.path) in answer.error
    assert repr(answers) == "<13 predictions, 5 of them errors>"


def test_one_item_needs_no_list(model: Predictor, files: Path) -> None:
    path, array, dataset = files / "a.png", brightness.flat(204), pydicom.dcmread(files.parent / "d.dcm")
    alone: list[Any] = [path, str(path), array, Image.fromarray(array), dataset, BytesIO(b"x"), b"x", 7]
    assert [len(model.predict(item)) for item in alone] == [1] * len(alone)
    assert len(model.predict(files)) == 2
    assert len(model.predict([])) == 0
    assert model.predict(pd.Series([str(files / "a.png")]))[0].decision == "tumor"


def test_items_in_memory_go_to_other_processes(model: Predictor, files: Path) -> None:
    """More than are worked on in this one."""
    dataset = pydicom.dcmread(files.parent / "d.dcm")
    given: list[Any] = [Image.open(files / "a.png"), dataset, brightness.flat(102)] * 12
    assert [a.probability for a in model.predict(given)] == pytest.approx([0.8, 0.25, 0.4] * 12, abs=1e-3)


def test_what_cannot_go_to_another_process_stops_no_other(model: Predictor, files: Path) -> None:
    whole = (files / "a.png").read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(files / "noise.png")
    cut = Image.open(BytesIO((files / "noise.png").read_bytes()[:5000]))
    with (files / "a.png").open("rb") as opened:
        given: list[Any] = [cut, opened, lambda: whole, {"a": opened}, *[brightness.flat(204)] * 30]
        answers = model.predict(given)
    assert [answer.error is None for answer in answers] == [False] * 4 + [True] * 30
    assert all(str(answer.path) in str(answer.error) for answer in answers[:4])
    few = model.predict(given[:6])
    assert [answer.error is None for answer in few] == [False] * 4 + [True] * 2


def test_answers_are_those_of_the_command_line(mammolens: Typed, model: Predictor, files: Path, tmp_path: Path) -> None:
    paths = [files, tmp_path / "gone.png", tmp_path / "d.dcm"]
    words = ["--model", model.bundle.folder, "--level", "breast", "--point", "sensitivity-90", "--quiet"]
    mammolens("predict", *paths, *words, "--out", tmp_path / "typed.csv", "--overlay", tmp_path / "typed")
    answers = library.predict(
        paths, model.bundle.folder, level="breast", point="sensitivity-90", overlay=tmp_path / "called"
    )
    answers.save(tmp_path / "called.csv")
    typed, called = (tmp_path / f"{name}.csv" for name in ("typed", "called"))
    assert called.read_bytes() == typed.read_bytes()
    table, read = answers.to_frame(), pd.read_csv(typed)
    assert list(table.columns) == list(read.columns) == [*COLUMNS, "views"]
    for column in table.columns:
        assert table[column].dropna().tolist() == read[column].dropna().tolist(), column
    assert [str(table[name].dtype) for name in ("probability", "threshold", "uncertain")] == [
        "float64",
        "float64",
        "bool",
    ]
    drawn = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("typed", "called")]
    assert drawn[0] == drawn[1] != {}


def test_predictions_are_a_sequence_that_can_be_cut_and_shown(model: Predictor) -> None:
    answers = model.predict([brightness.flat(204), np.zeros(3), brightness.flat(51)])
    assert [answer.decision for answer in answers] == ["tumor", None, "no tumor"]
    assert isinstance(answers[1:], Predictions)
    assert len(answers[1:].to_frame()) == 2
    assert answers[-1] is answers[2]
    assert "no tumor" in answers._repr_html_()
    assert list(Predictions().to_frame().columns) == list(COLUMNS)


def test_maps_are_kept_or_not(model: Predictor) -> None:
    (kept,) = model.predict(brightness.flat(204))
    (left,) = model.predict(brightness.flat(204), maps=False)
    assert kept.score_map is not None
    assert (left.score_map, left.probability) == (None, kept.probability)


def test_a_point_or_level_that_is_not_there_is_refused_before_any_work(model: Predictor, tmp_path: Path) -> None:
    (answer,) = model.predict(brightness.flat(102), point="sensitivity-90", level="exam")
    assert (answer.decision, answer.threshold, answer.level) == ("tumor", 0.3, ServedLevel.EXAM)
    with pytest.raises(BundleError, match="no operating point 'best'; it has balanced"):
        model.predict("gone.png", point="best")
    with pytest.raises(DataError, match=r"no level 'voxel': expected image, breast, exam\.$"):
        model.predict("gone.png", level="voxel")
    with pytest.raises(DataError, match=r"no level 'patient'.* Say exam: a row an examination, each of one patient\."):
        model.predict("gone.png", level="patient")
    with pytest.raises(BundleError, match="not a run, a bundle or one of the models that ship"):
        library.load(tmp_path)
    plain = library.load(brightness.bundle(tmp_path / "plain", outputs=Outputs()).folder)
    with pytest.raises(BundleError, match="has no score map"):
        plain.predict(brightness.flat(9), overlay=tmp_path / "heat")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written here"):
        model.predict(brightness.flat(9), overlay=tmp_path / "file" / "heat")
    with pytest.raises(DataError, match="expected a name ending in"):
        model.predict([]).save(tmp_path / "answers.xlsx")


def test_a_run_answers_as_it_does_on_the_command_line(phantoms: Path, tmp_path: Path) -> None:
    changes = {key: json.loads(value) for key, _, value in (change.partition("=") for change in QUICK)}
    run = library.train(phantoms, "quick", out=tmp_path / "run", changes=changes | {"preprocess.preset": "breast"})
    assert run.recipe.preprocess.shape == (32, 32)
    assert run.record.data == str(phantoms)
    assert run.recipe == read_recipe("quick", [*QUICK, "preprocess.preset=breast"])
    paths = sorted((phantoms / "test").rglob("*.jpg"))[:3]
    answers = [library.predict(paths, model).to_frame() for model in (run, run.folder, str(run.folder / "bundle"))]
    assert answers[0].equals(answers[1])
    assert answers[0].equals(answers[2])
    with pytest.raises(RunError, match="exists already"):
        library.train(phantoms, out=run.folder)
    with pytest.raises(RecipeError, match="Did you mean 'epochs'"):
        library.train(phantoms, out=tmp_path / "other", changes={"epoch": 1})
    with pytest.raises(DataError, match="one was named: leave --also out"):
        library.train(phantoms, out=tmp_path / "other", also=phantoms)
    with pytest.raises(DataError, match="nowhere"):
        library.train(phantoms, out=tmp_path / "other", also=[phantoms, tmp_path / "nowhere"])


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"onnx not installed. Install with: pip install 'mammolens\[train\]'"):
        library.train("phantom:12", out=tmp_path / "run")


def test_a_data_set_is_examined_as_the_verb_does(mammolens: Typed, phantoms: Path) -> None:
    typed = json.loads(mammolens("doctor", phantoms, "--json", "--quiet").out)
    called = json.loads(library.examine(phantoms).model_dump_json())
    for diagnosis in (typed, called):
        assert diagnosis.pop("command").startswith(f"mammolens doctor {phantoms}")
    assert called == typed
    with pytest.raises(DataError, match="no such folder or file"):
        library.examine("nowhere")


def test_judging_needs_three_lists_alone() -> None:
    labels, probabilities = [0, 1] * 20, np.linspace(0, 1, 40)
    apart = library.judge(labels, probabilities, threshold=0.3)
    together = library.judge(labels, probabilities, [number // 4 for number in range(40)])
    assert apart.counts.patients == 40
    assert together.counts.patients == 10
    auc = apart.images.discrimination["roc_auc"]
    assert auc.value == together.images.discrimination["roc_auc"].value
    assert auc.low < auc.value < auc.high
    with pytest.raises(DataError, match="3 labels, 2 probabilities"):
        library.judge([0, 1, 1], [0.1, 0.2])


class Subclass(np.ndarray):
    """An array of a class that other processes do not know."""


def test_many_items_are_answered_as_few_are(model: Predictor, files: Path) -> None:
    whole, frames = BytesIO((files / "a.png").read_bytes()), BytesIO()
    picture = Image.open(whole)
    pixels = np.asarray(picture)
    picture.save(frames, "WEBP", save_all=True, append_images=[Image.new("L", picture.size)])
    odd: list[Any] = [pixels.view(Subclass), np.ma.masked_array(pixels, mask=pixels > 9), picture]
    odd += [Image.open(frames), object(), ""]
    few, many = model.predict(odd), model.predict([*odd, *["gone.png"] * 24])
    plain = [(one.probability, one.error) for one in few]
    assert plain == [(one.probability, one.error) for one in many[: len(odd)]]
    assert plain[0] == plain[2] == (model.predict(pixels)[0].probability, None)
    told = ("masked array", "", "holds 2 pictures", "is no image", "no name")
    for (_, error), said in zip(plain[1:], told, strict=True):
        assert said in (error or "")


def test_what_can_be_gone_through_is_not_always_several(model: Predictor, files: Path) -> None:
    names = np.array([str(path) for path in sorted(files.rglob("*.png"))[:2]])
    assert [str(one.path) for one in model.predict(names)] == names.tolist()
    for one_thing in (bytearray(9), memoryview(b"9"), pd.DataFrame({"path": ["a.png"]})):
        assert len(model.predict(one_thing)) == 1  # type: ignore[arg-type]


def test_an_opened_model_is_a_model(model: Predictor) -> None:
    assert library.load(model).operating_point == model.operating_point
    with pytest.raises(BundleError, match="5 is no model"):
        library.load(5)  # type: ignore[arg-type]


def test_to_serve_loads_no_library_of_curves_and_tables() -> None:
    script = "import sys, mammolens.serving.predictor; print([n for n in ('sklearn', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_patients_that_nobody_knows_are_not_one() -> None:
    report = library.judge([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], ["", "nan", None, float("nan")])
    assert report.counts.without_patient == 4
    for wrong in (5, np.zeros((4, 2))):
        with pytest.raises(DataError, match="no sequence of names"):
            library.judge([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="threshold is 'half'"):
        library.judge([0, 1], [0.1, 0.9], threshold="half")  # type: ignore[arg-type]
