"""The run folder: what a training leaves behind, and how it is opened again.

RUN/recipe.toml        how it was learnt
    manifest.csv       what it was learnt from, with splits
    fingerprints.csv   SHA-256 of each image, and which are of data sets that were learnt from as well
    environment.json   versions, commit, machine, backend, device, command
    history.csv        loss and metrics of each epoch
    figures/           learning curves
    breast.h5          the whole Keras model, best weights
    checkpoint/        until it is complete: what it goes on from if it is interrupted. Each is a
                       file of arrays, EPOCHS-CHECKSUM.npz; the two last are kept: where one was
                       damaged, its checksum says so and the one before is taken. No code in them
    bundle/            the same network as ONNX with all that serving needs
    evaluation/SPLIT/  report.json, predictions.csv, figures
    run.json           written last: its presence means the run is complete
"""

import hashlib
import io
import json
import logging
import os
import platform
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from mammolens.data.csv_table import read_rows, write_row
from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.errors import DataError, RunError, reason
from mammolens.files import content_hash, is_half_written, sweep, write_text, written_whole
from mammolens.learning.networks.folded import Network
from mammolens.learning.networks.saved import open_saved
from mammolens.model.provenance import Provenance, provenance
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.parallel import cores

RECIPE, MANIFEST, FINGERPRINTS, ENVIRONMENT = "recipe.toml", "manifest.csv", "fingerprints.csv", "environment.json"
HISTORY, FIGURES, MODEL = "history.csv", "figures", "breast.h5"
BUNDLE, EVALUATION, RECORD = "bundle", "evaluation", "run.json"
CHECKPOINT = "checkpoint"

# What an unfinished run holds.
_WRITTEN = {RECIPE, MANIFEST, FINGERPRINTS, ENVIRONMENT, HISTORY, FIGURES, MODEL, BUNDLE, EVALUATION, CHECKPOINT}

_KEPT = 2  # checkpoints

Arrays = tuple[NDArray[np.generic], ...]
Epoch = Mapping[str, float]  # measures of an epoch by name, those of validation as ``val_...``


class RunRecord(BaseModel):
    """What `run.json` holds.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        created: when training ended, UTC, ISO 8601.
        data: name of the data set.
        epochs: how many were trained.
        best_epoch: whose weights were kept, counted from 1.
        seconds: spent fitting.
        parameters: weights of the network.
        images: images used, by split.
        left_out: images that could not be read, with the reason.
        model_sha256: of breast.h5.
        threads: that the network learnt with, 0 where not known; None in runs from before it was recorded.
        initial_sha256: of the file whose weights were taken over, if one was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[2] = 2
    created: str
    data: str
    epochs: int
    best_epoch: int
    seconds: float
    parameters: int
    images: dict[str, int]
    left_out: dict[str, str]
    model_sha256: str
    threads: int | None = None
    initial_sha256: str | None = None


@dataclass(frozen=True)
class Run:
    """A complete run folder."""

    folder: Path
    record: RunRecord

    @property
    def recipe(self) -> Recipe:
        """How it was learnt."""
        return read_recipe(str(self.folder / RECIPE))

    @property
    def manifest(self) -> Manifest:
        """What it was learnt from."""
        return Manifest.load(self.folder / MANIFEST)

    @property
    def environment(self) -> dict[str, Any]:
        """What it depended on besides its recipe and data; empty where that is lost."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.folder / ENVIRONMENT).read_text(encoding="utf-8")))
        return {}

    @property
    def made_with(self) -> Provenance | None:
        """The code and the libraries that it was learnt with."""
        with suppress(ValidationError):
            return Provenance(
                **{name: told for name, told in self.environment.items() if name in Provenance.model_fields}
            )
        return None

    def load_network(self) -> Network:
        """Open breast.h5.

        Raises:
            RunError: the file is missing, is not the one that training wrote, or is not of plain layers.
        """
        path = self.folder / MODEL
        if not path.is_file() or content_hash(path) != self.record.model_sha256:
            raise RunError(f"{path}: missing or changed since training. Train again.")
        try:
            return open_saved(path)
        except Exception as error:  # Keras raises whatever it trips over
            raise RunError(f"{path}: cannot be opened as a Keras model ({reason(error)}). Train again.") from error


def open_run(folder: Path) -> Run:
    """Open a complete run.

    Raises:
        RunError: it is not a run folder, or training did not end.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder.")
    record = folder / RECORD
    if not record.is_file():
        started = (folder / RECIPE).is_file()
        why = "its training did not end; train again" if started else "it holds no run.json"
        raise RunError(f"{folder}: not a complete run: {why}.")
    try:
        return Run(folder, RunRecord.model_validate_json(record.read_bytes()))
    except ValidationError as error:
        raise RunError(f"{record}: not written by this version of mammolens ({error}).") from error


def start_run(folder: Path, recipe: Recipe) -> None:
    """Make `folder` ready for a run; an unfinished one is gone on with if its recipe is the same.

    It may have been interrupted at any moment, this function's own moments included: so its recipe
    is the first file that comes and the last that goes.

    Raises:
        RunError: a complete run, or something that is not a run, is in the way.
    """
    if folder.is_dir() and not (folder / RECORD).exists():
        begun = [path for path in folder.iterdir() if not is_half_written(path)]
        if not begun or (folder / RECIPE).is_file():
            sweep(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / RECIPE).is_file() or (folder / RECORD).exists():
            raise RunError(f"{folder}: exists already. Choose another --out.")
        if (folder / RECIPE).read_bytes() != recipe.to_toml().encode():
            _empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}).") from error
    write_text(folder / RECIPE, recipe.to_toml())


def _empty(folder: Path) -> None:
    """Delete all of a run but its recipe.

    Raises:
        RunError: there is what no run writes. It may be somebody's, as the recipe may be.
    """
    if others := sorted(path.name for path in folder.iterdir() if path.name not in _WRITTEN):
        raise RunError(
            f"{folder}: holds another recipe.toml, and what is not of a run ({others[0]}). Choose another --out."
        )
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != RECIPE:
            path.unlink()


def forget_checkpoints(folder: Path) -> None:
    """Delete what an interrupted training would go on from: it has ended."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def record_manifest(folder: Path, manifest: Manifest) -> None:
    """Write what is learnt from; a checkpoint of other images is thrown away."""
    path, before = folder / MANIFEST, ""
    with suppress(DataError):  # of a damaged table
        before = Manifest.load(path, files=False).fingerprint()
    if path.is_file() and before != manifest.fingerprint():
        forget_checkpoints(folder)
        (folder / HISTORY).unlink(missing_ok=True)
    manifest.save(path)


def record_fingerprints(folder: Path, data: PreparedSet, also: Collection[Path]) -> None:
    """Write what each image of the manifest held, and whether it is of a data set that is learnt from as well."""
    with written_whole(folder / FINGERPRINTS) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        write_row(stream, ("path", "sha256", "also"))
        for path, digest in zip(data.manifest.paths, data.pixels.digests, strict=True):
            write_row(stream, (path, digest, int(path in also)))


def held_the_same(folder: Path, data: PreparedSet) -> bool:
    """Tell whether images hold what they held when `record_fingerprints` wrote it; where nobody did, they may."""
    path = folder / FINGERPRINTS
    return not path.is_file() or sorted(row["sha256"] for row in read_rows(path)) == sorted(data.pixels.digests)


def save_network(network: Network, path: Path) -> None:
    """Write the whole network as HDF5: one file that every Keras since 2015 has opened."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # Keras calls HDF5 legacy at each save; the choice is deliberate
    try:
        with _InMemory("breast.h5", "w", driver="core", backing_store=False) as file:
            keras.saving.save_model(network, file)
            content = file.id.get_file_image()
    finally:
        log.setLevel(level)
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


class _InMemory(h5py.File):  # type: ignore[misc]  # h5py ships no types
    """HDF5 that is on no disk: where one is full, HDF5 2.0 ends the whole process."""

    def __str__(self) -> str:
        """Return a name by which Keras knows the format."""
        return str(self.filename)


def environment(command: str) -> dict[str, Any]:
    """Return what a run depended on besides its recipe and data."""
    return {
        "command": command,
        **provenance().model_dump(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "backend": keras.backend.backend(),
        "device": str(getattr(keras.Variable(0.0).value, "device", "cpu")),  # as the backend names it
    }


def _processor() -> str:
    """Return the model of the processor: another one may round otherwise."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True, eq=False)
class State:
    """Where a training stands between two epochs. What follows is a function of it alone.

    Attributes:
        key: of what is learnt, how and from which weights: no other training goes on from here.
        threads: that the network is computed with; with another number sums round otherwise.
        seconds: spent so far.
        epochs: measures of each.
        arrays: by name: ``network``, all variables, those of normalisations and of dropout's
            random numbers included; ``optimizer``, its moments, steps and rate; ``average``, the
            moving average, where there is one; ``best``, the weights that would be kept now.
    """

    key: str
    threads: int
    seconds: float
    epochs: tuple[Epoch, ...]
    arrays: Mapping[str, Arrays]


def save_state(state: State, folder: Path) -> None:
    """Write a checkpoint, and delete all but it and the one before.

    Raises:
        DataError: the folder cannot be written to.
    """
    record = {"key": state.key, "threads": state.threads, "seconds": state.seconds, "epochs": state.epochs}
    named: dict[str, Any] = {"record": np.frombuffer(json.dumps(record).encode(), np.uint8)}
    for name, arrays in state.arrays.items():
        named |= {f"{name}/{number:05d}": array for number, array in enumerate(arrays)}
    content = io.BytesIO()
    np.savez(content, **named)
    checksum = hashlib.sha256(content.getbuffer()).hexdigest()
    path = folder / f"{len(state.epochs):06d}-{checksum}.npz"
    with written_whole(path) as temporary, temporary.open("wb") as stream:
        stream.write(content.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())
    for older in _newest_first(folder)[_KEPT:]:
        older.unlink()


def latest_state(folder: Path, key: str) -> State | None:
    """Return the last state that is whole and of this training.

    What is damaged, or of another training, is deleted: as the newest by its name, it would outlast
    what comes.
    """
    for path in _newest_first(folder):
        state = _state(path)
        if state is not None and state.key == key:
            return state
        path.unlink()
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(filter(Path.is_file, folder.glob("[0-9]*-*.npz")), reverse=True)


def _state(path: Path) -> State | None:
    """Return what a file holds, or None where it is damaged or says other things than these."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem.partition("-")[2]:
        return None
    arrays: dict[str, Arrays] = {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            record = json.loads(archive["record"].tobytes())
            for name in sorted(set(archive.files) - {"record"}):
                kind = name.partition("/")[0]
                arrays[kind] = (*arrays.get(kind, ()), archive[name])
        return State(**record | {"epochs": tuple(record["epochs"])}, arrays=arrays)
    except Exception:  # noqa: BLE001 - zipfile, zlib and NumPy raise whatever they trip over
        return None
