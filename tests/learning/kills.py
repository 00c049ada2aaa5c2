"""Trainings that are killed at random moments, and whether they end as those that were not.

`python tests/learning/kills.py` does what `make kills` promises; the suite does a little of it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mammolens.data.sources.phantom import write_phantoms

RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "plateau": (
        "quick",
        (
            *("preprocess.height=32", "preprocess.width=32", "batch_size=8", "epochs=10"),
            *("early_stopping_patience=4", "plateau_patience=1", "sampling=patient"),
            *("augment.rotation=10", "seed=3"),
        ),
    ),
    "one_cycle": (
        "lesions",
        (
            *("preprocess.height=64", "preprocess.width=64", "batch_size=16", "boxes=0", "normalisation=batch"),
            *("initial_weights=none", "frozen_stages=4", "moving_average=0.9"),
            *("monitor=auc", "early_stopping_patience=8", "epochs=5", "seed=1"),
        ),
    ),
    "boxes": (
        "lesions",
        (
            *("preprocess.height=64", "preprocess.width=64", "batch_size=16", "boxes=1"),
            *("initial_weights=none", "epochs=4", "frozen_stages=6", "normalisation=batch"),
        ),
    ),
    "folded": (
        "lesions",
        (
            *("preprocess.height=64", "preprocess.width=64", "batch_size=16", "boxes=1"),
            *("initial_weights=imagenet", "normalisation=folded", "pooling=attention_and_peak"),
            *("epochs=4", "frozen_stages=3", "moving_average=0.9"),
        ),
    ),
}
"""Name → a recipe that ships, and changes: each schedule, way of sampling, loss and so on."""


@dataclass(frozen=True)
class Ending:
    """What a training ends with."""

    arrays: dict[str, bytes]
    history: str
    best_epoch: int


def command(data: Path, out: Path, recipe: str, changes: tuple[str, ...]) -> list[str]:
    """Return what is typed."""
    settings = [word for change in changes for word in ("--set", change)]
    made = ["--recipe", recipe, *settings, "--out", str(out), "--quiet"]
    return [sys.executable, "-m", "mammolens", "train", str(data), *made]


def ending(run: Path) -> Ending:
    """Read what a complete run ended with."""
    arrays: dict[str, bytes] = {}

    def read(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[name] = np.asarray(node).tobytes()

    with h5py.File(run / "breast.h5") as file:
        file.visititems(read)
    best = json.loads((run / "run.json").read_text(encoding="utf-8"))["best_epoch"]
    return Ending(arrays, (run / "history.csv").read_text(encoding="utf-8"), best)


def left_over(run: Path) -> list[str]:
    """Return what should not have stayed."""
    return [str(path) for path in run.rglob("*") if path.name[0] == "." or "checkpoint" in str(path)]


def killed(typed: list[str], environment: dict[str, str], sign: Path, seconds: float) -> bool:
    """Start it, and kill it so long after `sign` was there; tell whether it still ran."""
    process = subprocess.Popen(typed, env=environment)
    while process.poll() is None and not any(sign.parent.glob(sign.name)):
        time.sleep(0.02)
    try:
        if code := process.wait(seconds):
            raise AssertionError(f"it ended by itself with {code}: {' '.join(typed)}")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def campaign(folder: Path, kills: int, seed: int = 0, names: tuple[str, ...] = ()) -> int:
    """Kill each recipe's training `kills` times; return how often one was killed.

    Raises:
        AssertionError: one ended otherwise than the training that was never killed.
    """
    generator = np.random.default_rng(seed)
    write_phantoms(folder / "data", 30, size=96, seed=3)
    done = 0
    for name in names or RECIPES:
        typed = command(folder / "data", folder / name / "whole", *RECIPES[name])
        environment = os.environ | {"MAMMOLENS_CACHE": str(folder / name / "cache")}
        started = time.monotonic()
        assert not killed(typed, environment, folder, 3600)
        seconds, whole = time.monotonic() - started, ending(folder / name / "whole")
        epochs = whole.history.count("\n") - 1
        print(f"{name}: {seconds:.0f} s, {epochs} epochs", flush=True)  # noqa: T201
        survived, trial = 0, 0
        while survived < kills:
            run, trial = folder / name / f"killed-{trial}", trial + 1
            environment["MAMMOLENS_CACHE"] = str(folder / name / f"cache-{trial % 3}")
            typed = command(folder / "data", run, *RECIPES[name])
            for _ in range(int(generator.integers(2, 5))):
                # By the clock since it was started, or within an epoch, from its checkpoint on.
                sign, delay = folder, generator.uniform(0.1, 1) * seconds
                begun = len(list(run.glob("checkpoint/*"))) and epochs_of(run) + 1
                if begun < epochs and generator.random() < 0.7:
                    checkpoint = f"{generator.integers(begun, epochs):06d}-*.npz"
                    sign, delay = run / "checkpoint" / checkpoint, generator.uniform(0, 1)
                if (run / "run.json").exists() or not killed(typed, environment, sign, delay):
                    break
                survived += 1
                print(f"  killed {where(run)}", flush=True)  # noqa: T201
            if not (run / "run.json").exists():
                assert not killed(typed, environment, folder, 3600)
            assert ending(run) == whole, f"{run} ended otherwise than {name}/whole"
            assert not left_over(run), left_over(run)
        done += survived
    return done


def epochs_of(run: Path) -> int:
    """Return how many epochs a training has written down."""
    if not (run / "history.csv").exists():
        return 0
    return (run / "history.csv").read_text(encoding="utf-8").count("\n") - 1


def where(run: Path) -> str:
    """Say how far an interrupted training was."""
    after = [name for name in ("breast.h5", "bundle", "run.json") if (run / name).exists()]
    return f"after {epochs_of(run)} epochs{', with ' if after else ''}{' and '.join(after)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        count = campaign(Path(temporary), kills=int(sys.argv[1]) if sys.argv[1:] else 11)
        print(f"{count} kills; each training ended as if there had been none")  # noqa: T201
