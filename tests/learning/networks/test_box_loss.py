import keras
import numpy as np
import pytest
from small_recipe import small

from mammolens.learning.networks.box_loss import BoxLoss, with_box_loss
from mammolens.learning.networks.builders import build
from mammolens.learning.networks.heads import LOGITS


def extra_loss(layer: keras.Layer, *inputs: np.ndarray, training: bool = True) -> float:
    layer([keras.ops.convert_to_tensor(np.float32(x)) for x in inputs], training=training)
    return sum(float(keras.ops.convert_to_numpy(loss)) for loss in layer.losses)


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, np.newaxis]


def test_nothing_is_added_outside_training() -> None:
    cells, maps = np.ones((1, 2, 2, 1)), np.full((1, 2, 2, 1), -9.0)
    assert extra_loss(BoxLoss(1.0), column(0.5), column(1), maps, maps, cells, training=False) == 0


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


BOXED = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], float).reshape(2, 2, 2, 1)
"""Cells of an image with a small box, and of one with a large box."""
INSIDE, OUTSIDE = np.log1p(np.exp(-2)), np.log1p(np.exp(-1))
"""Cross-entropy of logit 2 where there is a lesion, and of logit -1 where there is none."""


def places(*logits: float) -> np.ndarray:
    return np.reshape(np.array(logits), (1, 2, 2, 1))


def loss_of(
    labels: list[float], lesions: np.ndarray, tumors: np.ndarray, cells: np.ndarray, weight: float = 1
) -> float:
    return extra_loss(BoxLoss(weight), 0.5 * column(*labels), column(*labels), lesions, tumors, cells)


@pytest.mark.parametrize("weight", [1, 2.5])
def test_an_image_counts_alike_however_large_its_boxes_are(weight: float) -> None:
    maps = np.where(BOXED > 0, 2.0, -1.0)
    expected = weight * (OUTSIDE + 0.3 * INSIDE)
    for chosen in ([0], [1], [0, 1]):
        part = maps[chosen]
        assert loss_of([1] * len(chosen), part, part, BOXED[chosen], weight) == pytest.approx(expected, rel=1e-5)


def test_a_lesion_that_is_no_tumor_is_a_place_without_a_tumor() -> None:
    maps = np.where(BOXED[:1] > 0, 2.0, -1.0)
    lesions, tumors = OUTSIDE + 0.3 * INSIDE, OUTSIDE + 0.3 * (2 + INSIDE)
    assert loss_of([0], maps, maps, BOXED[:1]) == pytest.approx((lesions + tumors) / 2, rel=1e-5)


def test_a_place_is_held_against_the_share_of_it_that_is_boxed() -> None:
    """Less than a tenth of it counts as outside, unless boxes are so small that no place has more."""
    cells, maps = places(0.5, 0.05, 0, 0), places(2, -1, -1, -1)
    inside, outside = INSIDE + 2 * 0.5, OUTSIDE + 0.05 / 3
    assert loss_of([1], maps, maps, cells) == pytest.approx(outside + 0.3 * inside, rel=1e-5)
    small = loss_of([1], maps, maps, places(0.05, 0, 0, 0))
    assert small == pytest.approx(OUTSIDE + 0.3 * (INSIDE + 2 * 0.95), rel=1e-5)


def test_of_images_without_boxes_the_healthy_count_and_the_ill_do_not() -> None:
    """The mean is over all that have none; and it comes beside the mean over those that have one."""
    none, maps = np.zeros((1, 2, 2, 1)), places(1, 1, -1, -1)
    healthy = 0.15 * (OUTSIDE + (1 + OUTSIDE)) / 2
    two = (np.concatenate([maps] * 2), np.concatenate([maps] * 2), np.zeros((2, 2, 2, 1)))
    assert loss_of([0], maps, maps, none) == pytest.approx(healthy, rel=1e-5)
    assert loss_of([1], maps, maps, none) == 0
    assert loss_of([0, 1], *two) == pytest.approx(healthy / 2, rel=1e-5)
    boxed = np.where(BOXED[:1] > 0, 2.0, -1.0)
    both = np.concatenate([boxed, maps])
    expected = OUTSIDE + 0.3 * INSIDE + healthy
    assert loss_of([1, 0], both, both, np.concatenate([BOXED[:1], none])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("pooling", "taught"), [("attention", "attention"), ("max", "logits")])
def test_boxes_teach_attention_where_there_is_any(pooling: str, taught: str) -> None:
    recipe = small("boxes=1", f"pooling={pooling}", "dense_dropout=0", "drop_connect=0")
    network = build(recipe)
    learner = with_box_loss(network, recipe)
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
    network = build(small("boxes=0.0"))
    assert with_box_loss(network, small("boxes=0.0")) is network


def test_a_network_that_learns_answers_as_before_and_shares_its_weights() -> None:
    recipe = small("boxes=1")
    network = build(recipe)
    learner = with_box_loss(network, recipe)
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
