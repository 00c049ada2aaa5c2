"""Answers over HTTP by `mammolens serve`, to 1, 8 and 32 clients at a time, on this machine, clients included.

    python -m benchmarks.service

Held against `mammolens predict` of the same files in one fresh process, its start included.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from threading import local

import httpx

from benchmarks.full_size import full_size
from benchmarks.measuring import KEPT, Row, alternate, keep, mammolens, ran
from benchmarks.pictures import IMAGES, mammograms

CLIENTS, REPEATS = (1, 8, 32), 2
JPEGS, DICOMS = 32, 6
PORT = 8699


@contextmanager
def serving() -> Iterator[str]:
    """Serve answers in a process of its own; yield where."""
    url = f"http://localhost:{PORT}"
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "service.txt").open("w") as log:
        process = subprocess.Popen(mammolens("serve", "--port", str(PORT)), stdout=log, stderr=log)
        try:
            while process.poll() is None:
                try:
                    httpx.get(f"{url}/health")
                except httpx.ConnectError:
                    time.sleep(0.1)
                else:
                    break
            yield url
        finally:
            process.terminate()
            process.wait()


def asked(url: str, contents: Sequence[bytes], clients: int, waited: list[float]) -> None:
    """Have so many clients ask for one picture after the other, until all are answered; note the seconds of each."""
    mine = local()

    def connect() -> None:
        mine.client = httpx.Client(timeout=600)

    def ask(content: bytes) -> float:
        began = time.perf_counter()
        answer = mine.client.post(f"{url}/v1/predict", files={"files": ("picture", content)})
        if answer.status_code != httpx.codes.OK or answer.json()[0]["error"]:
            raise RuntimeError(answer.text)
        return time.perf_counter() - began

    with ThreadPoolExecutor(clients, initializer=connect) as threads:
        waited += threads.map(ask, contents)


def held_against(url: str, name: str, paths: Sequence[Path]) -> list[Row]:
    """Measure all numbers of clients, in turn with `predict`."""
    contents = [path.read_bytes() for path in paths]
    waited: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    ways: dict[str, Callable[[], float | None]] = {
        str(clients): partial(asked, url, contents, clients, waited[clients]) for clients in CLIENTS
    }
    asked(url, contents[:8], 2, [])
    ways["predict"] = lambda: ran(mammolens("predict", *paths, "--quiet")).seconds
    took = alternate(ways, REPEATS)
    rows = []
    for clients in CLIENTS:
        ours, latest = took[str(clients)], quantiles(waited[clients], n=20)[-1]
        note = (
            f"{len(paths) / median(ours):.1f} pictures a second; an answer takes "
            f"{1000 * median(waited[clients]):.0f} ms, one of twenty more than {1000 * latest:.0f} ms"
        )
        work = f"{len(paths)} {name}, a request each, {clients} client{'s' * (clients > 1)} at a time"
        rows.append(Row(work, ours, "`mammolens predict` of all, its start included", took["predict"], None, note=note))
    return rows


def main(scratch: Path) -> None:
    """Measure, and keep."""
    folder, _ = mammograms(scratch)
    jpegs = sorted(folder.rglob("*.jpg"))[:: IMAGES // JPEGS][:JPEGS]
    dicoms = full_size(jpegs[:8], scratch, DICOMS)
    with serving() as url:
        rows = held_against(url, "JPEGs of 640 × 640", jpegs) + held_against(url, "full-size DICOM files", dicoms)
    keep("service", rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
