"""Work spread over processes, in order and in bounded memory, with a progress bar. Knows nothing of images.

Each process is a fresh Python that loads a function, then reads items from one pipe and writes
results to another. Other pools do not do: workers of the standard library run the caller's script
again (which then needs `if __name__ == "__main__"`), print a traceback each on Ctrl-C, and share
locks that a worker killed at a bad moment never gives back; those of joblib are left behind by Ctrl-C.
"""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, TypeVar

from mammolens.errors import MammolensError

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 24
"""So many items or fewer are worked on in this process: starting others would cost more."""

_AHEAD = 8  # items a worker that may be under way or waiting to be taken
_PATIENCE = 5.0  # seconds in which a worker deletes its temporary files
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import os, pickle, sys; questions = os.fdopen(os.dup(0), 'rb'); "
    "sys.path[:] = pickle.load(questions); "
    "from mammolens.parallel import serve; serve(questions)"
)
_CAUSES = {"SIGKILL": ", as systems do when memory runs out"} | dict.fromkeys(
    ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"), ": a library that it uses crashed"
)


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each of `items`, in their order, from several processes.

    At most a few items a worker are ahead of what was taken, so memory stays bounded however many
    items there are. A few items, or a function of the caller's own script, stay in this process.

    Raises:
        MammolensError: a process was ended from outside, or crashed.
    """
    count = min(cores(), len(items))
    portable = _packed(function) if count > 1 and len(items) > FEW else None
    yield from map(function, items) if portable is None else _spread(portable, items, count)


def _packed(function: Callable[..., Any]) -> bytes | None:
    """Return `function` as another process loads it; None where it lives in the caller's script."""
    try:
        packed = pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return None if b"__main__" in packed else packed


def _spread(function: bytes, items: Sequence[Item], count: int) -> Iterator[Any]:
    """Work with `count` processes, each of which has a thread that waits for it."""
    workers: list[_Worker] = []
    idle: SimpleQueue[_Worker] = SimpleQueue()
    threads = ThreadPoolExecutor(count)
    pending: deque[Future[Any]] = deque()

    def asked(item: Item) -> object:
        worker = idle.get()
        try:
            return worker(item)
        finally:
            idle.put(worker)

    try:
        for _ in range(count):
            workers.append(_Worker(function))
            idle.put(workers[-1])
        for item in items:
            pending.append(threads.submit(asked, item))
            if len(pending) >= count * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.process.terminate()  # which wakes the threads that wait for them
        for worker in workers:
            worker.close()
        threads.shutdown()


class _Worker:
    """A process that has loaded one function. To call it is to call the function, over there."""

    def __init__(self, function: bytes) -> None:
        # In a session of its own: Ctrl-C at the terminal is for this process, which ends the other.
        self.process = subprocess.Popen(  # noqa: S603 - fixed arguments
            [sys.executable, "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._untold = pickle.dumps(sys.path) + function

    def __call__(self, item: object) -> Any:  # noqa: ANN401 - whatever the function returns
        """Return ``function(item)``, or raise what it raised, or that the process ended before it had an answer."""
        question, self._untold = self._untold + pickle.dumps(item), b""
        ends: Any = self.process  # mypy cannot know that both are pipes
        try:
            ends.stdin.write(question)
            ends.stdin.flush()
            result, error = pickle.load(ends.stdout)  # noqa: S301 - from our own process
        except (OSError, EOFError, pickle.UnpicklingError) as ended:
            raise MammolensError(_obituary(self._ended(), item)) from ended
        if error is not None:
            raise error
        return result

    def _ended(self) -> int:
        """Wait until it has ended, and no longer than a moment; return its exit code."""
        try:
            return self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        self._ended()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was not yet sent will not be
                if pipe is not None:
                    pipe.close()


def _obituary(code: int, item: object) -> str:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    named = item if isinstance(item, Path) else getattr(item, "name", None)
    return (
        f"a worker process ended{f' while at {named}' if named else ''} "
        f"({how}{_CAUSES.get(how, '')}). Free some memory, or try that file alone."
    )


def serve(questions: IO[bytes]) -> None:
    """Be a worker: load a function, then answer item by item until the other side has ended."""
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # the pipes are for no library that prints, nor for programs it starts
        os.dup2(nothing, standard)
    function = pickle.load(questions)  # noqa: S301 - from the process that started this one
    dismissed: list[int] = []

    def dismiss(number: int, _: object) -> None:
        dismissed.append(number)
        sys.exit()  # so that temporary files are deleted

    signal.signal(signal.SIGTERM, dismiss)
    with suppress(EOFError, BrokenPipeError):
        while not dismissed:
            answers.write(_answer(function, pickle.load(questions)))  # noqa: S301
            answers.flush()


def _answer(function: Callable[[Any], Any], item: object) -> bytes:
    """Return, packed, what the function makes of the item and None; or None and its error."""
    try:
        return pickle.dumps((function(item), None))
    except Exception as error:  # noqa: BLE001 - it is raised again, on the other side
        told = "".join(traceback.format_exception(error))
        error.add_note(told)
        try:
            packed = pickle.dumps((None, error))
            pickle.loads(packed)  # noqa: S301 - some errors can be packed, but not unpacked
        except Exception:  # noqa: BLE001 - whatever its type trips over
            return pickle.dumps((None, RuntimeError(told)))
        return packed


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
