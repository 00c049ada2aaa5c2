"""Two processes that PyTorch connects, without a cluster."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_recipe import small

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.learning.fitting import Learnt, fit
from mammolens.learning.networks import normalised
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.records import Split

WORKER = """
import hashlib, json, os, signal, sys
from pathlib import Path
from torch import distributed
from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.learning.callbacks import EpochLines
from mammolens.learning.fitting import fit
from mammolens.learning.networks import normalised
from mammolens.learning.team import Team
from mammolens.model.recipe import read_recipe

if sys.argv[5:]:
    normalised.precision = lambda: sys.argv[5]
rank, folder, also, step = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
left = [step]

def down(*_, **__):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

if rank == 1 and step:
    EpochLines.on_train_batch_end = down
manifest, recipe = Manifest.load(folder / "data.csv"), read_recipe(str(folder / "recipe.toml"))
boxed = [m.path for m in manifest if m.boxes and m.split == "train"][-also:] if also else []
data = PreparedSet.of(manifest, recipe.preprocess)
learnt = fit(data, recipe, folder if rank == 0 else Path("/nowhere"), also=boxed, team=Team.joined())
weights = hashlib.sha256(b"".join(weight.tobytes() for weight in learnt.network.get_weights())).hexdigest()
print(json.dumps({"weights": weights, "epochs": learnt.epochs}))
distributed.destroy_process_group()
"""


def start(
    folder: Path, recipe: Recipe, manifest: Manifest, *precision: str, also: int = 0, killed: int = 0
) -> list[Any]:
    """Have two processes learn into `folder`; return what they say, or None of those that failed."""
    folder.mkdir(exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    manifest.save(folder / "data.csv")
    typed = [
        [sys.executable, "-c", WORKER, str(rank), str(folder), str(also), str(killed), *precision] for rank in (0, 1)
    ]
    workers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for words in typed]
    said = [worker.communicate()[0] for worker in workers]
    if killed:
        assert workers[1].returncode == -signal.SIGKILL
        assert workers[0].returncode > 0, "who is left alone says so"
        return said
    assert [worker.returncode for worker in workers] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


def hash_of(network: Any) -> str:
    return hashlib.sha256(b"".join(weight.tobytes() for weight in network.get_weights())).hexdigest()


def alone(recipe: Recipe, manifest: Manifest, folder: Path) -> Learnt:
    return fit(PreparedSet.of(manifest, recipe.preprocess), recipe, folder)


@pytest.fixture
def few(phantom_manifest: Manifest) -> Manifest:
    train = phantom_manifest.of_split(Split.TRAIN)
    taught = [m for label in (0, 1) for m in train.with_label(label).mammograms[:24]]
    return Manifest((*taught, *phantom_manifest.of_split(Split.VALID)))


def test_two_take_the_steps_of_one(few: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of 15 and a last one of 3, none of which is shared evenly, and with normalisations of both kinds."""
    changes = ("preprocess.height=16", "preprocess.width=16", "convolution_dropout=0", "dense_dropout=0")
    recipe = read_recipe("quick", [*changes, "batch_size=15", "epochs=3", "augment.rotation=10"])
    monkeypatch.setattr(normalised, "precision", lambda: "float32")  # in 16 bits rounding shows
    one = alone(recipe, few, tmp_path / "alone")
    first, second = start(tmp_path / "two", recipe, few, "float32")
    assert first == second
    assert first["epochs"][0].keys() == one.epochs[0].keys()
    for name in ("loss", "val_loss"):
        course = [epoch[name] for epoch in one.epochs]
        assert [epoch[name] for epoch in first["epochs"]] == pytest.approx(course, abs=0.015)
        assert np.ptp(course) > 0.03, "there must be a course to follow"
    history = pd.read_csv(tmp_path / "two" / "history.csv")
    assert history["loss"].tolist() == [epoch["loss"] for epoch in first["epochs"]]


@pytest.mark.campaign
def test_after_a_kill_two_end_as_if_there_had_been_none(few: Manifest, tmp_path: Path) -> None:
    """With batch statistics, dropout, boxes, images to learn from as well, an average; one dies in the second epoch."""
    recipe = small("frozen_stages=2", "boxes=1", "also_images=5", "batch_size=16", "epochs=3", "moving_average=0.5")
    first, second = start(tmp_path / "whole", recipe, few, also=12)
    assert first == second
    start(tmp_path / "run", recipe, few, also=12, killed=6)
    again = start(tmp_path / "run", recipe, few, also=12)
    assert again == [first, second]
