"""How fast answers come, beside the original project's way, and whether memory stays flat.

    python -m benchmarks.serving [FOLDER OF IMAGES]

The original's way is PIL, then Keras' ``model.predict`` on one image, in a process of its own: on
TensorFlow, as the original has it, where the environment variable TENSORFLOW_PYTHON names a Python
that has TensorFlow and Keras, and on PyTorch. All answer for the same images with the same weights,
the baseline network's. The original asks of no picture whether it is a mammogram; without its gate,
mammolens does the same work. Times differ between machines; the ratios within one run are what to
compare.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mammolens.data.sources.phantom import write_phantoms
from mammolens.images.archives import named
from mammolens.images.listing import list_folder
from mammolens.parallel import cores, map_in_order
from mammolens.serving.pictures import seen_or_reason
from mammolens.serving.predictor import Predictor

STARTS = 5
WARM = 100
END_TO_END = 1000
MANY = 10_000

KERAS_WAY = """
import sys, time
import keras, numpy as np
from PIL import Image
def pixels(path):
    grey = Image.open(path).convert("L").resize((64, 64), Image.Resampling.BILINEAR)
    return np.asarray(grey, dtype="float32")[None, ..., None] / 255
model = keras.saving.load_model(sys.argv[1], compile=False)
"""
OUR_WAY = """
import sys, time
from pathlib import Path
from mammolens.serving.predictor import Predictor
predictor = Predictor.load(sys.argv[1])
"""
WITHOUT_GATE = """
from dataclasses import replace
record = predictor.bundle.record.model_copy(update={"gate": None})
predictor = replace(predictor, bundle=replace(predictor.bundle, record=record))
"""
KERAS_ANSWER = "model.predict(pixels(path), verbose=0)"
OUR_ANSWER = "next(predictor.answers([Path(path)]))"
TIMED = """
paths = sys.argv[2:]
for path in paths[:1]:
    {answer}
started = time.perf_counter()
for path in paths[1:]:
    {answer}
print((time.perf_counter() - started) / max(1, len(paths) - 1))
"""


def started(python: str, way: str, answer: str, arguments: list[str]) -> tuple[float, float]:
    """Seconds that a new process takes in all, and seconds an image that it reports."""
    begun = time.perf_counter()
    done = subprocess.run(
        [python, "-c", way + TIMED.format(answer=answer), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - begun, float(done.stdout.split()[-1])


def beside_the_original(run: Path, paths: list[Path]) -> Table:
    """First answer and warm answers of each way; the smallest of several starts."""
    names = [str(path) for path in paths]
    ways = [
        ("mammolens", sys.executable, OUR_WAY, OUR_ANSWER, str(run)),
        ("without its gate", sys.executable, OUR_WAY + WITHOUT_GATE, OUR_ANSWER, str(run)),
    ]
    if tensorflow := os.environ.get("TENSORFLOW_PYTHON"):
        way = "import os; os.environ['KERAS_BACKEND'] = 'tensorflow'" + KERAS_WAY
        ways.append(("Keras on TensorFlow", tensorflow, way, KERAS_ANSWER, str(run / "breast.h5")))
    way = "import os; os.environ['KERAS_BACKEND'] = 'torch'" + KERAS_WAY
    ways.append(("Keras on PyTorch", sys.executable, way, KERAS_ANSWER, str(run / "breast.h5")))
    table = Table("way", "start to first answer", "times ours", "an image, warm", "times ours")
    first, warm = [np.inf] * len(ways), [np.inf] * len(ways)
    for _ in range(STARTS):  # in turn, so that a slow minute of the machine is slow for all
        for row, (_, python, way, answer, model) in enumerate(ways):
            first[row] = min(first[row], started(python, way, answer, [model, names[0]])[0])
            warm[row] = min(warm[row], started(python, way, answer, [model, *names[:WARM]])[1])
    for (name, *_), start, image in zip(ways, first, warm, strict=True):
        ratios = f"{start / first[0]:.1f}", f"{image / warm[0]:.1f}"
        table.add_row(name, f"{start:.2f} s", ratios[0], f"{1000 * image:.1f} ms", ratios[1])
    return table


def end_to_end(run: Path, paths: list[Path]) -> Table:
    """Images a second of decoding alone, of the network alone, and of both together."""
    predictor = Predictor.load(run)
    record = predictor.bundle.record
    work = partial(seen_or_reason, preprocess=record.preprocess, gate=record.gate)
    begun = time.perf_counter()
    seen = [found for found in map_in_order(work, named(paths)) if not isinstance(found, str)]
    decoding = len(paths) / (time.perf_counter() - begun)
    begun = time.perf_counter()
    for found in seen:
        predictor.score(found.levels)
    network = len(seen) / (time.perf_counter() - begun)
    begun = time.perf_counter()
    deque(predictor.answers(paths), maxlen=0)
    together = len(paths) / (time.perf_counter() - begun)
    table = Table(f"{len(paths)} images, {cores()} cores", "images a second")
    table.add_row("decoding alone", f"{decoding:.0f}")
    table.add_row("network alone", f"{network:.0f}")
    share = together / min(decoding, network)
    table.add_row("end to end", f"{together:.0f}: {100 * share:.0f} % of the slower")
    # Both keep all cores busy: one after the other is the most that these cores have to give.
    possible = 1 / (1 / decoding + 1 / network)
    table.add_row("what the cores allow", f"{possible:.0f}: {100 * together / possible:.0f} % of it")
    return table


def peak(process: str) -> float:
    """Largest resident memory that a living process has had, MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def children() -> list[str]:
    """Return the processes that this one has started and that are still there."""
    threads = Path("/proc/self/task").glob("*/children")
    return [one for thread in threads for one in thread.read_text(encoding="ascii").split()]


def memory(run: Path, paths: list[Path]) -> Table:
    """Largest resident memory of this process and of its workers while thousands are answered."""
    table = Table("files answered", "largest memory of this process", "of a worker")
    for done, _ in enumerate(Predictor.load(run).answers(paths), start=1):
        if done in (len(paths) // 10, len(paths) // 2, len(paths) - 100):
            workers = [peak(worker) for worker in children()]
            table.add_row(f"{done}", f"{peak('self'):.0f} MiB", f"{max(workers):.0f} MiB")
    return table


def main(scratch: Path, given: list[Path]) -> None:
    """Train a baseline for one epoch, then measure."""
    data = scratch / "phantoms"
    write_phantoms(data, 100)
    drawn = sorted(data.rglob("*.jpg"))
    run = scratch / "run"
    train = ["train", str(data), "--set", "epochs=1", "--out", str(run), "--quiet"]
    subprocess.run([sys.executable, "-m", "mammolens", *train], check=True, capture_output=True)
    paths = given or drawn
    screen = Console()
    screen.print(beside_the_original(run, paths))
    screen.print(end_to_end(run, (paths * (END_TO_END // len(paths) + 1))[:END_TO_END]))
    many = scratch / "many"
    many.mkdir()
    for number in range(MANY):
        os.link(drawn[number % len(drawn)], many / f"{number}.jpg")
    screen.print(memory(run, sorted(many.iterdir())))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    images = list(list_folder(folder).images) if folder else []
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MAMMOLENS_CACHE"] = f"{temporary}/cache"
        main(Path(temporary), images)
