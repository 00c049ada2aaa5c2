"""In a worker, has Pillow's decoder of plain PGM files do what a decoder that a file has taken over might do.

Python imports this file by itself where its folder is in PYTHONPATH. What is done is said by the file's first pixel.
"""

import ctypes
import dataclasses
import fcntl
import os
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def take_memory(_: Path) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(2**27))


def loop(_: Path) -> None:
    while True:
        pass


def answer_nonsense(_: Path) -> None:
    import pickle  # noqa: PLC0415 - this is what must not work

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(mark),)

    mark = Path(os.environ["HOSTILE_MARK"])
    for descriptor in range(3, 32):
        try:
            os.write(descriptor, pickle.dumps(Evil()))
        except OSError:
            continue
    os._exit(0)


def forge(*answer: object) -> None:
    """Answer in place of `serve`, by its own rules."""
    from mammolens.workers.messages import pack  # noqa: PLC0415

    for descriptor in range(3, 32):
        try:
            os.write(descriptor, b"".join(pack(answer)))
        except OSError:
            continue
    os._exit(0)


def forge_seen(**fields: Any) -> None:
    """Answer with what `seen` returns, but for some fields."""
    import numpy as np  # noqa: PLC0415 - only in a worker, which has it

    from mammolens.images.image import Header  # noqa: PLC0415
    from mammolens.images.preprocess import Geometry  # noqa: PLC0415
    from mammolens.serving.pictures import Seen  # noqa: PLC0415

    place = Geometry((32, 32), (64, 64), (0, 0, 32, 32), flipped=False, content=(0, 0, 64, 64))
    made = Seen(np.zeros((64, 64), np.uint16), place, True, Header(), ())
    for name, value in fields.items():
        whole = value if name == "levels" else dataclasses.replace(place, **{name: value})
        object.__setattr__(made, "levels" if name == "levels" else "geometry", whole)
    forge(None, made, None)


def signal_by_pipe(_: Path) -> None:
    """Have the system send SIGKILL to the process that asks, as word that a pipe can be read."""
    to_read, to_write = os.pipe()
    fcntl.fcntl(to_read, fcntl.F_SETOWN, os.getppid())
    fcntl.fcntl(to_read, 10, 9)  # F_SETSIG, SIGKILL
    fcntl.fcntl(to_read, fcntl.F_SETFL, os.O_ASYNC)
    os.write(to_write, b"0")


DEEDS: dict[int, Callable[[Path], object]] = {
    1: lambda _: ctypes.string_at(0),
    2: lambda _: os.abort(),
    3: loop,
    4: take_memory,
    5: lambda _: socket.create_connection(("127.0.0.1", int(os.environ["HOSTILE_PORT"]))),
    6: lambda mark: mark.write_text("written"),
    7: lambda mark: subprocess.run(["/bin/mkdir", str(mark)], check=True),
    8: lambda mark: os.execv("/bin/mkdir", ["mkdir", str(mark)]),  # noqa: S606
    9: lambda _: os.kill(os.getppid(), 9),
    10: answer_nonsense,
    11: lambda _: os._exit(3),
    12: lambda _: time.sleep(3600),
    13: lambda _: 1 / 0,
    14: signal_by_pipe,
    15: lambda _: os.sched_setaffinity(os.getppid(), {0}),
    16: lambda _: fcntl.ioctl(os.open("/dev/null", os.O_RDONLY), termios.TIOCSTI, b"0"),
    17: lambda _: forge(None, 42, None),
    18: lambda _: forge(None, "no picture", None),
    19: lambda _: forge([], [], []),
    20: lambda _: forge("ImageError", 42, None),
    21: lambda _: forge_seen(levels="no picture"),
    22: lambda _: forge_seen(levels=bytes(9)),
    23: lambda _: forge_seen(canvas=(3, 3)),
    24: lambda _: forge_seen(crop=(0, 0, 10**9, 10**9)),
}

if any("serve(questions)" in word for word in sys.orig_argv):
    from PIL import Image, ImageFile, PpmImagePlugin  # noqa: F401 - which registers its own decoder first

    class Hostile(ImageFile.PyDecoder):
        _pulls_fd = True

        def decode(self, buffer: object) -> tuple[int, int]:  # noqa: ARG002
            first = self.fd.read().split()[0]  # type: ignore[union-attr]
            DEEDS[int(first)](Path(os.environ["HOSTILE_MARK"]))
            return -1, 0

    Image.register_decoder("ppm_plain", Hostile)
