"""Trainings on a cluster of two machines."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_team import hash_of, start

pytest.importorskip("ray", reason="pip install 'mammolens[cluster]'")

from ray.train import ControllerError, WorkerGroupError

from mammolens.cluster.connection import connect
from mammolens.cluster.training import Lesson, side_by_side, train, what_failed
from mammolens.data.manifest import Manifest
from mammolens.errors import ClusterError, DataError
from mammolens.learning.crossvalidation import cross_validate
from mammolens.learning.runs import Run, open_run
from mammolens.model.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own settings

CHANGES = ("preprocess.height=32", "preprocess.width=32", "learning_rate=0.001")


def recipe(*changes: str) -> Recipe:
    return read_recipe("quick", [*CHANGES, *changes])


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def until(epochs: int, folder: Path, coming: "Future[Run]") -> None:
    """Wait until a training has done so many epochs."""
    while not any(int(path.name[:6]) >= epochs for path in folder.glob("checkpoint/[0-9]*-*.npz")):
        assert not wait([coming], 0.02).done, "it was over before"


def kill_a_worker(cluster: "Cluster") -> None:
    """Whichever is found first, of this cluster."""
    session = str(cluster.head_node.get_session_dir_path()).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            is_worker = b"ray::RayTrainWorker" in (entry / "cmdline").read_bytes()
            if is_worker and session in Path(f"/proc/{parent}/cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
                return
    raise AssertionError("no worker is to be seen")


def weights(run: Run) -> list[bytes]:
    return [weight.tobytes() for weight in run.load_network().get_weights()]


@pytest.mark.campaign
def test_a_worker_and_then_a_machine_lost_lose_nothing(
    two_nodes: "Cluster",
    address: str,
    phantom_manifest: Manifest,
    lose_a_machine: Callable[[], None],
    tmp_path: Path,
) -> None:
    """Another machine comes in its place, and the training ends as two that PyTorch alone connects, to the last bit."""

    settings, folder = recipe("epochs=6"), tmp_path / "run"
    undisturbed, _ = start(tmp_path / "undisturbed", settings, phantom_manifest)
    with connect(address) as cluster, ThreadPoolExecutor(1) as beside:
        coming = beside.submit(train, cluster, Lesson(phantom_manifest, settings, folder), 2)
        until(1, folder, coming)
        kill_a_worker(two_nodes)
        until(3, folder, coming)
        lose_a_machine()
        two_nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
        run = coming.result()
    assert [float(row["loss"]) for row in history(folder)] == [epoch["loss"] for epoch in undisturbed["epochs"]]
    assert hash_of(run.load_network()) == undisturbed["weights"]
    assert run.environment["workers"] == 2
    assert (folder / "evaluation" / "test" / "report.json").is_file()
    assert not (folder / "checkpoint").exists()


@pytest.mark.campaign
def test_one_worker_learns_what_is_learnt_without_a_cluster(
    address: str, phantoms: Path, run: Run, tmp_path: Path, mammolens: Callable[..., object]
) -> None:
    manifest = run.folder / "manifest.csv"
    typed = ("train", manifest, "--recipe", run.folder / "recipe.toml", "--out", tmp_path / "run", "--cluster", address)
    said = mammolens(*typed)
    assert said.code == 0, said.err  # type: ignore[attr-defined]
    assert phantoms.exists()
    again = open_run(tmp_path / "run")
    assert weights(again) == weights(run)
    assert history(again.folder) == history(run.folder)


@pytest.mark.campaign
def test_ctrl_c_ends_several_workers_and_leaves_nothing(phantoms: Path, tmp_path: Path) -> None:
    """As a terminal sends it: to all processes."""
    words = ["train", phantoms, "--recipe", "quick", *(word for one in CHANGES for word in ("--set", one))]
    words += ["--set", "epochs=500", "--cluster", "local", "--workers", "2", "--out", tmp_path / "run"]
    with tempfile.TemporaryDirectory(prefix="t-") as scratch:  # a short name: sockets lie in it
        command = [sys.executable, "-m", "mammolens", *map(str, words)]
        here = os.environ | {"TMPDIR": scratch}
        running = subprocess.Popen(command, env=here, stderr=subprocess.PIPE, text=True, start_new_session=True)
        while not list((tmp_path / "run").glob("checkpoint/*.npz")):
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(running.wait(0.05))
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate()
        assert (running.returncode, said.splitlines()[-1][:40]) == (130, "Interrupted. The same mammolens train, w")
        assert list(Path(scratch).iterdir()) == []


def test_more_workers_than_cores_are_refused(address: str, phantom_manifest: Manifest, tmp_path: Path) -> None:
    with (
        connect(address) as cluster,
        pytest.raises(ClusterError, match="3 workers need a core each, and the cluster has 2"),
    ):
        train(cluster, Lesson(phantom_manifest, recipe("epochs=1"), tmp_path / "run"), 3)
    assert not (tmp_path / "run").exists()


def test_what_a_user_can_mend_is_told_apart_from_workers_that_are_lost() -> None:
    mendable, lost = DataError("no such image"), RuntimeError("Connection closed by peer")
    assert what_failed(WorkerGroupError("failed", {0: lost, 1: mendable})) is mendable
    assert what_failed(ControllerError(mendable)) is mendable
    assert "Connection closed by peer" in str(what_failed(WorkerGroupError("failed", {0: lost})))


def test_folds_side_by_side_are_those_done_one_after_the_other(
    address: str, phantom_manifest: Manifest, tmp_path: Path
) -> None:

    settings = recipe("epochs=2", "monitor=nothing")
    alone = cross_validate(phantom_manifest, settings, tmp_path / "alone", folds=3)
    with connect(address) as cluster:
        each = side_by_side(cluster, 3)
        spread = cross_validate(phantom_manifest, settings, tmp_path / "spread", folds=3, each=each)
    assert spread == alone
    assert (tmp_path / "spread" / "scores.csv").read_bytes() == (tmp_path / "alone" / "scores.csv").read_bytes()
