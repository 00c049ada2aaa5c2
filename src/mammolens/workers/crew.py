"""`apart`: a function of a stranger's file, worked out in a process that may do little, and whose end costs one file.

Knows nothing of images.
"""

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from mammolens import errors
from mammolens.errors import ImageError, MammolensError
from mammolens.workers import confinement
from mammolens.workers.messages import fits, found, name_of
from mammolens.workers.worker import Ended, Worker

Result = TypeVar("Result")

_KEPT = 2  # idle workers that wait for the next file
_STARTS = 3  # of new workers, one after the other, before it is taken that none can be started
_FIRST = "mammolens.serving.pictures:seen"  # what a worker loads that is started before anything is asked


class Crew:
    """Workers, started as they are needed; some that are idle wait for the next file."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self.forget()

    def __call__(self, function: str, item: object, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401
        """Have one that is idle, or a new one, answer a question; see `Worker`."""
        with self._taken(function) as worker:
            answer = worker(function, item, arguments)
            if not _is_answer(answer, found(function)):
                raise Ended("no answer of the kind that was asked for")
            return answer

    def start(self, function: str) -> None:
        """Start one, unless one is there, and do not wait for it."""
        with self._lock:
            if not self._all:
                self._idle.append(Worker(function))
                self._all.update(self._idle)

    def work_for_this_thread(self) -> None:
        """From now on, do what this thread asks for."""
        _here.crew = self

    @contextmanager
    def _taken(self, function: str) -> Iterator[Worker]:
        worker = self._one(function)
        try:
            yield worker
        except BaseException:
            self._dismiss(worker)
            raise
        with self._lock:
            wanted = len(self._idle) < self._kept and not self._over
            if wanted:
                self._idle.append(worker)
        if not wanted:
            self._dismiss(worker)

    def _one(self, function: str) -> Worker:
        for _ in range(self._kept + _STARTS):
            with self._lock:
                if self._over:
                    raise Ended("all are dismissed")
                worker = self._idle.pop() if self._idle else Worker(function)
                self._all.add(worker)
            if worker.is_ready():
                return worker
            self._dismiss(worker)  # it was ended while it waited or began
        raise MammolensError("no process that decodes files can be started: each ends at once. Free some memory.")

    def _dismiss(self, worker: Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.end()

    def end(self) -> None:
        """End all of them, also those at work: who waits for them is told so."""
        with self._lock:
            self._over = True
            workers = list(self._all)
        for worker in workers:
            worker.end()

    def forget(self) -> None:
        """Begin without workers, and leave those there may be alone, with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._over = False


def _is_answer(answer: object, function: Callable[..., object]) -> bool:
    """Tell whether this is an error, or what the function returns: a worker that was taken over may say anything."""
    if fits(answer, tuple[None, Any, None]):
        return fits(answer[1], get_type_hints(function)["return"])  # type: ignore[index]
    return fits(answer, tuple[str, str, str | None])


_here = threading.local()
_everyones = Crew(_KEPT)
atexit.register(_everyones.end)
if hasattr(os, "register_at_fork"):  # a fork must not speak into the pipes of the process that it comes from
    os.register_at_fork(after_in_child=_everyones.forget)


def start() -> None:
    """Start a worker while this process loads what it needs itself, and do not wait for it."""
    _everyones.start(_FIRST)


def apart(function: Callable[..., Result], item: Any, /, **arguments: Any) -> Result:  # noqa: ANN401
    """Return ``function(item, **arguments)``, worked out by a process that may do little; in one such, do it here.

    Args:
        function: one of this package's, by name.
        item: what it is about: a file, mostly, which errors name.
        arguments: the same objects for many items are sent once.

    Raises:
        ImageError: it takes too long or too much memory, crashes its process, or trips over something.
        MammolensError: the function raised it, or no process can be started.
        TypeError: the function, or a value, does not travel.
    """
    if confinement.is_confined():
        return function(item, **arguments)
    crew: Crew = getattr(_here, "crew", _everyones)
    try:
        error, told, trace = crew(name_of(function), item, arguments)
    except Ended as ended:
        raise ImageError(f"{_named(item)}: decoding broke off ({ended}). Copy or export it anew.") from ended
    if error is None:
        return told  # type: ignore[no-any-return]
    kind = vars(errors).get(error)
    if isinstance(kind, type) and issubclass(kind, MammolensError):
        raise kind(told)
    failure = ImageError(f"{_named(item)}: could not be looked at ({told}). Export it anew.")
    failure.add_note(str(trace))
    raise failure


def _named(item: object) -> object:
    return item if isinstance(item, Path) else getattr(item, "name", "a picture")
