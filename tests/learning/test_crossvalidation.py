import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.errors import DataError, RecipeError
from mammolens.learning.crossvalidation import CrossValidation, cross_validate
from mammolens.levels import Level
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.records import Split

CHANGES = ["preprocess.height=64", "preprocess.width=32", "epochs=1"]
UNSEEN = [*CHANGES, "monitor=nothing", "schedule=one_cycle"]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe("baseline", UNSEEN)


@pytest.fixture(scope="module")
def done(phantoms: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[CrossValidation, Path]:
    folder = tmp_path_factory.mktemp("cv") / "folds"
    listed = read_source(str(phantoms))
    return cross_validate(listed, recipe, folder, folds=2, name="phantoms"), folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_every_image_is_judged_once_and_patients_stay_together(
    done: tuple[CrossValidation, Path], phantoms: Path
) -> None:
    report, folder = done
    listed = read_source(str(phantoms))
    scores = rows(folder / "scores.csv")
    assert sorted(row["path"] for row in scores) == sorted(map(str, listed.paths))
    fold = {row["path"]: row["fold"] for row in scores}
    for patient in set(listed.patients):
        images = [m.path for m in listed if m.patient_key == patient]
        assert len({fold[str(path)] for path in images}) == 1
    assert (report.images, report.patients) == (len(listed), len(set(listed.patients)))


def test_the_figure_is_the_mean_of_the_folds(done: tuple[CrossValidation, Path]) -> None:
    report, folder = done
    by_fold = []
    for number in ("0", "1"):
        chosen = [row for row in rows(folder / "scores.csv") if row["fold"] == number]
        labels, scores = ([float(row[name]) for row in chosen] for name in ("label", "score"))
        by_fold.append(roc_auc_score(labels, scores))
    assert [f.value for f in report.folds[Level.IMAGE]] == pytest.approx(by_fold)
    figure = report.roc_auc[Level.IMAGE]
    assert figure.value == pytest.approx(np.mean(by_fold))
    assert figure.low <= figure.value <= figure.high
    written = json.loads((folder / "crossvalidation.json").read_text())
    assert CrossValidation.model_validate(written) == report


def test_folds_that_are_done_are_not_done_again(
    done: tuple[CrossValidation, Path], phantoms: Path, recipe: Recipe
) -> None:
    report, folder = done
    networks = {path: path.stat().st_mtime_ns for path in folder.glob("fold-*/breast.h5")}
    assert len(networks) == 2
    again = cross_validate(read_source(str(phantoms)), recipe, folder, folds=2, name="phantoms")
    assert again == report
    assert {path: path.stat().st_mtime_ns for path in networks} == networks


def test_scores_of_other_images_are_not_taken_for_these(
    done: tuple[CrossValidation, Path], phantoms: Path, recipe: Recipe
) -> None:
    with pytest.raises(DataError, match="other images"):
        cross_validate(read_source(str(phantoms)), recipe, done[1], folds=3)
    file = next(phantoms.rglob("*.jpg"))
    before = file.read_bytes()
    Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    try:
        with pytest.raises(DataError, match="other images"):
            cross_validate(read_source(str(phantoms)), recipe, done[1], folds=2)
    finally:
        file.write_bytes(before)


def test_every_fold_learns_from_the_other_data_set_and_none_is_judged_on_it(phantoms: Path, tmp_path: Path) -> None:
    """And scores that were learnt with it are not taken for scores without."""
    listed = read_source(str(phantoms))
    patients = sorted(set(listed.patients))
    rest = set(patients[: len(patients) // 2])
    main = listed.where(lambda m: m.patient_key not in rest)
    also = listed.where(lambda m: m.patient_key in rest)
    taught = {m.path for m in also if m.split is Split.TRAIN}
    assert 0 < len(taught) < len(also)
    of_boxes = ["initial_weights=none", "frozen_stages=4", "boxes=1", "also_images=4", "test_time_flips=false"]
    both = read_recipe("lesions", [*CHANGES, *of_boxes])
    cross_validate(main, both, tmp_path / "folds", folds=2, also=[also])
    judged = {row["path"] for row in rows(tmp_path / "folds" / "scores.csv")}
    assert judged == set(map(str, main.paths))
    for number in (0, 1):
        used = Manifest.load(tmp_path / "folds" / f"fold-{number}" / "manifest.csv")
        assert taught < set(used.of_split(Split.TRAIN).paths)
        assert len(used) == len(main) + len(taught)
    fewer = also.where(lambda m: m.path != next(iter(taught)))
    with pytest.raises(DataError, match="other images"):
        cross_validate(main, both, tmp_path / "folds", folds=2, also=[fewer])
    with pytest.raises(DataError, match="none was named: add --also DATA"):
        cross_validate(main, both, tmp_path / "folds", folds=2)


def test_with_another_cross_validation_the_mean_of_all_logits_is_judged(
    done: tuple[CrossValidation, Path], phantoms: Path, recipe: Recipe, tmp_path: Path
) -> None:
    listed = read_source(str(phantoms))
    other, sharper = tmp_path / "other", recipe.model_copy(update={"seed": 5})
    cross_validate(listed, sharper, other, folds=2)
    shutil.copytree(done[1], tmp_path / "both")
    report = cross_validate(listed, recipe, tmp_path / "both", folds=2, others=[other])
    first, second, both = (
        {row["path"]: float(row["score"]) for row in rows(folder / "scores.csv")}
        for folder in (done[1], other, tmp_path / "both")
    )
    for path, score in both.items():
        expected = (np.log(first[path] / (1 - first[path])) + np.log(second[path] / (1 - second[path]))) / 2
        assert np.log(score / (1 - score)) == pytest.approx(expected, abs=1e-6)
    assert report.roc_auc[Level.IMAGE].value != done[0].roc_auc[Level.IMAGE].value
    with pytest.raises(DataError, match="fold 1 has other images"):
        cross_validate(listed, recipe, tmp_path / "new", folds=3, others=[other])
    assert not (tmp_path / "new").exists()


def test_scores_of_another_recipe_are_not_taken_for_these(done: tuple[CrossValidation, Path], phantoms: Path) -> None:
    recipe = read_recipe("baseline", [*UNSEEN, "seed=1"])
    with pytest.raises(DataError, match="scores of another recipe"):
        cross_validate(read_source(str(phantoms)), recipe, done[1], folds=2)


def test_an_epoch_chosen_on_the_judged_fold_is_refused(phantoms: Path, tmp_path: Path) -> None:
    recipe = read_recipe("baseline", [*UNSEEN, "monitor=auc"])
    with pytest.raises(RecipeError, match="monitor=nothing"):
        cross_validate(read_source(str(phantoms)), recipe, tmp_path / "folds")
    assert not (tmp_path / "folds").exists()
