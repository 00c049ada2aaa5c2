"""Data set + recipe + space → the best recipe, and what it is worth. `tune` is the whole story."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optuna import Study
from optuna.trial import FrozenTrial

from mammolens import __version__
from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.data.splits import split_by_patient
from mammolens.errors import DataError, RunError
from mammolens.files import write_text
from mammolens.judging.tuning import HeldOut, Trial, Tuning, best_of_many, judge_held_out, paired_gain
from mammolens.learning.crossvalidation import SCORES, Judged, estimated_auc, judge_fold, mean_auc
from mammolens.learning.runs import MODEL
from mammolens.learning.training import check_trainable
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.model.decisions import Subjects, by_level
from mammolens.model.recipe import Recipe
from mammolens.parallel import Each, progress_bar
from mammolens.records import Split
from mammolens.reports.tuning import write_report
from mammolens.tuning.space import Settings, Start, read_space
from mammolens.tuning.study import Search, ended, importance, one_after_another, open_study, writing
from mammolens.tuning.trials import Plan, auc_of, scorable

BEST = "best.toml"

STUDY, TRIALS, HELD_OUT = "study.sqlite3", "trials", "held-out"

_WRITTEN = (BEST, TRIALS, HELD_OUT, "ray", "figures", "trials.csv", "tuning.html", "tuning.json")
"""What a search writes over, or deletes."""


@dataclass(frozen=True)
class Options:
    """How much is tried, and how it is judged.

    Attributes:
        trials: how many.
        folds: of patients, that score a trial.
        held_out: share of images, by patient, that no trial sees; 0 is nobody.
        seed: of who is held out, and of what is proposed.
    """

    trials: int = 30
    folds: int = 5
    held_out: float = 0.2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Images:
    """What is there to learn from and to judge on.

    Attributes:
        data: readable, labelled images of patients of whom none is in the test split: those that are held out in the
            validation split.
        test_images: labelled images that are left alone.
    """

    data: PreparedSet
    test_images: int

    @property
    def inner(self) -> Manifest:
        return self.data.manifest.of_split(Split.TRAIN)

    @property
    def held_out(self) -> Manifest:
        return self.data.manifest.of_split(Split.VALID)


@dataclass(frozen=True)
class _Row:
    """A trial, and what the networks of its folds answered."""

    trial: Trial
    judged: Sequence[Judged]
    proposed: FrozenTrial | None


def tune(  # noqa: PLR0913 - what is learnt from, how it is searched, and what to call it
    manifest: Manifest,
    start: Start,
    space: Path,
    folder: Path,
    options: Options = Options(),
    *,
    search: Search = one_after_another,
    each: Each = map,
    name: str = "",
    command: str = "",
    progress: bool = False,
) -> Tuning:
    """Search a space for the recipe with the largest AUC by image, the mean over patient-grouped folds.

    Patients of the data set's test split, where it has one, are in no fold, nor judged. A share of
    the others is held out before the first trial, and judged once by the best recipe and by the one
    that the search started from: scores on folds, by which the best was chosen, flatter it. A search
    that was interrupted goes on where nothing but the number of trials has changed.

    Args:
        manifest: labelled images; their splits but for the test split are forgotten.
        start: the recipe that settings change. It may not look at validation to choose an epoch.
        space: TOML: what may be tried.
        folder: for `best.toml`, `tuning.json`, `trials.csv`, `tuning.html`, figures, and what a
            later call goes on from.
        options: how much is tried.
        search: makes the trials: one after another, or spread over machines.
        each: likewise, all else that is to be learnt.
        name: of the data set, for the report.
        command: what was typed, for the report.
        progress: show a bar on standard error.

    Raises:
        RecipeError: the recipe or the space will not do.
        DataError: too few patients, or images that cannot be read.
        RunError: `folder` holds a search for something else, or what this one would write over.
    """
    recipe = scorable(start.recipe())
    tried = read_space(space, start)
    folder.mkdir(parents=True, exist_ok=True)
    _check_own(folder)
    images = _dealt(manifest, recipe, options, progress=progress)
    plan = Plan(start, tried, images.inner, options.folds, folder / TRIALS)
    with _dealing(f"by {options.folds} --folds"):
        for fold in plan.dealt:
            check_trainable(fold, recipe)
    study = open_study(folder / STUDY, _identity(plan, images, options), options.seed)
    with writing(folder / STUDY), progress_bar(visible=progress) as bar:
        done = len(ended(study))
        task = bar.add_task("trials", total=max(options.trials, done) + 1, completed=done)
        list(each(partial(plan.score, told=_on), [{}]))
        bar.advance(task)
        search(study, plan, options.trials, partial(bar.advance, task))
    rows = _rows(study, plan)
    first = [(row.proposed, auc_of(row.judged[:1])) for row in rows if row.proposed and row.judged]
    best = max((row for row in rows if row.trial.state == "complete"), key=lambda row: auc_of(row.judged))
    recipes = [plan.recipe(row.trial.settings) for row in (best, rows[0])]
    tuning = Tuning(
        mammolens_version=__version__,
        command=command,
        data=name,
        recipe=recipe.name,
        folds=options.folds,
        images=len(images.inner),
        patients=len(set(images.inner.patients)),
        tumors=int(images.inner.labels.sum()),
        test_images=images.test_images,
        left_out=dict(images.data.left_out),
        best=best.trial.number,
        gain=_gain(best, rows[0]),
        corrected=_corrected(rows),
        held_out=_held_out(images, recipes, folder / HELD_OUT, each),
        importance=importance(first),
        trials=tuple(row.trial for row in rows),
    )
    write_text(folder / BEST, recipes[0].model_copy(update={"name": f"{recipe.name}-tuned"}).to_toml())
    write_report(tuning, folder)
    return tuning


def _check_own(folder: Path) -> None:
    if not (folder / STUDY).exists() and (others := [name for name in _WRITTEN if (folder / name).exists()]):
        raise RunError(f"{folder}: holds {others[0]}, and no search. Choose another --out.")


def _dealt(manifest: Manifest, recipe: Recipe, options: Options, *, progress: bool) -> _Images:
    """Leave out the patients of the test split, and deal some of the others to the validation split: held out."""
    tested = set(manifest.of_split(Split.TEST).patients)
    manifest = manifest.labelled()
    rest = manifest.where(lambda m: m.patient_key not in tested)
    if not len(rest):
        raise DataError("all labelled images are of patients in the test split, which is not for tuning.")
    data = PreparedSet.of(rest, recipe.preprocess, progress=progress)
    shares = (1 - options.held_out, options.held_out, 0.0)
    with _dealing(f"with --held-out {options.held_out:g}"):
        dealt = data.described_by(split_by_patient(data.manifest, shares, options.seed))
        if options.held_out:
            check_trainable(dealt.manifest, recipe)
    return _Images(dealt, len(manifest) - len(rest))


@contextmanager
def _dealing(how: str) -> Iterator[None]:
    """Have errors say how patients were to be dealt."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{how}, {error}") from error


def _identity(plan: Plan, images: _Images, options: Options) -> dict[str, object]:
    """Return what no later call may change, by what to call it."""
    return {
        "recipe": plan.start.recipe().to_toml(),
        "space": {name: one.model_dump(mode="json") for name, one in plan.space.fields.items()},
        "folds": options.folds,
        "held-out share": options.held_out,
        "seed": options.seed,
        "images": images.data.fingerprint(),
    }


def _rows(study: Study, plan: Plan) -> list[_Row]:
    """Return what became of the recipe that the search started from, and of each trial; no settings twice."""
    proposed: dict[Path, tuple[Settings, FrozenTrial]] = {}
    for one in ended(study):
        if settings := plan.space.settings(one.params):
            proposed.setdefault(plan.place(settings), (settings, one))
    rows = [_row(plan, 0, {}, None)]
    return rows + [_row(plan, number, *both) for number, both in enumerate(proposed.values(), 1)]


def _row(plan: Plan, number: int, settings: Settings, proposed: FrozenTrial | None) -> _Row:
    judged, why = plan.judged(settings), plan.refusal(settings)
    trial = Trial(
        number=number,
        state="refused" if why else "complete" if len(judged) == plan.folds else "stopped",
        settings=dict(settings),
        folds=len(judged),
        roc_auc=estimated_auc(judged) if judged else None,
        seconds=proposed.duration.total_seconds() if proposed and proposed.duration else None,
        why=why,
    )
    return _Row(trial, judged, proposed)


def _gain(best: _Row, start: _Row) -> Estimate:
    (after, patients), (before, _) = mean_auc(best.judged), mean_auc(start.judged)
    return paired_gain(after, after if best is start else before, patients)


def _corrected(rows: Sequence[_Row]) -> Estimate | None:
    complete = [mean_auc(row.judged) for row in rows if row.trial.state == "complete"]
    return best_of_many([measure for measure, _ in complete], complete[0][1])


def _held_out(images: _Images, recipes: Sequence[Recipe], folder: Path, each: Each) -> HeldOut | None:
    """Judge who was held out by the best recipe and the one that the search started from, learnt from all others."""
    if not len(images.held_out):
        return None
    judge = partial(_judged_by, manifest=images.data.manifest, folder=folder)
    different = list(dict.fromkeys(recipes))
    judged = dict(zip(different, each(judge, different), strict=True))
    looks = len(list(folder.glob(f"*/{SCORES}"))) - 1
    best, start = (judged[recipe] for recipe in recipes)
    return judge_held_out(best, start, max(1, looks))


def _judged_by(recipe: Recipe, manifest: Manifest, folder: Path) -> Subjects:
    place = folder / hashlib.sha256(recipe.to_toml().encode()).hexdigest()[:16]
    judged = judge_fold(PreparedSet.whole(manifest, recipe.preprocess), recipe, place)
    (place / MODEL).unlink(missing_ok=True)
    return by_level(judged.manifest, judged.scores)[Level.IMAGE]


def _on(folds: int, auc: float) -> None:
    """Go on, whatever the folds say."""
