from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from mammolens.errors import RecipeError
from mammolens.model.recipe import read_recipe
from mammolens.tuning.space import Start, read_space

START = Start("quick", ("monitor=nothing",))

SPACE = """
learning_rate = {low=1e-5, high=1e-2, log=true}
batch_size = {low=4, high=32}
augment = {choices=[{}, {rotation=10.0, zoom=0.1}]}

[preprocess]
preset = {choices=["plain", "breast"]}
"""


def space_of(text: str, folder: Path) -> Path:
    path = folder / "space.toml"
    path.write_text(text)
    return path


def test_what_a_trial_chooses_becomes_a_recipe(tmp_path: Path) -> None:
    space = read_space(space_of(SPACE, tmp_path), START)
    chosen = {
        "learning_rate": 0.002,
        "batch_size": 8,
        "augment": '{"rotation": 10.0, "zoom": 0.1}',
        "preprocess.preset": '"plain"',
    }
    trial = FixedTrial(chosen)
    space.propose(trial)  # type: ignore[arg-type]  # a trial all the same
    assert trial.params == chosen
    settings = space.settings(trial.params)
    recipe = START.recipe(settings)
    assert (recipe.learning_rate, recipe.batch_size, recipe.monitor) == (0.002, 8, "nothing")
    assert (recipe.augment.rotation, recipe.augment.zoom) == (10.0, 0.1)
    assert not recipe.preprocess.crop
    assert recipe.preprocess.height == 64, "what the recipe says of it stays"


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    space = read_space(space_of(SPACE, tmp_path), START)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        space.propose(trial)
        assert START.recipe(space.settings(trial.params)).batch_size in range(4, 33)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lerning_rate = {low=1e-5, high=1e-2}", "Did you mean 'learning_rate'?"),
        ("augment.rotate = {low=0, high=10}", "Did you mean 'augment.rotation'?"),
        ("dense_dropout = {low=0.0, high=1.0}", "dense_dropout = 1.0 will not do"),
        ("dense_dropout = {low=0.5, high=0.1}", "low must be less than high"),
        ("dense_dropout = {low=0.0, high=0.5, log=true}", "log needs low > 0"),
        ("dense_dropout = {low=0.0}", "dense_dropout.high: Field required"),
        ("dense_dropout = {low=0.0, high=0.5, steps=3}", "dense_dropout.steps: Extra inputs are not permitted"),
        ("dense_dropout = {choices=[0.1]}", "dense_dropout.choices"),
        ("dense_dropout = {choices=[0.1, 0.2, 0.10]}", "dense_dropout: two choices are one"),
        ("augment = {choices=[{}, {rotation=0.0}]}", "augment: two choices are one"),
        ("dense_dropout = {low=[0.1], high=0.5}", "dense_dropout.low: Input should be"),
        ("also_images = {low=0, high=4}", "quick: also_images needs boxes > 0"),
        ("dense_dropout = 0.5", "expected {low=…, high=…} or {choices=[…, …]}"),
        ("network = {low=1, high=2}", "network = 1 will not do"),
        ("epochs = {low=1.5, high=20.0}", "epochs = 1.5 will not do"),
        ("test_time_flips = {low=0, high=1}", "is not a number: give choices"),
        ('schedule = {choices=["plateau", "cosine"]}', "schedule = 'cosine' will not do"),
        ('augment = {choices=[{}, {rotation=9.0}]}\n"augment.rotation" = {low=0.0, high=9.0}', "in two places"),
        (
            'augment.zoom = {low=0.0, high=0.1}\n"augment.zoom" = {low=0.0, high=0.2}',
            "augment.zoom varies in two places",
        ),
        ('epochs = {low=1, high=2}\n" epochs" = {low=3, high=4}', "epochs varies in two places"),
        ("", "names no field"),
        ("learning_rate = {", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_with_a_space_is_one_line_that_names_it(text: str, said: str, tmp_path: Path) -> None:
    path = space_of(text, tmp_path)
    with pytest.raises(RecipeError) as told:
        read_space(path, START)
    assert said in str(told.value)
    assert str(told.value).startswith(f"{path}: ")


def test_a_space_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.toml: no such file"):
        read_space(tmp_path / "gone.toml", START)


def test_blanks_around_a_name_and_marks_of_editors_mean_nothing(tmp_path: Path) -> None:
    """Notepad begins a file with U+FEFF."""
    mine = space_of('\ufeffname = "mine"\n[augment]\nrotation = 4.0', tmp_path)
    assert Start(str(mine)).recipe().augment.rotation == 4.0
    space = read_space(space_of('\ufeff" augment.rotation " = {low=0, high=9}', tmp_path), START)
    assert space.settings({"augment.rotation": 3.0}) == {"augment.rotation": 3.0}


def test_names_in_any_script_stay_what_they_are(tmp_path: Path) -> None:
    space = read_space(space_of('initial_weights = {choices=["none", "läufe/🎗"]}', tmp_path), START)
    recipe = START.recipe(space.settings({"initial_weights": '"läufe/🎗"'}))
    assert recipe.initial_weights == "läufe/🎗"
    (tmp_path / "best.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert read_recipe(str(tmp_path / "best.toml")) == recipe


def test_choices_need_no_names_of_recipes(tmp_path: Path) -> None:
    """A recipe from a file is found wherever one is."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\nepochs = 3\n')
    chosen: dict[str, Any] = {"dense_dropout": 0.25}
    assert Start(str(recipe)).recipe(chosen).dense_dropout == 0.25
