"""Exact and near duplicates: copies, re-compressed, resized, mirrored or inverted ones.

Locality-sensitive hashing by random projections (Charikar 2002, STOC: similarity estimation from
rounding): only images that share a key are compared, so the time grows with the number of images,
not with its square.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.93
"""Correlation of descriptors from which two images are one.

Among 2,672 real images the pairs above are five, all the same exposure twice; the next pair is at
0.88. A copy compressed at JPEG quality 30, at half or a quarter of its size, mirrored, inverted or
brightened stays above 0.97 (docs/experiments.md).
"""

_TABLES = 32
_CROWD = 64  # images under one key: beyond this they are compared with their neighbours only


def duplicate_groups(digests: Sequence[str], descriptors: NDArray[np.int8]) -> list[list[int]]:
    """Return groups of two or more indices of images that show the same exposure.

    Args:
        digests: content hash of each file.
        descriptors: (images, values); see `facts.Facts`.
    """
    pairs = set(_same_digest(digests))
    if len(digests) > 1:
        pairs |= set(_alike(descriptors))
    return _connected(pairs)


def _same_digest(digests: Sequence[str]) -> Iterable[tuple[int, int]]:
    first: dict[str, int] = {}
    for index, digest in enumerate(digests):
        if digest in first:
            yield first[digest], index
        else:
            first[digest] = index


def _alike(descriptors: NDArray[np.int8]) -> Iterable[tuple[int, int]]:
    count = len(descriptors)
    unit = _unit(descriptors)
    bits = int(np.clip(np.log2(count) + 2, 8, 20))
    generator = np.random.default_rng(0)
    for _ in range(_TABLES):
        directions = generator.standard_normal((descriptors.shape[1], bits), dtype=np.float32)
        keys = (unit @ directions > 0) @ (1 << np.arange(bits))
        yield from _alike_by_key(unit, keys)


def _alike_by_key(unit: NDArray[np.float32], keys: NDArray[np.int_]) -> Iterable[tuple[int, int]]:
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        for begin in range(0, len(members) if len(members) > 1 else 0, _CROWD):
            some = members[begin : begin + _CROWD]
            similar = unit[some] @ unit[some].T
            for row, column in np.argwhere(np.triu(similar, 1) >= ALIKE):
                yield int(min(some[row], some[column])), int(max(some[row], some[column]))


def _unit(descriptors: NDArray[np.int8]) -> NDArray[np.float32]:
    """Scale to unit length; a picture without structure is like nothing, not like every other."""
    values = descriptors.astype(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(lengths < values.shape[1] ** 0.5, 0, values / np.maximum(lengths, 1e-6))


def _connected(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        while parent.setdefault(index, index) != index:
            index = parent[index]
        return index

    for first, second in sorted(pairs):
        parent[root(second)] = root(first)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in sorted(parent):
        groups[root(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]
