"""Optuna's part: what to try next and what to give up, remembered in SQLite."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.importance import FanovaImportanceEvaluator
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mammolens.errors import RunError, reason
from mammolens.tuning.trials import Plan

NAME = "mammolens"
HALVING = 2
"""Of the trials that were scored on 1, 2, 4, … folds, the better one in so many goes on."""

FEWEST = 4
"""Trials whose settings' importance is told."""

Search = Callable[[optuna.Study, Plan, int, Callable[[], None]], None]
"""Makes trials of a study until it has so many, and calls a function after each."""

_IDENTITY = "identity"


class Proposals(BaseSampler):
    """Proposals by Parzen estimators (TPE; Bergstra et al. 2011, NeurIPS) that a restart does not change.

    What is proposed depends on the seed, on how many trials came before, and on what those scored.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._tpe = seed, TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Draw anew for this trial; one that was lost does not count."""
        others = study.get_trials(deepcopy=False)
        before = sum(one.number < trial.number and one.state is not TrialState.FAIL for one in others)
        self._tpe = TPESampler(seed=int(np.random.SeedSequence((self._seed, before)).generate_state(1)[0]))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn together."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw what is drawn together."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's own
        """Draw one value."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def open_study(path: Path, identity: Mapping[str, object], seed: int) -> optuna.Study:
    """Open or make the study in a file of SQLite.

    Args:
        path: the file.
        identity: what makes it this study, by name.
        seed: of the proposals.

    Raises:
        RunError: a study of something else lies there, or what is none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = partial(sqlite3.connect, path.absolute(), check_same_thread=False)
    try:
        study = optuna.create_study(
            storage=RDBStorage(f"sqlite:///{path.name}", {"creator": opened}),  # no path is cut at what URLs reserve
            study_name=NAME,
            direction="maximize",
            sampler=Proposals(seed),
            pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=HALVING),
            load_if_exists=True,
        )
    except (SQLAlchemyError, OptunaError, RuntimeError) as error:
        raise RunError(f"{path}: cannot be opened ({_said(error)}). Choose another --out.") from error
    before = study.user_attrs.get(_IDENTITY)
    if before is None:
        study.set_user_attr(_IDENTITY, dict(identity))
    elif others := [name for name in identity if before.get(name) != identity[name]]:
        raise RunError(f"{path.parent}: holds a search with other {' and '.join(others)}. Choose another --out.")
    return study


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in a line where the file of a study does not take what is written to it.

    Raises:
        RunError: it does not.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise RunError(f"{path}: cannot be written ({_said(error)}). The same command goes on.") from error


def _said(error: Exception) -> str:
    """Return what SQLite says of it, without the statement that it was at."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return reason(error)


def interrupted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were begun and are not over; their folders hold what they have scored."""
    return study.get_trials(states=(TrialState.RUNNING,))


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that are over, in order; those that were interrupted do not count."""
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def one_after_another(study: optuna.Study, plan: Plan, trials: int, done: Callable[[], None]) -> None:
    """Make trials in this process until there are `trials`; call `done` after each."""
    while len(ended(study)) < trials:
        begun = interrupted(study)
        trial = optuna.Trial(study, begun[0]._trial_id) if begun else study.ask()  # noqa: SLF001 - it has no other
        plan.space.propose(trial)
        try:
            score = plan.score(plan.space.settings(trial.params), partial(_told, trial, plan.folds))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, score)
        done()


def _told(trial: optuna.Trial, of: int, folds: int, auc: float) -> None:
    if folds not in trial.study.trials[trial.number].intermediate_values:  # it may have been before a kill
        trial.report(auc, folds)
    if folds < of and trial.should_prune():
        raise optuna.TrialPruned


def importance(scores: Sequence[tuple[FrozenTrial, float]]) -> dict[str, float]:
    """Return the share of the spread of some trials' scores that each setting explains, largest first; {} of too few.

    A functional analysis of variance over a random forest (Hutter et al. 2014, ICML).
    """
    if len(scores) < FEWEST or len({score for _, score in scores}) == 1:
        return {}
    scored = optuna.create_study()
    for trial, score in scores:
        scored.add_trial(optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=score))
    return optuna.importance.get_param_importances(scored, evaluator=FanovaImportanceEvaluator(seed=0))
