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
from mammolens.errors import RecipeError
from mammolens.files import write_text
from mammolens.learning.crossvalidation import Judged, check_unseen, cross_validate, folds_done, mean_auc
from mammolens.learning.runs import MODEL
from mammolens.model.recipe import Recipe
from mammolens.parallel import Item, Result
from mammolens.tuning.space import Settings, Space, Start

REFUSED = "refused.txt"

Told = Callable[[int, float], None]
"""Takes how many folds are done and their mean AUC by image; what it raises ends the trial."""


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
            RecipeError: these settings do not go together, or look at the fold that is judged.
        """
        recipe = self.start.recipe(settings)
        check_unseen(recipe)
        return recipe

    def judged(self, settings: Settings) -> list[Judged]:
        """Return what is scored of a trial so far."""
        return folds_done(self.place(settings), self.dealt)

    def refusal(self, settings: Settings) -> str:
        """Return why a trial could not be made, or nothing."""
        path = self.place(settings) / REFUSED
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def score(self, settings: Settings, told: Told) -> float:
        """Score a trial, from wherever it was interrupted; return its mean AUC by image.

        It is 0 where the settings make no recipe: the trial's folder then says why. Networks are
        deleted as soon as they have answered. What `told` raises goes through.
        """
        folder, judged = self.place(settings), list[Judged]()

        def each(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
            for item in items:
                result = function(item)
                judged.append(cast("Judged", result))
                for network in folder.glob(f"fold-*/{MODEL}"):
                    network.unlink()
                told(len(judged), auc_of(judged))
                yield result

        (folder / REFUSED).unlink(missing_ok=True)
        try:
            cross_validate(self.manifest, self.recipe(settings), folder, folds=self.folds, each=each)
        except RecipeError as error:
            write_text(folder / REFUSED, str(error))
            return 0.0
        return auc_of(judged)


def auc_of(judged: Sequence[Judged]) -> float:
    """Return the mean AUC of folds, by image."""
    measure, patients = mean_auc(judged)
    return float(measure(np.ones((1, len(patients))))[0])
