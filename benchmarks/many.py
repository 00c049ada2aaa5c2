"""Whether time grows with the number of images and no faster, and memory not at all: doctor, prepare, predict.

    python -m benchmarks.many [LARGEST]

Small phantoms, no two alike: 1,000, 2,000 and 4,000 of them, and as many as LARGEST says. Each verb runs in a fresh
process with an empty cache. What an image costs is the difference between two sizes over that of their images, so
that what a start costs does not stand for what an image does; memory is the most of all processes together.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import Ran, Row, keep, mammolens, ran
from benchmarks.pictures import subset
from mammolens.data.sources.phantom import write_phantoms

SIZES = (1000, 2000, 4000)
SIDE = 160  # pixels

PREPARE = """
import sys
from pathlib import Path
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import Preprocess
paths = sorted(Path(sys.argv[1]).rglob("*.jpg"))
made = prepared_pixels(paths, Preprocess.breast())
assert len(made) == len(paths) and not any(made.errors)
"""


def doctor(data: Path, scratch: Path) -> Ran:
    """Look through a data set for everything that is wrong with it."""
    return ran(mammolens("doctor", data, "--out", scratch / "doctor"), memory=True, ends=(0, 1))


def prepare(data: Path, scratch: Path) -> Ran:
    """Decode and prepare into an empty cache."""
    return ran([sys.executable, "-c", PREPARE, data], memory=True, MAMMOLENS_CACHE=str(scratch / "cache"))


def predict(data: Path, scratch: Path) -> Ran:
    """Answer with the smaller of the models that ship, and lose no picture."""
    out = scratch / "answers.csv"
    done = ran(mammolens("predict", data, "--model", "phantom", "--out", out), memory=True)
    answered = sum(1 for line in out.open(encoding="utf-8")) - 1
    if answered != len(list(data.rglob("*.jpg"))):
        raise RuntimeError(f"{answered} answers of {data}")
    return done


VERBS: dict[str, Callable[[Path, Path], Ran]] = {"doctor": doctor, "prepare": prepare, "predict": predict}


def rows(name: str, runs: dict[int, Ran]) -> list[Row]:
    """Return what an image costs as there are more, and what memory they take."""
    (few, first), *_, (fewer, before), (most, last) = runs.items()
    early = (before.seconds - first.seconds) / (fewer - few)
    late = (last.seconds - before.seconds) / (most - fewer)
    seconds = ", ".join(f"{done.seconds:.1f} s for {size:,}" for size, done in runs.items())
    grown = 1000 * (last.peak - first.peak) / (most - few)
    peaks = ", ".join(f"{done.peak:.0f} MB for {size:,}" for size, done in runs.items()) + f": {grown:.1f} KB an image"
    work, against = f"{name}, an image of the last {most - fewer:,} of {most:,}", f"of the {fewer - few:,} before"
    return [
        Row(work, [late], against, [early], 0.9, note=seconds),
        Row(f"{name}, memory for {most:,} images", [last.peak], f"for {few:,}", [first.peak], 0.9, "MB", peaks),
    ]


def main(scratch: Path, sizes: tuple[int, ...]) -> None:
    """Draw, measure, keep."""
    drawn, kept = scratch / "drawn", []
    write_phantoms(drawn, sizes[-1] // 4, size=SIDE)
    folders = {size: subset(drawn, size, scratch / str(size)) for size in sizes}
    for name, verb in VERBS.items():
        runs = {}
        for size, folder in folders.items():
            runs[size] = verb(folder, scratch)
            print(f"{name} {size}: {runs[size].seconds:.1f} s, {runs[size].peak:.0f} MB", flush=True)
            for left in ("doctor", "cache"):
                shutil.rmtree(scratch / left, ignore_errors=True)
            (scratch / "answers.csv").unlink(missing_ok=True)
        kept += rows(name, runs)
    keep("many", kept)


if __name__ == "__main__":
    wanted = tuple(sorted({*SIZES, *map(int, sys.argv[1:])}))
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), wanted)
