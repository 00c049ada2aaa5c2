"""Networks as plain builders, and the one dict that names them. Knows no files and no data."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

from mammolens.errors import RecipeError
from mammolens.learning.networks.efficientnet_lite import SCALES, STAGES, efficientnet_lite, layers_by_stage
from mammolens.learning.networks.folded import Network, Tensor, fold, unfold
from mammolens.learning.networks.heads import ANSWER, LOGITS, has_layer, score_map_network
from mammolens.learning.networks.saved import open_saved
from mammolens.model.recipe import Augment, Recipe

_TINY = 1e-6


def baseline_cnn(
    height: int = 64, width: int = 64, convolution_dropout: float = 0.25, dense_dropout: float = 0.5
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
    return keras.Model(image, _dense(layers.Flatten()(x), dense_dropout), name="baseline_cnn")


def _baseline(recipe: Recipe) -> Network:
    return baseline_cnn(*recipe.preprocess.shape, recipe.convolution_dropout, recipe.dense_dropout)


def _baseline_as_one(network: Network, recipe: Recipe) -> Network:
    """Return the same of layers that compute a convolution and what follows it as one, to be given its weights."""
    from mammolens.learning.networks.normalised import NormalisedConvolution, precision  # noqa: PLC0415 - of PyTorch

    convolutions = [layer for layer in network.layers if isinstance(layer, layers.Conv2D)]
    dtype = precision()
    image = keras.Input(network.input_shape[1:], name="image")
    x = layers.Permute((3, 1, 2), dtype=dtype)(image)
    for number, layer in enumerate(convolutions):
        x = NormalisedConvolution(layer.filters, 3, 1, 0.99, activation="relu", name=layer.name, dtype=dtype)(x)
        if number % 2:
            x = layers.MaxPooling2D(2, data_format="channels_first", dtype=dtype)(x)
            x = layers.Dropout(recipe.convolution_dropout, dtype=dtype)(x)
    x = _dense(layers.Flatten()(layers.Permute((2, 3, 1))(x)), recipe.dense_dropout)
    return keras.Model(image, x, name=network.name)


def _dense(x: Tensor, dropout: float) -> Tensor:
    x = layers.Dense(128, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    x = layers.Dropout(dropout)(x)
    return layers.Dense(1, activation="sigmoid", name="probability")(x)


_PLACE = 32  # pixels, a side, of which a Lite network makes one place


def _lite(variant: int, recipe: Recipe, as_one: Literal["folded", "normalised"] | None = None) -> Network:
    imagenet: Literal["imagenet"] | None = "imagenet" if recipe.initial_weights == "imagenet" else None
    shape, drop = recipe.preprocess.shape, recipe.drop_connect
    if max(shape) <= _PLACE:  # one image alone has nothing to normalise by then
        raise RecipeError(
            f"{shape[0]} x {shape[1]} pixels are one place to '{recipe.network}': give it more than {_PLACE}."
        )
    body = efficientnet_lite(
        variant, *shape, weights=imagenet, drop_connect=drop, batch_norm_momentum=0.97, as_one=as_one
    )
    return score_map_network(body, recipe.pooling, recipe.dense_dropout)


_LITE = {f"efficientnet_lite{variant}": variant for variant in SCALES}
NETWORKS: dict[str, Callable[[Recipe], Network]] = {
    "baseline_cnn": _baseline,
    **{name: partial(_lite, variant) for name, variant in _LITE.items()},
}


def _application(recipe: Recipe) -> Network:
    """Return a network of `keras.applications` with our head; grey goes into all three channels."""
    height, width = recipe.preprocess.shape
    image = keras.Input((height, width, 1), name="image")
    colour = layers.Concatenate(name="grey_as_colour")([image] * 3)
    weights = "imagenet" if recipe.initial_weights == "imagenet" else None
    builder = partial(getattr(keras.applications, recipe.network), include_top=False, weights=weights)
    try:
        body = builder(input_tensor=as_trained(colour, recipe.network), input_shape=(height, width, 3))
    except Exception as error:  # Keras raises whatever the connection or the network trips over
        raise RecipeError(
            f"network = {recipe.network} at {height} x {width}: cannot be built ({error}). Its "
            "ImageNet weights are downloaded once; without a connection set initial_weights=none, "
            "or take efficientnet_lite0, whose weights come as a package."
        ) from error
    features = keras.Model(image, body.output, name=recipe.network.lower())
    return score_map_network(features, recipe.pooling, recipe.dense_dropout)


def as_trained(colour: Tensor, name: str) -> Tensor:
    """Scale pixels in [0, 1] to what the ImageNet weights of that network expect of 0 to 255."""
    modules = (m for m in vars(keras.applications).values() if isinstance(m, ModuleType))
    home = next(m for m in modules if hasattr(m, name) and hasattr(m, "preprocess_input"))
    # Each is linear in each channel: black and white tell all of it.
    black, white = (home.preprocess_input(np.full((1, 1, 1, 3), x))[0, 0, 0] for x in (0.0, 255.0))
    return layers.Rescaling((white - black).tolist(), black.tolist(), name="as_trained")(colour)


def check_network(recipe: Recipe) -> None:
    """Refuse, before any work, a recipe whose network does not exist.

    Raises:
        RecipeError: it names no known network.
    """
    applications = {name for name in dir(keras.applications) if name[0].isupper()}
    if recipe.network not in NETWORKS.keys() | applications:
        raise RecipeError(
            f"no network '{recipe.network}'; known are {', '.join(NETWORKS)}, and those of "
            "keras.applications, such as EfficientNetB0."
        )


def build(recipe: Recipe) -> Network:
    """Build the recipe's network: weights drawn from Keras' current seed, or taken over, or both.

    Raises:
        RecipeError: there is no such network, or its initial weights cannot be had.
        MissingExtra: ImageNet weights are asked for and their package is not installed.
    """
    check_network(recipe)
    network = NETWORKS.get(recipe.network, _application)(recipe)
    if recipe.starts_from_another:
        _take_over(network, Path(recipe.initial_weights))
    if recipe.frozen_stages and not layers_by_stage(network)[STAGES[0]]:
        raise RecipeError(f"frozen_stages: '{recipe.network}' has no stages; set frozen_stages=0.")
    if recipe.normalisation == "folded" and recipe.network not in _LITE:
        raise RecipeError(f"normalisation: '{recipe.network}' cannot be folded; set normalisation=batch.")
    if recipe.boxes and not has_layer(network, LOGITS):
        raise RecipeError(f"boxes: '{recipe.network}' has no score map that boxes could teach; set boxes=0.")
    _freeze(network, recipe)
    return network


def build_learner(network: Network, recipe: Recipe) -> Network:
    """Build what learns in place of the recipe's network, knowing what it knows, or return that itself.

    It computes convolutions and normalisations as one: see `folded` and `normalised`.
    """
    if recipe.normalisation == "folded":
        learner, tell = _lite(_LITE[recipe.network], recipe, "folded"), fold
    elif learns_normalised(recipe):
        from mammolens.learning.networks.normalised import normalise as tell  # noqa: PLC0415 - of one backend alone

        variant = _LITE.get(recipe.network)
        learner = _baseline_as_one(network, recipe) if variant is None else _lite(variant, recipe, "normalised")
    else:
        return network
    _freeze(learner, recipe)
    tell(network, learner)
    return learner


def learns_normalised(recipe: Recipe) -> bool:
    """Tell whether layers learn that compute a convolution and its usual normalisation as one: see `normalised`."""
    own = recipe.network in NETWORKS and recipe.normalisation == "batch"
    return own and keras.backend.backend() == "torch"


def hand_back(learner: Network, network: Network, recipe: Recipe) -> None:
    """Give the recipe's network what was learnt in its place."""
    if recipe.normalisation == "folded":
        unfold(learner, network)
    elif learner is not network:
        from mammolens.learning.networks.normalised import hand_back as normalised  # noqa: PLC0415 - likewise

        normalised(learner, network)


def _freeze(network: Network, recipe: Recipe) -> None:
    for stage in STAGES[: recipe.frozen_stages]:
        for layer in layers_by_stage(network)[stage]:
            layer.trainable = False


def donor_file(origin: Path) -> Path:
    """Return the file of a network, in a run or by itself."""
    return origin / "breast.h5" if origin.is_dir() else origin


def _take_over(network: Network, origin: Path) -> None:
    """Give `network` the weights of layers of the same name and shapes in a saved one."""
    try:
        donor = open_saved(donor_file(origin))
    except Exception as error:  # Keras raises whatever it trips over
        raise RecipeError(f"initial_weights = {origin}: not imagenet, none, a run or a .h5 file ({error}).") from error
    theirs = {layer.name: layer.get_weights() for layer in donor.layers}
    taken = 0
    for layer in network.layers:
        # What an answer rests on is found after training, and no part of what training starts from.
        weights = [] if layer.name == ANSWER else theirs.get(layer.name, [])
        if weights and [w.shape for w in weights] == [tuple(w.shape) for w in layer.weights]:
            layer.set_weights(weights)
            taken += 1
    if not taken:
        raise RecipeError(f"initial_weights = {origin}: no layer of it fits '{network.name}'.")


def with_flips(network: Network, augment: Augment) -> Network:
    """Return a network whose logit and map are averaged over an image and its mirror images.

    Those that `augment` may make of it: test-time augmentation, as part of the network.
    """
    if len(augment.mirror_images) == 1:
        return network
    image = keras.Input(network.input_shape[1:], name="image")
    answers = [_flipped(network, image, axes) for axes in augment.mirror_images]
    return keras.Model(image, _averaged(answers), name=network.name)


def ensemble(networks: Sequence[Network]) -> Network:
    """Return a network whose logit and map are averaged over those of several, of one input shape.

    Where one of them has no map the ensemble has none. It answers and does not learn, nor do
    `networks` from then on.
    """
    first, *others = networks
    if not others:
        return first
    image = keras.Input(first.input_shape[1:], name="image")
    answers = []
    for number, network in enumerate(networks):  # by names of their own: they may all have the same
        member = keras.Model(network.input, network.outputs, name=f"member_{number}")
        member.trainable = False  # variables of one name would get in each other's way
        answers.append(member(image))
    return keras.Model(image, _averaged(answers), name=first.name)


def _averaged(answers: Sequence[Sequence[Tensor]]) -> Tensor | list[Tensor]:
    """Return a probability, by the mean of logits; and the mean of maps, if all have one."""
    clipped = [ops.clip(answer[0], _TINY, 1 - _TINY) for answer in answers]
    logits = [ops.log(probability) - ops.log(1 - probability) for probability in clipped]
    probability = ops.sigmoid(sum(logits) / len(logits))
    maps = [answer[1] for answer in answers if len(answer) > 1]
    return [probability, sum(maps) / len(maps)] if len(maps) == len(answers) else probability


def _flipped(network: Network, image: Tensor, axes: tuple[int, ...]) -> list[Tensor]:
    """Return the outputs for a mirrored image, maps mirrored back."""
    outputs = network(ops.flip(image, axes) if axes else image)
    listed = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    return [listed[0], *(ops.flip(x, axes) if axes else x for x in listed[1:])]
