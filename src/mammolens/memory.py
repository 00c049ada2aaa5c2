"""Memory that this process has freed: kept for what it asks for next, where that is much, again and again."""

import ctypes
import sys
from functools import cache

_TRIM, _MAPPED = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's mallopt
_ALL = 2**31 - 1


@cache
def keep_freed_memory() -> None:
    """Have large arrays take memory that was freed before, in place of new pages of the system.

    By itself, glibc gives an array of some megabytes back to the system as soon as it is freed, and
    the system clears each page of the next: in training, that takes longer than many an operation
    on them. Other C libraries are left alone.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_MAPPED, 0)
        library.mallopt(_TRIM, _ALL)
