"""From files to a table, by `mammolens predict` in fresh processes: the first answer, batches, and where they grow.

    python -m benchmarks.serving [--full]

A batch is held against what the cores allow: the time to decode its pictures, and that for the network alone to look
at them, each on all cores with nothing else beside.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import tensorflow_environment
from benchmarks.full_size import ENCODINGS, SIZES, full_size
from benchmarks.measuring import Row, alternate, keep, mammolens, ran
from benchmarks.pictures import IMAGES, mammograms
from benchmarks.reading import ALL_DICOMS, DICOMS, ENLARGED, decoders, parts
from mammolens.images.reading import read_image
from mammolens.parallel import FEW, cores
from mammolens.serving.predictor import Predictor

REPEATS, STARTS = 2, 5
JPEGS = 300
LOOKED_AT = 60  # pictures that tell how long the network takes for one


def answered(paths: Sequence[Path], scratch: Path) -> float:
    """Return seconds from the start of a process to its end, with answers for all written to a table."""
    out = scratch / "answers.csv"
    seconds = ran(mammolens("predict", *paths, "--quiet", "--out", out)).seconds
    out.unlink()
    return seconds


def first_answers(jpeg: Path, dicoms: Sequence[Path], scratch: Path) -> list[Row]:
    """Measure the first answer from a cold start beside the import of a framework."""
    size = " × ".join(map(str, SIZES[0]))
    pictures = {"one JPEG": jpeg} | {
        f"one DICOM file of {size}, {kind}": path for kind, path in zip(ENCODINGS, dicoms, strict=False)
    }
    torch = "`python -c 'import torch'`"
    imports: dict[str, Callable[[], float]] = {torch: lambda: ran([sys.executable, "-c", "import torch"]).seconds}
    if tensorflow_environment.installed():
        imports["`python -c 'import tensorflow'`"] = tensorflow_environment.seconds_to_import
    ways: dict[str, Callable[[], float]] = {name: partial(answered, [path], scratch) for name, path in pictures.items()}
    for way in (*ways.values(), *imports.values()):
        way()
    took = alternate({**ways, **imports}, STARTS)
    return [
        Row(f"first answer, {name}, from a cold start", took[name], against, took[against], 1)
        for name in pictures
        for against in imports
    ]


def network_alone(paths: Sequence[Path]) -> Callable[[int], float]:
    """Return what tells how many seconds the network takes for so many pictures, all cores at work on several."""
    predictor = Predictor.load()
    preprocess = predictor.bundle.record.preprocess
    stored = [preprocess(read_image(path).pixels).pixels for path in paths]
    several = replace(predictor, _session=predictor._beside_others)  # noqa: SLF001

    def seconds(count: int) -> float:
        with ThreadPoolExecutor(cores()) as threads:
            began = time.perf_counter()
            list(threads.map(several.score, stored))
            return (time.perf_counter() - began) * count / len(stored)

    seconds(1)
    return seconds


def batches(sets: dict[str, Sequence[Path]], scratch: Path) -> list[Row]:
    """Measure batches beside decoding alone and the network alone."""
    look = network_alone(next(iter(sets.values()))[:LOOKED_AT])
    rows, preprocess = [], Predictor.load().bundle.record.preprocess
    with decoders() as decode:
        for name, paths in sets.items():
            decode(paths[:6])
            took = alternate(
                {
                    "all": partial(answered, paths, scratch),
                    "decoding": partial(decode, paths),
                    "network": partial(look, len(paths)),
                },
                REPEATS,
            )
            both = [sum(pair) for pair in zip(took["decoding"], took["network"], strict=True)]
            each = {one: f"{1000 * median(seconds) / len(paths):.1f} ms" for one, seconds in took.items()}
            note = (
                f"a picture takes {each['all']}; on all cores alone, {each['decoding']} to decode and {each['network']}"
                f" by the network; on one core, {parts(paths, preprocess, asked=True)}"
            )
            rows.append(Row(name, took["all"], "decoding alone and the network alone, added", both, 0.95, note=note))
    return rows


def growth(paths: Sequence[Path], scratch: Path) -> list[Row]:
    """Measure one, ten, a hundred pictures, and where more processes start."""
    counts = (1, 10, FEW, FEW + 1, 100)
    took = alternate({str(n): partial(answered, paths[:n], scratch) for n in counts}, REPEATS)
    times = {n: took[str(n)] for n in counts}

    def line(count: int, begin: int, end: int) -> list[float]:
        pairs = zip(times[begin], times[end], strict=True)
        return [first + (last - first) / (end - begin) * (count - begin) for first, last in pairs]

    return [
        Row(f"`predict` of {FEW} JPEGs", times[FEW], "the line through one and ten", line(FEW, 1, 10), 0.9),
        Row(
            f"`predict` of {FEW + 1} JPEGs, where more processes start",
            times[FEW + 1],
            f"the line through one and {FEW}",
            line(FEW + 1, 1, FEW),
            0.95,
        ),
        Row("`predict` of 100 JPEGs", times[100], "the line through one and ten", line(100, 1, 10), 0.9),
    ]


def main(scratch: Path, *, full: bool) -> None:
    """Measure in turn, and keep."""
    folder, _ = mammograms(scratch)
    found = sorted(folder.rglob("*.jpg"))
    jpegs = found if full else found[:: IMAGES // JPEGS][:JPEGS]
    dicoms = full_size(found[:ENLARGED], scratch, ALL_DICOMS if full else DICOMS)
    sets: dict[str, Sequence[Path]] = {
        f"{len(jpegs):,} JPEGs of 640 × 640 to a table": jpegs,
        f"{len(dicoms)} full-size DICOM files to a table": dicoms,
    }
    keep("serving", first_answers(jpegs[0], dicoms, scratch) + growth(jpegs, scratch) + batches(sets, scratch))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), full="--full" in sys.argv)
