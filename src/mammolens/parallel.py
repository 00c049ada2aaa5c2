"""Work spread over threads, in order and in bounded memory, with a progress bar. Knows nothing of images.

What is heavy, or is done to strangers' files, each thread has done by a process: see `workers.crew`.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from mammolens.workers.crew import Crew

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 24
"""So many items or fewer are worked on one after the other, unless it shows that to start processes would pay."""

_STARTING = 1.0
"""Seconds that must be saved for that; processes take half of it, on a machine that does nothing else."""

_AHEAD = 8  # items a thread that may be under way or waiting to be taken


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each of `items`, in their order, from several threads.

    Each thread has a process for what `function` has done `apart`. At most a few items a thread are ahead of what was
    taken, so memory stays bounded however many items there are. A few items stay in this thread, unless each takes
    long, as large files do.
    """
    count = min(cores(), len(items))
    if count > 1 and len(items) > FEW:
        yield from _spread(function, items, count)
        return
    quickest = math.inf  # the first may have waited for what was starting
    for done, item in enumerate(items):
        if done > 1 and quickest * (len(items) - done) * (1 - 1 / count) > _STARTING:
            yield from _spread(function, items[done:], count)
            return
        began = time.perf_counter()
        result = function(item)
        quickest = min(quickest, time.perf_counter() - began)
        yield result


def _spread(function: Callable[[Item], Result], items: Sequence[Item], count: int) -> Iterator[Result]:
    crew = Crew(count)
    threads = ThreadPoolExecutor(count, initializer=crew.work_for_this_thread)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) >= count * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        crew.end()  # which wakes the threads that wait for them
        threads.shutdown()


def progress_bar(*, visible: bool = True) -> "Progress":
    """Return a bar with time left, on standard error, so that standard output can be piped."""
    from rich import progress  # noqa: PLC0415 - workers need none
    from rich.console import Console  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not visible,
    )


def tracked(items: Iterable[Item], description: str, total: int, *, visible: bool) -> Iterator[Item]:
    """Yield `items` while a progress bar shows how far it is."""
    if not visible:
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
