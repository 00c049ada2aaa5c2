"""Networks as plain builders, and the one dict that names them. Knows no files and no data."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from mammolens.errors import RecipeError
from mammolens.recipe import Recipe

Network = Any
"""A `keras.Model`; Keras ships no type information."""


def baseline_cnn(
    height: int = 64,
    width: int = 64,
    convolution_dropout: float = 0.25,
    dense_dropout: float = 0.5,
) -> Network:
    """Return the original project's network.

    Three blocks of [convolution 3 × 3, batch normalisation, ReLU] twice, with 32, 64 and 128
    filters, each block closed by max-pooling and dropout; then a dense layer of 128 and a sigmoid.
    In: float32 (images, height, width, 1) in [0, 1]. Out: (images, 1), the probability of tumor.
    At 64 × 64 it has 1,337,569 parameters.
    """
    image = keras.Input((height, width, 1), name="image")
    x = image
    for filters in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(x)
            x = layers.BatchNormalization()(x)
            x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Dropout(convolution_dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    x = layers.Dropout(dense_dropout)(x)
    probability = layers.Dense(1, activation="sigmoid", name="probability")(x)
    return keras.Model(image, probability, name="baseline_cnn")


def _baseline(recipe: Recipe) -> Network:
    return baseline_cnn(*recipe.preprocess.shape, recipe.convolution_dropout, recipe.dense_dropout)


NETWORKS: dict[str, Callable[[Recipe], Network]] = {"baseline_cnn": _baseline}


def check_network(recipe: Recipe) -> None:
    """Refuse, before any work, a recipe whose network does not exist.

    Raises:
        RecipeError: it names no known network.
    """
    if recipe.network not in NETWORKS:
        raise RecipeError(f"no network '{recipe.network}'; known are {', '.join(NETWORKS)}.")


def build(recipe: Recipe) -> Network:
    """Build the recipe's network, with weights drawn from Keras' current seed.

    Raises:
        RecipeError: the recipe names a network that does not exist.
    """
    check_network(recipe)
    return NETWORKS[recipe.network](recipe)
