"""Work spread over processes, in order and in bounded memory, with a progress bar.

Knows nothing of images. Workers are spawned, never forked: a forked copy of a process that has
started threads (as PyTorch does) can hang.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

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

    `function` must be importable by name. At most a few items a worker are ahead of what was
    taken, so memory stays bounded however many items there are.
    """
    workers = workers or cores()
    if workers == 1 or len(items) <= FEW:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= workers * _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


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


def tracked(
    items: Iterable[Item], description: str, total: int, *, visible: bool
) -> Iterator[Item]:
    """Yield `items` while a progress bar shows how far it is."""
    if not visible:
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
