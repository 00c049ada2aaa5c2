"""What people have → a list of files: images, folders, DICOM folders, ZIP archives, mixed."""

import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from mammolens.dicom import PREAMBLE, holds_dicom
from mammolens.errors import ImageError
from mammolens.images import MAX_BYTES
from mammolens.reading import IMAGE_SUFFIXES, looks_like_image

ARCHIVE_SUFFIX = ".zip"


@dataclass(frozen=True)
class Input:
    """One file to answer for.

    Attributes:
        name: what it is called in the answer, such as ``archive.zip/folder/file``.
        file: on disk: the file itself, or the archive.
        member: its name within the archive, or None.
    """

    name: Path
    file: Path
    member: str | None = None

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield a path to the file; what comes from an archive is deleted afterwards.

        Raises:
            ImageError: the archive is damaged, or the file in it is encrypted or too large.
        """
        if self.member is None:
            yield self.file
            return
        with tempfile.TemporaryDirectory(prefix="mammolens-") as folder:
            path = Path(folder) / PurePosixPath(self.member).name
            self._extract(path)
            yield path

    def _extract(self, path: Path) -> None:
        try:
            archive = _archive(self.file, self.file.stat().st_mtime_ns)
            member = archive.getinfo(str(self.member))
            unfit = _unfit(member)
            if unfit is None:
                with archive.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
                return
        except Exception as error:  # each compression has errors of its own
            raise ImageError(
                f"{self.name}: cannot be taken out of the archive ({error}). Unpack it yourself, "
                "or make it anew."
            ) from error
        raise ImageError(f"{self.name}: {unfit}")


def find_inputs(paths: Iterable[Path]) -> list[Input]:
    """Return the files to answer for: a folder or archive stands for the images in it, sorted.

    What does not exist, and a folder or archive without images, stays in the list and fails with
    its reason when read.
    """
    found: list[Input] = []
    for path in paths:
        below = [Input(path, path)]
        if path.is_dir():
            below = [Input(p, p) for p in sorted(path.rglob("*")) if _is_wanted(p)] or below
            below = [inner for outer in below for inner in _unpacked(outer)]
        else:
            below = _unpacked(below[0])
        found += below
    return found


def close_archives() -> None:
    """Let go of the archives that `Input.on_disk` keeps open, before they are deleted."""
    _archive.cache_clear()


def _is_wanted(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() == ARCHIVE_SUFFIX or looks_like_image(path))


def _unpacked(outer: Input) -> list[Input]:
    """Return the images in an archive; what is no archive, or a damaged one, as it is."""
    if outer.file.suffix.lower() != ARCHIVE_SUFFIX or not zipfile.is_zipfile(outer.file):
        return [outer]
    try:
        with zipfile.ZipFile(outer.file) as archive:
            listed = archive.infolist()
            members = [member.filename for member in listed if _is_image(archive, member)]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, struct.error):
        return [outer]  # zipfile has no one error for a directory that makes no sense
    named = [(outer.name / member.lstrip("/"), member) for member in sorted(members)]
    return [Input(name, outer.file, member) for name, member in named] or [outer]


def _unfit(member: zipfile.ZipInfo) -> str | None:
    """Say why a file should not be unpacked: zipfile reads no further than its declared size."""
    if member.file_size > MAX_BYTES:
        mebibytes = member.file_size / 2**20
        return f"{mebibytes:.0f} MiB is over the limit of {MAX_BYTES // 2**20} MiB a file."
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others are unpacked at one go: a few kilobytes may fill the memory.
        return "is packed by a method other than deflate. Make the archive anew, as a plain ZIP."
    return None


def _is_image(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Tell by its name; where that has no suffix or a UID's, as DICOM often has, by its content."""
    path = PurePosixPath(member.filename)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts or path.name == "DICOMDIR"
    if member.is_dir() or hidden:
        return False
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or (suffix and not suffix[1:].isdecimal()):
        return suffix in IMAGE_SUFFIXES
    try:
        with archive.open(member) as stream:
            return holds_dicom(stream.read(PREAMBLE + 4))
    except Exception:  # noqa: BLE001 - encrypted or damaged: it stays, and fails with its reason
        return True


@lru_cache(maxsize=2)
def _archive(path: Path, changed: int) -> zipfile.ZipFile:  # noqa: ARG001 - part of the key
    """Keep the archive open: reading its directory again for each file would take all day."""
    return zipfile.ZipFile(path)
