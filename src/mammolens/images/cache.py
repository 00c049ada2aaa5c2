"""Prepared pixels kept on disk, so that an epoch costs no decoding.

Keyed by the content of each file and by the settings: a renamed file is found again, a changed one
is not. Each write is a shard of its own (`<id>.npy` + `<id>.json`, the latter last), so that two
processes may fill one cache at a time and an interrupted one loses at most a shard. The latter
holds a checksum of the former: a shard that was damaged is deleted, and what it held made anew.
"""

import errno
import hashlib
import json
import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammolens.errors import DataError, ImageError, reason
from mammolens.files import (
    cache_folder,
    check_writable,
    content_hash,
    sweep,
    system_reason,
    write_text,
    written_whole,
)
from mammolens.images.breast import Pixels
from mammolens.images.preprocess import VERSION, Prepared, Preprocess, as_float
from mammolens.images.reading import read_image
from mammolens.parallel import cores, map_in_order, tracked
from mammolens.workers.crew import apart

_SHARD = 512  # images
_SHARD_NAME = re.compile("[0-9a-f]{32}")
_DAY = 86_400.0  # seconds
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

Place = tuple[NDArray[Any], int]
"""A shard, and the row in it."""


@dataclass(frozen=True, eq=False)
class CachedPixels:
    """Prepared pixels of a list of files, read from disk when asked for.

    Attributes:
        errors: for each file, why it has no pixels, or None.
        digests: of the content of each file.
        shape: (height, width).
    """

    errors: tuple[str | None, ...]
    digests: tuple[str, ...]
    shape: tuple[int, int]
    _places: tuple[Place | None, ...]

    def __len__(self) -> int:
        return len(self._places)

    def subset(self, indices: Sequence[int]) -> "CachedPixels":
        """Return the pixels of some of the files, in the order of `indices`."""
        return CachedPixels(
            tuple(self.errors[index] for index in indices),
            tuple(self.digests[index] for index in indices),
            self.shape,
            tuple(self._places[index] for index in indices),
        )

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> Pixels:
        """Return pixels of the files at `indices`: float32 (images, height, width) in [0, 1].

        Raises:
            ImageError: one of them has no pixels.
        """
        levels = np.empty((len(indices), *self.shape), dtype=np.uint16)
        for row, index in enumerate(indices):
            place = self._places[int(index)]
            if place is None:
                raise ImageError(self.errors[int(index)] or "no pixels")
            levels[row] = place[0][place[1]]
        return as_float(levels)


def prepared_pixels(paths: Sequence[Path], preprocess: Preprocess, *, progress: bool = False) -> CachedPixels:
    """Decode and prepare `paths`, in parallel, where the cache does not hold them yet.

    A file that cannot be read gets its reason in `CachedPixels.errors` and stops nothing.
    """
    folder = cache_folder() / "pixels" / _key(preprocess)
    stamps = {path: _stamp(path) for path in paths}
    with ThreadPoolExecutor(cores()) as pool:
        hashed = list(pool.map(_hash_or_reason, paths))
    places = _read_shards(folder, {digest for digest, _ in hashed})
    wanted = {
        digest: path
        for path, (digest, error) in zip(paths, hashed, strict=True)
        if error is None and digest not in places
    }
    failed: dict[str, str] = {}
    if wanted:
        check_writable(folder)
        failed = _fill(folder, wanted, preprocess, stamps, progress=progress)
        places |= _read_shards(folder, wanted.keys())
    errors = tuple(error or failed.get(digest) for digest, error in hashed)
    digests = tuple(digest for digest, _ in hashed)
    return CachedPixels(errors, digests, preprocess.shape, tuple(map(places.get, digests)))


def prepare(path: Path, preprocess: Preprocess) -> Prepared | str:
    """Read and prepare one file, or say why not: for batches, which one bad file never stops."""
    try:
        return apart(_prepared, path, preprocess=preprocess)
    except ImageError as error:
        return reason(error)


def _prepared(path: Path, preprocess: Preprocess) -> Prepared:
    return preprocess(read_image(path).pixels)


def _key(preprocess: Preprocess) -> str:
    settings = f"{VERSION} {preprocess.model_dump_json()}"
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what tells that a file was written to since; None where it is not there."""
    with suppress(OSError):
        told = path.stat()
        return told.st_ino, told.st_size, told.st_mtime_ns
    return None


def _hash_or_reason(path: Path) -> tuple[str, str | None]:
    try:
        return content_hash(path), None
    except OSError as error:
        return "", f"{path}: cannot be opened ({error.strerror})."


def _read_shards(folder: Path, keys: Collection[str]) -> dict[str, Place]:
    """Return for each key that is there the shard that holds its array, and the row there.

    Shards are memory-mapped, once their checksum was found right: that takes a second for some
    thousand pictures, less than was spent on telling them apart. What is damaged is deleted;
    what somebody else put into the folder is left alone.
    """
    index: dict[str, Place] = {}
    for listing in sorted(folder.glob("*.json")):
        try:
            told = json.loads(listing.read_text(encoding="utf-8"))
            rows = {key: row for row, key in enumerate(told["keys"]) if key in keys}
            if rows:
                shard = _checked(listing.with_suffix(".npy"), told["sha256"], len(told["keys"]))
                index |= {key: (shard, row) for key, row in rows.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in _SCARCE:  # which says nothing of the shard
                raise DataError(
                    f"{folder}: cannot be read ({system_reason(error)}). Let this program open more files (ulimit -n), "
                    "or free memory."
                ) from error
            _discard(listing)
    return index


def _checked(path: Path, checksum: str, rows: int) -> NDArray[Any]:
    if content_hash(path) != checksum:
        raise ValueError(f"{path}: damaged")
    shard: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(shard) != rows:
        raise ValueError(f"{path}: {len(shard)} rows, expected {rows}")
    return shard


def _discard(listing: Path) -> None:
    """Delete a shard; where that is not allowed, or another process did, it is just not used."""
    if _SHARD_NAME.fullmatch(listing.stem):
        for path in (listing, listing.with_suffix(".npy")):
            with suppress(OSError):
                path.unlink()


def _write_shards(folder: Path, made: Iterable[tuple[str, NDArray[Any]]], size: int) -> None:
    """Write keys and their arrays, of one shape, in shards of `size` as they come."""
    sweep(folder, _DAY)
    coming = iter(made)
    while part := list(islice(coming, size)):
        name = uuid.uuid4().hex
        with written_whole(folder / f"{name}.npy") as temporary:
            _write_arrays(temporary, [array for _, array in part])
            checksum = content_hash(temporary)
        told = {"sha256": checksum, "keys": [key for key, _ in part]}
        write_text(folder / f"{name}.json", json.dumps(told))
        part.clear()  # before those of the next come


def _write_arrays(path: Path, arrays: Sequence[NDArray[Any]]) -> None:
    """Write arrays as one, as `numpy.save` does, and hold them in memory once."""
    shape, kind = (len(arrays), *arrays[0].shape), np.lib.format.dtype_to_descr(arrays[0].dtype)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        for array in arrays:
            file.write(array.tobytes())


def _fill(
    folder: Path,
    wanted: dict[str, Path],
    preprocess: Preprocess,
    stamps: Mapping[Path, tuple[int, ...] | None],
    *,
    progress: bool,
) -> dict[str, str]:
    """Prepare what is wanted, write it, and return why some could not be.

    What was written to since it was hashed is kept under no hash: it may be of either content.
    """
    work = map_in_order(partial(prepare, preprocess=preprocess), list(wanted.values()))
    results = tracked(zip(wanted, work, strict=True), "Preparing images", len(wanted), visible=progress)
    failed: dict[str, str] = {}

    def readable() -> Iterator[tuple[str, NDArray[np.uint16]]]:
        for digest, prepared in results:
            path = wanted[digest]
            if isinstance(prepared, str):
                failed[digest] = prepared
            elif _stamp(path) != stamps[path]:
                failed[digest] = f"{path}: was written to while it was read. Wait until it is whole."
            else:
                yield digest, prepared.pixels

    _write_shards(folder, readable(), _SHARD)
    return failed
