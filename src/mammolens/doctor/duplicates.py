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


def duplicate_groups(digests: Sequence[str], descriptors: NDArray[np.int8]) -> list[list[int]]:
    """Return groups of two or more indices of images that show the same exposure.

    Args:
        digests: content hash of each file.
        descriptors: (images, values); see `Facts`.
    """
    count = len(digests)
    _, first, member = np.unique(np.asarray(digests), return_index=True, return_inverse=True)
    pairs = np.concatenate([np.stack([first[member], np.arange(count)], axis=1), *_alike(descriptors)])
    linked = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count))
    _, group = connected_components(linked, directed=False)
    groups = [np.flatnonzero(group == number).tolist() for number in np.flatnonzero(np.bincount(group) > 1)]
    return sorted(groups)


def _alike(descriptors: NDArray[np.int8]) -> Iterator[NDArray[np.intp]]:
    """Yield pairs of indices, (pairs, 2), of images under one key that are alike."""
    values = descriptors.shape[1]
    parts = [slice(begin, begin + _PART) for begin in range(0, len(descriptors), _PART)]
    lengths = np.concatenate([np.linalg.norm(descriptors[part].astype(np.float32), axis=1) for part in parts])
    # A picture without structure is like nothing, not like every other.
    scales = np.where(lengths < values**0.5, 0, 1 / np.maximum(lengths, 1e-6))[:, np.newaxis]
    bits = int(np.clip(np.log2(len(descriptors)) + 2, 8, 20))
    generator = np.random.default_rng(0)
    directions = np.hstack([generator.standard_normal((values, bits), dtype=np.float32) for _ in range(_TABLES)])
    above = (descriptors[part].astype(np.float32) @ directions > 0 for part in parts)
    keys = np.concatenate([part.reshape(-1, _TABLES, bits) @ (1 << np.arange(bits)) for part in above])
    for table in keys.T:
        order = np.argsort(table, kind="stable")
        begins = np.flatnonzero(np.diff(table[order], prepend=-1, append=-1))
        for first in np.flatnonzero(np.diff(begins) > 1):
            for begin in range(begins[first], begins[first + 1], _CROWD):
                some = order[begin : min(begin + _CROWD, begins[first + 1])]
                unit = descriptors[some] * scales[some]
                yield some[np.argwhere(np.triu(unit @ unit.T, 1) >= ALIKE)]
