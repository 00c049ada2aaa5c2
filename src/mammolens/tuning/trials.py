"""A trial: one recipe, scored fold by fold, given up where its first folds say so. Its folder is its memory."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from mammolens.data.manifest import Manifest
from mammolens.data.splits import folds_by_patient
from mammolens.errors import DataError, MammolensError, RecipeError, reason
from mammolens.files import system_error, write_text
from mammolens.learning.crossvalidation import Judged, check_unseen, cross_validate, folds_done, mean_auc
from mammolens.learning.networks.builders import check_network
from mammolens.learning.runs import MODEL
from mammolens.locks import held_in_turn
from mammolens.model.recipe import Recipe
from mammolens.parallel import Item, Result
from mammolens.tuning.space import Settings, Space, Start

REFUSED = "refused.txt"

Told = Callable[[int, float], None]
"""Takes how many folds are done and their mean AUC by image; what it raises ends the trial."""


def scorable(recipe: Recipe) -> Recipe:
    """Return a recipe that folds of one data set can score.

    Raises:
        RecipeError: it names no known network, looks at the fold that is judged, or learns from other data sets, too.
    """
    check_network(recipe)
    check_unseen(recipe)
    if recipe.also_images:
        raise RecipeError(
            f"also_images = {recipe.also_images}: a search learns from one data set alone. "
            "Add --set also_images=0 --set boxes=0."
        )
    return recipe


@dataclass(frozen=True)
class Plan:
    """What all trials have in common. It travels to other machines, where its paths lead to the same files.

    Attributes:
        start: the recipe that settings change.
        space: what may be tried.
        manifest: labelled images, to learn from and to score on by folds of patients.
        folds: how many.
        folder: for a folder a trial.
    """

    start: Start
    space: Space
    manifest: Manifest
    folds: int
    folder: Path

    @cached_property
    def dealt(self) -> Sequence[Manifest]:
        """The folds, the same for all trials."""
        return folds_by_patient(self.manifest, self.folds)

    def place(self, settings: Settings) -> Path:
        """Return the folder of the trial with these settings, whichever its number: no settings are tried twice."""
        if not settings:
            return self.folder / "start"
        return self.folder / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def recipe(self, settings: Settings) -> Recipe:
        """Return the recipe of a trial.

        Raises:
            RecipeError: these settings do not go together, or folds cannot score them.
        """
        return scorable(self.start.recipe(settings))

    def judged(self, settings: Settings) -> list[Judged]:
        """Return what is scored of a trial so far."""
        return folds_done(self.place(settings), self.dealt)

    def refusal(self, settings: Settings) -> str:
        """Return why a trial could not be made, or nothing."""
        path = self.place(settings) / REFUSED
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def refuse(self, settings: Settings, why: str) -> None:
        """Write down why a trial could not be made."""
        write_text(self.place(settings) / REFUSED, why)

    def score(self, settings: Settings, told: Told) -> float:
        """Score a trial, from wherever it was interrupted; return its mean AUC by image.

        It is 0 where nothing can be learnt with these settings: the trial's folder then says why.
        Networks are deleted as soon as they have answered. What `told` raises goes through. Another
        process that is at the same settings is waited for.

        Raises:
            DataError: an image cannot be read, or the folder not be written to.
            Exception: whatever is wrong with the recipe that the search starts from.
        """
        folder, judged = self.place(settings), list[Judged]()

        def each(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
            self._check_all_there(cast("tuple[Manifest, Path]", items[0])[0])
            for item in items:
                result = function(item) if not settings else _made(function, item)
                judged.append(cast("Judged", result))
                for network in folder.glob(f"fold-*/{MODEL}"):
                    network.unlink()
                told(len(judged), auc_of(judged))
                yield result

        folder.mkdir(parents=True, exist_ok=True)
        with held_in_turn(folder / ".held"):
            if self.refusal(settings):
                return 0.0
            try:
                cross_validate(self.manifest, self.recipe(settings), folder, folds=self.folds, each=each)
            except RecipeError as error:
                if not settings:
                    raise
                self.refuse(settings, str(error))
                return 0.0
        return auc_of(judged)

    def _check_all_there(self, readable: Manifest) -> None:
        if len(readable) < len(self.manifest):
            missing = sorted(set(self.manifest.paths) - set(readable.paths))
            raise DataError(
                f"{missing[0]}: could be read when the search began, and cannot be read now. Put it back, or see that "
                "all machines see the same files."
            )


def _made(function: Callable[[Item], Result], item: Item) -> Result:
    """Return a function of an item.

    Raises:
        RecipeError: it fails, and no system is to blame.
    """
    try:
        return function(item)
    except Exception as error:  # Keras and PyTorch raise whatever they trip over
        if system_error(error) is not None:
            raise
        said = str(error) if isinstance(error, MammolensError) else f"failed ({reason(error)})."
        raise RecipeError(said) from error


def auc_of(judged: Sequence[Judged]) -> float:
    """Return the mean AUC of folds, by image."""
    measure, patients = mean_auc(judged)
    return float(measure(np.ones((1, len(patients))))[0])
