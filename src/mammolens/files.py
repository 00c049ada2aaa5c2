"""Files on disk: written whole or not at all, told apart by content, cached in one known place."""

import atexit
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path

from mammolens.errors import DataError, reason
from mammolens.locks import lock

_STEM = 60  # letters of a name that its temporary name keeps: file systems have a limit
_PART = "part-"  # a mark: others hide files, too, such as `.env.template`
_TEMPORARY = re.compile(rf"\..+\.{_PART}[a-z0-9_]{{8}}(\.\w+)?")
"""Names of what `written_whole` and `folder_written_whole` have not moved to its place yet."""


_SCRATCH, _HELD = "mammolens-", ".held"


@contextmanager
def written_whole(path: Path, mode: int = 0o644, *, make: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, moved there when the block ends well, else deleted.

    Args:
        path: a file there is replaced.
        mode: who may do what with it in the end; until then, its owner alone may read it.
        make: its folder, where there is none.

    Raises:
        DataError: the folder cannot be written to, or the disk is full.
    """
    temporary = _new_beside(path, make=make)
    try:
        yield temporary
        temporary.chmod(mode)  # mkstemp gives 0600, which would hide results from colleagues
        temporary.replace(path)
    except OSError as error:
        if error.filename not in {None, str(temporary), str(path)}:
            raise  # of another file, which was read meanwhile
        raise DataError(unwritten(path, error)) from error
    except KeyboardInterrupt as error:
        error.add_note(f"{path} was not written.")
        raise
    finally:
        temporary.unlink(missing_ok=True)


def synced(path: Path) -> None:
    """Wait until a file is on the disk, or the names in a folder are: a failing machine then loses none."""
    if os.name == "posix" or path.is_file():  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _new_beside(path: Path, *, make: bool) -> Path:
    try:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:_STEM]}.{_PART}", suffix=path.suffix)
    except OSError as error:
        raise DataError(unwritten(path, error)) from error
    os.close(handle)
    return Path(name)


def unwritten(path: Path, error: OSError) -> str:
    """Say that a file cannot be written, why, and what to do, as a sentence that begins with its name."""
    remedy = " Choose another place."
    with suppress(DataError):
        if path.absolute().is_relative_to(cache_folder().absolute()):
            remedy = " It belongs to the cache. Set MAMMOLENS_CACHE to a folder that can take it."
    return f"{path}: cannot be written here ({system_reason(error)}).{remedy}"


def system_reason(error: OSError) -> str:
    """Return why the system refused, in its own words, such as ``No space left on device``."""
    return error.strerror or f"{reason(error)}; is the disk full?"


def system_error(error: Exception) -> OSError | None:
    """Return the system's error that an error is, or comes of; None where it is another's."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause if isinstance(cause, OSError) else None


def check_new_file(path: Path | None, suffixes: Collection[str]) -> None:
    """Refuse, before any work, a file that could not be written in the end; None is no file.

    Args:
        path: a file there is replaced.
        suffixes: endings of names that say what can be written, in lower case.

    Raises:
        DataError: the name has another ending, a folder is in the way, or the file's folder
            cannot be written to.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise DataError(f"{path}: expected a name ending in {', '.join(suffixes)}.")
    if path.is_dir():
        raise DataError(f"{path}: is a folder. Name a file in it, or another.")
    _check_place(path.parent, path)


def check_writable(folder: Path | None) -> None:
    """Refuse, before any work, a folder that cannot be written to, or made; None is no folder.

    Raises:
        DataError: it, or what should hold it, is no folder or may not be written to.
    """
    if folder is not None:
        _check_place(folder, folder)


def check_apart(places: Mapping[str, Path | None]) -> None:
    """Refuse one place for two things that are to be written, each by the option that names it; None is none.

    Raises:
        DataError: two are one.
    """
    taken: dict[Path, str] = {}
    for option, place in places.items():
        if place is not None and (other := taken.setdefault(_behind_links(place), option)) != option:
            raise DataError(f"{place}: {other} and {option} name one place. Name two.")


def _check_place(folder: Path, wanted: Path) -> None:
    """Try to write where `folder` is, or would be made."""
    try:
        there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"0")
    except OSError as error:
        raise DataError(unwritten(wanted, error)) from error


def check_new_folder(out: Path, besides: Path | None = None) -> None:
    """Refuse, before any work, a folder that is in the way or could not be made.

    Args:
        out: the folder.
        besides: a file that may be in it.

    Raises:
        DataError: `out` holds something already, is a file, or cannot be made.
    """
    target = _behind_links(out)
    there = None if besides is None else _behind_links(besides)
    if os.path.lexists(target) and (not target.is_dir() or any(path != there for path in target.iterdir())):
        raise DataError(f"{out}: exists already. Choose a new folder.")
    if target.is_mount():  # it cannot be replaced by the folder that was written beside it
        raise DataError(f"{out}: a disk is mounted here. Name a new folder in it.")
    _check_place(target.parent, out)


def _behind_links(out: Path) -> Path:
    return Path(os.path.realpath(out))  # as `resolve`, which raises where links lead in a circle


@contextmanager
def folder_written_whole(out: Path) -> Iterator[Path]:
    """Yield a path for a new folder beside `out`, moved there when the block ends well.

    Raises:
        DataError: `out` holds something already, or cannot be written.
    """
    check_new_folder(out)
    target = _behind_links(out)
    temporary = target.with_name(f".{target.name[:_STEM]}.{_PART}{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        if target.exists():
            target.rmdir()
        temporary.replace(target)
    except OSError as error:
        raise DataError(unwritten(out, error)) from error
    except KeyboardInterrupt as error:
        error.add_note(f"{out} was not written.")
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_half_written(path: Path) -> bool:
    """Tell by its name whether a writer made it who has not moved it to its place."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path, older_than: float = 0.0) -> None:
    """Delete what writers that were killed left half-written anywhere below `folder`.

    Args:
        folder: that nobody else writes to now, or
        older_than: seconds ago it was last written to, where somebody may.
    """
    latest = time.time() - older_than
    for path in sorted(folder.rglob(".*")):
        # It was in another that is gone, or its writer is done, or it may not be deleted.
        with suppress(OSError):
            if is_half_written(path) and path.lstat().st_mtime <= latest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def sweep_in(folder: Path, pattern: str) -> None:
    """Delete what writers that were killed left half-written in `folder` itself, by names that match; none may live."""
    for path in folder.glob(pattern):
        if is_half_written(path):
            with suppress(OSError):
                path.unlink()


def sweep_beside(path: Path) -> None:
    """Delete what writers of `path` that were killed left half-written; none may live."""
    sweep_in(path.parent, f".{escape(path.stem[:_STEM])}.{_PART}*{escape(path.suffix)}")


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a new folder that nobody but this user may look into; it is gone when the block, or the program, ends.

    What a killed program has left of such folders is deleted before the first one is made.

    Raises:
        DataError: there is no place for temporary files.
    """
    try:
        _sweep_scratch_once()
        made = Path(tempfile.mkdtemp(prefix=f".{_SCRATCH}"))
    except OSError as error:
        raise DataError(f"no place for temporary files ({system_reason(error)}). Set TMPDIR to a folder.") from error
    folder = made.with_name(made.name[1:])
    try:
        with (made / _HELD).open("w") as held:
            lock(held.fileno())
            made.rename(folder)  # only now does it have a name that is swept: whoever holds it is alive
            _scratch_folders.add(folder)
            yield folder
    finally:
        _scratch_folders.discard(folder)
        _delete_scratch(folder)


_scratch_folders: set[Path] = set()
"""Those of this program: threads that end with it end in the middle of their blocks."""


def _delete_scratch(folder: Path) -> None:
    """Delete a scratch folder, though a thread may write to it: it finds none by this name."""
    gone = folder.with_name(f"{folder.name}-")
    with suppress(OSError):
        folder.rename(gone)
    for one in (gone, folder):
        shutil.rmtree(one, ignore_errors=True)


@atexit.register
def _delete_scratch_folders() -> None:
    for folder in [*_scratch_folders]:
        _delete_scratch(folder)


def sweep_scratch() -> None:
    """Delete this user's scratch folders that no living program holds: the system lets go of those of killed ones."""
    if os.name != "posix":
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with suppress(OSError):  # it is another user's, or gone
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                with (folder / _HELD).open("r+") as held:
                    if lock(held.fileno()):
                        shutil.rmtree(folder, ignore_errors=True)


_sweep_scratch_once = cache(sweep_scratch)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; what a file's name has beyond it, escaped."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


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
        DataError: this user has no home folder.
    """
    if chosen := os.environ.get("MAMMOLENS_CACHE"):
        return Path(chosen)
    try:
        # "If an implementation encounters a relative path [...] it should consider the path invalid
        # and ignore it." (XDG Base Directory Specification 0.8)
        told = Path(os.environ.get("XDG_CACHE_HOME", ""))
        root = told if told.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise DataError(f"no folder for the cache ({reason(error)}). Set MAMMOLENS_CACHE to one.") from error
    return root / "mammolens"
