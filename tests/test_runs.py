from pathlib import Path

import pytest

from mammolens.errors import RunError
from mammolens.manifest import Manifest
from mammolens.recipe import Recipe
from mammolens.records import Split
from mammolens.runs import open_run, record_manifest, start_run


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        open_run(tmp_path / "missing")
    with pytest.raises(RunError, match=r"it holds no run\.json"):
        open_run(tmp_path)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(RunError, match="its training did not end"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(RunError, match="not written by this version"):
        open_run(tmp_path)


def test_a_new_run_goes_into_a_new_or_empty_folder(tmp_path: Path) -> None:
    start_run(tmp_path / "a" / "new", Recipe())
    start_run(tmp_path / "a" / "new", Recipe())
    assert [path.name for path in (tmp_path / "a" / "new").iterdir()] == ["recipe.toml"]


def unfinished(folder: Path) -> None:
    """What a training that was interrupted leaves."""
    (folder / "recipe.toml").write_text(Recipe().to_toml(), encoding="utf-8")
    (folder / "history.csv").touch()
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "latest.weights.h5").touch()


def test_an_unfinished_run_of_the_same_recipe_is_gone_on_with(tmp_path: Path) -> None:
    unfinished(tmp_path)
    start_run(tmp_path, Recipe())
    assert (tmp_path / "checkpoint" / "latest.weights.h5").exists()


def test_an_unfinished_run_of_another_recipe_is_removed(tmp_path: Path) -> None:
    unfinished(tmp_path)
    start_run(tmp_path, Recipe(epochs=7))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_checkpoint_of_other_images_is_thrown_away(
    tmp_path: Path, phantom_manifest: Manifest
) -> None:
    unfinished(tmp_path)
    record_manifest(tmp_path, phantom_manifest)
    assert (tmp_path / "checkpoint").exists()
    record_manifest(tmp_path, phantom_manifest.of_split(Split.TEST))
    assert not (tmp_path / "checkpoint").exists()
    assert not (tmp_path / "history.csv").exists()


def test_other_files_and_finished_runs_are_never_touched(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    finished = tmp_path / "finished"
    finished.mkdir()
    (finished / "recipe.toml").touch()
    (finished / "run.json").touch()
    (tmp_path / "file").touch()
    for folder in (mine, finished, tmp_path / "file"):
        with pytest.raises(RunError, match="exists already"):
            start_run(folder, Recipe())
    assert (mine / "thesis.tex").exists()
    assert (finished / "run.json").exists()
