"""The verbs that use a model, and the one that makes a bundle: run as typed, in this process."""

import csv
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_dicom import mammogram, save

import brightness
from conftest import Typed
from mammolens.judging.predictions import read_predictions
from mammolens.learning.runs import Run
from mammolens.levels import Level
from mammolens.model.bundle import Outputs, open_bundle
from mammolens.records import LABEL_NAMES
from mammolens.reports.answers import COLUMNS


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return brightness.bundle(tmp_path / "brightness").folder


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of a PNG, a DICOM file without suffix, an archive, and a text that is no image."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.fromarray(brightness.flat(204)).save(folder / "a.png")
    (folder / "b.png").write_text("no image")
    stored = np.full((64, 48), 1024, np.uint16)
    save(folder / "c", mammogram(stored, bits=12, PatientID="ann", ImageLaterality="L"))
    with zipfile.ZipFile(folder / "d.zip", "w") as archive:
        archive.write(folder / "a.png", "deep/e.png")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_predict_answers_all_that_people_have(mammolens: Typed, bundle: Path, mixed: Path, tmp_path: Path) -> None:
    names = [mixed / name for name in ("a.png", "b.png", "c", "d.zip/deep/e.png")]
    gone = tmp_path / "gone.png"
    said = mammolens("predict", mixed, gone, "--model", bundle, "--out", tmp_path / "a.csv", "-q")
    assert said.code == 1
    assert "warning: 2 of 5 inputs got no answer" in said.err
    assert f"{mixed}/b.png" in said.out
    assert "not an image" in said.out
    assert f"Answers written to {tmp_path}/a.csv" in said.out
    rows = rows_of(tmp_path / "a.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert [row["path"] for row in rows] == [str(name) for name in [*names, gone]]
    assert [row["decision"] for row in rows] == ["tumor", "", "no tumor", "tumor", ""]
    assert [bool(row["error"]) for row in rows] == [False, True, False, False, True]
    assert (rows[2]["patient_id"], rows[2]["laterality"]) == ("ann", "L")
    assert float(rows[2]["probability"]) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_every_format_has_the_same_answers(
    mammolens: Typed, bundle: Path, mixed: Path, tmp_path: Path, suffix: str
) -> None:
    for ending in ("csv", suffix):
        out = tmp_path / f"answers.{ending}"
        assert mammolens("predict", mixed, "--model", bundle, "--out", out, "-q").code == 1
    read = pd.read_json if suffix == "json" else pd.read_parquet
    other = read(tmp_path / f"answers.{suffix}")
    table = pd.read_csv(tmp_path / "answers.csv")
    assert list(other["path"]) == list(table["path"])
    assert list(other["decision"].dropna()) == list(table["decision"].dropna())
    np.testing.assert_array_equal(other["probability"], table["probability"])


def test_predict_ends_well_where_all_got_an_answer(mammolens: Typed, run: Run, tmp_path: Path) -> None:
    images = run.manifest.paths[:3]
    written: list[list[dict[str, str]]] = []
    for model in (run.folder, run.folder / "bundle"):
        out = tmp_path / f"{len(written)}.csv"
        said = mammolens("predict", *images, "--model", model, "--out", out, "--quiet")
        assert said.code == 0
        assert "learnt from synthetic mammograms only" in said.err
        assert "Probability of the image, operating point fixed" in said.out
        assert "Research use only" in said.out
        written.append(rows_of(out))
    assert written[0] == written[1]
    assert all(row["decision"] in LABEL_NAMES for row in written[0])


def test_predict_answers_without_a_model_by_the_one_that_ships(mammolens: Typed, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "answers.json"
    said = mammolens("predict", run.manifest.paths[0], "--out", out, "--quiet")
    assert said.code == 0
    assert "synthetic" not in said.err
    assert len(json.loads(out.read_text())) == 1


def test_predict_by_breast_says_so(mammolens: Typed, bundle: Path, mixed: Path) -> None:
    said = mammolens("predict", mixed / "c", "--model", bundle, "--level", "breast", "-q")
    assert said.code == 0
    assert "Probability of the breast, operating point balanced" in said.out
    said = mammolens("predict", mixed / "a.png", "--model", bundle, "--level", "exam", "-q")
    assert "Probability of the exam" in said.out
    assert "side of a.png is not known" in said.out
    said = mammolens("predict", mixed / "a.png", "--model", bundle, "--level", "patient", "-q")
    assert said.code == 2
    assert "Say exam" in said.err


def test_predict_draws_where_the_network_looked(mammolens: Typed, bundle: Path, mixed: Path, tmp_path: Path) -> None:
    heat = tmp_path / "heat"
    said = mammolens("predict", mixed, "--model", bundle, "--overlay", heat, "--quiet")
    assert said.code == 1
    assert f"Heatmaps, not lesion outlines, written to {heat}" in said.out
    names = {"00001-a.png", "00003-c.png", "00004-e.png"}
    assert {path.name for path in heat.iterdir()} == names
    with Image.open(heat / "00001-a.png") as picture:
        assert picture.height > 64


def test_heatmaps_need_a_network_that_has_a_map(mammolens: Typed, mixed: Path, tmp_path: Path) -> None:
    plain = brightness.bundle(tmp_path / "plain", outputs=Outputs()).folder
    heat = tmp_path / "heat"
    said = mammolens("predict", mixed, "--model", plain, "--overlay", heat)
    assert (said.code, said.out) == (1, "")
    assert "has no score map. Leave out --overlay" in said.err
    assert not heat.exists()


def test_predict_decides_at_the_point_that_is_named(mammolens: Typed, bundle: Path, mixed: Path) -> None:
    arguments = ["predict", mixed / "c", "--model", bundle, "--quiet", "--point"]
    assert "operating point sensitivity-90" in mammolens(*arguments, "sensitivity-90").out
    said = mammolens(*arguments, "best")
    assert said.code == 1
    assert "error: " in said.err
    assert "no operating point 'best'; it has balanced" in said.err


def test_an_unknown_ending_is_refused_before_any_work(
    mammolens: Typed, bundle: Path, mixed: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    out, heat = tmp_path / "answers.xlsx", tmp_path / "heat"
    said = mammolens("predict", mixed, "--model", bundle, "--out", out, "--overlay", heat)
    assert (said.code, said.out) == (1, "")
    assert "expected a name ending in .csv, .json, .parquet" in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_names_are_printed_as_they_are(mammolens: Typed, bundle: Path, tmp_path: Path) -> None:
    strange = tmp_path / "[red]x[" / "red] ü.png"
    strange.parent.mkdir()
    Image.fromarray(brightness.flat(204)).save(strange)
    out = tmp_path / "[bold]y.csv"
    said = mammolens("predict", strange, "--model", bundle, "--out", out, "--quiet")
    assert said.code == 0
    assert str(strange) in said.out
    assert f"Answers written to {out}" in said.out
    assert "[/link]z: no such file" in mammolens("show", "[/link]z", "--model", bundle).err
    old = tmp_path / os.fsdecode(b"m\xe4dchen.png")
    strange.rename(old)
    said = mammolens("show", old, "--model", bundle, "--out", tmp_path / "seen.png")
    assert said.code == 0
    assert "dchen.png" in said.out


def test_show_says_what_was_read_and_draws_it(
    mammolens: Typed, bundle: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = mammolens("show", mixed / "c", "--model", bundle)
    assert said.code == 0
    facts = dict(line.split(maxsplit=1) for line in said.out.splitlines())
    assert facts["file"] == str(mixed / "c")
    assert facts["format"].startswith("DICOM")
    assert facts["size"] == "48 x 64 pixels"
    assert facts["depth"] == "12 bits, grey"
    assert facts["laterality"] == "L"
    assert facts["view"] == "unknown"
    with Image.open(tmp_path / "c-seen.png") as picture:
        assert picture.format == "PNG"
    said = mammolens("show", mixed / "b.png", "--model", bundle)
    assert said.code == 1
    assert "b.png: not an image" in said.err


def saved(path: Path) -> Path:
    """A network that somebody trained with Keras alone."""
    import keras  # noqa: PLC0415 - no other test here needs it
    from keras import layers  # noqa: PLC0415

    head = [layers.Flatten(), layers.Dense(1, activation="sigmoid")]
    keras.Sequential([keras.Input((32, 32, 1)), *head]).save(path)
    return path


def test_export_makes_a_bundle_that_answers(mammolens: Typed, tmp_path: Path, mixed: Path, phantoms: Path) -> None:
    network = saved(tmp_path / "mine.keras")
    raw, calibrated = tmp_path / "raw", tmp_path / "calibrated"
    said = mammolens("export", network, raw, "--quiet")
    assert said.code == 0, said.err
    assert "warning: not calibrated: give --data" in said.err
    assert f"Bundle written to {raw}: " in said.out
    assert "Outputs: probability, score map. Operating points: fixed." in said.out
    assert open_bundle(raw).record.name == "mine"
    said = mammolens("predict", mixed / "a.png", "--model", raw, "--quiet")
    assert "this model is not calibrated" in said.err
    data = ["--data", phantoms, "--name", "ours", "--licence", "CC0-1.0", "--half", "--quiet"]
    said = mammolens("export", network, calibrated, *data)
    assert (said.code, said.err) == (0, "")
    record = open_bundle(calibrated).record
    assert (record.name, record.licence) == ("ours", "CC0-1.0")
    assert "balanced, sensitivity-90, specificity-90" in said.out
    assert set(record.operating_points) == set(Level)
    said = mammolens("export", tmp_path / "gone.h5", tmp_path / "new")
    assert said.code == 1
    assert "gone.h5: no such file" in said.err
    assert said.err.count("\n") == 1


def test_evaluate_of_a_bundle_needs_to_be_told_its_data(
    mammolens: Typed, run: Run, phantoms: Path, tmp_path: Path
) -> None:
    said = mammolens("evaluate", run.folder / "bundle", "--quiet")
    assert said.code == 1
    assert "a bundle does not hold its data set. Name one: --data DATA" in said.err
    out = tmp_path / "report"
    arguments = ["--data", phantoms, "--split", "valid", "--point", "balanced", "--out", out, "-q"]
    said = mammolens("evaluate", run.folder / "bundle", *arguments)
    assert said.code == 0, said.err
    report = json.loads((out / "report.json").read_text())
    points = open_bundle(run.folder / "bundle").record.operating_points[Level.IMAGE]
    decision = report["levels"]["image"]["decisions"]["balanced"]
    assert decision["threshold"] == points["balanced"].threshold
    found = decision["measures"]["sensitivity"]["value"]
    assert found == pytest.approx(points["balanced"].sensitivity.value)
    assert len(read_predictions(out)[0]) == report["counts"]["images"]


@pytest.mark.parametrize("verb", [["train", "phantom:12"], ["export", "a.h5", "b"]])
def test_what_needs_the_training_extra_says_how_to_get_it(
    mammolens: Typed, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = mammolens(*verb)
    assert said.code == 1
    assert said.err == ("error: onnx not installed. Install with: pip install 'mammolens[train]'\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "a.png", "--level", "voxel"],
        ["predict", "a.png", "--threshold", "0.5"],
        ["show"],
        ["export", "a.h5"],
        ["app", "--port", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2(mammolens: Typed, arguments: list[str]) -> None:
    assert mammolens(*arguments).code == 2


def test_a_run_has_its_own_recipe(mammolens: Typed, run: Run, tmp_path: Path) -> None:
    said = mammolens("export", run.folder, tmp_path / "out", "--recipe", "quick")
    assert said.code == 2
    assert "a run has its own recipe" in said.err
    assert not (tmp_path / "out").exists()
