"""Archives answered by a cluster of two nodes: the same rows, nothing lost and nothing twice, whoever dies."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal
from pyarrow import fs

pytest.importorskip("ray", reason="pip install 'mammolens[cluster]'")

import psutil  # of Ray

import brightness
from conftest import Typed
from mammolens.cluster.archive import Job, Outcome, answered, begun, outcome
from mammolens.cluster.connection import Cluster, connect
from mammolens.errors import DataError
from mammolens.images.archives import find_inputs
from mammolens.serving.predictor import Predictor

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster as Nodes

PICTURES = 26


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(brightness.bundle(tmp_path_factory.mktemp("bundles") / "brightness").folder)


@pytest.fixture(scope="module")
def cluster(two_nodes: "Nodes") -> Iterator[Cluster]:
    """Joined once: each time, all processes would start anew."""
    with connect(str(two_nodes.address)) as joined:
        yield joined


@pytest.fixture
def archive(png: Callable[..., Path], tmp_path: Path) -> Path:
    """Pictures in folders, one within a ZIP archive, and two that cannot be read."""
    draw = np.random.default_rng(0)
    for number in range(PICTURES - 3):
        png(draw.integers(0, 256, (64, 48), np.uint8), f"archive/{number % 3}/{number}_L_CC.png")
    png(brightness.flat(90), "packed/x.png")
    shutil.make_archive(str(tmp_path / "archive" / "packed"), "zip", tmp_path / "packed")
    (tmp_path / "archive" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "archive" / "scan.gif").write_bytes(b"GIF89a")
    return tmp_path / "archive"


def plain(model: Predictor, archive: Path) -> pd.DataFrame:
    """What one process answers."""
    return model.predict(archive, maps=False).to_frame()


def table(job: Job) -> pd.DataFrame:
    """The rows of all parts, in their order."""
    parts = [pd.read_parquet(job.part(number)) for number in range(job.parts)]
    return pd.concat(parts, ignore_index=True)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert_frame_equal(found.astype(expected.dtypes), expected, check_exact=True)


def test_two_machines_answer_as_one_process_does_and_nothing_twice(
    model: Predictor, archive: Path, bucket: str, cluster: Cluster, tmp_path: Path
) -> None:
    """What was interrupted goes on: files and objects of a store, parts of four."""
    system, path = fs.FileSystem.from_uri(bucket)
    for one in find_inputs([archive / "0"]):
        with system.open_output_stream(f"{path}/{one.file.name}") as stream:
            stream.write(one.file.read_bytes())
    both, out = [str(archive), bucket], tmp_path / "out"
    with begun(both, out, model, size=4) as job:
        making = answered(job, cluster)
        next(making)
        making.close()
        done = {path.name: path.stat() for path in out.glob("part-*")}
        assert job.missing(), "all is done before it could be interrupted"
        list(answered(job, cluster))
    with begun(both, out, model, size=4) as job:
        assert job.missing() == []
    for name, before in done.items():
        now = (out / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    found, expected = table(job), plain(model, archive)
    assert_same(found[:PICTURES], expected)
    objects, again = found[PICTURES:].reset_index(drop=True), plain(model, archive / "0")
    assert_same(objects.drop(columns="path"), again.drop(columns="path"))
    assert set(objects["path"].str.removesuffix("_L_CC.png").str.rstrip("0123456789")) == {"s3://images/archive/"}
    assert outcome(job) == Outcome(pictures=len(found), failed=2, refused=0)
    assert not any(b"secret" in file.read_bytes() for file in out.iterdir())
    assert not [path for path in out.iterdir() if ".part-" in path.name], "half-written"


@pytest.fixture
def slow(png: Callable[..., Path], tmp_path: Path) -> Path:
    """Pictures that take a moment each, by two dozen names."""
    large = png(np.random.default_rng(0).integers(0, 256, (1600, 1200), np.uint8))
    (tmp_path / "slow").mkdir()
    for number in range(24):
        (tmp_path / "slow" / f"{number}.png").hardlink_to(large)
    return tmp_path / "slow"


@pytest.mark.campaign
def test_a_killed_process_loses_nothing(
    two_nodes: "Nodes", model: Predictor, slow: Path, cluster: Cluster, tmp_path: Path
) -> None:
    with begun([str(slow)], tmp_path / "out", model, size=1) as job:
        making = answered(job, cluster)
        done = [next(making)]
        victim, *_ = _answering(two_nodes)
        os.kill(victim.pid, signal.SIGKILL)
        assert job.missing(), "it was killed too late"
        done += making
        assert not victim.is_running()
    assert sorted(done) == list(range(24))
    assert_same(table(job), plain(model, slow))


def _answering(nodes: "Nodes") -> "list[Any]":
    """The processes of these nodes that answer."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()]
    workers = [one for raylet in raylets for one in psutil.Process(raylet).children()]
    return [one for one in workers if any("MapWorker" in part for part in one.cmdline())]


def test_a_lost_machine_loses_nothing(
    lose_a_machine: Callable[[], None], model: Predictor, slow: Path, cluster: Cluster, tmp_path: Path
) -> None:
    with begun([str(slow)], tmp_path / "out", model, size=1) as job:
        making = answered(job, cluster)
        done = [next(making)]
        lose_a_machine()
        assert job.missing(), "it was lost too late"
        done += making
    assert sorted(done) == list(range(24))
    assert_same(table(job), plain(model, slow))


def test_another_model_list_or_folder_is_refused(model: Predictor, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with begun([str(archive)], out, model) as job:
        assert (job.inputs, job.size, job.parts) == (PICTURES, 8, 4)
        with pytest.raises(DataError, match="is being written by another process"), begun([str(archive)], out, model):
            pass
    sensitive = Predictor.load(model.bundle.folder, "sensitivity-90")
    with (
        pytest.raises(DataError, match="was begun with point balanced, now sensitivity-90"),
        begun([str(archive)], out, sensitive),
    ):
        pass
    (archive / "torn.png").unlink()
    with pytest.raises(DataError, match="inputs 26, now 25; list"), begun([str(archive)], out, model):
        pass


def test_a_folder_of_something_else_is_left_as_it_is(model: Predictor, archive: Path) -> None:
    (archive / ".answers.part-abcdefgh.csv").write_text("somebody is writing here")
    before = sorted(archive.iterdir())
    with pytest.raises(DataError, match=r"archive: holds 0\. Choose a new folder"), begun([], archive, model):
        pass
    assert sorted(archive.iterdir()) == before


def test_no_cluster_is_started_for_what_is_done(
    mammolens: Typed, model: Predictor, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("predict", archive, "--model", model.bundle.folder, "--cluster", "local", "--out", tmp_path / "out")
    with begun([str(archive)], tmp_path / "out", model) as job:
        parts = [[*range(first, min(first + job.size, job.inputs))] for first in range(0, job.inputs, job.size)]
        for number, rows in enumerate(parts):
            named = pa.table({"path": list(map(str, rows)), "error": pa.nulls(len(rows), pa.string())})
            pq.write_table(named.append_column("reason", pa.array([""] * len(rows))), job.part(number))
    monkeypatch.setattr("ray.init", None)
    said = mammolens(*words)
    assert (said.code, "26 pictures in 4 parts, 4 of them answered before" in said.out) == (0, True), said.err


def test_parts_that_somebody_changed_are_noticed(model: Predictor, archive: Path, tmp_path: Path) -> None:
    with begun([str(archive)], tmp_path / "out", model, size=32) as job:
        pq.write_table(pa.table({"path": ["x"], "error": ["y"], "reason": [""]}), job.part(0))
        with pytest.raises(DataError, match="has 1 rows for 26 pictures"):
            outcome(job)
        job.part(0).write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"a part cannot be read \(.*part-00000\.parquet.*Delete it"):
            outcome(job)


def test_a_list_that_is_gone_or_changed_is_made_anew(model: Predictor, archive: Path, tmp_path: Path) -> None:
    with begun([str(archive)], tmp_path / "out", model) as job:
        listed = (job.folder / "_inputs.parquet").read_bytes()
    (job.folder / "_inputs.parquet").write_bytes(b"PAR1")
    with begun([str(archive)], tmp_path / "out", model):
        assert (job.folder / "_inputs.parquet").read_bytes() == listed


@pytest.mark.usefixtures("cluster")
@pytest.mark.campaign
def test_the_verbs_take_a_cluster(mammolens: Typed, phantoms: Path, two_nodes: "Nodes", tmp_path: Path) -> None:
    address = two_nodes.address
    said = mammolens(
        "predict", phantoms / "valid", "--model", "phantom", "--cluster", address, "--out", tmp_path / "out", "-q"
    )
    assert said.code == 0, said.err
    mammolens("predict", phantoms / "valid", "--model", "phantom", "--out", tmp_path / "plain.parquet", "-q")
    assert_same(pd.read_parquet(tmp_path / "out"), pd.read_parquet(tmp_path / "plain.parquet"))
    reports = [tmp_path / "cluster", tmp_path / "alone"]
    for options, out in ((["--cluster", address], reports[0]), ([], reports[1])):
        mammolens("doctor", phantoms, "--out", out, "-q", *options)
    findings = [(out / "findings.json").read_text().replace(f" --cluster {address}", "") for out in reports]
    assert findings[0].replace("/cluster", "/alone") == findings[1]


def test_what_a_cluster_does_not_do_is_a_usage_error(mammolens: Typed, archive: Path, tmp_path: Path) -> None:
    for words in (("--level", "exam"), ("--dicom", tmp_path / "dicom")):
        said = mammolens("predict", archive, "--cluster", "local", "--out", tmp_path / "out", *words)
        assert (said.code, "--identify, or" in said.err) == (2, True)
    assert mammolens("predict", archive, "--cluster", "local").code == 2
    said = mammolens("predict", archive, "--cluster", "local", "--out", tmp_path / "answers.csv")
    assert (said.code, "Parquet" in said.err) == (2, True)
    said = mammolens("predict", archive, "--cluster", "localhost:1", "--out", tmp_path / "out")
    assert (said.code, "no cluster answers there" in said.err, (tmp_path / "out").exists()) == (1, True, False)
