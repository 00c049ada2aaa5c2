"""Preparing pictures (decoded, polarity, crop, cache), beside decoding them and nothing else, on all cores.

    python -m benchmarks.reading [--full]

Decoding alone is what a script would do: Pillow's grey of a JPEG, pydicom's array of a DICOM file, in a pool of
processes that are there already. Ours is a fresh process with an empty cache: it starts its workers, finds the breast,
stretches contrast and writes what it prepared.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pydicom
from PIL import Image as Pillow

from benchmarks.full_size import ENCODINGS, SIZES, full_size
from benchmarks.measuring import Row, alternate, keep, ran
from benchmarks.pictures import mammograms, some
from mammolens.images.preprocess import Preprocess
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

PARTS = """
import json, sys, time
from pathlib import Path
from mammolens.images.breast import anatomy
from mammolens.images.preprocess import Preprocess
from mammolens.images.reading import read_image
from mammolens.model.gate import is_mammogram
from mammolens.workers import confinement
confinement._inside = True  # what workers do is done here
preprocess, asked, took = Preprocess.model_validate_json(sys.argv[1]), sys.argv[2] == "True", []
for path in map(Path, sys.argv[3:]):
    moments = [time.process_time()]
    def past():
        moments.append(time.process_time())
    image = read_image(path)
    past()
    seen = anatomy(image.pixels) if preprocess.crop else None
    seen and seen.breast
    past()
    asked and is_mammogram(seen)
    past()
    preprocess(image.pixels, seen)
    past()
    took.append([end - begin for begin, end in zip(moments, moments[1:])])
print(json.dumps(took[1:]))
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


def parts(paths: Sequence[Path], preprocess: Preprocess, *, asked: bool = False) -> str:
    """Say what is done to make of a picture what a network sees, and how long each part takes one core.

    Args:
        paths: the pictures, of which a few are looked at.
        preprocess: how it is made.
        asked: whether it is asked, too, if they are mammograms.
    """
    told = ran([sys.executable, "-c", PARTS, preprocess.model_dump_json(), str(asked), *some(paths)]).out
    read, found, judged, made = (1000 * fmean(part) for part in zip(*json.loads(told), strict=True))
    said = {"to read it": read, "to find the breast": found, "to ask whether it is a mammogram": judged}
    said["to cut it out, stretch and resize it" if preprocess.crop else "to resize it"] = made
    return ", ".join(f"{took:.1f} ms {what}" for what, took in said.items() if took >= 0.05)


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
            presets = {"plain": Preprocess.plain(), "breast": Preprocess.breast()}
            if paths is not jpegs:
                del presets["plain"]
            ways = {preset: partial(prepared, listing, preset, scratch) for preset in presets}
            took = alternate({**ways, "decoding": partial(decode, paths)}, REPEATS)
            for preset, settings in presets.items():
                how = "the whole picture" if preset == "plain" else "the breast"
                each, alone = (1000 * cores() * median(took[way]) / len(paths) for way in (preset, "decoding"))
                note = (
                    f"a picture takes {each:.1f} ms of a core, decoding alone {alone:.1f}; of it "
                    f"{parts(paths, settings)}; the rest starts processes, hashes files, travels and is written"
                )
                work = f"{name}: {how} prepared"
                rows.append(Row(work, took[preset], "decoding alone", took["decoding"], 0.8, note=note))
    keep("reading", rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), full="--full" in sys.argv)
