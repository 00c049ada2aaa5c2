"""`Recipe`: how to learn, read from TOML. The one home of every training option."""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mammolens.errors import RecipeError
from mammolens.images.preprocess import Preprocess

PRESETS = {"plain": Preprocess.plain, "breast": Preprocess.breast}

ALL_STAGES = 9
"""Of a pretrained network."""

_SHIPPED = resources.files("mammolens") / "recipes"
_GONE = {"mixup": 0, "bags": 0, "stage_rates": 1}  # settings that recipes of earlier runs name, switched off

Share = Annotated[float, Field(ge=0, lt=1)]

Axes = tuple[tuple[int, ...], ...]
"""The axes to flip of each of several mirror images."""


class Augment(BaseModel):
    """Random changes to training images; all off by default.

    Attributes:
        horizontal_flip: mirror half of the images left to right.
        vertical_flip: mirror half of the images top to bottom.
        rotation: turn by up to this many degrees either way.
        zoom: scale by a factor drawn from 1 - zoom to 1 + zoom.
        shift: move by up to this share of height and of width either way.
        contrast: scale distances from the image's mean by a factor drawn likewise.
        gamma: raise pixels to a power drawn from exp(-gamma) to exp(gamma).
        noise: standard deviation of grey noise added inside the breast, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizontal_flip: bool = False
    vertical_flip: bool = False
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Share = 0.0
    shift: Share = 0.0
    contrast: Share = 0.0
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.0
    noise: Share = 0.0

    @property
    def mirror_images(self) -> Axes:
        """The axes of (images, height, width, ...) to flip for each picture that flips make."""
        across = ((), (2,)) if self.horizontal_flip else ((),)
        down = ((), (1,)) if self.vertical_flip else ((),)
        return tuple((*one, *other) for one in down for other in across)


class Recipe(BaseModel):
    """How to learn. The defaults are the recipe ``baseline``, the original project's training.

    Attributes:
        name: what runs made with it are called.
        network: a name from `networks.NETWORKS`, or of `keras.applications`.
        preprocess: input size and what is done to an image; `preset` names where to start from.
        augment: random changes to training images.
        initial_weights: ``imagenet``, ``none``, or a run or ``.h5`` file whose layers of the same
            name and shape are taken over. The baseline network has ``none``.
        pooling: how a score map becomes one probability: ``mean``, ``max``, ``mean_max``,
            ``attention``, or ``attention_and_peak``, which rests on the attention map's highest
            place as well. The baseline network has none.
        convolution_dropout: share dropped after each convolutional block.
        dense_dropout: share dropped before the output.
        drop_connect: share of images for which the last residual block is left out.
        optimizer: ``adam``, or ``adamw`` with decoupled weight decay.
        weight_decay: of AdamW.
        learning_rate: at the start; of ``one_cycle``, at its highest.
        schedule: ``plateau`` lowers the rate when validation loss stalls; ``one_cycle`` raises it
            over `warm_up` and lowers it to zero along a cosine.
        warm_up: share of all steps.
        normalisation: ``batch`` learns as networks usually do. ``folded`` is a quarter faster, and
            for pretrained networks: batch statistics are those of training images, taken once;
            scales and shifts learn, depthwise kernels stay; convolutions compute in bfloat16.
        frozen_stages: how many stages of a pretrained network, from the first, stay as they are;
            each makes an epoch faster.
        label_smoothing: labels become this share of one half.
        moving_average: momentum of a moving average of weights, which is what is kept; 0 is off.
        sampling: ``image`` takes each image once an epoch; ``patient`` takes as many images, drawn
            so that each patient, and each class, has an equal part.
        boxes: weight of a second loss, that of the score map against the boxes of lesions, where a
            data set has them; 0 is off.
        also_images: so many images of a batch are of the data sets that are learnt from as well; their
            boxes teach the score map, and their labels what is in those boxes.
        test_time_flips: average the logits of each image and of the mirror images that flips in
            `augment` make of it.
        batch_size: images a step.
        epochs: at most this many passes over the training images.
        monitor: ``loss`` or ``auc``: what of validation says which epoch is best; ``nothing``
            trains all epochs and keeps the last, so that validation may be judged.
        early_stopping_patience: epochs without a better one before stopping; the best weights are
            restored.
        plateau_patience: epochs without a better validation loss before the rate is lowered.
        plateau_factor: by which the rate is then multiplied.
        class_weights: ``balanced`` weighs classes by the inverse of their frequency.
        threshold: probability from which an image is called tumor; ``youden`` takes the one with
            the largest sensitivity + specificity on the validation split.
        seed: of the weights, the order of images, dropout and augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "baseline"
    network: str = "baseline_cnn"
    preprocess: Preprocess = Preprocess.plain()
    augment: Augment = Augment()
    initial_weights: str = "none"
    pooling: Literal["mean", "max", "mean_max", "attention", "attention_and_peak"] = "mean_max"
    convolution_dropout: Share = 0.25
    dense_dropout: Share = 0.5
    drop_connect: Share = 0.0
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    warm_up: Share = 0.25
    normalisation: Literal["batch", "folded"] = "batch"
    frozen_stages: Annotated[int, Field(ge=0, le=ALL_STAGES)] = 0
    label_smoothing: Share = 0.0
    moving_average: Share = 0.0
    sampling: Literal["image", "patient"] = "image"
    boxes: Annotated[float, Field(ge=0, le=100)] = 0.0
    also_images: Annotated[int, Field(ge=0, le=1023)] = 0
    test_time_flips: bool = False
    monitor: Literal["loss", "auc", "nothing"] = "loss"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 100
    early_stopping_patience: Annotated[int, Field(ge=0)] = 5
    plateau_patience: Annotated[int, Field(ge=1)] = 3
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    class_weights: Literal["none", "balanced"] = "none"
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["youden"] = 0.5
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _also_beside_others(self) -> Self:
        if self.also_images and (not self.boxes or self.class_weights != "none"):
            raise ValueError("also_images needs boxes > 0, to learn from them, and class_weights = none")
        if self.also_images >= self.batch_size:
            raise ValueError("also_images must be less than batch_size")
        return self

    @field_validator("preprocess", mode="before")
    @classmethod
    def _start_from_preset(cls, value: object) -> object:
        if not isinstance(value, Mapping) or "preset" not in value:
            return value
        preset = PRESETS.get(str(value["preset"]))
        if preset is None:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}")
        return preset().model_dump() | {k: v for k, v in value.items() if k != "preset"}

    @property
    def starts_from_another(self) -> bool:
        """Whether weights of another network are taken over, from a file."""
        return self.initial_weights not in {"none", "imagenet"}

    def to_toml(self) -> str:
        """Return the recipe as TOML that `read_recipe` reads back to an equal recipe."""
        settings = self.model_dump(exclude_none=True)
        tables = {key: value for key, value in settings.items() if isinstance(value, dict)}
        lines = [_toml_line(key, value) for key, value in settings.items() if key not in tables]
        for key, table in tables.items():
            lines += ["", f"[{key}]", *(_toml_line(name, value) for name, value in table.items())]
        return "\n".join(lines) + "\n"


def read_recipe(name_or_path: str = "baseline", changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe that ships with the package by name, or any TOML file by path.

    Args:
        name_or_path: such as ``baseline`` or ``my.toml``.
        changes: ``key=value`` settings made on top, such as ``epochs=5`` or
            ``preprocess.height=128``; values are read as TOML, or as text.

    Raises:
        RecipeError: no such recipe, an unknown key (the nearest valid one is named) or a value
            out of range.
    """
    origin, text = _find(name_or_path)
    try:
        settings = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{origin}: not valid TOML ({error}).") from error
    settings = {name: value for name, value in settings.items() if name not in _GONE or value != _GONE[name]}
    for change in changes:
        _apply(settings, change)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {_what_is_wrong(error)}") from error


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(Path(entry.name).stem for entry in _SHIPPED.iterdir() if entry.name.endswith(".toml"))


def _find(name_or_path: str) -> tuple[str, str]:
    ships = name_or_path in recipe_names()
    place = _SHIPPED / f"{name_or_path}.toml" if ships else Path(name_or_path)
    try:
        return f"recipe {name_or_path}" if ships else name_or_path, place.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"no recipe '{name_or_path}': expected a TOML file or one of {', '.join(recipe_names())}."
        ) from error


def _apply(settings: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {change}: expected key=value, such as --set epochs=5.")
    *tables, last = key.strip().split(".")
    for table in tables:
        settings = settings.setdefault(table, {})
        if not isinstance(settings, dict):
            raise RecipeError(f"--set {change}: '{table}' is a value, not a table of settings.")
    try:
        settings[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        settings[last] = text


def _what_is_wrong(error: ValidationError) -> str:
    """Name the first key that no recipe has, and the nearest one; else the first value refused."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if part != "constrained-float")
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return f"{key} = {first['input']!r} will not do: {said}." if key else f"{said}."
    settings = [
        *Recipe.model_fields,
        *(f"augment.{name}" for name in Augment.model_fields),
        *(f"preprocess.{name}" for name in ("preset", *Preprocess.model_fields)),
    ]
    near = difflib.get_close_matches(key, settings, n=1, cutoff=0.0)
    return f"unknown key '{key}'. Did you mean '{near[0]}'?"


def _toml_line(key: str, value: object) -> str:
    # The JSON of numbers, booleans, strings and lists is valid TOML.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
