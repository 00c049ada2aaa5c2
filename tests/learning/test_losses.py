import math

import keras
import numpy as np
import pytest

from mammolens.learning.losses import BagLoss, BoxLoss, with_losses
from mammolens.learning.networks import LOGITS, build
from mammolens.model.recipe import Recipe, read_recipe


def extra_loss(layer: keras.Layer, *inputs: np.ndarray, training: bool = True) -> float:
    layer([keras.ops.convert_to_tensor(np.float32(x)) for x in inputs], training=training)
    return sum(float(keras.ops.convert_to_numpy(loss)) for loss in layer.losses)


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, np.newaxis]


def small(*changes: str) -> Recipe:
    sizes = ["preprocess.height=64", "preprocess.width=32", "initial_weights=none"]
    sizes += ["frozen_stages=0", "boxes=0.0"]
    return read_recipe("lesions", [*sizes, *changes])


def test_a_bag_has_the_mean_of_its_two_views() -> None:
    found = extra_loss(BagLoss(2.0), column(0.9, 0.3, 0.2, 0.4), column(1, 1, 0, 0))
    assert found == pytest.approx(2 * (-math.log(0.6) - math.log(0.7)) / 2, rel=1e-5)


def test_one_view_that_shows_the_tumor_is_nearly_enough() -> None:
    seen_once = extra_loss(BagLoss(1.0), column(0.98, 0.02), column(1, 1))
    undecided = extra_loss(BagLoss(1.0), column(0.5, 0.5), column(1, 1))
    assert seen_once == pytest.approx(undecided, rel=1e-4)  # for single images it is not
    assert -math.log(0.98) - math.log(0.02) > 2 * -math.log(0.5)


def test_nothing_is_added_outside_training() -> None:
    assert extra_loss(BagLoss(1.0), column(0.9, 0.3), column(1, 1), training=False) == 0


def test_maps_are_held_against_boxes_and_tumors_only_where_the_label_says_so() -> None:
    cells = np.zeros((1, 2, 2, 1))
    cells[0, 0, 0] = 1
    sure = np.where(cells == 1, 9.0, -9.0)
    nothing = np.full(cells.shape, -9.0)

    def loss(label: float, lesions: np.ndarray, tumors: np.ndarray) -> float:
        return extra_loss(BoxLoss(1.0), column(0.5), column(label), lesions, tumors, cells)

    assert loss(1, sure, sure) < 0.001
    assert loss(0, sure, nothing) < 0.001
    assert loss(0, sure, sure) > 1
    assert loss(1, sure, nothing) > 1
    assert loss(0, nothing, nothing) > 1


def test_without_boxes_lesions_may_be_anywhere_but_no_tumor_is_where_the_label_says_none() -> None:
    cells = np.zeros((1, 2, 2, 1))
    everywhere, nowhere = np.full(cells.shape, 9.0), np.full(cells.shape, -9.0)

    def loss(label: float, lesions: np.ndarray, tumors: np.ndarray) -> float:
        return extra_loss(BoxLoss(1.0), column(0.5), column(label), lesions, tumors, cells)

    assert loss(1, everywhere, everywhere) == 0
    assert loss(0, everywhere, nowhere) < 0.001
    assert loss(0, nowhere, everywhere) > 1


@pytest.mark.parametrize(("pooling", "taught"), [("attention", "attention"), ("max", "logits")])
def test_boxes_teach_attention_where_there_is_any(pooling: str, taught: str) -> None:
    recipe = small("boxes=1", f"pooling={pooling}", "dense_dropout=0", "drop_connect=0")
    network = build(recipe)
    learner = with_losses(network, recipe)
    learner.compile(keras.optimizers.SGD(0.3), lambda _, y: 0 * y)  # boxes alone
    maps = keras.Model(network.input, network.get_layer(taught).output)
    images = np.random.default_rng(0).random((8, 64, 32, 1), dtype=np.float32)
    images[:, 32:] *= 0.2
    cells = np.zeros((8, 2, 1, 1), np.float32)
    cells[:, 1] = 1
    labels = np.ones((8, 1), np.float32)
    learner.fit([images, labels, cells], labels, epochs=20, verbose=0)
    found = maps.predict(images, verbose=0)
    assert (found[:, 1] > found[:, 0]).all()


def test_a_recipe_without_such_losses_learns_with_the_network_itself() -> None:
    network = build(small())
    assert with_losses(network, small()) is network


def test_a_network_that_learns_answers_as_before_and_shares_its_weights() -> None:
    recipe = small("bags=1", "boxes=1")
    network = build(recipe)
    learner = with_losses(network, recipe)
    images = np.random.default_rng(0).random((4, 64, 32, 1), dtype=np.float32)
    labels, cells = np.zeros((4, 1), np.float32), np.zeros((4, 2, 1, 1), np.float32)
    expected = keras.ops.convert_to_numpy(network(images, training=False))
    answer = learner([images, labels, cells], training=False)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(answer), expected, atol=1e-6)
    ours = {id(weight) for weight in network.trainable_weights}
    theirs = {id(weight) for weight in learner.trainable_weights}
    assert ours < theirs
    assert len(theirs - ours) == 2  # the map of lesions
    assert learner.get_layer(LOGITS) is network.get_layer(LOGITS)
