"""Work spread over processes, in order and in bounded memory, with a progress bar.

Knows nothing of images.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mammolens.workers import Worker, end, packed

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 24
"""So many items or fewer are worked on in this process: starting others would cost more."""

_AHEAD = 8  # items a worker that may be under way or waiting to be taken


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int | None = None
) -> Iterator[Result]:
    """Yield ``function(item)`` for each of `items`, in their order, from several processes.

    At most a few items a worker are ahead of what was taken, so memory stays bounded however many
    items there are. A few items, or a function of the caller's own script, stay in this process.

    Raises:
        MammolensError: a process was ended from outside, or crashed.
    """
    workers = min(workers or cores(), len(items))
    portable = packed(function) if workers > 1 and len(items) > FEW else None
    yield from map(function, items) if portable is None else _spread(portable, items, workers)


def _spread(function: bytes, items: Sequence[Item], count: int) -> Iterator[Any]:
    """Work with `count` processes, each of which has a thread that waits for it."""
    workers: list[Worker] = []
    idle: SimpleQueue[Worker] = SimpleQueue()
    threads = ThreadPoolExecutor(count)
    pending: deque[Future[Any]] = deque()
    try:
        for _ in range(count):
            workers.append(Worker(function))
            idle.put(workers[-1])
        for item in items:
            pending.append(threads.submit(_asked, idle, item))
            if len(pending) >= count * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        end(workers)  # which wakes the threads that wait for them
        threads.shutdown()


def _asked(idle: "SimpleQueue[Worker]", item: object) -> object:
    """Have a worker that has nothing to do work on the item."""
    worker = idle.get()
    try:
        return worker(item)
    finally:
        idle.put(worker)


def progress_bar(*, visible: bool = True) -> Progress:
    """Return a bar with time left, on standard error, so that standard output can be piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
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
