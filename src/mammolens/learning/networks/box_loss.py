"""What boxes of lesions teach a network where they are, beside what labels teach it."""

import keras
from keras import layers, ops

from mammolens.learning.networks.folded import Network, Tensor
from mammolens.learning.networks.heads import ATTENTION, LOGITS, has_layer
from mammolens.model.recipe import Recipe

_INSIDE = 0.3  # the mean over places in boxes, of that over all others
_HEALTHY = 0.15  # an image without a tumor, of one with boxes: it may show anything but a tumor
_BOXED = 0.1  # share of a place in boxes from which it counts as inside, where boxes are large enough


class BoxLoss(layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns probabilities as they are; in training, adds a loss of two maps.

    One map tells lesions from all else, the other tumors from all else, lesions that are none
    included: cross-entropy at each place, against the share of the place that lies in a box. The
    mean over places outside boxes and that over places inside are taken apart, so that an image
    counts alike however large its boxes are. Of an image without boxes it is not known where
    lesions are; but where its label is no tumor, no place shows one.
    """

    def __init__(self, weight: float) -> None:
        super().__init__(name="box_loss", dtype="float32")
        self._weight = weight

    def call(self, inputs: list[Tensor], training: bool | None = None) -> Tensor:
        """Take probabilities and labels (images, 1), maps and cells (images, rows, columns, 1).

        Maps are logits: of lesions, and of tumors.
        """
        probability, label, *maps, cells = inputs
        if training:
            lesions, tumors, cells = (ops.reshape(x, (ops.shape(x)[0], -1)) for x in (*maps, cells))
            least = ops.minimum(_BOXED, ops.max(cells, axis=1, keepdims=True) / 2)  # of a small box, where most is
            inside = ops.cast(cells > least, cells.dtype)
            boxed = ops.max(inside, axis=1)
            taught = (_by_box(lesions, cells, inside) + _by_box(tumors, cells * label, inside)) / 2
            healthy = (1 - boxed) * (1 - label[:, 0]) * ops.mean(ops.softplus(tumors), axis=1)
            unboxed = _HEALTHY * ops.sum(healthy) / ops.maximum(ops.sum(1 - boxed), 1)
            self.add_loss(self._weight * (ops.sum(taught * boxed) / ops.maximum(ops.sum(boxed), 1) + unboxed))
        return probability


def with_box_loss(network: Network, recipe: Recipe) -> Network:
    """Return a network to train, which shares all weights with `network` and answers the same.

    In: what `network` takes; with `recipe.boxes` also labels, (images, 1), and cells, (images,
    rows, columns, 1) in [0, 1], as many as its score map has. Where places are weighed by
    attention, boxes teach it; else the scores themselves.
    """
    if not recipe.boxes:
        return network
    tumors = network.get_layer(ATTENTION if has_layer(network, ATTENTION) else LOGITS)
    lesions = layers.Conv2D(1, 1, name="lesions")
    map_of_lesions = lesions(tumors.input)
    lesions.set_weights(tumors.get_weights())  # tumors are lesions: what is known of them is a start
    label, cells = keras.Input((1,), name="labels"), keras.Input(tumors.output.shape[1:], name="cells")
    answer = BoxLoss(recipe.boxes)([network.output, label, map_of_lesions, tumors.output, cells])
    return keras.Model([network.input, label, cells], answer, name=network.name)


def _by_box(logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return each image's cross-entropy outside boxes and inside, (images,)."""
    loss = ops.softplus(logits) - target * logits
    within = ops.sum(loss * inside, axis=1) / ops.maximum(ops.sum(inside, axis=1), 1)
    outside = ops.sum(loss * (1 - inside), axis=1) / ops.maximum(ops.sum(1 - inside, axis=1), 1)
    return outside + _INSIDE * within
