"""From features to a score of every place, and from these to one answer."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
from keras import layers, ops

from mammolens.learning.networks.folded import Network, Tensor, without_gradients

LOGITS = "logits"  # the layer that scores every place, in networks that do
ATTENTION = "attention"  # the layer that says how much each place counts, in networks that weigh places
BOTH, ANSWER = "score_and_peak", "answer"  # in networks whose answer rests on both

_MEAN_AND_MAX = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
_SOFTER = 2.0  # attention, than the map it starts as
_RARE = -3.0  # the logit of a lesion at a place, before anything is learnt
_OF_PEAK = 0.25  # of the answer, where it rests on the pooled score and on the peak (docs/experiments.md, 39)


def score_map_network(body: Network, pooling: str = "mean_max", dropout: float = 0.0) -> Network:
    """Return a backbone with a head that scores every place and pools the scores into one.

    In: as `body`. Out: (images, 1), the probability of tumor: the sigmoid of one pooled logit. The
    layer ``logits`` gives one tumor score a place, (images, rows, columns, 1).

    Args:
        body: from pixels to features (images, rows, columns, channels).
        pooling: one of `POOLINGS`.
        dropout: share of features dropped, whole channels at a time.
    """
    features = layers.SpatialDropout2D(dropout)(body.output) if dropout else body.output
    logits = layers.Conv2D(1, 1, name=LOGITS)(features)
    pooled = POOLINGS[pooling](logits, features)
    probability = layers.Activation("sigmoid", name="probability")(pooled)
    return keras.Model(body.input, probability, name=body.name)


def _attention(logits: Tensor, features: Tensor) -> Tensor:
    """Mean of places, weighed by attention (Ilse, Tomczak & Welling 2018, ICML).

    Attention is linear in the features, so that boxes of lesions can teach it where to look. What
    they teach is sharper than what helps to judge, hence the softening (docs/experiments.md, 24).
    """
    return _weighed(logits, _attention_map(features))


def _attention_and_peak(logits: Tensor, features: Tensor) -> Tensor:
    """The same, and how high the attention map is at its highest place: an answer that rests on both.

    What is pooled by attention learns one data set; the map, which boxes teach, travels better. The
    peak has no say until `rest_on_both` gives it one.
    """
    attention = _attention_map(features)
    peak = layers.GlobalMaxPooling2D()(attention)
    both = layers.Concatenate(name=BOTH)([_weighed(logits, attention), peak])
    alone = keras.initializers.Constant([[1.0], [0.0]])
    return layers.Dense(1, kernel_initializer=alone, trainable=False, name=ANSWER)(both)


def _attention_map(features: Tensor) -> Tensor:
    # Lesions are rare: no place is one, until it is learnt which are.
    small = keras.initializers.RandomNormal(stddev=0.01)
    rare = keras.initializers.Constant(_RARE)
    return layers.Conv2D(1, 1, kernel_initializer=small, bias_initializer=rare, name=ATTENTION)(features)


def _weighed(logits: Tensor, attention: Tensor) -> Tensor:
    soft = layers.Rescaling(1 / _SOFTER)(layers.Reshape((-1, 1))(attention))
    share = layers.Softmax(axis=1)(soft)
    parts = layers.Multiply()([share, layers.Reshape((-1, 1))(logits)])
    return layers.Rescaling(float(parts.shape[1]))(layers.GlobalAveragePooling1D()(parts))


def rest_on_both(network: Network, pixels: Iterable[Tensor]) -> None:
    """Have the answer rest on the score pooled by attention, and by a quarter on the attention map's peak.

    The peak is brought to the mean and spread that the pooled score has over `pixels`, batches of
    (images, height, width, 1); labels have no part in it. A network of another pooling stays as it is.
    """
    if not has_layer(network, ANSWER):
        return
    inner = keras.Model(network.input, network.get_layer(BOTH).output)
    with without_gradients():
        seen = np.concatenate([ops.convert_to_numpy(inner(batch, training=False)) for batch in pixels])
    (score, peak), (spread, of_peak) = seen.mean(axis=0), seen.std(axis=0)
    share = spread / of_peak if of_peak > 0 else 0.0
    kernel, bias = [[1 - _OF_PEAK], [_OF_PEAK * share]], [_OF_PEAK * (score - share * peak)]
    network.get_layer(ANSWER).set_weights([np.array(kernel, np.float32), np.array(bias, np.float32)])


# From logits (images, rows, columns, 1) and features to pooled logits (images, 1). By layers, not
# operations: a network saved as HDF5 opens again only if it is made of layers.
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda logits, _: layers.GlobalAveragePooling2D()(logits),
    "max": lambda logits, _: layers.GlobalMaxPooling2D()(logits),
    "mean_max": lambda logits, _: layers.Average()([pool()(logits) for pool in _MEAN_AND_MAX]),
    "attention": _attention,
    "attention_and_peak": _attention_and_peak,
}


def has_layer(network: Network, name: str) -> bool:
    """Tell whether the network has a layer of that name."""
    return name in {layer.name for layer in network.layers}
