"""Preparing pictures (decoded, polarity, crop, cache), beside decoding them and nothing else, on all cores.

    python -m benchmarks.reading [--full]

Decoding alone is what a script would do: Pillow's grey of a JPEG, pydicom's array of a DICOM file, in a pool of
processes that are there already. Ours is a fresh process with an empty cache: it starts its workers, finds the breast,
stretches contrast and writes what it prepared.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image as Pillow

from benchmarks.full_size import ENCODINGS, SIZES, full_size
from benchmarks.measuring import Row, alternate, keep, ran
from benchmarks.pictures import mammograms
from mammolens.parallel import cores

REPEATS = 2
DICOMS, ALL_DICOMS = 60, 500
ENLARGED = len(ENCODINGS) * len(SIZES) * 2

PREPARED = """
import os, sys, time
from pathlib import Path
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import Preprocess
paths = [Path(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
began = time.perf_counter()
pixels = prepared_pixels(paths, getattr(Preprocess, sys.argv[2])())
print(time.perf_counter() - began)
sys.exit(any(pixels.errors))
"""


def decoded(path: Path) -> int:
    """Decode one picture, and return how many pixels it has."""
    if path.suffix == ".dcm":
        return int(pydicom.dcmread(path).pixel_array.size)
    with Pillow.open(path) as picture:
        return int(np.asarray(picture.convert("L")).size)


@contextmanager
def decoders() -> Iterator[Callable[[Sequence[Path]], float]]:
    """Yield what decodes pictures on all cores, in processes that are warm: seconds."""
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:

        def seconds(paths: Sequence[Path]) -> float:
            began = time.perf_counter()
            for _ in pool.map(decoded, paths, chunksize=max(1, min(16, len(paths) // 8))):
                pass
            return time.perf_counter() - began

        yield seconds


def prepared(listing: Path, preset: str, scratch: Path) -> float:
    """Return seconds that a fresh process takes to prepare what is listed, with an empty cache."""
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        return float(ran([sys.executable, "-c", PREPARED, listing, preset], MAMMOLENS_CACHE=cache).out)


def main(scratch: Path, *, full: bool) -> None:
    """Measure in turn, and keep."""
    folder, what = mammograms(scratch)
    jpegs = sorted(folder.rglob("*.jpg"))
    dicoms = full_size(jpegs[:ENLARGED], scratch, ALL_DICOMS if full else DICOMS)
    kinds = list(ENCODINGS)
    sets = {f"{what} of 640 × 640, JPEG": jpegs, f"{len(dicoms)} full-size DICOM files of 12 bits": dicoms}
    sets |= {f"of these, {kind}": dicoms[place :: len(kinds)] for place, kind in enumerate(kinds)}
    rows = []
    with decoders() as decode:
        decode(jpegs[:100]), decode(dicoms[: len(kinds)])
        for name, paths in sets.items():
            listing = scratch / "listing.txt"
            listing.write_text("\n".join(map(str, paths)), encoding="utf-8")
            presets = ("plain", "breast") if paths is jpegs else ("breast",)
            ways = {preset: partial(prepared, listing, preset, scratch) for preset in presets}
            took = alternate({**ways, "decoding": partial(decode, paths)}, REPEATS)
            for preset in presets:
                how = "the whole picture" if preset == "plain" else "the breast"
                rows.append(Row(f"{name}: {how} prepared", took[preset], "decoding alone", took["decoding"], 0.8))
    keep("reading", rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), full="--full" in sys.argv)
