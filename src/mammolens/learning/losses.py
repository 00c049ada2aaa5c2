"""Losses that training alone has, as layers that a network's answer passes through."""

from typing import Any

import keras
from keras import layers, ops

from mammolens.learning.networks import ATTENTION, LOGITS, Network, has_layer
from mammolens.model.recipe import Recipe

Tensor = Any

_HEAVIER = 6.0  # by so much a place inside a box weighs more than one outside: boxes are small


class BagLoss(layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns probabilities as they are; in training, adds a loss of the means of pairs.

    Cross-entropy of the mean probability of two views of a breast: where one view shows no tumor,
    the other may say so alone (multiple-instance learning, Dietterich et al. 1997).
    """

    def __init__(self, weight: float) -> None:
        super().__init__(name="bag_loss")
        self._weight = weight

    def call(self, inputs: list[Tensor], training: bool | None = None) -> Tensor:
        """Take probabilities and labels, each (images, 1), views of a breast side by side."""
        probability, label = inputs
        if training:
            loss = keras.losses.binary_crossentropy(_means(label), _means(probability))
            self.add_loss(self._weight * ops.mean(loss))
        return probability


class BoxLoss(layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns probabilities as they are; in training, adds a loss of two maps.

    One map tells lesions from all else, the other tumors from all else: cross-entropy at each
    place, against the share of the place that lies in a box. Of an image without boxes it is not
    known where lesions are; but where its label is no tumor, no place shows one.
    """

    def __init__(self, weight: float) -> None:
        super().__init__(name="box_loss")
        self._weight = weight

    def call(self, inputs: list[Tensor], training: bool | None = None) -> Tensor:
        """Take probabilities and labels (images, 1), maps and cells (images, rows, columns, 1).

        Maps are logits: of lesions, and of tumors.
        """
        probability, label, lesions, tumors, cells = inputs
        if training:
            ill = ops.reshape(label, (-1, 1, 1, 1))
            boxed = ops.cast(ops.max(cells, axis=(1, 2, 3), keepdims=True) > 0, cells.dtype)
            loss = _by_place(cells, lesions, cells, boxed)
            loss += _by_place(cells * ill, tumors, cells, ops.maximum(boxed, 1 - ill))
            self.add_loss(self._weight * loss)
        return probability


def with_losses(network: Network, recipe: Recipe) -> Network:
    """Return a network to train, which shares all weights with `network` and answers the same.

    In: what `network` takes; with any loss of these also labels, (images, 1); with `recipe.boxes`
    also cells, (images, rows, columns, 1) in [0, 1], as many as its score map has. Where places
    are weighed by attention, boxes teach it; else the scores themselves.
    """
    if not (recipe.bags or recipe.boxes):
        return network
    label = keras.Input((1,), name="labels")
    inputs, answer = [network.input, label], network.output
    if recipe.bags:
        answer = BagLoss(recipe.bags)([answer, label])
    if recipe.boxes:
        tumors = network.get_layer(ATTENTION if has_layer(network, ATTENTION) else LOGITS)
        # From zero, so that what it does not know yet disturbs nothing below it.
        lesions = layers.Conv2D(1, 1, kernel_initializer="zeros", name="lesions")(tumors.input)
        cells = keras.Input(tumors.output.shape[1:], name="cells")
        inputs.append(cells)
        answer = BoxLoss(recipe.boxes)([answer, label, lesions, tumors.output, cells])
    return keras.Model(inputs, answer, name=network.name)


def _means(values: Tensor) -> Tensor:
    return ops.mean(ops.reshape(values, (-1, 2)), axis=1, keepdims=True)


def _by_place(target: Tensor, logits: Tensor, cells: Tensor, known: Tensor) -> Tensor:
    """Return the mean over places; of images, (images, 1, 1, 1), that are not known it is 0."""
    loss = keras.losses.binary_crossentropy(target, logits, from_logits=True)
    return ops.mean(loss * (known * (1 + _HEAVIER * cells))[..., 0])
