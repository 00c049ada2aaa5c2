import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_dicom import gradient, save
from test_dicom import mammogram as dicom_of

from conftest import Typed
from mammolens.records import LABEL_NAMES


def test_evaluate_prints_and_writes_the_same_figures(mammolens: Typed, copied: Path) -> None:
    answer = mammolens("evaluate", copied, "--quiet")
    assert answer.code == 0, answer.err
    report = json.loads((copied / "evaluation" / "test" / "report.json").read_text())
    images = report["levels"]["image"]
    assert f"{images['discrimination']['roc_auc']['value']:.3f} (" in answer.out
    assert f"{100 * images['majority_accuracy']:.1f} %" in answer.out
    assert report["command"] == f"mammolens evaluate {copied} --quiet"


def test_evaluate_judges_another_data_set_beside_the_run(mammolens: Typed, copied: Path, tmp_path: Path) -> None:
    listed = mammolens("manifest", "phantom:12", tmp_path / "other.csv")
    assert listed.code == 0, listed.err
    options = ["--split", "all", "--no-pictures", "--quiet"]
    answer = mammolens("evaluate", copied, "--data", tmp_path / "other.csv", *options)
    assert answer.code == 0, answer.err
    folder = copied / "evaluation" / "other-all"
    report = json.loads((folder / "report.json").read_text())
    assert report["counts"]["images"] == 48
    assert report["split"] is None
    page = (folder / "report.html").read_text()
    assert "<img" not in page
    assert Path(report["mistakes"][0]["path"]).name not in page, "names of files may be those of patients"
    assert not Path(report["mistakes"][0]["path"]).is_absolute()


def test_any_systems_scores_are_judged_and_two_reports_compared(
    mammolens: Typed, copied: Path, phantoms: Path, tmp_path: Path
) -> None:
    images = [p for split in ("valid", "test") for p in sorted((phantoms / split).rglob("*.jpg"))]
    table = tmp_path / "theirs.csv"
    rows = [f"{path.name},{0.8 if path.parent.name == '1' else 0.3}" for path in images]
    table.write_text("\n".join(["path,probability", *rows]) + "\n")
    theirs = tmp_path / "theirs"
    answer = mammolens("evaluate", "--predictions", table, "--data", phantoms, "--out", theirs)
    assert answer.code == 0, answer.err
    report = json.loads((theirs / "report.json").read_text())
    assert report["levels"]["image"]["discrimination"]["roc_auc"]["value"] == 1
    assert report["default_point"] == "balanced"  # chosen on the scores of validation
    ours = tmp_path / "ours"
    answer = mammolens("evaluate", copied, "--out", ours, "--robustness", 8, "--quiet")
    assert answer.code == 0, answer.err
    report = json.loads((ours / "report.json").read_text())
    assert report["robustness"][0]["change"] == "unchanged"
    assert report["localisation"]["images"] > 0
    assert report["map_correlation"] < 0.9
    assert (ours / "report.html").read_text().count("<img") == len(report["mistakes"])
    answer = mammolens("compare", ours, theirs, "--out", tmp_path / "comparison.json")
    assert answer.code == 0, answer.err
    found = json.loads((tmp_path / "comparison.json").read_text())["levels"]["image"]
    assert found["second"]["value"] == 1
    assert f"{found['difference']['value']:.3f}" in answer.out


def test_predict_answers_everything_and_fails_if_anything_failed(
    mammolens: Typed, copied: Path, phantoms: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    images = sorted((phantoms / "test" / "0").iterdir())
    out = tmp_path / "predictions.csv"
    answer = mammolens("predict", phantoms / "test" / "0", text, "--model", copied, "--out", out)
    assert answer.code == 1
    assert "1 of" in answer.err
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [str(path) for path in (*images, text)]
    assert all(row["decision"] in LABEL_NAMES and not row["error"] for row in rows[:-1])
    assert (rows[-1]["probability"], rows[-1]["decision"]) == ("", "")
    assert str(text) in rows[-1]["error"]


def test_files_of_a_table_that_are_not_there_are_named(mammolens: Typed, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "data.csv").write_text("path,label\na.png,0\ngone.png,1\n")
    answer = mammolens("manifest", tmp_path / "data.csv", tmp_path / "out.csv")
    assert answer.code == 1
    assert f"missing: {tmp_path}/gone.png: no such file" in answer.err
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_manifest_writes_splits_by_patient(mammolens: Typed, phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "data.csv"
    answer = mammolens("manifest", phantoms, out, "--splits", "patient", "--seed", 4)
    assert answer.code == 0, answer.err
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 120
    splits_by_patient: dict[str, set[str]] = {}
    for row in rows:
        splits_by_patient.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in splits_by_patient.values())
    assert "no known patient" not in answer.err


def test_splits_of_images_of_no_known_patient_are_said_aloud(mammolens: Typed, tmp_path: Path) -> None:
    for number in range(24):
        path = tmp_path / "set" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    command = ("manifest", tmp_path / "set", tmp_path / "data.csv")
    answer = mammolens(*command, "--splits", "patient")
    assert answer.code == 0, answer.err
    assert "24 of 24 images are of no known patient" in answer.err
    assert "no known patient" not in mammolens(*command).err


def test_a_file_in_a_run_is_exported_with_the_recipe_of_the_run(
    mammolens: Typed, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = shutil.copy(copied / "recipe.toml", tmp_path)
    shutil.copy(copied / "breast.h5", tmp_path)
    Path(recipe).write_text(Path(recipe).read_text().replace('"stretch"', '"letterbox"'))
    answer = mammolens("export", "breast.h5", "bundle")
    assert answer.code == 0, answer.err
    assert "Pictures are prepared as recipe.toml says" in answer.out
    record = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert record["preprocess"]["fit"] == "letterbox"
    (tmp_path / "recipe.toml").unlink()
    assert "prepared whole" in mammolens("export", "breast.h5", "other").out


def test_what_is_left_out_is_named_and_in_the_exit_code(mammolens: Typed, tmp_path: Path) -> None:
    for number, name in enumerate(("0/IM1", "0/IM2", "1/more/IM3")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / "set" / name, dicom_of(gradient(12) >> number, bits=12))
    out = tmp_path / "data.csv"
    assert mammolens("manifest", tmp_path / "set", out).code == 0
    (tmp_path / "set" / "1" / "x.heic").touch()
    (tmp_path / "set" / "1" / "Thumbs.db").touch()
    answer = mammolens("manifest", tmp_path / "set", out)
    assert answer.code == 1
    assert f"left out: {tmp_path}/set/1/x.heic: is an HEIC or AVIF picture" in answer.err
    assert "Thumbs.db" not in answer.err
    assert len(out.read_text().splitlines()) == 4
    answer = mammolens("doctor", tmp_path / "set", "--json", "--quiet")
    assert answer.code == 1
    found = {one["code"]: one for one in json.loads(answer.out)["findings"]}
    assert found["left_out"]["files"] == [str(tmp_path / "set" / "1" / "x.heic")]
    assert "unreadable" not in found


def test_scores_are_judged_where_no_image_is(mammolens: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{n}.png,{('normal', 'cancer')[n % 2]},p{n // 2}" for n in range(12)]
    (tmp_path / "data.csv").write_text("\n".join(["path,label,patient_id", *rows]) + "\n")
    scores = [f"{n}.png,{0.2 + 0.05 * (n % 3) + 0.3 * (n % 2)}" for n in range(11)]
    (tmp_path / "theirs.csv").write_text("\n".join(["path,probability", *scores, "x.png,1"]) + "\n")
    options = ["--data", "data.csv", "--split", "all", "--out", "report"]
    answer = mammolens("evaluate", "--predictions", "theirs.csv", *options)
    assert answer.code == 0, answer.err
    assert "not-chosen" in answer.out
    for said in (
        "1 image with no row in the table of scores: 11.png",
        "no image of the data set: x",
    ):
        assert said in answer.err


def test_a_leaking_split_is_said_aloud(mammolens: Typed, rsna_breast: Path, tmp_path: Path) -> None:
    answer = mammolens("manifest", rsna_breast, tmp_path / "data.csv")
    assert answer.code == 0
    assert "207 of 225 patients (241 of 266 images) in 'test' are in 'train' too" in answer.err


def test_preview_draws_what_the_network_will_see(mammolens: Typed, phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    answer = mammolens("preview", phantoms, out, "--set", "preprocess.preset=breast", "--images", 6)
    assert answer.code == 0, answer.err
    assert out.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "missing"], "missing: no such folder or file"),
        (["train", "phantom:12", "--set", "epoch=1"], "Did you mean 'epochs'"),
        (["train", "phantom:12", "--recipe", "best"], "no recipe 'best'"),
        (["evaluate", "missing"], "missing: not a run, a bundle or one of the models that ship"),
        (["predict", "a.png", "--model", "missing"], "missing: not a run, a bundle or one of"),
        (["predict", "a.png", "--model", "my.h5"], "mammolens export my.h5 BUNDLE"),
        (["phantom", "out", "--patients", "1"], "at least 3"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    mammolens: Typed, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = mammolens(*arguments)
    assert answer.code == 1
    assert said in answer.err
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["evaluate", "run", "--split", "holdout"],
        ["evaluate"],
        ["evaluate", "run", "--predictions", "scores.csv"],
        ["evaluate", "--predictions", "s.csv", "--data", "d", "--out", "o", "--robustness", "9"],
        ["evaluate", "--predictions", "scores.csv"],
        ["fly"],
    ],
)
def test_wrong_usage_is_exit_code_2(mammolens: Typed, arguments: list[str]) -> None:
    assert mammolens(*arguments).code == 2


def test_the_doctor_reports_mends_and_fails_on_errors(mammolens: Typed, phantoms: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "set"
    shutil.copytree(phantoms, spoilt)
    victim = min((spoilt / "train" / "0").iterdir())
    victim.write_bytes(b"")
    mended, report = tmp_path / "mended.csv", tmp_path / "report"
    answer = mammolens("doctor", spoilt, "--out", report, "--mend", mended, "--json", "--quiet")
    assert answer.code == 1
    findings = json.loads(answer.out)["findings"]
    assert findings[0]["code"] == "unreadable"
    assert findings[0]["files"] == [str(victim)]
    assert json.loads((report / "findings.json").read_text()) == json.loads(answer.out)
    assert "cannot be read" in (report / "report.html").read_text()
    again = mammolens("doctor", mended, "--quiet")
    assert again.code == 0, again.out
    quick = ["--set", "epochs=1", "--set", "preprocess.height=32", "--set", "preprocess.width=32"]
    command = [sys.executable, "-m", "mammolens", "train", str(mended), *quick, "--out", str(tmp_path / "run")]
    trained = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "120"})
    assert trained.returncode == 0, trained.stderr
    assert "epoch   1" in trained.stderr
    assert "1 kept" in trained.stdout
