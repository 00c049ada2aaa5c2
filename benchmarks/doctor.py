"""How the search for near duplicates grows with the number of images.

Twice the images in twice the time is a ratio of 2; comparing every pair would be one of 4.
"""

import time

import numpy as np
from rich.console import Console
from rich.table import Table

from mammolens.doctor.duplicates import duplicate_groups

SIZES = (1000, 2000, 4000, 8000)
VALUES = 64 * 64


def measure() -> None:
    """Print seconds at each size, and the ratio to the size before."""
    generator = np.random.default_rng(0)
    table = Table("images", "seconds", "times the one before")
    before = 0.0
    for size in SIZES:
        descriptors = np.clip(generator.normal(0, 20, (size, VALUES)), -127, 127).astype(np.int8)
        started = time.perf_counter()
        duplicate_groups([str(index) for index in range(size)], descriptors)
        seconds = time.perf_counter() - started
        table.add_row(str(size), f"{seconds:.2f}", f"{seconds / before:.1f}" if before else "")
        before = seconds
    Console().print(table)


if __name__ == "__main__":
    measure()
