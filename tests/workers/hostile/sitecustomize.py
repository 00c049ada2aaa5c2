"""In a worker, has Pillow's decoder of plain PGM files do what a decoder that a file has taken over might do.

Python imports this file by itself where its folder is in PYTHONPATH. What is done is said by the file's first pixel.
"""

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


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
