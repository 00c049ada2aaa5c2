import json
import shutil
from pathlib import Path

import pytest
from small_recipe import small

from conftest import Typed
from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.errors import RunError
from mammolens.learning.reproduction import (
    TOLERANCE,
    Reproduction,
    as_they_were,
    compare,
    reproduce,
)
from mammolens.learning.runs import Run, open_run
from mammolens.learning.training import train, with_others
from mammolens.records import Split


@pytest.fixture(scope="module")
def other(run: Run, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of images and of first weights that may be touched."""
    folder = tmp_path_factory.mktemp("other")
    first = shutil.copy(run.folder / "breast.h5", folder / "first.h5")
    data = read_source(str(shutil.copytree(phantoms, folder / "data")))
    recipe = run.recipe.model_copy(update={"initial_weights": str(first), "epochs": 1})
    return train(data, recipe, folder / "run")


def test_a_run_made_again_is_equal_to_the_last_bit(run: Run, mammolens: Typed, tmp_path: Path) -> None:
    said = mammolens("reproduce", run.folder, "--out", tmp_path / "again", "--quiet")
    assert said.code == 0, said.err
    assert "all 120 hold what they held" in said.out
    assert "Equal to the last bit: losses of 2 epochs, weights, validation answers" in said.out
    told = Reproduction.model_validate_json((tmp_path / "again" / "reproduction.json").read_text())
    assert (told.equal, told.losses, told.weights, told.answers) == (True, 0, 0, 0)


def test_data_sets_learnt_from_as_well_are_so_again(phantom_manifest: Manifest, tmp_path: Path) -> None:
    learnt, judged = (phantom_manifest.of_split(split) for split in (Split.TRAIN, Split.VALID))
    patients = sorted(set(learnt.patients))
    own = Manifest((*learnt.where(lambda m: m.patient_key in patients[::3]), *judged))
    beside = learnt.where(lambda m: m.patient_key in patients[1::3])
    recipe = small("epochs=1", "boxes=1", "also_images=4", "batch_size=8")
    run = train(own, recipe, tmp_path / "run", also=[beside])
    again, also = as_they_were(run)
    assert again == own
    assert with_others(again, [also], recipe) == with_others(own, [beside], recipe)


def test_what_differs_is_told_and_judged(run: Run, other: Run, copied: Path) -> None:
    told = compare(run, other)
    assert not told.equal
    assert told.epochs == (2, 1)
    assert told.losses > 0
    assert told.weights > 0
    assert told.answers > 0
    assert not told.succeeded
    elsewhere = json.loads((copied / "environment.json").read_text())
    elsewhere["packages"]["torch"] = "1.0"
    (copied / "environment.json").write_text(json.dumps(elsewhere))
    assert compare(open_run(copied), run).environment == {"torch": ("1.0", run.environment["packages"]["torch"])}
    near = told.model_copy(update={"epochs": (2, 2), "losses": TOLERANCE, "environment": {"torch": ("1.0", "2.0")}})
    assert near.succeeded
    assert not near.model_copy(update={"losses": 2 * TOLERANCE}).succeeded
    assert not near.model_copy(update={"answers": 2 * TOLERANCE}).succeeded
    assert not near.model_copy(update={"epochs": (2, 1)}).succeeded
    assert not near.model_copy(update={"environment": {}}).succeeded, "on one machine no difference is excused"


def test_changed_and_missing_files_are_named(other: Run, mammolens: Typed) -> None:
    changed, missing, *_ = other.manifest.paths
    content = bytearray(changed.read_bytes())
    content[-3] ^= 1
    changed.write_bytes(content)
    missing.unlink()
    first = Path(other.recipe.initial_weights)
    first.write_bytes(b"others")
    said = mammolens("reproduce", other.folder)
    assert said.code == 1
    assert f"not what it learnt from any more: {changed} (changed), {missing} (missing), {first} (changed)" in said.err
    assert not other.folder.with_name("run-again").exists()


def test_a_changed_label_is_noticed(copied: Path, tmp_path: Path) -> None:
    table = copied / "manifest.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",0,train", ",1,train", 1), encoding="utf-8")
    with pytest.raises(RunError, match=r"manifest\.csv: changed since training"):
        reproduce(copied, tmp_path / "again")


def test_runs_from_before_say_so(copied: Path, tmp_path: Path) -> None:
    (copied / "fingerprints.csv").unlink()
    with pytest.raises(RunError, match="from before runs recorded what their images held"):
        reproduce(copied, tmp_path / "again")
