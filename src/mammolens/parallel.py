"""Work spread over threads, in order and in bounded memory, with a progress bar. Knows nothing of images.

What is heavy, or is done to strangers' files, each thread has done by a process: see `workers.crew`.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, Lock, Semaphore
from typing import TYPE_CHECKING, Protocol, TypeVar

from mammolens.errors import MammolensError
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


_share: int | None = None


class Each(Protocol):
    """A way to spread work: ``each(function, items)`` yields ``function(item)`` of each, in order.

    `map_in_order` is one, `map` another, and `cluster.connection.Cluster.each` takes the machines of a cluster.
    """

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item], /) -> Iterator[Result]:
        """Yield the results."""


def share_cores(count: int) -> None:
    """From now on, this process may use so many cores: others of its machine have been given the rest."""
    global _share  # noqa: PLW0603 - a process has one share
    _share = max(1, count)


def cores() -> int:
    """Return how many processor cores this process may use."""
    if _share is not None:
        return _share
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
    spent = 0.0
    for done, item in enumerate(items):
        if done > 1 and spent / (done - 1) * (len(items) - done) * (1 - 1 / count) > _STARTING:
            yield from _spread(function, items[done:], count)
            return
        began = time.perf_counter()
        result = function(item)
        spent += time.perf_counter() - began if done else 0  # the first may have waited for what was starting
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


class Turns:
    """Turns of threads at what takes much of something that they share: so many side by side, at most.

    What fails beside others is done once more, alone, and so is all that follows.
    """

    def __init__(self, count: int) -> None:
        self._count, self._free = count, Semaphore(count)
        self._accompanied: list[Event] = []  # of those at work
        self._lock, self._alone, self._failed = Lock(), Lock(), False

    def __call__(self, function: Callable[[], Result]) -> Result:
        """Return ``function()``, when it is this thread's turn."""
        accompanied = Event()
        with self._free:
            self._begin(accompanied)
            try:
                return function()
            except MammolensError as error:
                if not accompanied.is_set():
                    raise
                failure = error
            finally:
                self._accompanied.remove(accompanied)
        with self._alone, ExitStack() as held:
            if self._failed:
                raise failure
            for _ in range(self._count):  # until nobody else is at work
                held.enter_context(self._free)
            held.pop_all()
            held.callback(self._free.release)
            self._count, self._failed = 1, True
            result = function()
            self._failed = False
            return result

    def _begin(self, accompanied: Event) -> None:
        with self._lock:
            self._accompanied.append(accompanied)
            for one in list(self._accompanied) if len(self._accompanied) > 1 else ():
                one.set()


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
