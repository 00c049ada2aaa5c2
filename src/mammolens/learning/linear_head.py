"""Where all stages are frozen, scores of places are one convex step: a logistic regression on features."""

import hashlib

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, recall_score, roc_auc_score

from mammolens.files import cache_folder, check_writable
from mammolens.images.breast import Pixels
from mammolens.images.cache import CachedPixels, read_shards, write_shards
from mammolens.images.preprocess import VERSION
from mammolens.learning.networks.folded import Network
from mammolens.learning.networks.heads import LOGITS
from mammolens.learning.onnx_model import INPUT, session, to_onnx
from mammolens.model.calibration import sigmoid
from mammolens.model.recipe import Axes, Recipe
from mammolens.parallel import tracked

Features = NDArray[np.float32]

_SHARD = 64  # images


def pooled_features(network: Network, pixels: CachedPixels, recipe: Recipe, *, progress: bool = False) -> Features:
    """Return the features of all places, weighed as the network weighs places.

    They are kept on disk, keyed by the network's weights and the content of each file: five folds
    of a cross-validation cost no more than one, and an interrupted call is gone on with.

    Args:
        network: as `networks.score_map_network` makes it, pooled by mean or by attention.
        pixels: of the images.
        recipe: how they were prepared, and by its augmentation which mirror images come beside.
        progress: show a bar on standard error.

    Returns:
        float32 (images, mirror images, channels).
    """
    pooled, axes = _pooled(network), recipe.augment.mirror_images
    folder = cache_folder() / "features" / _key(pooled, recipe)
    cached = read_shards(folder, set(pixels.digests))
    wanted = [index for index, digest in enumerate(pixels.digests) if digest not in cached]
    if wanted:
        check_writable(folder)
        opened = session(to_onnx(pooled))
        counted = tracked(wanted, "Looking at images", len(wanted), visible=progress)
        made = ((pixels.digests[i], opened.run(None, {INPUT: _mirrored(pixels, i, axes)})[0]) for i in counted)
        write_shards(folder, made, _SHARD)
        cached |= read_shards(folder, {pixels.digests[index] for index in wanted})
    return np.stack([shard[row] for shard, row in map(cached.__getitem__, pixels.digests)])


def fit_scores(network: Network, features: Features, labels: NDArray[np.float32], recipe: Recipe) -> None:
    """Give each place the score that tells `labels` best from pooled features.

    Logistic regression: the mean of cross-entropy over all images and their mirror images, and
    `weight_decay` / 2 times the sum of squared weights, of features with standard deviation 1.

    Args:
        network: its layer ``logits`` is set.
        features: (images, mirror images, channels), of `pooled_features`.
        labels: 0 or 1, (images,).
        recipe: gives `weight_decay` and `class_weights`.
    """
    images, variants, channels = features.shape
    rows = features.reshape(-1, channels).astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation == 0] = 1
    weights = None if recipe.class_weights == "none" else recipe.class_weights
    penalty = recipe.weight_decay * images * variants
    regression = LogisticRegression(C=1 / penalty, class_weight=weights, max_iter=1000)
    regression.fit((rows - mean) / deviation, np.repeat(labels, variants))
    kernel = regression.coef_[0] / deviation
    bias = regression.intercept_ - kernel @ mean
    network.get_layer(LOGITS).set_weights([kernel.reshape(1, 1, channels, 1), bias])


def measures(network: Network, features: Features, labels: NDArray[np.float32]) -> dict[str, float]:
    """Return what Keras tells of an epoch, of the mean logits of images and mirror images."""
    kernel, bias = network.get_layer(LOGITS).get_weights()
    probabilities = sigmoid(features.mean(axis=1) @ kernel.ravel() + bias)
    called = probabilities > 0.5  # noqa: PLR2004 - as Keras' metrics do
    return {
        "accuracy": float((called == labels).mean()),
        "auc": float(roc_auc_score(labels, probabilities)),
        "loss": float(log_loss(labels, probabilities)),
        "recall": float(recall_score(labels, called)),
    }


def _pooled(network: Network) -> Network:
    """Return the network up to the mean of features, as its places are weighed."""
    features = network.get_layer(LOGITS).input
    weighed = [layer.output for layer in network.layers if isinstance(layer, layers.Softmax)]
    inner = keras.Model(network.input, [features, *weighed])
    image = keras.Input(network.input_shape[1:], name="image")
    features, *shares = inner(image)
    places = ops.reshape(features, (-1, features.shape[1] * features.shape[2], features.shape[3]))
    pooled = ops.sum(places * shares[0], axis=1) if shares else ops.mean(places, axis=1)
    return keras.Model(image, pooled, name="pooled_features")


def _key(pooled: Network, recipe: Recipe) -> str:
    axes, settings = recipe.augment.mirror_images, recipe.preprocess.model_dump_json()
    digest = hashlib.sha256(f"{VERSION} {settings} {pooled.input_shape} {axes}".encode())
    for weight in pooled.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()[:16]


def _mirrored(pixels: CachedPixels, index: int, axes: Axes) -> Pixels:
    image = pixels.take([index])[..., np.newaxis]
    return np.concatenate([np.flip(image, ax) for ax in axes])
