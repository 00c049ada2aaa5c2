"""Work spread over a cluster of two nodes: in order, whoever dies; and what is said where there is no cluster."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("ray", reason="pip install 'mammolens[cluster]'")

import ray

from mammolens import parallel
from mammolens.cluster import connection
from mammolens.cluster.connection import Cluster, connect
from mammolens.errors import ClusterError, DataError


@pytest.fixture(autouse=True, scope="module")
def by_value() -> Iterator[None]:
    """Have functions of this file travel whole: the nodes have no tests."""
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(module)


def _slow_first(number: int) -> tuple[int, int]:
    time.sleep(0.5 if number == 0 else 0)
    return number, parallel.cores()


def test_results_come_in_order_from_both_nodes(address: str) -> None:
    with connect(address) as cluster:
        assert cluster == Cluster(cpus=2, gpus=0)
        assert list(cluster.each(_slow_first, range(20))) == [(number, 1) for number in range(20)]
    assert not ray.is_initialized()


def _refused(number: int) -> int:
    if number == 3:
        raise DataError("no such row")
    return number


def test_an_error_of_ours_arrives_as_itself(address: str) -> None:
    taken: list[int] = []
    with connect(address) as cluster, pytest.raises(DataError, match=r"^no such row$"):
        taken.extend(cluster.each(_refused, range(9)))
    assert taken == [0, 1, 2]


def _dies_once(number: int, folder: Path) -> int:
    mark = folder / str(number)
    if number % 4 == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_what_a_killed_worker_was_at_is_done_anew(address: str, tmp_path: Path) -> None:
    with connect(address) as cluster:
        assert list(cluster.each(partial(_dies_once, folder=tmp_path), range(8))) == list(range(8))
    assert {path.name for path in tmp_path.iterdir()} == {"1", "5"}


def _dies(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.campaign
def test_what_kills_every_worker_is_told_in_one_line(address: str) -> None:
    with connect(address) as cluster, pytest.raises(ClusterError, match="lost what it was at"):
        list(cluster.each(_dies, [0]))


def _waits(number: int, gate: Path) -> int:
    (gate / ray.get_runtime_context().get_node_id()).touch()
    while not (gate / "open").exists():
        time.sleep(0.02)
    return number


@pytest.mark.campaign
def test_what_a_lost_machine_was_at_is_done_by_another(
    address: str, lose_a_machine: Callable[[], None], tmp_path: Path
) -> None:
    def lose_it_in_the_middle() -> None:
        while len(list(tmp_path.iterdir())) < 2:  # both nodes are at it
            time.sleep(0.02)
        lose_a_machine()
        (tmp_path / "open").touch()

    losing = Thread(target=lose_it_in_the_middle)
    with connect(address) as cluster:
        losing.start()
        assert list(cluster.each(partial(_waits, gate=tmp_path), range(4))) == [0, 1, 2, 3]
    losing.join()


def test_without_a_cluster_one_line_says_how_to_get_one() -> None:
    for place, said in (
        ("localhost:1", "no cluster answers there"),
        ("localhost", "HOST:PORT"),
        ("ray://localhost:10001", "HOST:PORT"),
        ("", "^'': is no address of a cluster"),
        ("two..dots:6379", "no cluster answers there"),
        (f"{'long' * 20}:6379", "no cluster answers there"),
    ):
        with pytest.raises(ClusterError, match=said), connect(place):
            pass


def test_who_says_nothing_is_not_asked_about_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"no cluster answers there \(timed out\)\. Start one"), connect(place):
            pass


def test_what_is_no_cluster_is_told_from_one() -> None:
    """Such as the page that Ray serves, whose address it tells as well."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(ClusterError, match="something else"), connect(f"127.0.0.1:{server.server_port}"):
            pass


SCRIPT = """
import os, sys
from mammolens.cluster.connection import connect
from mammolens.parallel import cores

if __name__ == "__main__":
    with connect("local") as cluster:
        assert list(cluster.each(len, ["a", "", "abc"])) == [1, 0, 3]
        print(cluster.cpus == cores())
"""


def test_local_is_this_machine_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    with tempfile.TemporaryDirectory(prefix="t-") as scratch:  # a short name: sockets lie in it
        here = os.environ | {"HOME": str(tmp_path / "home"), "TMPDIR": scratch}
        command: list[str | Path] = [sys.executable, tmp_path / "script.py"]
        done = subprocess.run(command, env=here, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
        assert list(Path(scratch).iterdir()) == []
    assert list((tmp_path / "home").iterdir()) == []
