"""Exact and near duplicates: copies, re-compressed, resized, mirrored or inverted ones.

Near ones are found by random projections of descriptors (Charikar 2002, STOC: similarity estimation
from rounding): only images that share a key are compared, so that the time grows with their number,
not with its square.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ALIKE = 0.93
"""Correlation of descriptors from which two images are one.

Among 2,672 real images the pairs above are five, all the same exposure twice; the next pair is at
0.88. A copy compressed at JPEG quality 30, at half or a quarter of its size, mirrored, inverted or
brightened stays above 0.97 (docs/experiments.md).
"""

_TABLES = 32  # of keys
_PART = 1024  # descriptors that are numbers with a point at a time: as such they take four times the memory
_CROWD = 64  # images under one key: beyond this they are compared with their neighbours only


def duplicate_groups(digests: Sequence[str], descriptors: Sequence[NDArray[np.int8]]) -> list[list[int]]:
    """Return groups of two or more indices of images that show the same exposure.

    Args:
        digests: content hash of each file.
        descriptors: (values,) of each; see `Facts`. They are copied some at a time, so that memory stays theirs.
    """
    count = len(digests)
    _, first, member = np.unique(np.asarray(digests), return_index=True, return_inverse=True)
    pairs = np.concatenate([np.stack([first[member], np.arange(count)], axis=1), *_alike(descriptors)])
    linked = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count))
    _, group = connected_components(linked, directed=False)
    groups = [np.flatnonzero(group == number).tolist() for number in np.flatnonzero(np.bincount(group) > 1)]
    return sorted(groups)


def _alike(descriptors: Sequence[NDArray[np.int8]]) -> Iterator[NDArray[np.intp]]:
    """Yield pairs of indices, (pairs, 2), of images under one key that are alike."""
    count, values = len(descriptors), len(descriptors[0])
    bits = int(np.clip(np.log2(count) + 2, 8, 20))
    generator = np.random.default_rng(0)
    directions = np.hstack([generator.standard_normal((values, bits), dtype=np.float32) for _ in range(_TABLES)])
    keys = np.empty((count, _TABLES), dtype=np.int64)
    for begin in range(0, count, _PART):
        above = _unit(descriptors[begin : begin + _PART]) @ directions > 0
        keys[begin : begin + _PART] = above.reshape(-1, _TABLES, bits) @ (1 << np.arange(bits))
    for table in keys.T:
        order = np.argsort(table, kind="stable")
        begins = np.flatnonzero(np.diff(table[order], prepend=-1, append=-1))
        for first in np.flatnonzero(np.diff(begins) > 1):
            members = order[begins[first] : begins[first + 1]]
            for begin in range(0, len(members), _CROWD):
                some = members[begin : begin + _CROWD]
                unit = _unit([descriptors[index] for index in some])
                yield some[np.argwhere(np.triu(unit @ unit.T, 1) >= ALIKE)]


def _unit(descriptors: Sequence[NDArray[np.int8]]) -> NDArray[np.float32]:
    """Return them of unit length; a picture without structure is like nothing, not like every other."""
    values = np.stack(descriptors).astype(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(lengths < values.shape[1] ** 0.5, np.inf, lengths)
    return values
