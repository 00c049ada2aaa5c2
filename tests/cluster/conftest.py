"""A cluster of two machines that are one: two nodes of Ray on this machine's own address, a core each."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="session")
def two_nodes() -> "Iterator[Cluster]":
    pytest.importorskip("ray", reason="pip install 'mammolens[cluster]'")
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - else they wait for all other tests
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short name: sockets lie in it
    there = folder / "ray"
    there.mkdir()
    os.environ["RAY_TMPDIR"] = str(folder)  # else Ray writes the address into a folder that may not be there
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "temp_dir": str(there)})
    try:
        cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def address(two_nodes: "Cluster", monkeypatch: pytest.MonkeyPatch) -> str:
    """What `--cluster` takes. Whatever failed before, nobody is connected."""
    import ray  # noqa: PLC0415

    assert not ray.is_initialized()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return str(two_nodes.address)


@pytest.fixture
def lose_a_machine(two_nodes: "Cluster") -> Iterator[Callable[[], None]]:
    """Call it to have the second node end, whatever it is at; after the test, another stands in its place."""

    def lose() -> None:
        (node,) = two_nodes.worker_nodes
        two_nodes.remove_node(node, allow_graceful=False)

    yield lose
    if not two_nodes.worker_nodes:
        two_nodes.add_node(**NODE)
    two_nodes.wait_for_nodes()  # the lost one counts until it has been silent for a while


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of an empty folder of a bucket, on a real server that speaks S3 on this machine."""
    server = pytest.importorskip("moto.server", reason="pip install 'mammolens[dev]'")
    from pyarrow import fs  # noqa: PLC0415

    serving = server.ThreadedMotoServer("127.0.0.1", 0)
    serving.start()
    host, port = serving.get_host_and_port()
    there = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    try:
        system, _ = fs.FileSystem.from_uri(f"s3://key:secret@images?{there}&allow_bucket_creation=true")
        system.create_dir("images")
        yield f"s3://key:secret@images/archive?{there}"
    finally:
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        serving.stop()
