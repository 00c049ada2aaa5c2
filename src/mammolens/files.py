"""Files on disk: written whole or not at all, told apart by content, cached in one known place."""

import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mammolens.errors import DataError, reason

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?")
"""Names of what `written_whole` and `folder_written_whole` have not moved to its place yet."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, moved there when the block ends well, else deleted.

    Raises:
        DataError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be written here ({error.strerror}).") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp gives 0600, which would hide results from colleagues
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new_folder(out: Path) -> None:
    """Refuse, before any work, a folder that is in the way.

    Raises:
        DataError: `out` holds something already, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists already. Choose a new folder.")


@contextmanager
def folder_written_whole(out: Path) -> Iterator[Path]:
    """Yield a path for a new folder beside `out`, moved there when the block ends well.

    Raises:
        DataError: `out` holds something already, or cannot be written.
    """
    check_new_folder(out)
    target = out.absolute()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        if target.exists():
            target.rmdir()
        temporary.replace(target)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({reason(error)}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path, older_than: float = 0.0) -> None:
    """Delete what writers that were killed left half-written anywhere below `folder`.

    Args:
        folder: that nobody else writes to now, or
        older_than: seconds ago it was last written to, where somebody may.
    """
    latest = time.time() - older_than
    for path in sorted(folder.rglob(".*")):
        with suppress(FileNotFoundError):  # it was in another that is gone, or its writer is done
            if _TEMPORARY.fullmatch(path.name) and path.lstat().st_mtime <= latest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return where derived files are kept: `$MAMMOLENS_CACHE`, or the user's cache folder.

    Nothing there is precious: deleting it costs time only.
    """
    if chosen := os.environ.get("MAMMOLENS_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mammolens"
