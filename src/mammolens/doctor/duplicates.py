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
    # Of unit length; a picture without structure is like nothing, not like every other.
    values = descriptors.astype(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.where(lengths < values.shape[1] ** 0.5, 0, values / np.maximum(lengths, 1e-6))
    bits = int(np.clip(np.log2(len(unit)) + 2, 8, 20))
    generator = np.random.default_rng(0)
    for _ in range(_TABLES):
        directions = generator.standard_normal((unit.shape[1], bits), dtype=np.float32)
        keys = (unit @ directions > 0) @ (1 << np.arange(bits))
        order = np.argsort(keys, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for begin in range(0, len(members) if len(members) > 1 else 0, _CROWD):
                some = members[begin : begin + _CROWD]
                yield some[np.argwhere(np.triu(unit[some] @ unit[some].T, 1) >= ALIKE)]
