"""Freed memory is kept, and so costs nothing to have again."""

import subprocess
import sys

import pytest

ASKED = """
import resource
import numpy as np
from mammolens.memory import keep_freed_memory
keep_freed_memory()
for _ in range(3):
    np.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_arrays_take_no_new_pages_of_the_system() -> None:
    told = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 1000  # 128 MiB are 32,768 pages, each time
