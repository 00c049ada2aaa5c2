"""Trials of a search on all machines of a cluster: Optuna proposes, Ray Tune makes them, and stops what is hopeless."""

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from mammolens.cluster.connection import Cluster, Terms
from mammolens.cluster.training import cores_each
from mammolens.errors import ClusterError, reason
from mammolens.tuning.study import HALVING, NAME, ended, interrupted
from mammolens.tuning.trials import Plan

_RETRIES = 3
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one prints tables, however quiet it is told to be
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study and the trials' folders hold all that is told
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends it
}
_SCORE, _FOLDS = "auc", "training_iteration"


class _Told(tune.Callback):  # type: ignore[misc]  # Ray's types are not looked at
    """Tells of each trial that is over, or lost for good; Ray keeps a copy that does not."""

    def __init__(self, done: Callable[[], None], lost: Callable[[Any], None]) -> None:
        self._done, self._lost = done, lost

    def __reduce__(self) -> tuple[type, tuple[Callable[..., None], Callable[..., None]]]:
        return _Told, (_nothing, _nothing)

    def on_trial_complete(self, *_: object, **__: object) -> None:
        self._done()

    def on_trial_error(self, *_: object, trial: Any, **__: object) -> None:  # noqa: ANN401 - Ray's own
        self._lost(trial)


def _nothing(*_: object) -> None:
    pass


def search(study: optuna.Study, plan: Plan, trials: int, done: Callable[[], None], *, cluster: Cluster) -> None:
    """Make trials on a cluster until there are `trials`; what a machine was at when it died goes on on another.

    Raises:
        ClusterError: trials were lost for good.
    """
    missing = trials - len(ended(study))
    if missing <= 0:
        return
    for begun in interrupted(study):  # Ray Tune asks for new ones alone
        study.enqueue_trial(begun.params)
        study.tell(begun.number, state=TrialState.FAIL)
    os.environ.update(_SETTINGS)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told below
    on_gpus = cluster.gpus > 0
    cores = cores_each(min(missing, cluster.gpus if on_gpus else max(1, cluster.cpus)), on_gpus=on_gpus)
    resources = {"cpu": cores, "gpu": int(on_gpus)}
    trainable = tune.with_parameters(_trial, plan=plan, terms=Terms.of(cores))
    kept = plan.folder.with_name("ray").absolute()
    proposals = OptunaSearch(
        plan.space.propose,
        metric=_SCORE,
        mode="max",
        sampler=study.sampler,
        study_name=NAME,
        storage=study._storage,  # noqa: SLF001 - it has no other name
    )
    halving = ASHAScheduler(_FOLDS, _SCORE, "max", max_t=plan.folds, grace_period=1, reduction_factor=HALVING)
    for before in ended(study):
        known = SimpleNamespace(trial_id=f"before-{before.number}")
        halving.on_trial_add(None, known)
        for folds, auc in before.intermediate_values.items():
            halving.on_trial_result(None, known, {_FOLDS: folds, _SCORE: auc})
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(search_alg=proposals, scheduler=halving, num_samples=missing, reuse_actors=True),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=str(kept),
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
            callbacks=[_Told(done, partial(_refused, study=study, plan=plan, done=done))],
            verbose=0,
        ),
    )
    try:
        results = tuner.fit()
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    if (lost := trials - len(ended(study))) > 0:
        why = [reason(getattr(error, "cause", error)) for error in results.errors]
        raise ClusterError(f"{lost} trials were lost ({why[0] if why else 'stopped'}). The same command goes on.")


def _refused(trial: Any, study: optuna.Study, plan: Plan, done: Callable[[], None]) -> None:  # noqa: ANN401 - Ray's own
    """Have a trial count, and say why it has no score, whose process died each time: so would the next one's."""
    settings, error = plan.space.settings(trial.config), trial.get_pickled_error()
    if not settings or isinstance(error, RayTaskError):  # which tells of files, or machines
        return
    plan.refuse(settings, f"its process died {_RETRIES + 1} times: too little memory for it?")
    failed = study.get_trials(states=(TrialState.FAIL,))
    same = next(one for one in reversed(failed) if plan.space.settings(one.params) == settings)
    study.add_trial(optuna.trial.create_trial(params=same.params, distributions=same.distributions, value=0.0))
    done()


def _trial(config: dict[str, Any], plan: Plan, terms: Terms) -> None:
    terms.accept()
    settings = plan.space.settings(config)
    score = plan.score(settings, lambda _, auc: tune.report({_SCORE: auc}))
    if plan.refusal(settings):
        tune.report({_SCORE: score})
