"""One worker: a fresh Python behind two pipes, asked one question at a time. Both ends of the pipes are here.

The pools at hand do not do: what they send can have its reader run code, so that a worker which a file has taken over
takes over this process, too; they start the caller's script again; and where one worker dies they give up.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from mammolens.errors import MammolensError, reason
from mammolens.workers import confinement
from mammolens.workers.messages import found, pack, receive

SECONDS = 8.0
"""Of processor time, that a file may take, whatever its size."""

BYTES_A_SECOND = 2**21
"""Of a file, that buy it more time: JPEG 2000 without loss is unpacked at twice this pace on a busy machine."""

_SLOWER = 4  # the machine has other things to do, too: by the clock

_STARTING = 60.0  # seconds in which a worker has to be ready
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import json, os, sys; questions = os.fdopen(os.dup(0), 'rb'); "
    "sys.path[:] = json.loads(questions.readline()); "
    "from mammolens.workers.worker import serve; serve(questions)"
)
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_CAUSES = {
    "SIGKILL": ", as systems do when memory runs out",
    "SIGXCPU": ": it took too much processor time",
} | dict.fromkeys(("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"), ": a library that decodes crashed")


class Ended(Exception):  # noqa: N818 - says why, and whoever asked makes an error of it
    """A worker has no answer, and will have none."""


class Worker:
    """The process, seen from the one that asks."""

    def __init__(self, function: str) -> None:
        # In a session of its own: Ctrl-C at the terminal is for this process, which ends the other.
        self._process = subprocess.Popen(  # noqa: S603 - fixed arguments
            [sys.executable, "-P", "-c", _START, function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_THREADS},
            start_new_session=True,
        )
        ends: Any = self._process  # mypy cannot know that both are pipes
        self._questions, self._answers = ends.stdin, ends.stdout
        self._told: tuple[str, Mapping[str, object]] = ("", {})
        self._ready = False
        paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100
        self._say([json.dumps(paths).encode() + b"\n"])

    def __call__(self, function: str, item: object, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401
        """Return what `_worked_out` makes of the question, over there.

        Raises:
            Ended: it has no answer.
            TypeError: item or arguments do not travel.
        """
        news = None if self._knows(function, arguments) else dict(arguments)
        seconds = SECONDS + _size(item) / BYTES_A_SECOND
        question = pack((_folder(), function, seconds)) + pack((news, item))
        self._told = function, arguments
        self._say(question)
        return self._answer(_SLOWER * seconds)

    def is_ready(self) -> bool:
        """Wait until it can be asked; tell whether it has not ended instead."""
        with suppress(Ended):
            self._ready = self._ready or self._answer(_STARTING)
        return self._process.poll() is None

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._questions, self._answers):
            with suppress(OSError):  # what was not yet sent will not be
                pipe.close()

    def _knows(self, function: str, arguments: Mapping[str, object]) -> bool:
        """Tell whether it has been told these arguments: the same ones serve thousands of files."""
        name, told = self._told
        return name == function and [*map(id, told.values())] == [*map(id, arguments.values())]

    def _say(self, question: list[Any]) -> None:
        with suppress(OSError):  # it has ended: then there is no answer either
            self._questions.writelines(question)
            self._questions.flush()

    def _answer(self, seconds: float) -> Any:  # noqa: ANN401
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        clock = threading.Timer(seconds, stop)
        clock.daemon = True
        clock.start()
        try:
            return receive(self._answers)
        except Exception as error:  # whatever nonsense one that was taken over may send
            why = self._obituary(error)
            raise Ended(f"it took more than {seconds:.0f} s" if late.is_set() else why) from error
        finally:
            clock.cancel()

    def _obituary(self, error: Exception) -> str:
        try:
            code = self._process.wait(1)  # it is about to end
        except subprocess.TimeoutExpired:
            return f"no answer, but {reason(error)}"
        if code >= 0:
            return f"exit code {code}"
        how = signal.Signals(-code).name
        return f"{how}{_CAUSES.get(how, '')}"


def _size(item: object) -> int:
    """Return how many bytes there are to be read."""
    with suppress(OSError, ValueError):
        return os.stat(item).st_size if isinstance(item, Path) else len(item) if isinstance(item, bytes) else 0  # noqa: PTH116
    return 0


def _folder() -> str | None:
    with suppress(OSError):
        return os.getcwd()  # noqa: PTH109
    return None


def serve(questions: IO[bytes]) -> None:
    """Be a worker: answer until the other side has ended."""
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # the pipes are for no library that prints
        os.dup2(nothing, standard)
    import_module(sys.argv[1].partition(":")[0])
    os.dup2(nothing, 2)
    confinement.confine()
    answers.writelines(pack(True))
    answers.flush()
    arguments: Mapping[str, Any] = {}
    with suppress(EOFError, BrokenPipeError):
        while True:
            folder, function, seconds = receive(questions)
            import_module(function.partition(":")[0])
            news, item = receive(questions)
            arguments = arguments if news is None else news
            with suppress(OSError, TypeError):
                os.chdir(folder)
            confinement.allow(seconds)
            answers.writelines(_worked_out(found(function), item, arguments))
            answers.flush()


def _worked_out(function: Callable[..., object], item: object, arguments: Mapping[str, Any]) -> list[Any]:
    """Return, packed: no error, and the function's result; or its error's name, what it says, and where it was."""
    try:
        return pack((None, function(item, **arguments), None))
    except MammolensError as error:
        return pack((type(error).__name__, str(error), None))
    except MemoryError:
        return pack(("MemoryError", f"it takes more than {confinement.MEMORY / 2**30:g} GiB of memory", None))
    except Exception as error:  # noqa: BLE001 - libraries raise whatever they trip over
        # What it says may quote the file; where it was does not.
        return pack((type(error).__name__, type(error).__name__, "".join(traceback.format_tb(error.__traceback__))))
