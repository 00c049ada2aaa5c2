"""The verb that chooses among recipes: tune."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mammolens.cli.options import (
    Changes,
    ClusterAddress,
    Data,
    Quiet,
    RecipeName,
    command_line,
    fail_if,
    folder_option,
    joined,
    listed_from,
    screen,
    to_be_continued,
    typed,
    warn,
)
from mammolens.errors import require
from mammolens.files import check_writable
from mammolens.library import require_training


def tune(
    data: Data,
    space: Annotated[Path, typer.Option(help="TOML: which fields of the recipe may vary, and how.")],
    recipe: RecipeName = "baseline",
    set_: Changes = None,
    trials: Annotated[int, typer.Option(min=1, help="Recipes to try.")] = 30,
    folds: Annotated[int, typer.Option(min=2, help="Of patients, to score a recipe by.")] = 5,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share that no trial sees, by patient, to judge the best recipe by.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of what is tried, and of who is held out.")] = 0,
    cluster: ClusterAddress = None,
    out: Annotated[Path | None, folder_option("Folder.  [default: runs/NAME-tuned]")] = None,
    quiet: Quiet = False,
) -> None:
    """Search the settings of a recipe: best.toml, and what tuning is worth on patients held out before.

    Exit code 1 if images were left out.
    """
    from mammolens.reports.terminal import trials_table, worth_table

    require_training()
    require("optuna", extra="tune")
    from mammolens.tuning.space import Start, read_space
    from mammolens.tuning.sweep import BEST, Options
    from mammolens.tuning.sweep import tune as tune_recipe
    from mammolens.tuning.trials import scorable

    start = Start(recipe, tuple(set_ or ()))
    folder = out or Path("runs") / f"{scorable(start.recipe()).name}-tuned"
    read_space(space, start)  # before data are read and a cluster is started
    check_writable(folder)
    (listed,), left_out = listed_from(data)
    with to_be_continued("tune", folder), joined(cluster) as machines:
        spread: dict[str, Any] = {}
        if machines:
            from mammolens.cluster.training import side_by_side
            from mammolens.cluster.tuning import search

            spread = {"search": partial(search, cluster=machines), "each": side_by_side(machines, 1)}
        found = tune_recipe(
            listed,
            start,
            space,
            folder,
            Options(trials, folds, held_out, seed),
            **spread,
            name=data,
            command=command_line(),
            progress=not quiet,
        )
    for why in found.left_out.values():
        warn(f"left out: {why}")
    screen.print(trials_table(found, screen.width), worth_table(found, screen.width))
    if found.test_images:
        screen.print(f"{found.test_images} images of patients of the test split were left alone.", markup=False)
    if found.held_out is None:
        warn("nobody was held out: the AUC of the best of several flatters it, and nothing here says by how much")
    screen.print(
        f"Report: {folder / 'tuning.html'}\nNext: {typed('train', data, '--recipe', folder / BEST)}", markup=False
    )
    fail_if(left_out + len(found.left_out))
