"""The baseline's training, beside Keras on TensorFlow with `ImageDataGenerator`, as the original project trains.

    python -m benchmarks.baseline

The same images, network, batch and optimizer; each in a fresh process, ours with an empty cache, until the network
lies on disk. Both validate after each epoch and judge the test split. Ours also calibrates, exports to ONNX, proves
that the two agree, and writes reports.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import COMPILED, Row, alternate, keep, mammolens
from benchmarks.pictures import mammograms
from benchmarks.tensorflow_environment import QUIET, WAY, installed, save_network

EPOCHS, REPEATS = 4, 2


def moments(command: Sequence[str | Path], **environment: str) -> list[float]:
    """Run a training; return the seconds from its start to the end of each epoch, and to its own end.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    started, said, ended = time.perf_counter(), "", []
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, env=os.environ | COMPILED | environment, **pipes) as process:
        for line in process.stdout or ():
            said += line
            if re.match(r"epoch +\d", line):
                ended.append(time.perf_counter() - started)
    if process.returncode or len(ended) != EPOCHS:
        raise RuntimeError(f"{command} failed:\n{said}")
    return [*ended, time.perf_counter() - started]


def main(scratch: Path) -> None:
    """Train both ways in turn, and keep the rows."""
    data, what = mammograms(scratch)
    network = save_network(scratch / "baseline.h5", "baseline")
    told: dict[str, list[list[float]]] = {"ours": [], "theirs": []}

    def ours() -> float:
        run, cache = scratch / "run", scratch / "cache"
        for folder in (run, cache):
            shutil.rmtree(folder, ignore_errors=True)
        words: list[str | Path] = ["train", data, "--recipe", "baseline", "--set", f"epochs={EPOCHS}", "--out", run]
        told["ours"].append(moments(mammolens(*words), MAMMOLENS_CACHE=str(cache)))
        return told["ours"][-1][-1]

    def theirs() -> float:
        told["theirs"].append(moments([*WAY, "train", network, data.resolve(), str(EPOCHS)], **QUIET))
        return told["theirs"][-1][-1]

    whole = alternate({"ours": ours} | ({"theirs": theirs} if installed() else {}), REPEATS)
    against = "Keras on TensorFlow, ImageDataGenerator.flow_from_directory" if "theirs" in whole else "–"
    epoch = {name: [(m[EPOCHS - 1] - m[0]) / (EPOCHS - 1) for m in runs] for name, runs in told.items()}
    first, after = (median(part) for part in zip(*((m[0], m[-1] - m[-2]) for m in told["ours"]), strict=True))
    note = f"ours: {first:.1f} s until the first epoch ends (start, preparing, an epoch), {after:.1f} s after the last"
    targets = (2.0, 1.5) if "theirs" in whole else (None, None)
    keep(
        "baseline",
        [
            Row(
                f"baseline training, {what}, 64 × 64: an epoch from the second on",
                epoch["ours"],
                against,
                epoch["theirs"],
                targets[0],
            ),
            Row(
                f"baseline training, {what}, 64 × 64: {EPOCHS} epochs, everything included",
                whole["ours"],
                against,
                whole.get("theirs", []),
                targets[1],
                note=note,
            ),
        ],
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
