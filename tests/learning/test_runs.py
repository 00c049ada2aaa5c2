import hashlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mammolens.data.manifest import Manifest
from mammolens.errors import RunError
from mammolens.learning.runs import State, latest_state, open_run, record_manifest, save_state, start_run
from mammolens.model.recipe import Recipe
from mammolens.records import Split


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


def test_a_checkpoint_of_other_images_is_thrown_away(tmp_path: Path, phantom_manifest: Manifest) -> None:
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


def test_somebodys_folder_with_a_recipe_in_it_is_not_emptied(tmp_path: Path) -> None:
    """`train data --recipe mine/recipe.toml --out mine`."""
    for name, content in (
        ("recipe.toml", b"# mine\nepochs = 3\n"),
        (".env.template", b"1"),
        ("thesis.tex", b"2"),
    ):
        (tmp_path / name).write_bytes(content)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=r"holds another recipe\.toml, and what is not of a run"):
        start_run(tmp_path, Recipe(epochs=3))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_recipe_is_another_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    start_run(tmp_path, Recipe())
    assert (tmp_path / "recipe.toml").read_text(encoding="utf-8") == Recipe().to_toml()


def test_images_that_were_moved_are_the_same_and_a_damaged_table_is_of_others(
    tmp_path: Path, phantom_manifest: Manifest
) -> None:
    unfinished(tmp_path)
    elsewhere = (replace(m, path=Path("/gone") / m.path.name) for m in phantom_manifest)
    Manifest(tuple(elsewhere)).save(tmp_path / "manifest.csv")
    record_manifest(tmp_path, phantom_manifest)
    assert (tmp_path / "checkpoint").exists()
    (tmp_path / "manifest.csv").write_text("path,la", encoding="utf-8")
    record_manifest(tmp_path, phantom_manifest)
    assert not (tmp_path / "checkpoint").exists()
    assert Manifest.load(tmp_path / "manifest.csv").fingerprint() == phantom_manifest.fingerprint()


def state(epochs: int, key: str = "mine") -> State:
    generator = np.random.default_rng(epochs)
    arrays = {
        "network": (generator.random((2, 3), np.float32), np.array([epochs, -1], np.int32)),
        "optimizer": (np.array(epochs, np.int64),),
    }
    course = tuple({"loss": 0.1 + 0.2 * number, "val_loss": float("nan")} for number in range(epochs))
    return State(key, 3, 1.5, course, arrays)


def assert_same(found: State | None, wanted: State) -> None:
    assert found is not None
    np.testing.assert_equal(asdict(found), asdict(wanted))
    for name, arrays in wanted.arrays.items():
        assert [a.dtype for a in found.arrays[name]] == [a.dtype for a in arrays]


def test_the_last_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert latest_state(tmp_path / "none", "mine") is None
    for epochs in (0, 9, 10, 11):
        save_state(state(epochs), tmp_path)
    assert_same(latest_state(tmp_path, "mine"), state(11))
    assert len(list(tmp_path.iterdir())) == 2


def test_those_of_another_training_do_not_outlast_what_comes(tmp_path: Path) -> None:
    """A new training counts from 0 again, and the newest are kept."""
    for epochs in (8, 9):
        save_state(state(epochs, "yours"), tmp_path)
    assert latest_state(tmp_path, "mine") is None
    for epochs in (0, 1):
        save_state(state(epochs), tmp_path)
        assert_same(latest_state(tmp_path, "mine"), state(epochs))


@pytest.mark.parametrize("kind", ["text", "archive", "pickle", "other record", "more in the record"])
def test_what_is_whole_and_says_other_things_is_thrown_away(tmp_path: Path, kind: str) -> None:
    save_state(state(1), tmp_path)
    whole = dict(np.load(next(tmp_path.iterdir())))
    record = json.loads(whole.pop("record").tobytes())
    told = {"more in the record": record | {"schema": 3}}.get(kind, {"epochs": 3})
    content = io.BytesIO()
    whole["record"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    if kind == "pickle":
        whole["record"] = np.array([{}], dtype=object)
    np.savez(content, **whole)
    written = {"text": b"no arrays", "archive": b"PK\3\4 and no more"}.get(kind, content.getvalue())
    path = tmp_path / f"000009-{hashlib.sha256(written).hexdigest()}.npz"
    path.write_bytes(written)
    (tmp_path / "000010-folder.npz").mkdir()
    assert_same(latest_state(tmp_path, "mine"), state(1))
    assert not path.exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_one_is_thrown_away_and_the_one_before_is_taken(tmp_path: Path, damage: str) -> None:
    for epochs in (1, 2):
        save_state(state(epochs), tmp_path)
    last = max(tmp_path.iterdir())
    content = last.read_bytes()
    flipped = content[:200] + bytes([content[200] ^ 1]) + content[201:]
    damaged = {"cut": content[:-1], "flip": flipped, "empty": b"", "text": b"not arrays"}
    last.write_bytes(damaged[damage])
    (tmp_path / "latest.weights.h5").touch()  # of another program
    assert_same(latest_state(tmp_path, "mine"), state(1))
    assert not last.exists()
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"")
    assert latest_state(tmp_path, "mine") is None
