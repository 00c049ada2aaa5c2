"""Prepared pixels kept on disk, so that an epoch costs no decoding.

Keyed by the content of each file and by the settings: a renamed file is found again, a changed one
is not. Each write is a shard of its own (`<id>.npy` + `<id>.json`, the latter last), so that two
processes may fill one cache at a time and an interrupted one loses at most a shard.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammolens.breast import Pixels
from mammolens.errors import ImageError, MammolensError, reason
from mammolens.files import cache_folder, content_hash, write_text, written_whole
from mammolens.parallel import cores, map_in_order, tracked
from mammolens.preprocess import VERSION, Prepared, Preprocess, as_float
from mammolens.reading import read_image

_SHARD = 512  # images


@dataclass(frozen=True, eq=False)
class CachedPixels:
    """Prepared pixels of a list of files, read from disk when asked for.

    Attributes:
        errors: for each file, why it has no pixels, or None.
        shape: (height, width).
    """

    errors: tuple[str | None, ...]
    shape: tuple[int, int]
    _places: tuple[tuple[NDArray[np.uint16], int] | None, ...]

    def __len__(self) -> int:
        return len(self._places)

    def subset(self, indices: Sequence[int]) -> "CachedPixels":
        """Return the pixels of some of the files, in the order of `indices`."""
        errors = tuple(self.errors[index] for index in indices)
        return CachedPixels(errors, self.shape, tuple(self._places[index] for index in indices))

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


def prepared_pixels(
    paths: Sequence[Path], preprocess: Preprocess, *, progress: bool = False
) -> CachedPixels:
    """Decode and prepare `paths`, in parallel, where the cache does not hold them yet.

    A file that cannot be read gets its reason in `CachedPixels.errors` and stops nothing.
    """
    folder = cache_folder() / "pixels" / _key(preprocess)
    with ThreadPoolExecutor(cores()) as pool:
        digests = list(pool.map(_hash_or_reason, paths))
    known = _read_index(folder)
    wanted = {
        digest: path
        for path, (digest, error) in zip(paths, digests, strict=True)
        if error is None and digest not in known
    }
    failed = _fill(folder, wanted, preprocess, progress=progress)
    known = _read_index(folder) if wanted else known
    errors = tuple(error or failed.get(digest) for digest, error in digests)
    return CachedPixels(errors, preprocess.shape, tuple(known.get(d) for d, _ in digests))


def prepare(path: Path, preprocess: Preprocess) -> Prepared | str:
    """Read and prepare one file, or say why not: for batches, which one bad file never stops."""
    try:
        return preprocess(read_image(path).pixels)
    except MammolensError as error:
        return reason(error)


def _key(preprocess: Preprocess) -> str:
    settings = f"{VERSION} {preprocess.model_dump_json()}"
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _hash_or_reason(path: Path) -> tuple[str, str | None]:
    try:
        return content_hash(path), None
    except OSError as error:
        return "", f"{path}: cannot be opened ({error.strerror})."


def _read_index(folder: Path) -> dict[str, tuple[NDArray[np.uint16], int]]:
    """Return for each content hash the shard that holds its pixels, and the row there."""
    index: dict[str, tuple[NDArray[np.uint16], int]] = {}
    for listing in sorted(folder.glob("*.json")):
        digests = json.loads(listing.read_text(encoding="utf-8"))
        if digests:
            shard = np.load(listing.with_suffix(".npy"), mmap_mode="r")
            index |= {digest: (shard, row) for row, digest in enumerate(digests)}
    return index


def _fill(
    folder: Path, wanted: dict[str, Path], preprocess: Preprocess, *, progress: bool
) -> dict[str, str]:
    """Prepare what is wanted, write it in shards, and return why some could not be."""
    work = map_in_order(partial(prepare, preprocess=preprocess), list(wanted.values()))
    results = tracked(
        zip(wanted, work, strict=True),
        "Preparing images",
        len(wanted),
        visible=progress and bool(wanted),
    )
    failed: dict[str, str] = {}
    digests: list[str] = []
    levels: list[NDArray[np.uint16]] = []
    for digest, prepared in results:
        if isinstance(prepared, str):
            failed[digest] = prepared
            continue
        digests.append(digest)
        levels.append(prepared.pixels)
        if len(digests) == _SHARD:
            _write_shard(folder, digests, levels)
            digests, levels = [], []
    if digests:
        _write_shard(folder, digests, levels)
    return failed


def _write_shard(folder: Path, digests: list[str], levels: list[NDArray[np.uint16]]) -> None:
    name = uuid.uuid4().hex
    with written_whole(folder / f"{name}.npy") as temporary:
        np.save(temporary, np.stack(levels))
    write_text(folder / f"{name}.json", json.dumps(digests))
