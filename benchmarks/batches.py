"""What `predict` does with thousands of files: nothing is lost, memory stays flat, answers come evenly.

    python -m benchmarks.batches [FILES]

As `mammolens predict scans --model phantom --out answers.csv` does it, in this process: the journal is kept, the
table is written. Files are small phantoms, one hundred of them by many names.
"""

import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mammolens.data.sources.phantom import write_phantoms
from mammolens.images.archives import pictures_in
from mammolens.parallel import cores
from mammolens.reports.answers import written
from mammolens.serving.journal import journal, settings
from mammolens.serving.predictor import Predictor

FILES = 10_000
PATIENTS, SIZE = 25, 160


def resident() -> float:
    """Memory that this process has now, MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def tree(folder: Path, files: int) -> Path:
    """Make a tree of a folder a hundred files."""
    write_phantoms(folder / "drawn", PATIENTS, size=SIZE, seed=3)
    drawn = sorted((folder / "drawn").rglob("*.jpg"))
    for number in range(files):
        place = folder / "scans" / f"{number // 100:03d}" / f"{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(drawn[number % len(drawn)], place)
    return folder / "scans"


def main(folder: Path, files: int) -> Table:
    """Answer for so many files, and say how it went."""
    pictures, out = pictures_in(tree(folder, files)), folder / "answers.csv"
    predictor = Predictor.load("phantom")
    table = Table("files answered", "memory of this process")
    moments = [time.perf_counter()]
    shaped = settings(predictor.bundle.record, predictor.operating_point)
    with journal(out, shaped) as kept:
        for _ in written(predictor.answers(pictures, maps=False, kept=kept), out):
            moments.append(time.perf_counter())
            if len(moments) - 1 in (files // 10, files // 2, files):
                table.add_row(f"{len(moments) - 1}", f"{resident():.0f} MiB")
    with out.open(encoding="utf-8", newline="") as stream:
        paths = {row["path"] for row in csv.DictReader(stream) if row["probability"] or row["reason"]}
    table.add_row("rows with an answer, of files of their own", f"{len(paths)}")
    waits = 1000 * np.diff(moments[1:])
    middle, most, nearly_all = np.percentile(waits, (50, 95, 99))
    table.add_row("from one answer to the next: median, 95 %, 99 %", f"{middle:.1f}, {most:.1f}, {nearly_all:.1f} ms")
    rate = files / (moments[-1] - moments[0])
    table.add_row(f"on {cores()} cores, start of workers included", f"{rate:.0f} images a second")
    return table


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        Console().print(main(Path(temporary), int(sys.argv[1]) if sys.argv[1:] else FILES))
