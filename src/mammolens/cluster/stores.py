"""Object stores that speak S3: what lies in them, and one object on disk while it is looked at.

Who may read it, and where it is, tells the environment of each machine (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
...) or the address: ``s3://bucket/prefix?endpoint_override=host:9000&scheme=http``.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import pyarrow as pa
from pyarrow import fs

from mammolens.errors import DataError, ImageError, reason
from mammolens.files import scratch
from mammolens.images.archives import Input
from mammolens.images.image import MAX_BYTES
from mammolens.images.listing import Role, is_litter, role_of, why_foreign

SCHEME = "s3://"
PACKED = "is a ZIP archive in a store, which is not opened. Unpack it there."

_LONGEST = 60  # characters of a name, where an object is fetched
_OF_ADDRESSES = "%:/?@!$&'()*+,;=~"  # what means something in one (RFC 3986); no object's name is cut at a number sign
_STRAY = re.compile("%(?![0-9A-Fa-f]{2})")


class Address(PosixPath):
    """The name of an object, which a path would write with one slash after ``s3:``."""

    def __str__(self) -> str:
        return SCHEME + super().__str__().partition(":")[2].lstrip("/\\")


@dataclass(frozen=True)
class Stored(Input):
    """An object: fetched when it is looked at, and gone afterwards.

    Attributes:
        stores: the address by which a bucket was named, by the bucket.
    """

    stores: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield a path to a copy of it.

        Raises:
            ImageError: it is not there, may not be read, or is too large; or it is known already why it cannot be read.
        """
        if self.problem is not None:
            raise ImageError(f"{self.name}: {self.problem}")
        with scratch() as folder:
            path = folder / (self.name.name[-_LONGEST:] or "object")
            try:
                self._fetch(path)
            except (OSError, pa.ArrowException) as error:
                raise ImageError(f"{self.name}: cannot be fetched ({_said(error)}).") from error
            yield path

    def _fetch(self, path: Path) -> None:
        with opened(str(self.name), self.stores) as source:
            if source.size() > MAX_BYTES:
                mebibytes = source.size() / 2**20
                raise ImageError(
                    f"{self.name}: {mebibytes:.0f} MiB is over the limit of {MAX_BYTES // 2**20} MiB a file."
                )
            with path.open("wb") as target:
                shutil.copyfileobj(source, target)


def plain(address: str) -> str:
    """Return an address without what it says of how to get there: a key may be among that. A path is as it is."""
    if not address.startswith(SCHEME):
        return address
    told = address.removeprefix(SCHEME).partition("?")[0]
    keys, _, rest = told.rpartition("@")
    return SCHEME + (rest if ":" in keys else told).strip("/")


def by_bucket(archive: Iterable[str]) -> dict[str, str]:
    """Return the address by which each bucket is named in an archive.

    Raises:
        DataError: one is no address, or names a bucket that another one names as lying elsewhere.
    """
    named: dict[str, str] = {}
    for one in archive:
        if one.startswith(SCHEME):
            first = named.setdefault(_bucket(_system(one)[1]), one)
            if (urlsplit(first).netloc, urlsplit(first).query) != (urlsplit(one).netloc, urlsplit(one).query):
                raise DataError(f"{plain(one)}: is in another store than {plain(first)}. Answer for each by itself.")
    return named


def opened(name: str, stores: Mapping[str, str]) -> Any:  # noqa: ANN401 - pyarrow's NativeFile
    """Open an object to read anywhere in it.

    Args:
        name: of the object, beginning with its bucket.
        stores: see `Stored`.

    Raises:
        OSError: it is not there, or may not be read.
    """
    path = name.removeprefix(SCHEME)
    return _system(stores.get(_bucket(path), SCHEME + _bucket(path)))[0].open_input_file(path)


def opened_at(address: str) -> Any:  # noqa: ANN401 - likewise
    """Open the object at an address.

    Raises:
        OSError: likewise.
        DataError: it is no address.
    """
    system, path = _system(address)
    return system.open_input_file(path)


def objects(address: str) -> Iterator[Input]:
    """Yield what lies under an address and may be an image, in order, by names alone; a named object is, in any case.

    Raises:
        DataError: there is no such store, or it may not be listed.
    """
    try:
        system, path = _system(address)
        found = system.get_file_info(path)
        if found.type is fs.FileType.File:
            yield _stored(found.path, role_of(found.base_name, None))
            return
        empty = True
        for info in _below(system, path):
            role = role_of(info.base_name, None)
            if info.type is fs.FileType.Directory:
                empty = False
                yield replace(_stored(info.path, Role.OTHER), problem="objects with // in their name are not read.")
            elif role is not Role.OTHER:
                empty = False
                yield _stored(info.path, role)
        if empty:
            yield replace(_stored(path, Role.OTHER), problem="no object there is an image, by its name.")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{plain(address)}: cannot be listed ({_said(error)}).") from error


def _stored(path: str, role: Role) -> Stored:
    name, problem = Address(SCHEME + path), None
    if role is Role.ARCHIVE:
        problem = PACKED
    elif role is Role.FOREIGN:
        problem = why_foreign(name.name, None)
    return Stored(name, name, problem=problem)


def _below(system: fs.FileSystem, path: str) -> Iterator[fs.FileInfo]:
    """Yield objects folder by folder: all at once would take gigabytes where there are millions.

    A folder itself stands for those in it whose names have a second slash there, which pyarrow does not reach.
    """
    listed = system.get_file_info(fs.FileSelector(path))
    for info in sorted(listed, key=lambda info: info.base_name):
        if is_litter(info.base_name):
            continue
        if info.type is fs.FileType.Directory and info.path != path:
            yield from _below(system, info.path)
        else:
            yield info


@cache
def _system(address: str) -> tuple[fs.FileSystem, str]:
    try:
        system, path = fs.FileSystem.from_uri(_STRAY.sub("%25", quote(os.fsencode(address), safe=_OF_ADDRESSES)))
    except pa.ArrowInvalid:  # which says the whole of it
        raise DataError(f"{plain(address)}: is no address of a store. Name s3://BUCKET/PREFIX.") from None
    if not path.strip("/"):
        raise DataError(f"{address}: names no bucket. Name s3://BUCKET/PREFIX.")
    return system, path.strip("/")


def _bucket(path: str) -> str:
    return path.partition("/")[0]


def _said(error: Exception) -> str:
    return reason(error).rstrip(".")
