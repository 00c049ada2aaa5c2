"""Answers over HTTP by `mammolens serve`, to 1, 8 and 32 clients at a time, on this machine, clients included.

    python -m benchmarks.service

The clients are wrk (``apt-get install wrk``). Held against `mammolens predict` of the same files in one fresh process,
its start included.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import mean, median

import httpx

from benchmarks.full_size import full_size
from benchmarks.measuring import KEPT, Row, alternate, keep, mammolens, ran
from benchmarks.pictures import IMAGES, mammograms

CLIENTS, REPEATS, SECONDS = (1, 8, 32), 2, 20
JPEGS, DICOMS = 32, 6
PORT = 8699
SCRIPT = Path(__file__).with_name("wrk.lua")

Measured = dict[str, float]


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


def form_of(path: Path, folder: Path) -> Path:
    """Write the form by which a client sends a picture."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="picture"\r\n\r\n'
    form = folder / f"{path.name}.form"
    form.write_bytes(head + path.read_bytes() + b"\r\n--x--\r\n")
    return form


def asked(url: str, forms: Sequence[Path], clients: int, kept: list[Measured], seconds: int = SECONDS) -> float:
    """Have so many clients ask for one picture after the other; keep what wrk measured, return seconds a picture.

    Raises:
        RuntimeError: wrk is not here, or something was not answered.
    """
    load = f"-t1 -c{clients} -d{seconds}s --timeout 60s -s".split()
    try:
        told = ran(["wrk", *load, SCRIPT, f"{url}/v1/predict", "--", *forms]).out.splitlines()
    except FileNotFoundError as error:
        raise RuntimeError("wrk is not here: apt-get install wrk") from error
    measured: Measured = json.loads(told[-1])
    if measured["failed"] or not measured["answered"]:
        raise RuntimeError(f"of {clients} clients, not all were answered: {measured}")
    kept.append(measured)
    return measured["seconds"] / measured["answered"]


def held_against(url: str, name: str, paths: Sequence[Path], scratch: Path) -> list[Row]:
    """Measure all numbers of clients, in turn with `predict`."""
    forms = [form_of(path, scratch) for path in paths]
    asked(url, forms, 2, [], 3)  # warm
    measured: dict[int, list[Measured]] = {clients: [] for clients in CLIENTS}
    ways: dict[str, Callable[[], float]] = {
        str(clients): partial(asked, url, forms, clients, kept) for clients, kept in measured.items()
    }
    ways["predict"] = lambda: ran(mammolens("predict", *paths, "--quiet")).seconds / len(paths)
    took = alternate(ways, REPEATS)
    rows = []
    for clients, runs in measured.items():
        ours = took[str(clients)]
        usual, slow = (1000 * mean(one[part] for one in runs) for part in ("median", "of_twenty"))
        note = (
            f"{1 / median(ours):.1f} pictures a second; an answer takes {usual:.0f} ms, one of twenty more than "
            f"{slow:.0f} ms"
        )
        work = f"a {name}, a request each, {clients} client{'s' * (clients > 1)} at a time"
        against = f"`mammolens predict` of {len(paths)}, its start included"
        rows.append(Row(work, ours, against, took["predict"], None, note=note))
    return rows


def main(scratch: Path) -> None:
    """Measure, and keep."""
    folder, _ = mammograms(scratch)
    jpegs = sorted(folder.rglob("*.jpg"))[:: IMAGES // JPEGS][:JPEGS]
    dicoms = full_size(jpegs[:8], scratch, DICOMS)
    with serving() as url:
        rows = held_against(url, "JPEG of 640 × 640", jpegs, scratch)
        rows += held_against(url, "full-size DICOM file", dicoms, scratch)
    keep("service", rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
