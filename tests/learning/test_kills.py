"""A short form of `make kills`: processes that kill themselves where it hurts."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kills import left_over
from test_fitting import assert_equal

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.learning.fitting import fit
from mammolens.learning.runs import start_run
from mammolens.model.recipe import Recipe, read_recipe

KILLED = """
import os, signal, sys
from pathlib import Path
from mammolens.learning.callbacks import EpochLines
from mammolens.data.prepared import PreparedSet
from mammolens.learning.fitting import fit
from mammolens.data.manifest import Manifest
from mammolens.model.recipe import read_recipe

moment, count, manifest, recipe, folder = sys.argv[1:]
left = [int(count)]

def down(*_, **__):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

if moment == "step":
    EpochLines.on_train_batch_end = down
else:
    os.fsync = down
listed, settings = Manifest.load(Path(manifest)), read_recipe(recipe)
fit(PreparedSet.of(listed, settings.preprocess), settings, Path(folder))
"""


@pytest.fixture
def recipe() -> Recipe:
    changes = ["preprocess.height=16", "preprocess.width=16", "epochs=4", "moving_average=0.9"]
    return read_recipe("quick", [*changes, "sampling=patient", "augment.rotation=10"])


def test_after_a_kill_it_ends_as_if_there_had_been_none(
    phantom_manifest: Manifest, recipe: Recipe, tmp_path: Path
) -> None:
    """In the second epoch, and then while a checkpoint is written."""
    data = PreparedSet.of(phantom_manifest, recipe.preprocess)
    start_run(tmp_path / "whole", recipe)
    whole = fit(data, recipe, tmp_path / "whole")
    start_run(tmp_path / "run", recipe)
    phantom_manifest.save(tmp_path / "data.csv")
    for moment, count in (("step", 7), ("checkpoint", 2)):
        words = [tmp_path / "data.csv", tmp_path / "run" / "recipe.toml", tmp_path / "run"]
        typed = [sys.executable, "-c", KILLED, moment, str(count), *map(str, words)]
        assert subprocess.run(typed, check=False).returncode == -signal.SIGKILL
    assert any((tmp_path / "run").rglob(".*")), "it should have died while it wrote"
    start_run(tmp_path / "run", recipe)
    assert_equal(fit(data, recipe, tmp_path / "run"), whole)
    assert [path for path in left_over(tmp_path / "run") if "checkpoint" not in path] == []
    texts = [(tmp_path / name / "history.csv").read_text() for name in ("run", "whole")]
    assert texts[0] == texts[1]
