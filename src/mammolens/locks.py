"""Locks of files and folders: the system lets go of them however a process ends, so none is ever stale.

On Windows, and on network disks without them, nobody is kept out.
"""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mammolens.errors import MammolensError

_GLANCE = 0.2  # seconds between two looks at a lock
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)  # on some network disks


def lock(file: int) -> bool | None:
    """Lock an open file until it is closed, however that comes about; tell whether nobody else had.

    Returns:
        None where the system, or the disk, has no such locks.
    """
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415 - Windows has none

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


@contextmanager
def held_alone(path: Path, refusal: MammolensError) -> Iterator[None]:
    """Hold a lock file while the block lasts; the system lets go of it however this process ends.

    Raises:
        MammolensError: `refusal`, where another process holds it.
    """
    with path.open("w") as file:
        if lock(file.fileno()) is False:
            raise refusal
        yield


@contextmanager
def folder_held_alone(folder: Path, refusal: MammolensError) -> Iterator[None]:
    """Hold a folder itself likewise; one that is made for it, and in which nothing is written, is gone again.

    Raises:
        MammolensError: `refusal`, where another process holds it.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if os.name == "posix":  # Windows opens no folders
            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            if lock(handle) is False:
                raise refusal
        try:
            yield
        finally:
            with suppress(OSError):  # something is
                if new:
                    folder.rmdir()


@contextmanager
def held_in_turn(path: Path) -> Iterator[None]:
    """Hold a lock file while the block lasts, once no other process holds it."""
    with path.open("w") as file:
        while lock(file.fileno()) is False:
            time.sleep(_GLANCE)
        yield
