"""A recipe for a small network of ordinary layers, whose weights are drawn."""

from mammolens.model.recipe import Recipe, read_recipe

SMALL = (
    *("preprocess.height=64", "preprocess.width=32", "initial_weights=none"),
    *("frozen_stages=0", "normalisation=batch", "pooling=attention", "test_time_flips=false"),
)


def small(*changes: str) -> Recipe:
    return read_recipe("lesions", [*SMALL, *changes])
