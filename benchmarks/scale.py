"""What many machines take, on paper, and whether Ray deals out work as the paper says: 1,000 tasks that sleep.

    python -m benchmarks.scale [--paper]

The paper: places take turns, each turn a task's time, and nothing else (`turns`). Tried are up to a hundred places on
this machine, which sleep where machines would compute: so what is measured is what dealing out costs.
"""

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
import ray.data
from rich.console import Console
from rich.table import Table

from mammolens.cluster.archive import quiet
from mammolens.cluster.connection import connect

TASKS = 1000
PROCESSES = 4


class Sleeper:
    """Places that take so long for a task, whatever it is; they begin when all processes are in `folder`."""

    def __init__(self, seconds: float, folder: Path) -> None:
        self._seconds = seconds
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < PROCESSES:
            time.sleep(0.01)

    def __call__(self, batch: dict[str, object]) -> dict[str, object]:
        """Sleep."""
        time.sleep(self._seconds)
        return batch


def turns(tasks: int, places: int, seconds: float) -> float:
    """Return how long so many places take for all tasks, where each takes so long: on paper."""
    return math.ceil(tasks / places) * seconds


CORES = 16
"""Of a machine on paper."""

IMAGES, PART, IMAGE, MEGABYTES = 10_000_000, 256, 0.65, 8
"""Full-size DICOM files: how many, a part, seconds of one core for one (docs/performance.md), and what one has."""

NAME, START = 2e-5, 25
"""Seconds for a name into the list, and until the first part (`benchmarks.cluster`)."""

DISK = 1250
"""Megabytes a second that the storage gives all machines together: 10 Gbit/s."""

TRIALS, FOLDS, FOLD, FOLD_CORES = 100, 5, 290, 2
"""A sweep: `quick` on 2,672 images takes so many seconds a fold, on so many cores, and no less on more (docs/guide)."""


def searched(machines: int) -> tuple[float, int]:
    """Return what a sweep takes, in seconds, and how many trials are made at a time.

    The recipe that it starts from goes first; a trial does its folds one after the other; last, two networks learn from
    all folds, to be judged on who was held out.
    """
    together = min(TRIALS, machines * CORES)
    cores = max(cores for cores in range(1, CORES + 1) if machines * (CORES // cores) >= together)
    start, trial = (FOLDS * FOLD * FOLD_CORES / min(FOLD_CORES, one) for one in (CORES, cores))
    last = turns(2, machines, FOLD * FOLDS / (FOLDS - 1))
    return START + start + turns(TRIALS, together, trial) + last, together


def on_paper() -> Table:
    """Return what ten million images and a sweep take on 1, 10 and 100 machines, in hours."""
    table = Table("machines", "images: cores, h", "images: storage, h", "storage, GB/s", "sweep, h", "trials at a time")
    for machines in (1, 10, 100):
        places = machines * CORES
        computed = IMAGES * NAME + START + turns(math.ceil(IMAGES / PART), places, PART * IMAGE)
        stored = IMAGES * MEGABYTES / DISK
        wanted = places / IMAGE * MEGABYTES / 1000
        sweep, together = searched(machines)
        hours = [f"{one / 3600:.1f}" for one in (computed, stored)]
        table.add_row(str(machines), *hours, f"{wanted:.1f}", f"{sweep / 3600:.2f}", str(together))
    return table


@dataclass(frozen=True)
class Simulated:
    """So many places, what a task takes, what all took on paper, and what they took."""

    places: int
    seconds: float
    paper: float
    measured: float


def simulated(places: int, seconds: float) -> Simulated:
    """Have that many places sleep through all tasks, each dealt out as a part of an archive is.

    Time counts from when all processes are there.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        dealt = ray.data.from_items(list(range(TASKS)), override_num_blocks=TASKS).map_batches(
            Sleeper,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                size=PROCESSES, max_concurrent_calls_per_actor=places // PROCESSES, enable_true_multi_threading=True
            ),
            fn_constructor_args=(seconds, folder),
            num_cpus=0.1,
        )
        count = sum(1 for _ in dealt.iter_rows())
        measured = time.time() - max(one.stat().st_mtime for one in folder.iterdir())
    return Simulated(places, seconds, turns(count, places, seconds), measured)


def main(*, paper: bool) -> None:
    """Estimate, simulate, print."""
    Console().print(on_paper())
    if paper:
        return
    table = Table("places", "seconds a task", "paper, s", "measured, s", "more")
    with connect("local"):
        quiet()
        for places, seconds in ((100, 1.0), (100, 5.0), (12, 0.3)):
            one = simulated(places, seconds)
            more = f"{one.measured / one.paper - 1:+.1%}"
            table.add_row(str(places), f"{seconds:g}", f"{one.paper:.1f}", f"{one.measured:.1f}", more)
    Console().print(table)


if __name__ == "__main__":
    main(paper="--paper" in sys.argv)
