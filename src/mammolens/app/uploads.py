"""What someone drops on the page: how much of it is taken, and how it gets to the reader.

A dropped file is on disk only while it is read, in a folder of its own that is deleted at once.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mammolens.images import archives
from mammolens.images.archives import Input, find_inputs

MAX_FILE = 200 * 2**20
"""Bytes of one file; the largest mammograms are below 100 MB."""

MAX_TOTAL = 500 * 2**20
"""Bytes of all files on the page at one time."""

MAX_IMAGES = 100
"""Images on the page at one time, those in archives included."""

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True)
class Upload:
    """One dropped file.

    Attributes:
        key: tells it from every other file of the session.
        name: as its owner calls it.
        content: the whole file.
    """

    key: str
    name: str
    content: bytes


@contextmanager
def as_inputs(upload: Upload) -> Iterator[list[Input]]:
    """Yield the images of a dropped file, those of an archive one by one, while they are on disk.

    They are named as their owner names them: the folder that holds them is never told.
    """
    name = safe_name(upload.name)
    with tempfile.TemporaryDirectory(prefix="mammolens-") as folder:
        path = Path(folder) / f"file{_suffix(name)}"
        path.write_bytes(upload.content)
        try:
            found = find_inputs([path])
            yield [replace(one, name=Path(name) / one.name.relative_to(path)) for one in found]
        finally:
            archives.close_archives()


def admitted(uploads: Sequence[Upload]) -> tuple[list[Upload], list[str]]:
    """Return the files that fit, in their order, and a sentence for each that does not."""
    taken: list[Upload] = []
    refused = []
    for upload in uploads:
        total = len(upload.content) + sum(len(one.content) for one in taken)
        if len(upload.content) > MAX_FILE:
            refused.append(_too_much(upload, f"it is over {MAX_FILE // 2**20} MB"))
        elif total > MAX_TOTAL:
            refused.append(_too_much(upload, f"all files together pass {MAX_TOTAL // 2**20} MB"))
        elif len(taken) == MAX_IMAGES:
            refused.append(_too_much(upload, f"the page takes {MAX_IMAGES} images at a time"))
        else:
            taken.append(upload)
    return taken, refused


def safe_name(name: str) -> str:
    """Return the last part of a name from a browser, which may send a path of any system."""
    return PurePosixPath(name.replace("\\", "/")).name or "unnamed"


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def _too_much(upload: Upload, why: str) -> str:
    return (
        f"{safe_name(upload.name)}: not looked at, because {why}. Remove other files, or use "
        "`mammolens predict` on the command line, which has no such limit."
    )
