"""What a training goes on from: its whole state after an epoch, on disk, twice.

Each checkpoint is one file of arrays, ``EPOCHS-CHECKSUM.npz``, written whole. The two last are
kept: where one was damaged, its checksum says so and the one before is taken. Nothing in them is
code.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammolens.files import written_whole
from mammolens.learning.course import Epoch

Arrays = tuple[NDArray[np.generic], ...]

_KEPT = 2
_RECORD = "record"


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


def save(state: State, folder: Path) -> None:
    """Write a checkpoint, and delete all but it and the one before.

    Raises:
        DataError: the folder cannot be written to.
    """
    record = {"key": state.key, "threads": state.threads, "seconds": state.seconds}
    text = json.dumps(record | {"epochs": state.epochs})
    named: dict[str, Any] = {_RECORD: np.frombuffer(text.encode(), np.uint8)}
    named |= {
        f"{name}/{number:05d}": array for name, arrays in state.arrays.items() for number, array in enumerate(arrays)
    }
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


def latest(folder: Path, key: str) -> State | None:
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
    try:
        return _unpacked(content)
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _unpacked(content: bytes) -> State:
    arrays: dict[str, list[NDArray[np.generic]]] = {}
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        record = json.loads(archive[_RECORD].tobytes())
        for name in archive.files:
            if name != _RECORD:
                arrays.setdefault(name.partition("/")[0], []).append(archive[name])
    epochs = tuple(record.pop("epochs"))
    return State(**record, epochs=epochs, arrays={k: tuple(v) for k, v in arrays.items()})
