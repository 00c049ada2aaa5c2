from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.learning import fitting
from mammolens.learning.callbacks import EpochLines
from mammolens.learning.fitting import Learnt, fit
from mammolens.learning.networks import builders
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.records import Split

LITE = ("preprocess.height=64", "preprocess.width=32", "initial_weights=none", "epochs=4")

RECIPES = {
    "plateau, patients, class weights": (
        "quick",
        *("preprocess.height=16", "preprocess.width=16", "epochs=5", "plateau_patience=1"),
        *("learning_rate=0.01", "early_stopping_patience=2", "sampling=patient"),
        *("class_weights=balanced", "augment.rotation=10", "augment.noise=0.1"),
    ),
    "one cycle, average, frozen": (
        "lesions",
        *(*LITE, "normalisation=batch", "pooling=attention", "boxes=0", "frozen_stages=5", "moving_average=0.9"),
        *("monitor=auc", "early_stopping_patience=4"),
    ),
    "boxes": ("lesions", *LITE, "normalisation=batch", "frozen_stages=6", "moving_average=0.5"),
    "folded, beside others": (
        "lesions",
        *(*LITE, "initial_weights=imagenet", "epochs=3", "normalisation=folded"),
        *("pooling=attention_and_peak", "boxes=1", "also_images=4", "frozen_stages=2", "moving_average=0.5"),
    ),
}


class Interrupted(Exception):  # noqa: N818
    """Somebody pulled the plug."""


@pytest.fixture(params=list(RECIPES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    name, *changes = RECIPES[request.param]
    return read_recipe(name, [*changes, "batch_size=16"])


@pytest.fixture
def few(phantom_manifest: Manifest) -> Manifest:
    """Three steps an epoch."""
    train = phantom_manifest.of_split(Split.TRAIN)
    taught = [m for label in (0, 1) for m in train.with_label(label).mammograms[:24]]
    return Manifest((*taught, *phantom_manifest.of_split(Split.VALID)))


def fitted(manifest: Manifest, recipe: Recipe, folder: Path) -> Learnt:
    also = [m.path for m in manifest.of_split(Split.TRAIN) if m.boxes][-12:] if recipe.also_images else []
    return fit(PreparedSet.of(manifest, recipe.preprocess), recipe, folder, also=also)


def assert_equal(one: Learnt, other: Learnt) -> None:
    assert one.history == other.history
    assert one.best_epoch == other.best_epoch
    assert [w.path for w in one.network.weights] == [w.path for w in other.network.weights]
    for mine, theirs in zip(one.network.get_weights(), other.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture
def whole(few: Manifest, recipe: Recipe, tmp_path: Path) -> Learnt:
    """What a training that was never interrupted ends with."""
    return fitted(few, recipe, tmp_path / "whole")


def interrupt(manifest: Manifest, recipe: Recipe, folder: Path, step: int, patch: pytest.MonkeyPatch) -> None:
    """Pull the plug in the `step`-th step from where it goes on."""
    seen: list[object] = []

    def pull(_: object, batch: int, logs: object = None) -> None:
        seen.append((batch, logs))
        if len(seen) == step:
            raise Interrupted

    with patch.context() as inner:
        inner.setattr(EpochLines, "on_train_batch_end", pull)
        with pytest.raises(Interrupted):
            fitted(manifest, recipe, folder)


# What is interrupted leaves its files open; the rubbish collector remarks on it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_however_often_interrupted_it_ends_as_if_it_had_never_been(
    few: Manifest,
    recipe: Recipe,
    whole: Learnt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the first epoch, in the third, and then the last checkpoint is damaged, too."""
    folder = tmp_path / "run"
    for step in (2, 8):
        interrupt(few, recipe, folder, step, monkeypatch)
    kept = sorted((folder / "checkpoint").iterdir())
    assert len(kept) == 2
    content = bytearray(kept[-1].read_bytes())
    content[len(content) // 2] ^= 1
    kept[-1].write_bytes(content)
    again = fitted(few, recipe, folder)
    assert_equal(again, whole)
    texts = [(tmp_path / name / "history.csv").read_text() for name in ("run", "whole")]
    assert texts[0] == texts[1]
    assert_equal(fitted(few, recipe, folder), whole)  # as after a kill that came later


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_of_another_training_is_not_gone_on_from(
    few: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe("quick", ["preprocess.height=16", "preprocess.width=16", "epochs=2"])
    interrupt(few, recipe, tmp_path / "run", 5, monkeypatch)
    first, *others = few.mammograms
    changed = Manifest((replace(first, label=0 if first.label else 1), *others))
    fresh, after = (fitted(changed, recipe, tmp_path / name) for name in ("fresh", "run"))
    assert_equal(after, fresh)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_of_the_ordinary_network_is_not_gone_on_from_by_what_learns_in_its_place(
    few: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe("quick", ["preprocess.height=16", "preprocess.width=16", "epochs=2"])
    with monkeypatch.context() as earlier:
        earlier.setattr(builders, "learns_normalised", lambda _: False)
        earlier.setattr(fitting, "learns_normalised", lambda _: False)
        interrupt(few, recipe, tmp_path / "run", 5, earlier)
    fresh, after = (fitted(few, recipe, tmp_path / name) for name in ("fresh", "run"))
    assert_equal(after, fresh)
