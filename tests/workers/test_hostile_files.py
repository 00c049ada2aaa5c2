"""Files that crash, stall, starve or take over their decoder: each costs one answer, and does nothing else.

The decoder that misbehaves is `hostile/sitecustomize.py`, which workers import.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mammolens as library
from conftest import Typed
from mammolens import parallel
from mammolens.workers import crew, worker

HOSTILE = Path(__file__).with_name("hostile")

CRASHES = {
    1: "SIGSEGV: a library that decodes crashed",
    2: "SIGABRT: a library that decodes crashed",
    4: "MemoryError",
    10: "no answer|exit code 0",
    11: "exit code 3",
    13: "ZeroDivisionError",
    **dict.fromkeys(range(17, 25), "decoding broke off"),
}
FORBIDDEN = dict.fromkeys((5, 6, 7, 8, 9, 14, 15, 16), "PermissionError")


@pytest.fixture(autouse=True)
def hostile_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """Workers that have the hostile decoder, and a door that nobody may knock at."""
    monkeypatch.setenv("PYTHONPATH", str(HOSTILE))
    monkeypatch.setenv("HOSTILE_MARK", str(tmp_path / "mark"))
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    crew._everyones.end()
    crew._everyones.forget()
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        monkeypatch.setenv("HOSTILE_PORT", str(door.getsockname()[1]))
        yield door
    crew._everyones.end()
    crew._everyones.forget()


def hostile(folder: Path, deed: int) -> Path:
    path = folder / f"hostile {deed}.pgm"
    path.write_text(f"P2 32 32 255 {deed} " + "0 " * 1023)
    return path


@pytest.mark.parametrize(("deed", "said"), CRASHES.items())
def test_a_file_that_ends_its_decoder_is_one_reason(tmp_path: Path, deed: int, said: str) -> None:
    path = hostile(tmp_path, deed)
    (answer,) = library.predict(path, model="phantom")
    assert answer.probability is None
    assert str(answer.error).startswith(f"{path}: ")
    assert any(one in str(answer.error) for one in said.split("|")), answer.error
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("deed", "slower", "said"),
    [(3, 1000, "SIGXCPU: it took too much processor time"), (12, 1, "it took more than 1 s")],
)
def test_a_file_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: int, slower: int, said: str
) -> None:
    monkeypatch.setattr(worker, "SECONDS", 1)
    monkeypatch.setattr(worker, "_SLOWER", slower)
    (answer,) = library.predict(hostile(tmp_path, deed), model="phantom")
    assert said in str(answer.error)


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is of Linux")
@pytest.mark.parametrize(("deed", "said"), FORBIDDEN.items())
def test_a_decoder_that_is_taken_over_may_do_nothing(
    tmp_path: Path, hostile_workers: socket.socket, deed: int, said: str
) -> None:
    pytest.importorskip("pyseccomp")
    path = hostile(tmp_path, deed)
    (answer,) = library.predict(path, model="phantom")
    assert str(answer.error).startswith(f"{path}: ")
    assert said in str(answer.error)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(BlockingIOError):
        hostile_workers.accept()


def test_in_a_batch_all_others_are_answered(mammolens: Typed, phantoms: Path, tmp_path: Path) -> None:
    honest = sorted(phantoms.rglob("*.jpg"))[:29]
    paths = [*honest[:14], hostile(tmp_path, 1), *honest[14:]]
    table = tmp_path / "answers.csv"
    said = mammolens("predict", *paths, "--model", "phantom", "--quiet", "--out", table)
    assert said.code == 1
    rows = table.read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == list(map(str, paths))
    assert ["SIGSEGV" in row for row in rows] == [path not in honest for path in paths]


LARGE = """
import resource, sys
from pathlib import Path
from mammolens.model.bundle import find_bundle, open_bundle
from mammolens.serving.pictures import seen
from mammolens.workers import crew, worker
worker.SECONDS = 60
record = open_bundle(find_bundle("phantom")).record
print(*crew.apart(seen, Path(sys.argv[1]), preprocess=record.preprocess, gate=record.gate).geometry.image)
crew._everyones.end()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def test_a_picture_of_the_largest_size_takes_less_than_two_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((10_000, 8000, 3), np.uint8)).save(path, compress_level=1)
    done = subprocess.run([sys.executable, "-c", LARGE, path], capture_output=True, text=True, check=True)
    height, width, most = map(int, done.stdout.split())
    assert (height, width) == (10_000, 8000)
    assert most < 2e9


def test_a_worker_that_was_ended_while_it_waited_costs_nothing(phantoms: Path) -> None:
    path = next(phantoms.rglob("*.jpg"))
    before = library.predict(path, model="phantom")[0]
    for one in crew._everyones._idle:
        os.kill(one._process.pid, signal.SIGKILL)
        one._process.wait()
    assert library.predict(path, model="phantom")[0].probability == before.probability
