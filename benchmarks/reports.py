"""What reports of a whole data set take: the doctor's, and that of an evaluation.

    python -m benchmarks.reports

In fresh processes. The evaluation's is made of a table of scores, so that it is the report that is measured, and not
the network: every figure with its interval by bootstrap, every page and picture of curves.
"""

import csv
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measuring import Row, keep, mammolens, ran
from benchmarks.pictures import mammograms, some
from mammolens.data.sources import read_source
from mammolens.parallel import cores

REPEATS = 2

LOOKED = """
import sys, time
from pathlib import Path
from mammolens.doctor.facts import _facts
from mammolens.workers import confinement
confinement._inside = True  # what workers do is done here
first, *others = map(Path, sys.argv[1:])
_facts(first)
began = time.process_time()
for path in others:
    _facts(path)
print((time.process_time() - began) / len(others))
"""


def main(scratch: Path) -> None:
    """Measure, and keep the rows."""
    data, what = mammograms(scratch)
    images, generator = read_source(str(data)).labelled(), np.random.default_rng(0)
    table = scratch / "scores.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "probability"])
        scores = np.clip(generator.normal(0.4 + 0.2 * images.labels, 0.2), 0, 1)
        rows.writerows(zip(images.paths, scores.round(6), strict=True))
    evaluate = mammolens("evaluate", "--predictions", table, "--data", data, "--split", "all", "--out")
    reported = [ran([*evaluate, scratch / f"report{number}"]) for number in range(REPEATS)]
    doctor = mammolens("doctor", data, "--out")  # ends with 1 where it finds errors
    examined = [ran([*doctor, scratch / f"doctor{number}"], memory=True, ends=(0, 1)) for number in range(REPEATS)]
    each = float(ran([sys.executable, "-c", LOOKED, *some(images.paths)]).out)
    rest = median(done.seconds for done in examined) - each * len(images) / cores()
    where = (
        f"{1000 * each:.1f} ms of a core to look at an image; the other {rest:.1f} s load the program, look for "
        "duplicates and shortcuts among all, and write the page"
    )
    keep(
        "reports",
        [
            Row(f"full report of {what}, from a table of scores", [done.seconds for done in reported], "–", [], 15),
            Row(f"doctor on {what}", [done.seconds for done in examined], "–", [], 30, note=where),
            Row(
                f"doctor on {what}, memory of all processes",
                [done.peak for done in examined],
                "–",
                [],
                500,
                "MB",
            ),
        ],
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
