"""Processes beside this one, each of which works on one thing at a time.

Each is a fresh Python that loads a function, then reads items from one pipe and writes results to
another. The standard library's pools do not do: their spawned workers run the caller's script again
(which then needs `if __name__ == "__main__"`), print a traceback each on Ctrl-C, and share locks
that a worker killed at a bad moment never gives back.
"""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mammolens.errors import MammolensError

_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import os, pickle, sys; questions = os.fdopen(os.dup(0), 'rb'); "
    "sys.path[:] = pickle.load(questions); "
    "from mammolens.workers import serve; serve(questions)"
)
_PATIENCE = 5.0  # seconds in which a worker deletes its temporary files
_CAUSES = {"SIGKILL": ", as systems do when memory runs out"} | dict.fromkeys(
    ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"), ": a library that it uses crashed"
)


def packed(function: Callable[..., Any]) -> bytes | None:
    """Return `function` as another process loads it; None where it lives in the caller's script."""
    try:
        found = pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return None if b"__main__" in found else found


class Worker:
    """A process that has loaded one function. To call it is to call the function, over there.

    Args:
        function: as `packed` makes it.
    """

    def __init__(self, function: bytes) -> None:
        # In a session of its own: Ctrl-C at the terminal is for this process, which ends the other.
        self._process = subprocess.Popen(  # noqa: S603 - fixed arguments
            [sys.executable, "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._untold = pickle.dumps(sys.path) + function

    def __call__(self, item: object) -> Any:  # noqa: ANN401 - whatever the function returns
        """Return ``function(item)``, or raise what it raised.

        Raises:
            MammolensError: the process ended before it had an answer.
        """
        question, self._untold = self._untold + pickle.dumps(item), b""
        ends: Any = self._process  # mypy cannot know that both are pipes
        try:
            ends.stdin.write(question)
            ends.stdin.flush()
            result, error = pickle.load(ends.stdout)  # noqa: S301 - from our own process
        except (OSError, EOFError, pickle.UnpicklingError) as ended:
            raise MammolensError(_obituary(self._ended(), item)) from ended
        if error is not None:
            raise error
        return result

    def dismiss(self) -> None:
        """Ask it to put away what it is at and to end."""
        self._process.terminate()

    def _ended(self) -> int:
        """Wait until it has ended, and no longer than a moment; return its exit code."""
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """Wait until it has ended, and no longer than a moment."""
        self._ended()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not yet sent will not be
                if pipe is not None:
                    pipe.close()


def end(workers: Sequence[Worker]) -> None:
    """End processes, whatever they are at."""
    for worker in workers:
        worker.dismiss()
    for worker in workers:
        worker.close()


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
        error.add_note("".join(traceback.format_exception(error)))
        return _portable(error)


def _portable(error: Exception) -> bytes:
    try:
        found = pickle.dumps((None, error))
        pickle.loads(found)  # noqa: S301 - some errors can be packed, but not unpacked
    except Exception:  # noqa: BLE001 - whatever its type trips over
        return pickle.dumps((None, RuntimeError("".join(error.__notes__))))
    return found
