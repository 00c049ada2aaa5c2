"""A search on phantoms, whole; killed and gone on; and who is in no fold."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from PIL import Image

from conftest import Typed
from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.errors import DataError, RecipeError, RunError
from mammolens.judging.tuning import Tuning
from mammolens.learning.networks.builders import NETWORKS
from mammolens.learning.networks.folded import Network
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.records import Split
from mammolens.tuning.space import Start
from mammolens.tuning.study import open_study
from mammolens.tuning.sweep import Options, tune

START = Start(
    "quick",
    (
        *("monitor=nothing", "schedule=one_cycle", "epochs=2", "learning_rate=1e-5"),
        *("preprocess.height=16", "preprocess.width=16"),
    ),
)
OPTIONS = Options(trials=3, folds=2, held_out=0.3)

SPACE = """
learning_rate = {low=1e-4, high=1e-1, log=true}
optimizer = {choices=["adam", "adamw"]}
"""

Done = tuple[Tuning, Path]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def listed(phantoms: Path) -> Manifest:
    return read_source(str(phantoms))


@pytest.fixture(scope="module")
def done(listed: Manifest, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("tuning") / "sweep"
    return tune(listed, START, space, folder, OPTIONS, name="phantoms"), folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def learnt_paths(folder: Path) -> set[str]:
    return {row["path"] for path in folder.glob("trials/*/fold-*/scores.csv") for row in rows(path)}


def told(tuning: Tuning) -> str:
    """All that a search tells but for times."""
    trials = tuple(trial.model_copy(update={"seconds": None}) for trial in tuning.trials)
    return tuning.model_copy(update={"trials": trials}).model_dump_json()


def test_every_trial_is_told_of_and_the_best_of_the_complete_ones_wins(done: Done) -> None:
    tuning, folder = done
    assert [trial.number for trial in tuning.trials] == [0, 1, 2, 3]
    complete = [trial for trial in tuning.trials if trial.state == "complete"]
    assert tuning.trials[0] in complete
    assert all(trial.folds == 2 for trial in complete)
    assert all(trial.folds == 1 for trial in tuning.trials if trial.state == "stopped")
    scores = {trial.number: trial.roc_auc.value for trial in complete if trial.roc_auc}
    assert tuning.best == max(scores, key=scores.__getitem__)
    table = rows(folder / "trials.csv")
    assert [row["state"] for row in table] == [trial.state for trial in tuning.trials]
    assert float(table[1]["learning_rate"]) == tuning.trials[1].settings["learning_rate"]
    written = (folder / "tuning.json").read_text()
    assert told(Tuning.model_validate_json(written)) == told(tuning)


def test_the_best_recipe_is_one_that_train_takes(done: Done, phantoms: Path, tmp_path: Path, mammolens: Typed) -> None:
    tuning, folder = done
    best = read_recipe(str(folder / "best.toml"))
    assert best == START.recipe(tuning.winner.settings).model_copy(update={"name": "quick-tuned"})
    said = mammolens("train", phantoms, "--recipe", folder / "best.toml", "--out", tmp_path / "run", "--quiet")
    assert said.code == 0, said.err


def test_the_page_and_figures_say_what_json_says(done: Done) -> None:
    tuning, folder = done
    page = (folder / "tuning.html").read_text()
    assert tuning.held_out
    assert f"{tuning.held_out.difference.value:.3f}".replace("-", "−") in page
    assert "Nobody was held out" not in page
    assert all(f'<th scope="row">{trial.number}</th>' in page for trial in tuning.trials)
    assert (folder / "figures" / "trials.png").is_file()
    assert "http" not in page.replace("http-equiv", "")


def test_the_test_split_is_in_no_fold_and_who_is_held_out_neither(done: Done, listed: Manifest) -> None:
    tuning, folder = done
    patient = {str(m.path): m.patient_key for m in listed}
    tested = {m.patient_key for m in listed if m.split is Split.TEST}
    assert tuning.test_images == sum(m.patient_key in tested for m in listed) > 0

    def whose(folders: str) -> set[str]:
        return {patient[row["path"]] for path in folder.glob(f"{folders}/scores.csv") for row in rows(path)}

    def learnt_from(folders: str) -> set[str]:
        paths = folder.glob(f"{folders}/manifest.csv")
        return {m.patient_key for path in paths for m in Manifest.load(path).of_split(Split.TRAIN)}

    inner, outer = whose("trials/*/fold-*"), whose("held-out/*")
    assert inner == learnt_from("trials/*/fold-*") == learnt_from("held-out/*")
    assert inner | outer == set(patient.values()) - tested
    assert not inner & outer
    assert tuning.held_out is not None
    assert tuning.held_out.patients == len(outer)


def test_what_is_done_is_not_done_again(done: Done, listed: Manifest, space: Path) -> None:
    tuning, folder = done
    scores = [*folder.glob("trials/*/fold-*/scores.csv"), *folder.glob("held-out/*/scores.csv")]
    before = {path: path.stat().st_mtime_ns for path in scores}
    assert told(tune(listed, START, space, folder, OPTIONS, name="phantoms")) == told(tuning)
    assert {path: path.stat().st_mtime_ns for path in scores} == before
    assert not list(folder.rglob("*.h5")), "networks that nobody asks for"


def test_a_search_for_something_else_is_not_gone_on_with(done: Done, listed: Manifest, space: Path) -> None:
    with pytest.raises(RunError, match="with other folds"):
        tune(listed, START, space, done[1], replace(OPTIONS, folds=3))
    other = Start(START.name, (*START.changes, "seed=1"))
    with pytest.raises(RunError, match="with other recipe"):
        tune(listed, other, space, done[1], OPTIONS)


def test_images_that_hold_something_else_are_other_images(
    done: Done, phantoms: Path, space: Path, tmp_path: Path
) -> None:
    """Though their names, labels and patients are the same."""
    shutil.copytree(phantoms, tmp_path / "phantoms")
    changed = next((tmp_path / "phantoms").rglob("*.jpg"))
    Image.open(changed).transpose(Image.Transpose.ROTATE_180).save(changed)
    with pytest.raises(RunError, match="with other images"):
        tune(read_source(str(tmp_path / "phantoms")), START, space, done[1], OPTIONS)


def test_what_is_no_search_is_left_alone(listed: Manifest, space: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "best.toml").write_text("mine")
    with pytest.raises(RunError, match=r"mine: holds best\.toml, and no search"):
        tune(listed, START, space, tmp_path / "mine", OPTIONS)
    assert (tmp_path / "mine" / "best.toml").read_text() == "mine"
    (tmp_path / "mine" / "study.sqlite3").write_text("no database, whatever it is called")
    with pytest.raises(RunError, match=r"study\.sqlite3: cannot be opened \(file is not a database\)"):
        tune(listed, START, space, tmp_path / "mine", OPTIONS)


def test_a_study_lies_where_it_is_said_to(tmp_path: Path) -> None:
    folder = tmp_path / "what? {50 % of} ü"
    folder.mkdir()
    study = open_study(folder / "study.sqlite3", {"seed": 1}, 1)
    study.add_trial(optuna.trial.create_trial(value=0.5))
    assert [path.name for path in folder.iterdir()] == ["study.sqlite3"]
    assert len(open_study(folder / "study.sqlite3", {"seed": 1}, 1).trials) == 1


def test_a_patient_of_the_test_split_without_a_label_there_is_in_no_fold(
    listed: Manifest, space: Path, tmp_path: Path
) -> None:
    tested = next(m.patient_key for m in listed if m.split is Split.TEST)
    own = [m for m in listed if m.patient_key == tested]
    moved = {m.path: replace(m, split=Split.TRAIN) for m in own[1:]} | {own[0].path: replace(own[0], label=None)}
    mixed = Manifest(tuple(moved.get(m.path, m) for m in listed))
    tuning = tune(mixed, START, space, tmp_path / "sweep", replace(OPTIONS, trials=1, held_out=0))
    assert not {m.patient_key for m in mixed if str(m.path) in learnt_paths(tmp_path / "sweep")} & {tested}
    assert tuning.test_images == sum(m.split is Split.TEST for m in listed) - 1


KILLED = """
import os, signal, sys
from pathlib import Path
from mammolens.learning import crossvalidation
from test_sweep import OPTIONS, START
from mammolens.data.sources import read_source
from mammolens.tuning.sweep import tune

data, space, folder, count = sys.argv[1:]
write, left = crossvalidation._write_scores, [int(count)]

def down(path, judged):
    write(path, judged)
    left[0] -= path.parent.name.startswith("fold")
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

crossvalidation._write_scores = down
tune(read_source(data), START, Path(space), Path(folder), OPTIONS)
"""


def test_after_kills_it_ends_as_if_there_had_been_none(
    done: Done, phantoms: Path, listed: Manifest, space: Path, tmp_path: Path
) -> None:
    """In the first trial, between its folds; and in the one after."""
    for count in (3, 2):
        words = [phantoms, space, tmp_path / "sweep", count]
        places = [Path(__file__).parent, Path(__file__).parents[1], Path(__file__).parents[2] / "src"]
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, *map(str, words)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))},
            check=False,
            capture_output=True,
        )
        assert ended.returncode == -9, ended.stderr.decode()
    tuning = tune(listed, START, space, tmp_path / "sweep", OPTIONS, name="phantoms")
    assert told(tuning) == told(done[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('normalisation = {choices=["batch", "folded"]}', "cannot be folded"),
        ("boxes = {choices=[0.0, 1.0]}", "has no score map"),
        ('network = {choices=["baseline_cnn", "too_large"]}', "failed (no memory for it)"),
    ],
)
def test_settings_that_nothing_is_learnt_with_are_told_of_and_stop_nothing(
    text: str, said: str, listed: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without patients held out, the page warns."""

    def too_large(recipe: Recipe) -> Network:  # noqa: ARG001 - as builders have it
        raise MemoryError("no memory for it")

    monkeypatch.setitem(NETWORKS, "too_large", too_large)
    space = tmp_path / "space.toml"
    space.write_text(text)
    tuning = tune(listed, START, space, tmp_path / "sweep", replace(OPTIONS, trials=4, held_out=0))
    (refused,) = [trial for trial in tuning.trials if trial.state == "refused"]
    assert said in refused.why
    assert len(tuning.trials) <= 3, "no settings are tried twice"
    assert tuning.held_out is None
    assert "Nobody was held out" in (tmp_path / "sweep" / "tuning.html").read_text()


def test_a_recipe_that_looks_at_the_judged_fold_is_refused(listed: Manifest, space: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Add --set monitor=nothing --set schedule=one_cycle, and set epochs"):
        tune(listed, Start("quick"), space, tmp_path / "sweep", OPTIONS)
    with pytest.raises(RecipeError, match=r"the learning rate .* Add --set schedule=one_cycle, and set epochs"):
        tune(listed, Start("quick", ("monitor=nothing",)), space, tmp_path / "sweep", OPTIONS)
    assert not (tmp_path / "sweep").exists()


def test_too_few_to_be_held_out_are_told_of_before_any_trial(listed: Manifest, space: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with --held-out 0\.08, split 'valid' has .* at least 4"):
        tune(listed, START, space, tmp_path / "sweep", replace(OPTIONS, held_out=0.08))
    assert not (tmp_path / "sweep" / "trials").exists()


def test_more_folds_than_patients_are_told_of(listed: Manifest, space: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^by 40 --folds, only \d+ patients have label 0; at least 40 are needed"):
        tune(listed, START, space, tmp_path / "sweep", replace(OPTIONS, folds=40, held_out=0))


def test_a_space_that_will_not_do_is_told_of_before_data_are_read(tmp_path: Path, mammolens: Typed) -> None:
    changes = [word for change in START.changes for word in ("--set", change)]
    words = ("--recipe", "quick", *changes, "--space", tmp_path / "gone.toml", "--out", tmp_path / "sweep")
    said = mammolens("tune", tmp_path / "no data", *words)
    assert (said.code, f"{tmp_path}/gone.toml: no such file" in said.err) == (1, True), said.err
    assert not (tmp_path / "sweep").exists()


def test_the_command_tells_what_the_best_is_worth(done: Done, phantoms: Path, space: Path, mammolens: Typed) -> None:
    tuning, folder = done
    changes = [word for change in START.changes for word in ("--set", change)]
    said = mammolens(
        *("tune", phantoms, "--recipe", "quick", *changes, "--space", space, "--out", folder, "--quiet"),
        *("--trials", 4, "--folds", 2, "--held-out", 0.3),
    )
    assert said.code == 0, said.err
    assert tuning.winner.roc_auc
    assert f"{tuning.winner.roc_auc.value:.3f}" in said.out
    assert "images of patients of the test split were left alone" in said.out
    more = json.loads((folder / "tuning.json").read_text())
    assert len(more["trials"]) == 5, "a search goes on where more is asked for"
    assert more["trials"][:4] == json.loads(tuning.model_dump_json())["trials"]
