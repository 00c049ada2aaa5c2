"""What people have in hand → pictures, one by one: images, folders, DICOM folders, ZIP archives, arrays."""

import os
import shutil
import sys
import tempfile
import weakref
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from io import IOBase
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.errors import ImageError, on_one_line
from mammolens.files import scratch
from mammolens.images.image import MAX_BYTES, Image
from mammolens.images.listing import LeftOut, Role, check_index, is_litter, list_folder, role_of, walked, why_foreign
from mammolens.images.reading import START, first_bytes, image_of, read_image

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_DEPTH = 3
"""Archives in archives that are opened: one that is deeper is a row that fails."""

MAX_ARCHIVES = 1000
"""Archives within one archive that are opened."""

MAX_UNPACKED, _EXPANSION = 2**30, 20
"""Bytes of archives that are unpacked to look into one that holds them, or so many times its size, if that is more."""

_EXPECTED = "Expected PNG, JPEG, TIFF, PGM, BMP, WebP or DICOM files, or ZIP archives of them."
_END = 22  # bytes of the end record, without its comment
_LONGEST = 60  # characters of a name, where a file is unpacked


@dataclass(frozen=True)
class Input:
    """One file to answer for.

    Attributes:
        name: what it is called in the answer, such as ``archive.zip/folder/file``.
        file: on disk: the file itself, or the archive.
        members: its place in the archive's directory; in an archive within it, that one's place
            and its own. Names do not tell: several files may have the same.
        problem: why it cannot be read, where that is known already, without its name.
    """

    name: Path
    file: Path
    members: tuple[int, ...] = ()
    problem: str | None = None

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield a path to the file; what comes from an archive is deleted afterwards.

        Raises:
            ImageError: the archive is damaged, or the file in it is encrypted or too large; or it
                is known already why it cannot be read.
        """
        if self.problem is not None:
            raise ImageError(f"{self.name}: {self.problem}")
        if not self.members:
            yield self.file
            return
        with scratch() as folder:
            path = folder / (self.name.name[-_LONGEST:] or "file")
            self._extract(path)
            yield path

    def opened(self) -> zipfile.ZipFile:
        """Return this file as an archive, which stays open until others are asked for."""
        return _archive(self.file, self.file.stat().st_mtime_ns, self.members)

    def _extract(self, path: Path) -> None:
        try:
            archive = replace(self, members=self.members[:-1]).opened()
            member = archive.infolist()[self.members[-1]]
            unfit = _unfit(member)
            if unfit is None:
                with archive.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
                return
        except Exception as error:  # each compression has errors of its own
            raise ImageError(
                f"{self.name}: cannot be taken out of the archive ({error}). Unpack it yourself, or make it anew."
            ) from error
        raise ImageError(f"{self.name}: {unfit}")


def find_inputs(paths: Iterable[Path]) -> list[Input]:
    """Return the files to answer for: a folder or archive stands for the images in it, sorted.

    What does not exist, a folder or archive without images, and whatever may be an image and is not
    read, stays in the list and fails with its reason when read.
    """
    return list(inputs_in(paths))


def inputs_in(paths: Iterable[Path]) -> Iterator[Input]:
    """Yield what `find_inputs` returns: of a folder, as it is gone through."""
    for path in paths:
        yield from _below(path)


def named_before(pictures: "Iterable[Picture]") -> list[Input]:
    """Return the files among pictures that stand before them, too, as where a folder is named twice."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    again = []
    for one in pictures:
        if isinstance(one, Input):
            place = os.path.abspath(one.file), one.members  # noqa: PTH100 - links are files of their own
            again += [one] if place in seen else []
            seen.add(place)
    return again


def close_archives() -> None:
    """Let go of the archives that `Input.on_disk` keeps open, before they are deleted."""
    _archive.cache_clear()


def _below(path: Path) -> Iterator[Input]:
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where one may not look
        yield from _file_or_archive(path)
        return
    empty = True
    for one, role in walked(path):
        empty = False
        if isinstance(role, LeftOut):
            yield Input(one, one, problem=role.why)
        elif role is Role.ARCHIVE:
            yield from _unpacked(Input(one, one))
        else:
            yield Input(one, one)
    if empty:
        nothing = f"the folder holds no image: {list_folder(path).contents()}. {_EXPECTED}"
        yield Input(path, path, problem=nothing)


def _file_or_archive(path: Path) -> list[Input]:
    """Return a file, or what is in it; one that cannot be opened says so when it is read."""
    one = Input(path, path)
    try:
        start = first_bytes(path) if path.is_file() else b""
    except (OSError, ValueError):
        return [one]
    return _unpacked(one) if start and role_of(path.name, start) is Role.ARCHIVE else [one]


def _unpacked(outer: Input) -> list[Input]:
    """Return the images in an archive and in archives within it; never nothing."""
    opened, unpacked = count(), 0

    def inside(one: Input) -> list[Input]:
        nonlocal unpacked
        if len(one.members) >= MAX_DEPTH:
            return [replace(one, problem=f"lies in {MAX_DEPTH} archives. Unpack it yourself.")]
        if next(opened) > MAX_ARCHIVES:
            many = f"more than {MAX_ARCHIVES} archives are in {outer.name}. Unpack it yourself."
            return [replace(one, problem=many)]
        try:
            archive = one.opened()
            unpacked += _size(archive) if one.members else 0
            if unpacked > max(MAX_UNPACKED, _EXPANSION * outer.file.stat().st_size):
                large = f"the archives in {outer.name} unpack to far more than it has. Unpack it yourself."
                return [replace(one, problem=large)]
            listed = archive.infolist()
            _check_end(archive)
        except Exception as error:  # noqa: BLE001 - zipfile has no one error for what makes no sense
            return [replace(one, problem=_damaged(error))]
        rows = _members(one, archive, listed)
        images = [image for role, row in rows for image in (inside(row) if role is Role.ARCHIVE else [row])]
        if images:
            return images
        others = f"others: {len(listed)}" if listed else "nothing is in it"
        return [replace(one, problem=f"the archive holds no image ({others}). {_EXPECTED}")]

    return inside(outer)


def _size(archive: zipfile.ZipFile) -> int:
    return archive.fp.seek(0, os.SEEK_END) if archive.fp else 0


def _check_end(archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose end is lost and that ends with, or within, another one's directory.

    zipfile takes the last end record that it finds (APPNOTE.TXT 4.3.16) for that of the whole, be
    it of an archive within: then files lie before the first, and bytes after the record.

    Raises:
        zipfile.BadZipFile: it is so.
    """
    stream = archive.fp
    first = min((member.header_offset for member in archive.infolist()), default=0)
    if stream is None or first == 0:
        return
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END - 0xFFFF))
    tail = stream.read()
    place = tail.rfind(b"PK\x05\x06")
    comment = int.from_bytes(tail[place + _END - 2 : place + _END], "little")
    if place + _END + comment != len(tail):
        raise zipfile.BadZipFile("its directory is lost")


def _members(one: Input, archive: zipfile.ZipFile, listed: list[zipfile.ZipInfo]) -> list[tuple[Role, Input]]:
    """Return what an archive's directory names, litter left out, sorted, each by a name its own."""
    rows = []
    for place, member in enumerate(listed):
        parts = _parts(member.filename)
        if not parts or member.is_dir() or any(map(is_litter, parts)):
            continue
        start = _start(archive, member)
        role = role_of(parts[-1], start)
        problem = why_foreign(parts[-1], start) if role is Role.FOREIGN else None
        if role is not Role.OTHER:
            rows.append((parts, role, (*one.members, place), problem))
    taken: dict[Path, int] = {}
    named: list[tuple[Role, Input]] = []
    for parts, role, members, problem in sorted(rows, key=lambda row: (row[0], row[2])):
        name = _own_name(one.name.joinpath(*parts), taken)
        named.append((role, Input(name, one.file, members, problem)))
    return named


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders and name of a file in an archive; none leads out of it.

    Separators are slashes (APPNOTE.TXT 4.4.17.1), but some programs write those of Windows.
    """
    parts = name.replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".", ".."))


def _own_name(name: Path, taken: dict[Path, int]) -> Path:
    """Return `name`, or where it is taken ``name (2).suffix`` and so on; `taken` has the last number of each."""
    own, number = name, taken.get(name, 1)
    while own in taken:
        number += 1
        own = name.with_name(f"{name.stem} ({number}){name.suffix}")
    taken[name] = number
    taken.setdefault(own, 1)
    return own


def _start(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    """Return the first bytes of a file in an archive, or None: encrypted, damaged or unfit."""
    if _unfit(member):
        return None
    try:
        with archive.open(member) as stream:
            return stream.read(START)
    except Exception:  # noqa: BLE001 - it stays in the list, and fails with its reason
        return None


def _unfit(member: zipfile.ZipInfo) -> str | None:
    """Say why a file should not be unpacked: zipfile reads no further than its declared size."""
    if member.file_size > MAX_BYTES:
        mebibytes = member.file_size / 2**20
        return f"{mebibytes:.0f} MiB is over the limit of {MAX_BYTES // 2**20} MiB a file."
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others are unpacked at one go: a few kilobytes may fill the memory.
        return "is packed by a method other than deflate. Make the archive anew, as a plain ZIP."
    return None


def _damaged(error: Exception) -> str:
    if "multiple disks" in str(error):
        return "is one part of a ZIP archive. Put its parts together and unpack them first."
    return f"the archive is damaged, cut short or locked ({error}). Copy it anew, or unpack it."


@lru_cache(maxsize=4)
def _archive(path: Path, changed: int, members: tuple[int, ...]) -> zipfile.ZipFile:
    """Keep the archive open: reading its directory again for each file would take all day.

    One that lies in another is copied to a file without a name, which is gone once it is closed.
    """
    if not members:
        with path.open("rb") as stream:
            check_index(stream)
        return zipfile.ZipFile(path)
    outer = _archive(path, changed, members[:-1])
    member = outer.infolist()[members[-1]]
    if unfit := _unfit(member):
        raise zipfile.BadZipFile(unfit)
    copy = tempfile.TemporaryFile(prefix="mammolens-")  # noqa: SIM115 - closed with the archive
    try:
        with outer.open(member) as source:
            shutil.copyfileobj(source, copy)
        check_index(copy)
        archive = zipfile.ZipFile(copy)
    except BaseException:
        copy.close()
        raise
    weakref.finalize(archive, copy.close)
    return archive


Picture: TypeAlias = "str | os.PathLike[str] | Input | Image | NDArray[np.generic] | Pillow.Image | Dataset"
"""A file, one in an archive, an `Image` that is read already, or what `images.reading.image_of` takes: an array, a
Pillow image, a pydicom data set."""


def pictures_in(items: "Picture | Iterable[Picture]") -> list[Picture]:
    """Return the pictures in whatever holds some, in order; what holds none is in the list, and fails."""
    several: Iterable[Any] = items if isinstance(items, Iterable) and not _is_one(items) else [items]
    pictures: list[Picture] = []
    for item in several:
        if isinstance(item, str) and not item:  # which would be the current folder
            pictures.append(Input(Path("''"), Path(), problem="is no name of a file or folder."))
        else:
            pictures += find_inputs([Path(item)]) if isinstance(item, str | os.PathLike) else [item]
    return pictures


def _is_one(items: object) -> bool:
    """Tell one item, though it can be gone through, from several; an array of names is several."""
    if isinstance(items, str | os.PathLike | Input | bytes | bytearray | memoryview | IOBase | Pillow.Image):
        return True
    if not hasattr(items, "__array__"):
        return _kind(items) is not None
    array = np.asarray(items)
    return not (array.ndim == 1 and array.dtype.kind in "UO")


class Named(NamedTuple):
    """A picture, and the name that its answer goes by."""

    name: Path
    picture: "Picture"


def named(pictures: "Sequence[Picture | Named]") -> list[Named]:
    """Name each picture that has no name yet after its file, or by its kind and its row, counted from 0."""
    return [one if isinstance(one, Named) else Named(_name(one, row), one) for row, one in enumerate(pictures)]


def _name(picture: "Picture", row: int) -> Path:
    if isinstance(picture, Input):
        return picture.name
    file = picture if isinstance(picture, str | os.PathLike) else getattr(picture, "filename", None)
    if file and isinstance(file, str | os.PathLike):
        return Path(file)
    return Path(f"{_kind(picture) or 'item'} {row}")


def _kind(item: object) -> str | None:
    """Return in a word what holds one picture in memory; None of all else."""
    dataset = getattr(sys.modules.get("pydicom"), "Dataset", ())  # where it is not loaded, nobody has one
    kinds = {"array": np.ndarray, "image": Pillow.Image, "data set": dataset}
    return next((word for word, kind in kinds.items() if isinstance(item, kind)), None)


def image_in(picture: "Picture", name: Path, *, windows: bool = False) -> Image:
    """Read one picture, which errors call by its name; of a file, as `read_image` does.

    Raises:
        ImageError: it cannot be read, or is none.
    """
    if isinstance(picture, Image):
        return picture
    if not isinstance(picture, str | os.PathLike | Input):
        return image_of(picture, name)
    with on_disk(picture) as path:
        return read_image(path, windows=windows)


@contextmanager
def on_disk(picture: "str | os.PathLike[str] | Input") -> Iterator[Path]:
    """Yield a path to a file, or to one in an archive while it is unpacked, and have errors call it by its name.

    Raises:
        ImageError: it cannot be unpacked.
    """
    if not isinstance(picture, Input):
        yield Path(picture)
        return
    with picture.on_disk() as path:
        try:
            yield path
        except ImageError as error:
            told = str(error).replace(on_one_line(str(path)), on_one_line(str(picture.name)))
            raise ImageError(told) from error
