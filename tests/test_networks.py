import numpy as np
import pytest

from mammolens.errors import RecipeError
from mammolens.networks import baseline_cnn, build
from mammolens.recipe import read_recipe


def test_the_baseline_has_the_parameters_of_the_original() -> None:
    network = build(read_recipe("baseline"))
    assert network.count_params() == 1_337_569
    assert network.input_shape == (None, 64, 64, 1)
    assert network.output_shape == (None, 1)


def test_the_baseline_is_built_of_the_layers_of_the_original() -> None:
    kinds = [type(layer).__name__ for layer in build(read_recipe("baseline")).layers]
    stage = ["Conv2D", "BatchNormalization", "Activation"]
    block = [*stage, *stage, "MaxPooling2D", "Dropout"]
    head = ["Flatten", "Dense", "BatchNormalization", "Activation", "Dropout", "Dense"]
    assert kinds == ["InputLayer", *block, *block, *block, *head]
    layers = {layer.name: layer for layer in build(read_recipe("baseline")).layers}
    convolutions = [layer for layer in layers.values() if type(layer).__name__ == "Conv2D"]
    assert [layer.filters for layer in convolutions] == [32, 32, 64, 64, 128, 128]
    for layer in convolutions:
        assert (layer.kernel_size, layer.padding) == ((3, 3), "same")
        assert type(layer.kernel_initializer).__name__ == "HeNormal"


def test_dropout_and_size_follow_the_recipe() -> None:
    changes = ["convolution_dropout=0.1", "dense_dropout=0.2", "preprocess.height=96"]
    network = build(read_recipe("baseline", changes))
    rates = [layer.rate for layer in network.layers if type(layer).__name__ == "Dropout"]
    assert rates == [0.1, 0.1, 0.1, 0.2]
    assert network.input_shape == (None, 96, 64, 1)


def test_answers_are_probabilities() -> None:
    pixels = np.random.default_rng(0).random((3, 32, 32, 1), dtype=np.float32)
    answers = baseline_cnn(32, 32).predict(pixels, verbose=0)
    assert answers.shape == (3, 1)
    assert ((answers > 0) & (answers < 1)).all()


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(RecipeError, match="no network 'resnet'; known are baseline_cnn"):
        build(read_recipe("baseline", ["network=resnet"]))
