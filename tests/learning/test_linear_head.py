import csv
from pathlib import Path

import keras
import numpy as np
import pytest

from mammolens.data.sources import read_source
from mammolens.errors import RecipeError
from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.learning.linear_head import fit_scores, measures, pooled_features
from mammolens.learning.networks.builders import build, with_flips
from mammolens.learning.networks.folded import Network
from mammolens.learning.networks.heads import ATTENTION, LOGITS
from mammolens.learning.onnx_model import scores_by
from mammolens.learning.runs import HISTORY
from mammolens.learning.training import train
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.records import Split

AT_ONCE = [
    *("preprocess.preset=breast", "preprocess.height=64", "preprocess.width=32", "augment.horizontal_flip=true"),
    *("network=efficientnet_lite0", "pooling=attention", "frozen_stages=9", "test_time_flips=true"),
    *("optimizer=lbfgs", "weight_decay=0.25", "monitor=nothing", "threshold=youden"),
]


@pytest.fixture
def recipe() -> Recipe:
    return read_recipe("baseline", AT_ONCE)


@pytest.fixture
def pixels(phantoms: Path, recipe: Recipe) -> CachedPixels:
    return prepared_pixels(sorted(phantoms.rglob("*.jpg"))[:20], recipe.preprocess)


def labels_of(pixels: CachedPixels) -> np.ndarray:
    return np.arange(len(pixels), dtype=np.float32) % 2


def features_kept(cache: Path) -> set[Path]:
    return set((cache / "features").rglob("*.npy"))


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_what_is_fitted_is_what_the_network_answers(pooling: str, phantoms: Path) -> None:
    recipe = read_recipe("baseline", [*AT_ONCE, f"pooling={pooling}"])
    pixels = prepared_pixels(sorted(phantoms.rglob("*.jpg"))[:12], recipe.preprocess)
    network, labels = build(recipe), labels_of(pixels)
    features = pooled_features(network, pixels, recipe)
    assert features.shape == (12, 2, 1280)
    fit_scores(network, features, labels, recipe)
    images = pixels.take(range(12))[..., np.newaxis]
    answers = keras.ops.convert_to_numpy(with_flips(network, recipe.augment)(images, training=False)).ravel()
    cross_entropy = -np.mean(np.where(labels == 1, np.log(answers), np.log(1 - answers)))
    assert measures(network, features, labels)["loss"] == pytest.approx(cross_entropy, abs=1e-4)


def penalised(network: Network, features: np.ndarray, labels: np.ndarray, recipe: Recipe, step: np.ndarray) -> float:
    """The objective as its docstring states it, a step away from where the network is."""
    kernel, bias = network.get_layer(LOGITS).get_weights()
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    deviation = rows.std(axis=0)
    weights = kernel.ravel() * deviation + step
    shift = bias[0] + kernel.ravel() @ rows.mean(axis=0)
    standard = (rows - rows.mean(axis=0)) / np.where(deviation == 0, 1, deviation)
    signs = np.repeat(2 * labels - 1, features.shape[1])
    losses = np.log1p(np.exp(-signs * (standard @ weights + shift)))
    return float(losses.mean() + recipe.weight_decay / 2 * weights @ weights)


def test_scores_are_the_best_there_are(recipe: Recipe, pixels: CachedPixels) -> None:
    network, labels = build(recipe), labels_of(pixels)
    features = pooled_features(network, pixels, recipe)
    fit_scores(network, features, labels, recipe)
    best = penalised(network, features, labels, recipe, np.zeros(1280))
    generator = np.random.default_rng(0)
    for _ in range(20):
        step = generator.normal(0, 1e-2, 1280)
        assert penalised(network, features, labels, recipe, step) > best


def test_only_scores_of_places_are_learnt(recipe: Recipe, pixels: CachedPixels) -> None:
    network = build(recipe)
    before = {layer.name: layer.get_weights() for layer in network.layers}
    fit_scores(network, pooled_features(network, pixels, recipe), labels_of(pixels), recipe)
    changed = {
        layer.name
        for layer in network.layers
        if any((a != b).any() for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert changed == {LOGITS}


def test_features_are_made_once_for_the_same_weights_and_images(
    recipe: Recipe, pixels: CachedPixels, cache: Path
) -> None:
    keras.utils.set_random_seed(5)
    network = build(recipe)
    some = pooled_features(network, pixels.subset(range(8)), recipe)
    after_some = features_kept(cache)
    everything = pooled_features(network, pixels, recipe)
    after_all = features_kept(cache)
    np.testing.assert_array_equal(everything[:8], some)
    new = after_all - after_some
    assert sum(len(np.load(shard)) for shard in new) == 12
    np.testing.assert_array_equal(pooled_features(network, pixels, recipe), everything)
    assert features_kept(cache) == after_all
    attention = network.get_layer(ATTENTION)
    attention.set_weights([5 * weight for weight in attention.get_weights()])
    assert not np.allclose(pooled_features(network, pixels, recipe), everything)
    assert features_kept(cache) > after_all


def test_a_run_made_at_once_is_a_run(recipe: Recipe, phantoms: Path, tmp_path: Path) -> None:
    run = train(read_source(str(phantoms)), recipe, tmp_path / "run", name="phantoms")
    with (run.folder / HISTORY).open(encoding="utf-8") as stream:
        (epoch,) = csv.DictReader(stream)
    assert run.record.epochs == run.record.best_epoch == 1
    assert float(epoch["auc"]) > 0.9
    assert (run.folder / "figures" / "learning_curves.png").is_file()
    valid = run.manifest.of_split(Split.VALID)
    scores = scores_by(
        (run.folder / "bundle" / "model.onnx").read_bytes(),
        prepared_pixels(valid.paths, recipe.preprocess),
    )
    entropy = -np.mean(np.where(valid.labels == 1, np.log(scores), np.log(1 - scores)))
    assert float(epoch["val_loss"]) == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        "frozen_stages=8",
        "pooling=max",
        "weight_decay=0.0",
        "monitor=auc",
        "augment.rotation=5.0",
        "boxes=1.0",
        "label_smoothing=0.1",
        "sampling=patient",
    ],
)
def test_what_is_no_single_step_is_refused(change: str) -> None:
    with pytest.raises(RecipeError, match="lbfgs"):
        read_recipe("baseline", [*AT_ONCE, change])
