"""Object stores that speak S3: what lies in them, and one object on disk while it is looked at.

Who may read it, and where it is, tells the environment of each machine (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
...) or the address: ``s3://bucket/prefix?endpoint_override=host:9000&scheme=http``.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from mammolens.errors import DataError, ImageError, reason
from mammolens.files import scratch
from mammolens.images.archives import Input
from mammolens.images.image import MAX_BYTES
from mammolens.images.listing import Role, is_litter, role_of, why_foreign

SCHEME = "s3://"

_LONGEST = 60  # characters of a name, where an object is fetched


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


def bucket_of(address: str) -> str:
    """Return which bucket an address is of."""
    return plain(address).removeprefix(SCHEME).partition("/")[0]


def plain(address: str) -> str:
    """Return an address without what it says of how to get there: a key may be among that. A path is as it is."""
    if not address.startswith(SCHEME):
        return address
    return SCHEME + address.removeprefix(SCHEME).partition("?")[0].rpartition("@")[2].strip("/")


def opened(address: str, stores: Mapping[str, str]) -> Any:  # noqa: ANN401 - pyarrow's NativeFile
    """Open an object to read anywhere in it.

    Args:
        address: of the object, as `plain` makes it.
        stores: see `Stored`.

    Raises:
        OSError: it is not there, or may not be read.
    """
    system, _ = _system(stores.get(bucket_of(address), SCHEME + bucket_of(address)))
    return system.open_input_file(plain(address).removeprefix(SCHEME))


def objects(address: str) -> Iterator[Input]:
    """Yield what lies under an address and may be an image, in order; it is told by names alone.

    Raises:
        DataError: there is no such store, or it may not be listed.
    """
    try:
        system, path = _system(address)
        found = system.get_file_info(path)
        infos = [found] if found.type is fs.FileType.File else _below(system, path)
        for info in infos:
            name = Address(SCHEME + info.path)
            role = role_of(name.name, None)
            if role is Role.ARCHIVE:
                problem = "is a ZIP archive in a store, which is not opened. Unpack it there."
                yield Stored(name, name, problem=problem)
            elif role is Role.FOREIGN:
                yield Stored(name, name, problem=why_foreign(name.name, None))
            elif role is Role.IMAGE:
                yield Stored(name, name)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{plain(address)}: cannot be listed ({_said(error)}).") from error


def _below(system: fs.FileSystem, path: str) -> Iterator[fs.FileInfo]:
    """Yield objects folder by folder: all at once would take gigabytes where there are millions."""
    listed = system.get_file_info(fs.FileSelector(path))
    for info in sorted(listed, key=lambda info: info.base_name):
        if is_litter(info.base_name):
            continue
        if info.type is fs.FileType.Directory:
            yield from _below(system, info.path)
        else:
            yield info


@cache
def _system(address: str) -> tuple[fs.FileSystem, str]:
    try:
        system, path = fs.FileSystem.from_uri(address)
    except pa.ArrowInvalid:  # which says the whole of it
        raise DataError(f"{plain(address)}: is no address of a store. Name s3://BUCKET/PREFIX.") from None
    return system, path.strip("/")


def _said(error: Exception) -> str:
    return reason(error).rstrip(".")
