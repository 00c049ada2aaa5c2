"""Files on disk: written whole or not at all, told apart by content, cached in one known place."""

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mammolens.errors import DataError, reason


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


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def why_not_opened(path: Path, error: OSError | ValueError, expected: str = "a file") -> str:
    """Say why a file could not be opened and what to do, as a sentence that follows its name.

    Args:
        path: the file.
        error: what opening it raised; a ValueError is a name that no file can have.
        expected: what it should have been, such as ``"a CSV table"``.
    """
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    if number == errno.EISDIR:
        return f"is a folder; {expected} was expected. Name a file in it."
    if number in (errno.EACCES, errno.EPERM):
        return (
            "may not be read by this user (permission denied). "
            "Give yourself the right to read it and its folders, or ask its owner."
        )
    if number == errno.ELOOP:
        return "is a link that leads back to itself. Name the file itself."
    if number == errno.ENOENT and path.is_symlink():
        return f"is a link to {path.readlink()}, which is not there."
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "no such file."
    return f"cannot be opened ({getattr(error, 'strerror', None) or error})."


def cache_folder() -> Path:
    """Return where derived files are kept: `$MAMMOLENS_CACHE`, or the user's cache folder.

    Nothing there is precious: deleting it costs time only.

    Raises:
        DataError: the folder is not there and cannot be made, or may not be written to.
    """
    folder = _chosen_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # the one sure way to know
            pass
    except OSError as error:
        raise DataError(
            f"{folder}: what is kept between runs goes there, and it cannot be written to "
            f"({error.strerror}). Set MAMMOLENS_CACHE to a folder that can."
        ) from error
    return folder


def _chosen_cache() -> Path:
    if chosen := os.environ.get("MAMMOLENS_CACHE"):
        return Path(chosen)
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "mammolens"
    try:
        return Path.home() / ".cache" / "mammolens"
    except RuntimeError as error:  # nobody knows where home is
        raise DataError(
            f"no folder is known for what is kept between runs ({error}). "
            "Set MAMMOLENS_CACHE to one."
        ) from error
