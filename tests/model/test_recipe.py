from pathlib import Path

import pytest

from mammolens.errors import RecipeError
from mammolens.images.preprocess import Preprocess
from mammolens.model.recipe import Augment, Recipe, read_recipe, recipe_names


def test_the_baseline_is_the_original_training() -> None:
    recipe = read_recipe("baseline")
    assert recipe == Recipe()
    assert recipe.preprocess == Preprocess.plain()
    assert recipe.augment == Augment()
    assert (recipe.learning_rate, recipe.batch_size, recipe.epochs) == (1e-4, 16, 100)
    assert (recipe.early_stopping_patience, recipe.plateau_patience) == (5, 3)
    assert recipe.plateau_factor == 0.5


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_reads_and_is_called_by_its_name(name: str) -> None:
    assert read_recipe(name).name == name


def test_changes_are_made_on_top() -> None:
    changes = ["epochs=5", "learning_rate=3e-4", "class_weights=balanced", "threshold=youden"]
    changes += ["preprocess.preset=breast", "preprocess.height=128", "augment.horizontal_flip=true"]
    recipe = read_recipe("baseline", changes)
    assert (recipe.epochs, recipe.learning_rate) == (5, 3e-4)
    assert (recipe.class_weights, recipe.threshold) == ("balanced", "youden")
    assert recipe.preprocess == Preprocess.breast(128, 256)
    assert recipe.augment.horizontal_flip


def test_a_recipe_survives_its_own_toml(tmp_path: Path) -> None:
    recipe = read_recipe("baseline", ["preprocess.preset=breast", "threshold=0.25", "name=my é"])
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert read_recipe(str(path)) == recipe


def test_a_recipe_of_an_earlier_run_may_name_what_it_did_not_use(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("mixup = 0.0\nbags = 0.0\nstage_rates = 1.0\nepochs = 7\n", encoding="utf-8")
    assert read_recipe(str(path)) == Recipe(epochs=7)
    for key, value in (("mixup", 0.4), ("stage_rates", 0.8), ("stage_rates", 0)):
        path.write_text(f"{key} = {value}\n", encoding="utf-8")
        with pytest.raises(RecipeError, match=f"unknown key '{key}'"):
            read_recipe(str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("epoch=5", "unknown key 'epoch'. Did you mean 'epochs'"),
        ("preprocess.hight=5", "Did you mean 'preprocess.height'"),
        ("augment.flip=true", "unknown key 'augment.flip'"),
        ("mixup=0.2", "unknown key 'mixup'"),
        ("bags=1", "unknown key 'bags'"),
        ("stage_rates=0.8", "unknown key 'stage_rates'"),
        ("normalisation=layer", "normalisation = 'layer' will not do"),
        ("pooling=top_k", "pooling = 'top_k' will not do"),
        ("epochs=0", "epochs = 0 will not do"),
        ("epochs=many", "epochs = 'many' will not do"),
        ("class_weights=some", "class_weights = 'some' will not do"),
        ("threshold=1.5", "threshold"),
        ("preprocess.preset=film", "preset must be one of plain, breast"),
        ("epochs", "expected key=value"),
        ("epochs.more=1", "is a value, not a table"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_wrong(change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_recipe("baseline", [change])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "also_images needs boxes > 0"),
        (["boxes=1", "class_weights=balanced"], "and class_weights = none"),
        (["boxes=1", "batch_size=4"], "also_images must be less than batch_size"),
    ],
)
def test_images_of_others_need_boxes_and_room(changes: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_recipe("baseline", ["also_images=4", *changes])
    assert read_recipe("baseline", ["also_images=4", "boxes=1", "batch_size=5"]).also_images == 4


def test_a_recipe_that_is_not_there_or_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'missing'.*baseline"):
        read_recipe("missing")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(RecipeError, match=r"bad\.toml: not valid TOML"):
        read_recipe(str(tmp_path / "bad.toml"))
