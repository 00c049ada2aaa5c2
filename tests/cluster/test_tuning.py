"""A search on two nodes: what it scores is what one process scores, whichever node is lost."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

pytest.importorskip("ray", reason="pip install 'mammolens[cluster]'")

from mammolens.cluster.connection import Cluster, connect
from mammolens.cluster.tuning import search
from mammolens.data.manifest import Manifest
from mammolens.judging.tuning import Tuning
from mammolens.tuning.space import Start
from mammolens.tuning.sweep import Options, tune
from mammolens.tuning.trials import Plan

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
