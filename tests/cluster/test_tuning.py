"""A search on two nodes: what it scores is what one process scores, whichever node is lost."""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

pytest.importorskip("ray", reason="pip install 'mammolens[cluster]'")

import ray

from mammolens.cluster.connection import Cluster, connect
from mammolens.cluster.tuning import search
from mammolens.data.manifest import Manifest
from mammolens.errors import ClusterError, DataError
from mammolens.judging.tuning import Tuning
from mammolens.tuning.space import Settings, Start
from mammolens.tuning.study import Search
from mammolens.tuning.sweep import Options, tune
from mammolens.tuning.trials import Plan, Told

START = Start(
    "quick",
    (
        *("monitor=nothing", "schedule=one_cycle", "epochs=1", "learning_rate=1e-5"),
        *("preprocess.height=16", "preprocess.width=16"),
    ),
)
OPTIONS = Options(trials=2, folds=2, held_out=0)
SPACE = "learning_rate = {low=1e-4, high=1e-1, log=true}"


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path


def first_folds(folder: Path) -> dict[str, str]:
    """The scores of the first fold of each trial, by the trial's folder."""
    return {path.parents[1].name: path.read_text() for path in folder.glob("trials/*/fold-0/scores.csv")}


def searched(manifest: Manifest, space: Path, folder: Path, cluster: Cluster, lose: Callable[[], None]) -> Tuning:
    """Search on a cluster that loses a machine when the first trial is over."""
    losses = [lose]

    def losing(study: optuna.Study, plan: Plan, trials: int, done: Callable[[], None]) -> None:
        def after() -> None:
            done()
            while losses:
                losses.pop()()

        search(study, plan, trials, after, cluster=cluster)

    return tune(manifest, START, space, folder, OPTIONS, search=losing, each=cluster.each)


class Deadly(Plan):
    """Ends the process of each trial with a large learning rate, or says that there is no disk for it."""

    def score(self, settings: Settings, told: Told) -> float:
        if settings.get("learning_rate", 0) > 1e-3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(settings, told)


class Missing(Plan):
    def score(self, settings: Settings, told: Told) -> float:  # noqa: ARG002 - as a Plan has it
        raise DataError(f"{len(settings)} images are gone")


@pytest.fixture
def by_value() -> Iterator[None]:
    """Have plans of this file travel whole: the nodes have no tests."""
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(module)


def as_another(kind: type[Plan], cluster: Cluster) -> Search:
    """A search by another plan."""

    def made(study: optuna.Study, plan: Plan, trials: int, done: Callable[[], None]) -> None:
        given = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
        search(study, kind(**given), trials, done, cluster=cluster)

    return made


@pytest.mark.campaign
@pytest.mark.usefixtures("by_value")
def test_a_trial_whose_process_dies_each_time_is_told_of_and_stops_nothing(
    phantom_manifest: Manifest, space: Path, address: str, tmp_path: Path
) -> None:
    space.write_text("learning_rate = {choices=[1e-4, 1e-1]}")
    with connect(address) as cluster:
        options = replace(OPTIONS, trials=4)
        tuning = tune(
            phantom_manifest,
            START,
            space,
            tmp_path / "sweep",
            options,
            search=as_another(Deadly, cluster),
            each=cluster.each,
        )
    states = {one.settings.get("learning_rate"): one.state for one in tuning.trials}
    assert states[1e-1] == "refused"
    assert states[1e-4] != "refused"
    (why,) = {one.why for one in tuning.trials if one.why}
    assert why == "its process died 4 times: too little memory for it?"


@pytest.mark.campaign
@pytest.mark.usefixtures("by_value")
def test_what_no_settings_are_to_blame_for_ends_a_search(
    phantom_manifest: Manifest, space: Path, address: str, tmp_path: Path
) -> None:
    with connect(address) as cluster, pytest.raises(ClusterError, match=r"2 trials were lost \(1 images are gone\)"):
        tune(phantom_manifest, START, space, tmp_path, OPTIONS, search=as_another(Missing, cluster), each=cluster.each)


@pytest.mark.campaign
def test_a_search_on_two_nodes_scores_as_one_process_does_though_one_is_lost(
    phantom_manifest: Manifest, space: Path, address: str, lose_a_machine: Callable[[], None], tmp_path: Path
) -> None:
    """All that is proposed at first is drawn whatever was scored: the settings are the same, too."""
    alone = tune(phantom_manifest, START, space, tmp_path / "alone", OPTIONS)
    with connect(address) as cluster:
        spread = searched(phantom_manifest, space, tmp_path / "spread", cluster, lose_a_machine)
    assert first_folds(tmp_path / "spread") == first_folds(tmp_path / "alone")
    assert len(spread.trials) == len(alone.trials) == OPTIONS.trials + 1
    whole = {str(one.settings): one.roc_auc for one in alone.trials if one.state == "complete"}
    again = {str(one.settings): one.roc_auc for one in spread.trials if one.state == "complete"}
    both = whole.keys() & again.keys()
    assert str({}) in both
    assert {one: whole[one] for one in both} == {one: again[one] for one in both}
    assert not (tmp_path / "spread" / "ray").exists()
