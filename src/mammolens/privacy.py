"""What libraries are told before they are imported: send nothing, keep your files in our cache, quote no names in logs.

Importing the package says it, so it holds behind every door and in every worker. A library that was
imported before mammolens has not heard it.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path

from mammolens.errors import DataError
from mammolens.files import cache_folder

SETTINGS = {
    # Who prefers another backend sets it in the shell.
    "KERAS_BACKEND": "torch",
    # On by default since ONNX Runtime 1.29 (its Privacy.md): an identifier of this machine in the
    # home folder, and events sent to its makers. Read once, when ONNX Runtime is loaded.
    "ORT_DISABLE_TELEMETRY": "1",
    # A cluster that Ray starts reports to its makers who uses what of it, unless told not to.
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables and their values."""

FOLDERS = {
    "KERAS_HOME": "keras",  # its settings; weights of keras.applications, if a recipe asks for them
    "MPLCONFIGDIR": "matplotlib",  # what it notes of fonts
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",  # made at import, empty
}
"""Environment variables that name folders, and which folder of our cache."""

READERS = (
    *("PIL", "pydicom", "highdicom", "libjpeg", "openjpeg", "pylibjpeg"),
    *("pynetdicom", "dicomweb_client", "urllib3"),
)
"""Loggers of libraries that read, write or send pictures. What they remark on may quote headers."""

_SYSTEM_FONTS = Path("/etc/fonts/fonts.conf")
_FONTS = Path(__file__).with_name("fonts.conf")


def tell_libraries() -> None:
    """Set environment variables of other libraries; what the user has set stays. Keep their remarks out of logs.

    Who wants to read what is said of a file gives one of `READERS` a handler.
    """
    for name in READERS:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())  # without any, Python would print warnings
    wanted = dict(SETTINGS)
    if _SYSTEM_FONTS.is_file():  # matplotlib asks fontconfig, which keeps notes of its own
        wanted["FONTCONFIG_FILE"] = str(_FONTS)
    # Without a home folder, or in one that was deleted, what needs the cache says so.
    with suppress(DataError, FileNotFoundError):
        cache = cache_folder().absolute()
        there = next(one for one in (cache, *cache.parents) if one.exists())
        # PyTorch cannot be imported where its folder cannot be made; untold, it has one in `/tmp`.
        if there.is_dir() and os.access(there, os.W_OK):
            wanted |= {name: str(cache / folder) for name, folder in FOLDERS.items()}
    for name, value in wanted.items():
        if not os.environ.get(name):
            os.environ[name] = value


def write_no_core() -> None:
    """Ask the system for no image of this process, and of those that it starts, should one crash: it has pictures."""
    with suppress(ImportError, ValueError, OSError):  # Windows writes none
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
