"""What the epochs so far say: which was best, whether to stop, whether the learning rate falls.

Pure functions of the measures, so that a training that goes on decides as one that never stopped.
Each takes the measures of all epochs so far, smaller is better; NaN is better than nothing.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from mammolens.files import write_text
from mammolens.model.recipe import Recipe

Epoch = Mapping[str, float]
"""Measures of an epoch by name, those of validation as ``val_...``."""

_LEAST = 1e-4  # by so much an epoch is better for the plateau, as Keras has it


def watched(epochs: Sequence[Epoch], recipe: Recipe) -> list[float]:
    """Return what the recipe watches in each epoch, so that smaller is better."""
    name = "loss" if recipe.monitor == "nothing" else recipe.monitor
    sign = -1 if name == "auc" else 1
    return [sign * epoch[f"val_{name}"] for epoch in epochs]


def best_epoch(epochs: Sequence[Epoch], recipe: Recipe) -> int:
    """Return whose weights are kept, counted from 1: the first of the best, or the last of all."""
    if recipe.monitor == "nothing":
        return len(epochs)
    values = watched(epochs, recipe)
    return 1 + min(range(len(values)), key=lambda index: (math.isnan(values[index]), values[index]))


def is_over(epochs: Sequence[Epoch], recipe: Recipe) -> bool:
    """Tell whether there is nothing more to train."""
    if recipe.monitor == "nothing" or not epochs:
        return len(epochs) >= recipe.epochs
    waited = len(epochs) - best_epoch(epochs, recipe)
    return len(epochs) >= recipe.epochs or waited >= max(1, recipe.early_stopping_patience)


def rate_falls(epochs: Sequence[Epoch], recipe: Recipe) -> bool:
    """Tell whether a rate of the schedule ``plateau`` falls after the last epoch.

    It does where that is the `plateau_patience`-th in a row without a better one, counted anew
    after each fall, like `keras.callbacks.ReduceLROnPlateau`.
    """
    best, waited, falls = math.inf, 0, False
    for value in watched(epochs, recipe):
        better = value < best - _LEAST
        best, waited = (value, 0) if better else (best, waited + 1)
        falls = waited >= recipe.plateau_patience
        waited = 0 if falls else waited
    return falls


def write_history(epochs: Sequence[Epoch], path: Path) -> None:
    """Write a row an epoch, counted from 0, whole or not at all."""
    text = StringIO()
    writer = csv.DictWriter(text, ["epoch", *sorted(epochs[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": number, **epoch} for number, epoch in enumerate(epochs))
    write_text(path, text.getvalue())
