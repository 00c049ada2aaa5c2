"""What lies below a folder: images, archives, and what is left out, by one rule for everyone.

An image is told by its suffix or by its content. Litter of systems and hidden files are passed
over. All else that may be an image and cannot be read is named with its reason.
"""

import os
import stat
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from mammolens.images.reading import IMAGE_SUFFIXES, NAMES, ZIP, first_bytes, foreign_kind, is_picture

MAX_FOLDERS = 100
"""Folders in folders that are looked into: one that is deeper is left out, by name."""

MAX_DIRECTORY = 2**25
"""Bytes of an archive's directory, of some 300,000 files: one of 200 MB takes gigabytes, and minutes, to be read."""


class Role(Enum):
    """What a file is to us: read, opened and looked into, refused by name, or passed over."""

    IMAGE = "image"
    ARCHIVE = "archive"
    FOREIGN = "foreign"
    OTHER = "other"


@dataclass(frozen=True)
class LeftOut:
    """What may hold an image and is not read.

    Attributes:
        path: the file or folder, or how a table calls it.
        why: why it is not read, as the rest of a sentence that begins with its name.
    """

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True)
class Listing:
    """What lies below a folder, each part sorted by path.

    Attributes:
        images: files that are images, or call themselves one.
        archives: ZIP archives.
        left_out: what may be an image and cannot be read.
        others: files that are no images, such as tables and texts.
    """

    images: tuple[Path, ...] = ()
    archives: tuple[Path, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    others: tuple[Path, ...] = ()

    def contents(self) -> str:
        """Say what is there where images were expected."""
        if not self.others:
            return "nothing is in it"
        first, count = self.others[0].name, len(self.others)
        if count == 1:
            return f"in it is a file that is no image, {first}"
        return f"in it are {count} files that are no images, such as {first}"


def is_litter(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden, or made by a system for itself."""
    return name.startswith(".") or name.lower() in NAMES["litter"]


def role_of(name: str, start: bytes | None) -> Role:
    """Tell what a file is to us.

    Args:
        name: its name, whose suffix counts.
        start: its first `reading.START` bytes, or None where they cannot be read: then a file
            without a suffix, or with a number for one as DICOM often has, counts as an image.
    """
    suffix = Path(name).suffix.lower()
    nameless = not suffix or suffix[1:].isdecimal()
    if suffix in NAMES["texts"]:
        return Role.OTHER
    if suffix in IMAGE_SUFFIXES or (start is None and nameless) or is_picture(start or b""):
        return Role.IMAGE
    kind = foreign_kind(start or b"", suffix)
    if kind is ZIP:
        return Role.OTHER if suffix in NAMES["documents"] else Role.ARCHIVE
    return Role.FOREIGN if kind and kind.pictures else Role.OTHER


def why_foreign(name: str, start: bytes | None) -> str:
    """Say why a file whose role is `Role.FOREIGN` is not read."""
    kind = foreign_kind(start or b"", Path(name).suffix.lower())
    return kind.refusal() if kind else "is not read here."


def list_folder(folder: Path) -> Listing:
    """List what is below `folder`, links followed; what cannot be looked at is in `left_out`."""
    by_role: dict[Role, list[Path]] = {role: [] for role in Role}
    left_out = []
    for path, role in walked(folder, tuple(Role)):
        if isinstance(role, LeftOut):
            left_out.append(role)
        else:
            by_role[role].append(path)
    images, archives, others = (tuple(by_role[role]) for role in (Role.IMAGE, Role.ARCHIVE, Role.OTHER))
    return Listing(images, archives, tuple(left_out), others)


def walked(
    folder: Path, wanted: Collection[Role] = (Role.IMAGE, Role.ARCHIVE)
) -> Iterator[tuple[Path, Role | LeftOut]]:
    """Yield the files below `folder` that are `wanted`, and all that is left out, sorted by path, links followed."""
    for path in _files(folder, ()):
        if isinstance(path, LeftOut):
            yield path.path, path
        elif isinstance(role := _role_on_disk(path), LeftOut) or role in wanted:
            yield path, role


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path | LeftOut]:
    """Yield what is below `folder`, sorted; a link to a folder above adds nothing and is passed over."""
    if len(above) > MAX_FOLDERS:
        yield LeftOut(folder, f"lies more than {MAX_FOLDERS} folders deep. Name it itself.")
        return
    try:
        here = folder.stat()
        key = here.st_dev, here.st_ino
        if key in above:
            return
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        yield LeftOut(folder, f"this folder cannot be looked into ({error.strerror}).")
        return
    for entry in entries:
        if is_litter(entry.name):
            continue
        if _is_folder(entry):
            yield from _files(folder / entry.name, (*above, key))
        else:
            yield folder / entry.name


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere, or where one may not look
        return False


def _role_on_disk(path: Path) -> Role | LeftOut:
    """Return what a file is to us, or why it is left out."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        known = path.suffix.lower() in IMAGE_SUFFIXES | NAMES["texts"]
        start = first_bytes(path) if regular and not known else b""
    except OSError as error:
        # Path.is_symlink raises where one may not look.
        link = f"a link to {path.readlink()}: " if os.path.islink(path) else ""  # noqa: PTH114
        unread = role_of(path.name, None) is Role.OTHER
        return Role.OTHER if unread else LeftOut(path, f"cannot be opened ({link}{error.strerror}).")
    role = role_of(path.name, start)
    if role is not Role.OTHER and not regular:
        return LeftOut(path, "is a pipe or a device; a file was expected.")
    return LeftOut(path, why_foreign(path.name, start)) if role is Role.FOREIGN else role


def check_index(stream: IO[bytes]) -> None:
    """Refuse a directory that is too large, by the very record that zipfile goes by, which would read all of it.

    Raises:
        zipfile.BadZipFile: it does.
    """
    end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # noqa: SLF001
    if end and end[zipfile._ECD_SIZE] > MAX_DIRECTORY:  # type: ignore[attr-defined]  # noqa: SLF001
        raise zipfile.BadZipFile(f"its directory is over {MAX_DIRECTORY // 2**20} MiB")
