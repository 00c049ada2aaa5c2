"""What tests of measures share: how images are drawn, and when two figures are the same."""

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from mammolens.measures.intervals import patient_weights

Array = NDArray[np.float64]

COUNT = 200
ONE = np.ones((1, COUNT))
SEEDS = st.integers(0, 2**31)


def drawn_weights(seed: int, rows: int = 4) -> Array:
    """Bootstrap counts, the first all ones."""
    weights = patient_weights([str(index) for index in range(COUNT)], rows, seed).drawn.astype(np.float64)
    weights[0] = 1
    return weights


def same(value: float, expected: float) -> bool:
    return bool(value == pytest.approx(expected, abs=1e-9, nan_ok=True))
