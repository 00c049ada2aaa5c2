"""What a search among recipes found, and what its best is worth: the schema of ``tuning.json``."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from mammolens.measures.intervals import Estimate, Figures, Measure, estimate, patient_weights
from mammolens.measures.metrics import Array, auc_difference, roc_auc
from mammolens.model.decisions import Subjects

State = Literal["complete", "stopped", "refused"]


class Trial(Figures):
    """One recipe that was tried.

    Attributes:
        number: from 1, in the order of proposals; 0 is the recipe that the search started from.
        state: scored on all folds; given up after some; or nothing is learnt with its settings, see `why`.
        settings: what differs from that recipe.
        folds: that it was scored on.
        roc_auc: by image, the mean over these folds.
        seconds: that the last of its calls took.
        why: it was refused.
    """

    number: int
    state: State
    settings: dict[str, Any]
    folds: int = 0
    roc_auc: Estimate | None = None
    seconds: float | None = None
    why: str = ""


class HeldOut(Figures):
    """Patients whom no trial saw, judged once by each of two networks that learnt from all others.

    Attributes:
        images: by which they are judged.
        patients: whose these are.
        tumors: images with the label tumor.
        start: AUC of the recipe that the search started from.
        best: AUC of the best.
        difference: best less start, paired.
        looks: how many best recipes were judged on these patients so far: after the first, choice has seen them.
    """

    images: int
    patients: int
    tumors: int
    start: Estimate
    best: Estimate
    difference: Estimate
    looks: int


class Tuning(Figures):
    """What ``tuning.json`` holds.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        mammolens_version: that made it.
        command: what was typed.
        data: name of the data set.
        recipe: name of the recipe that the search started from.
        folds: of patients, that trials are scored by.
        images: in the folds.
        patients: whose these are.
        tumors: images with the label tumor.
        test_images: of patients of the data set's test split, which were not touched.
        left_out: images that could not be read, with the reason.
        best: number of the best trial.
        gain: best less the recipe that the search started from, on the folds, paired: it flatters.
        corrected: AUC of the best of the complete trials on patients whom the choice did not see, see `best_of_many`.
        held_out: what the best is worth; None: nobody was held out.
        importance: share of the spread of trials' first folds that each setting explains.
        trials: in order; the first is the recipe that the search started from.
    """

    schema_version: Literal[1] = 1
    mammolens_version: str
    command: str
    data: str
    recipe: str
    folds: int
    images: int
    patients: int
    tumors: int
    test_images: int
    left_out: dict[str, str]
    best: int
    gain: Estimate
    corrected: Estimate | None
    held_out: HeldOut | None
    importance: dict[str, float]
    trials: tuple[Trial, ...]

    @property
    def winner(self) -> Trial:
        """The best trial."""
        return next(trial for trial in self.trials if trial.number == self.best)

    @property
    def ranked(self) -> list[Trial]:
        """Trials, the best first: those that were scored on more folds before the others."""
        return sorted(self.trials, key=lambda one: (-one.folds, -(one.roc_auc.value if one.roc_auc else 0), one.number))


def best_of_many(measures: Sequence[Measure], patients: Sequence[str]) -> Estimate | None:
    """Return what the best of several is worth on subjects that had no part in the choice; None of one alone.

    Tsamardinos, Greasidou & Borboudakis 2018 (Mach. Learn. 107:1895): patients are resampled, the best on those drawn
    is judged on those not drawn. The value is the mean over resamples.

    Args:
        measures: an AUC each, of the same subjects.
        patients: of these, in order.
    """
    if len(measures) == 1:
        return None
    weights = patient_weights(patients)
    inside = np.array([weights.resampled(measure) for measure in measures])
    outside = np.array([weights.resampled(partial(_of_the_others, measure)) for measure in measures])
    chosen = np.where(np.isnan(inside), -np.inf, inside).argmax(axis=0)
    values = outside[chosen, np.arange(inside.shape[1])]
    values = values[np.isfinite(values)]
    return Estimate(float(values.mean()), *map(float, np.percentile(values, [2.5, 97.5]))) if len(values) else None


def _of_the_others(measure: Measure, drawn: Array) -> Array:
    """Return a measure of what was not drawn."""
    return measure(np.asarray(drawn == 0, dtype=np.float64))


def paired_gain(best: Measure, start: Measure, patients: Sequence[str]) -> Estimate:
    """Return one AUC less another of the same subjects."""
    if best is start:
        return Estimate(0, 0, 0)
    return estimate(lambda weights: best(weights) - start(weights), patient_weights(patients))


def judge_held_out(best: Subjects, start: Subjects, looks: int) -> HeldOut:
    """Judge two networks on the same images of patients whom neither saw."""
    labels, patients = best.labels, best.patients
    weights = patient_weights(patients)
    return HeldOut(
        images=len(labels),
        patients=len(set(patients)),
        tumors=int(labels.sum()),
        start=estimate(roc_auc(labels, start.probabilities), weights),
        best=estimate(roc_auc(labels, best.probabilities), weights),
        difference=auc_difference(labels, best.probabilities, start.probabilities, weights),
        looks=looks,
    )
