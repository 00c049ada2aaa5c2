"""A run made again from what its folder says, and held against what it was."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mammolens.data.csv_table import read_rows
from mammolens.data.manifest import Manifest
from mammolens.data.matching import some
from mammolens.errors import DataError, RunError
from mammolens.files import content_hash, write_text
from mammolens.judging.predictions import read_predictions
from mammolens.learning import runs
from mammolens.learning.fitting import with_threads
from mammolens.learning.networks.builders import donor_file
from mammolens.learning.training import train
from mammolens.model.bundle import open_bundle
from mammolens.records import Split

RECORD = "reproduction.json"

TOLERANCE = 0.1
"""Largest difference of a loss and of a validation probability where machines or versions sum in another order.

That alone, by a second thread, made one of 0.05 within a few epochs (docs/reliability.md).
"""

_UNLIKE = {"command", "cores"}  # of no say: the number of threads is that of the run

_Arrays = Sequence[NDArray[Any]]


class Reproduction(BaseModel):
    """How a run that was made again differs from what it was.

    Attributes:
        environment: what is not as it was (versions, commit, machine): then and now, by name.
        epochs: trained, then and now.
        equal: whether losses, weights and answers are equal to the last bit.
        losses: largest difference of a loss of an epoch.
        weights: largest difference of a weight.
        answers: largest difference of a validation probability.
        images: whose content was found as it was.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    environment: dict[str, tuple[str, str]]
    epochs: tuple[int, int]
    equal: bool
    losses: float
    weights: float
    answers: float
    images: int

    @property
    def succeeded(self) -> bool:
        """Equal; or, where the machine or a version is another one, within `TOLERANCE`."""
        near = max(self.losses, self.answers) <= TOLERANCE
        return self.equal or (bool(self.environment) and near and self.epochs[0] == self.epochs[1])


def reproduce(folder: Path, out: Path, *, command: str = "", progress: bool = False) -> Reproduction:
    """Train again into `out` what `folder` says, and compare; write `reproduction.json` there.

    Raises:
        RunError: `folder` is no complete run, or from before content was recorded; or `out` is in the way.
        DataError: an image, or the weights that it started from, are not there or not what they were.
    """
    run = runs.open_run(folder)
    own, beside = as_they_were(run)
    with_threads(run.record.threads)
    also = [beside] if len(beside) else []
    again = train(own, run.recipe, out, also=also, name=run.record.data, command=command, progress=progress)
    result = compare(run, again)
    write_text(out / RECORD, result.model_dump_json(indent=2) + "\n")
    return result


def compare(run: runs.Run, again: runs.Run) -> Reproduction:
    """Hold one run against another of the same recipe and images."""
    histories = [pd.read_csv(one.folder / runs.HISTORY, index_col="epoch") for one in (run, again)]
    common = [table.iloc[: min(map(len, histories))] for table in histories]
    weights = [one.load_network().get_weights() for one in (run, again)]
    answers = [[read_predictions(one.folder / runs.EVALUATION / Split.VALID).probabilities] for one in (run, again)]
    epochs = (len(histories[0]), len(histories[1]))
    return Reproduction(
        environment=_differences(run.environment, again.environment),
        epochs=epochs,
        equal=histories[0].equals(histories[1]) and _equal(*weights) and _equal(*answers),
        losses=_largest(*([table.filter(regex="loss$").to_numpy()] for table in common)),
        weights=_largest(*weights),
        answers=_largest(*answers),
        images=len(again.manifest),
    )


def as_they_were(run: runs.Run) -> tuple[Manifest, Manifest]:
    """Return the images of a run, whose content is what it was, and those of data sets learnt from as well.

    Raises:
        RunError: that was not recorded, or the manifest is not what was learnt from.
        DataError: one is not there, or not what it was; or so are the weights that it started from.
    """
    path = run.folder / runs.FINGERPRINTS
    if not path.is_file():
        raise RunError(
            f"{run.folder}: from before runs recorded what their images held: nobody can say whether a training "
            f"of these is the same. Train anew: mammolens train {run.folder / runs.MANIFEST} "
            f"--recipe {run.folder / runs.RECIPE}."
        )
    rows, manifest = read_rows(path), run.manifest
    learnt = open_bundle(run.folder / runs.BUNDLE).record.training_data
    used = manifest.where(lambda m: m.split in {Split.TRAIN, Split.VALID})
    if len(rows) != len(manifest) or learnt is None or learnt.fingerprint != used.fingerprint():
        raise RunError(f"{run.folder / runs.MANIFEST}: changed since training: it does not fit the bundle of the run.")
    found = [_found(image, row["sha256"]) for image, row in zip(manifest.paths, rows, strict=True)]
    if recorded := run.record.initial_sha256:
        found.append(_found(donor_file(Path(run.recipe.initial_weights)), recorded))
    if wrong := [complaint for complaint in found if complaint]:
        raise DataError(f"{run.folder}: not what it learnt from any more: {some(wrong)}.")
    also = {image for image, row in zip(manifest.paths, rows, strict=True) if row["also"] == "1"}
    return manifest.where(lambda m: m.path not in also), manifest.where(lambda m: m.path in also)


def _found(path: Path, sha256: str) -> str:
    """Return what is wrong with a file, if anything is."""
    try:
        return "" if content_hash(path) == sha256 else f"{path} (changed)"
    except OSError:
        return f"{path} (missing)"


def _differences(then: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what is not the same in two environments, packages each by its name."""
    one, other = ({**told, **told.get("packages", {})} for told in (then, now))
    names = [name for name in {**one, **other} if name not in {*_UNLIKE, "packages"}]
    return {
        name: (str(one.get(name, "not recorded")), str(other.get(name, "not recorded")))
        for name in names
        if one.get(name) != other.get(name)
    }


def _equal(first: _Arrays, second: _Arrays) -> bool:
    pairs = zip_longest(first, second)
    return all(a is not None and b is not None and a.tobytes() == b.tobytes() for a, b in pairs)


def _largest(first: _Arrays, second: _Arrays) -> float:
    """Return the largest difference of two values; infinite where shapes differ, or one is no number."""
    if [a.shape for a in first] != [a.shape for a in second]:
        return float("inf")
    different = [np.abs(a - b)[~((a == b) | (np.isnan(a) & np.isnan(b)))] for a, b in zip(first, second, strict=True)]
    return float(np.nan_to_num(max((d.max() for d in different if d.size), default=0.0), nan=np.inf))
