"""What an archive holds, as a list on disk that all machines see: of millions, few are in memory at a time.

An archive is folders, ZIP archives, tables (``.csv``), lists (``.parquet`` with a column ``path``), and what lies in an
object store (``s3://bucket/prefix``). What may be an image and is not read is in the list, and fails with its reason.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mammolens.cluster import stores
from mammolens.cluster.stores import Address, Stored
from mammolens.data.sources import read_source
from mammolens.errors import DataError, reason
from mammolens.images.archives import Input, inputs_in
from mammolens.images.listing import Role, role_of

GROUP = 256
"""Names that are written together, and read together."""

_PACKED = "is a ZIP archive in a list of pictures, which is not opened. Name it beside the list."

_SCHEMA = pa.schema(
    [("name", pa.binary()), ("file", pa.binary()), ("members", pa.list_(pa.int32())), ("problem", pa.string())]
)
"""Of the list: names as the system has them, which may be no valid UTF-8."""


def inputs_of(archive: Sequence[str]) -> Iterator[Input]:
    """Yield the pictures of an archive, in an order that is the same each time.

    Raises:
        DataError: a table or list is wrong, or a store cannot be listed.
    """
    for one in archive:
        suffix = Path(stores.plain(one)).suffix.lower()
        if suffix == ".parquet":
            yield from _listed(one)
        elif one.startswith(stores.SCHEME):
            yield from stores.objects(one)
        elif suffix == ".csv":
            yield from _tabled(Path(one))
        elif one:
            yield from inputs_in([Path(one)])
        else:
            yield Input(Path("''"), Path(), problem="is no name of a file or folder.")


def _listed(table: str) -> Iterator[Input]:
    """Yield what a Parquet list names, a few thousand at a time; relative paths start at its folder, or prefix."""
    said = stores.plain(table)
    above = said.rpartition("/")[0] if said.startswith(stores.SCHEME) else str(Path(table).parent)
    try:
        source = stores.opened_at(table) if table.startswith(stores.SCHEME) else table
        with pq.ParquetFile(source) as rows:
            if "path" not in rows.schema_arrow.names:
                raise DataError(f"{said}: column path missing; found {', '.join(rows.schema_arrow.names)}.")
            if not rows.metadata.num_rows:
                yield replace(_named(said), problem="this list names nothing.")
            for batch in rows.iter_batches(columns=["path"]):
                yield from (_named(path, above) for path in batch.column(0).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{said}: cannot be read as a Parquet list of paths ({reason(error)}).") from error


def _tabled(table: Path) -> Iterator[Input]:
    """Yield what a table names; a path makes one slash of the two of an object's address."""
    for row in read_source(str(table), files=False, labels=False):
        place = row.path.relative_to(table.parent).parts if row.path.is_relative_to(table.parent) else ()
        in_store = place[:1] == (stores.SCHEME.rstrip("/"),)
        yield _named(stores.SCHEME + "/".join(place[1:]) if in_store else str(row.path))


def _named(path: object, above: str = "") -> Input:
    """Return what a list or table names; objects by their names, which nothing in is encoded.

    Some writers say of text only that it is bytes, and names that are no valid UTF-8 are nothing else.
    """
    path = os.fsdecode(path) if isinstance(path, bytes) else path
    if not path or not isinstance(path, str):
        return Input(Path("''"), Path(), problem="is no name of a file.")
    if path.startswith(stores.SCHEME) or (above.startswith(stores.SCHEME) and not path.startswith("/")):
        name = Address(path if path.startswith(stores.SCHEME) else f"{above}/{path}")
        return Stored(name, name, problem=stores.PACKED if _is_archive(name) else None)
    file = Path(above) / path
    return Input(file, file, problem=_PACKED if _is_archive(file) else None)


def _is_archive(file: Path) -> bool:
    return role_of(file.name, None) is Role.ARCHIVE


def write_list(inputs: Iterable[Input], path: Path) -> tuple[int, str]:
    """Write a list that `read_slice` reads; return how many there are, and the SHA-256 of what is written of them."""
    count, digest = 0, hashlib.sha256()
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for one in inputs:
            count += 1
            row = _row(one)
            digest.update(json.dumps([row["name"].hex(), row["members"], row["problem"]]).encode())
            rows.append(row)
            if len(rows) == GROUP:
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
    return count, digest.hexdigest()


def _row(one: Input) -> dict[str, Any]:
    stored = isinstance(one, Stored)
    file = str(one.file) if stored else os.path.abspath(one.file)  # noqa: PTH100 - links are files of their own
    return {
        "name": os.fsencode(str(one.name)),
        "file": os.fsencode(file),
        "members": one.members,
        "problem": one.problem,
    }


def read_slice(path: Path, first: int, count: int, named: Mapping[str, str]) -> list[Input]:
    """Return so many of a list, or as many as there are.

    Args:
        path: the list.
        first: which one to begin with, from 0, a multiple of `count`.
        count: how many, a divisor of `GROUP`.
        named: the address by which a bucket was named, by the bucket.
    """
    group, place = divmod(first, GROUP)
    return [_input(row, named) for row in _opened(path).read_row_group(group).slice(place, count).to_pylist()]


def _input(row: Mapping[str, Any], named: Mapping[str, str]) -> Input:
    name, file = os.fsdecode(row["name"]), os.fsdecode(row["file"])
    if name.startswith(stores.SCHEME):
        return Stored(Address(name), Address(name), problem=row["problem"], stores=named)
    return Input(Path(name), Path(file), tuple(row["members"]), row["problem"])


@cache
def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path)
