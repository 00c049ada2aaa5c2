from pathlib import Path

import pytest

from mammolens.errors import RunError
from mammolens.runs import open_run, start_run


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
    start_run(tmp_path / "a" / "new")
    start_run(tmp_path / "a" / "new")
    assert (tmp_path / "a" / "new").is_dir()


def test_what_an_unfinished_training_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    (tmp_path / "history.csv").touch()
    start_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


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
            start_run(folder)
    assert (mine / "thesis.tex").exists()
    assert (finished / "run.json").exists()
