"""What Ray costs on one machine, and what a second worker brings: `predict` with and without --cluster.

    python -m benchmarks.cluster

Verbs run in fresh processes, in turn. What an image costs is the difference between two sizes over that of their
images, so that what a start costs does not stand for what an image does. One and two workers are pools of so many
processes on the same machine, of a core each: how many pictures they answer from the first part that is done to the
last.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.measuring import Row, alternate, keep, mammolens, ran
from benchmarks.pictures import mammograms, subset
from mammolens.cluster.archive import answered, begun
from mammolens.cluster.connection import Cluster, connect
from mammolens.cluster.inputs import write_list
from mammolens.images.archives import Input
from mammolens.parallel import cores
from mammolens.serving.predictor import Predictor

FEW, MANY = 32, 128
REPEATS = 3
POOLED, PART = 80, 8  # pictures that pools answer for, and how many a part
NAMES = 200_000


def plain(folder: Path, scratch: Path) -> float:
    """Return seconds from the start of a process to its end, without Ray."""
    return ran(mammolens("predict", folder, "--quiet", "--out", scratch / "answers.parquet")).seconds


def spread(folder: Path, scratch: Path) -> float:
    """Return seconds from the start of a process to its end, Ray's start and end included."""
    out = scratch / "answers"
    seconds = ran(mammolens("predict", folder, "--quiet", "--cluster", "local", "--out", out)).seconds
    shutil.rmtree(out)
    return seconds


def overhead(folders: dict[int, Path], scratch: Path) -> list[Row]:
    """Measure whole commands of two sizes, in turn."""
    ways: dict[tuple[str, int], Callable[[], float]] = {
        (name, size): partial(way, folder, scratch)
        for size, folder in folders.items()
        for name, way in (("plain", plain), ("cluster", spread))
    }
    took = alternate({str(key): way for key, way in ways.items()}, REPEATS)
    seconds = {key: took[str(key)] for key in ways}
    each = {
        name: [(many - few) / (MANY - FEW) for few, many in zip(seconds[name, FEW], seconds[name, MANY], strict=True)]
        for name in ("plain", "cluster")
    }
    rows = [
        Row(
            f"`predict --cluster local` of {size} mammograms",
            seconds["cluster", size],
            "`predict`",
            seconds["plain", size],
            None,
        )
        for size in folders
    ]
    return [*rows, Row("an image more with `--cluster local`", each["cluster"], "without", each["plain"], 0.9)]


def pace(folder: Path, workers: int, model: Predictor, scratch: Path) -> float:
    """Return seconds a picture that a pool of so many workers takes, once the first part is there."""
    out = scratch / f"pool-{workers}"
    with begun([str(folder)], out, model, size=PART) as job:
        making = answered(job, Cluster(workers, 0))
        next(making)
        began = time.perf_counter()
        parts = sum(1 for _ in making)
        seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return seconds / (parts * PART)


def pools(folder: Path, scratch: Path) -> Row:
    """Measure pools of one and of two workers, in turn."""
    model = Predictor.load()
    with connect("local"):
        ways: dict[str, Callable[[], float]] = {
            str(workers): partial(pace, folder, workers, model, scratch) for workers in (1, 2)
        }
        took = alternate(ways, REPEATS)
    note = f"{', '.join(f'{1 / median(took[one]):.1f} pictures a second of {one}' for one in took)}; {cores()} cores"
    return Row(f"a picture of {POOLED}, by two workers", took["2"], "by one", took["1"], 1.8, note=note)


def listing(scratch: Path) -> Row:
    """Measure how fast a list is written: by one process, before anything else."""
    inputs = (Input(path, path) for number in range(NAMES) for path in [Path(f"/archive/{number % 999}/{number}.dcm")])
    began = time.perf_counter()
    write_list(inputs, scratch / "list")
    seconds = (time.perf_counter() - began) / NAMES
    size = (scratch / "list").stat().st_size / NAMES
    return Row(f"a name of {NAMES:,} into the list", [seconds], "", [], None, note=f"{size:.0f} bytes on disk a name")


def main(scratch: Path) -> None:
    """Measure, keep."""
    pictures, _ = mammograms(scratch)
    folders = {size: subset(pictures, size, scratch / str(size)) for size in (FEW, MANY)}
    pooled = subset(pictures, POOLED, scratch / "pooled")
    keep("cluster", [*overhead(folders, scratch), pools(pooled, scratch), listing(scratch)])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir="build") as temporary:
        main(Path(temporary))
