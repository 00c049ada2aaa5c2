"""Which image a row of somebody's table is of, by the path, file name or id that the row gives."""

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from mammolens.errors import DataError
from mammolens.records import Mammogram

_EXACT = 1000  # more folders than any path has
_SHOWN = 3


def matches(
    table: Path, names: Sequence[Sequence[str]], images: Iterable[Mammogram], whose: str = "the data set"
) -> dict[Path, tuple[int, int]]:
    """Return of each image that a row is of how many parts of its path the row tells, and the row.

    A path may be absolute or relative, from another machine, with slashes or backslashes: the
    image is the one whose path ends as it does, in as many parts as possible; else the one whose
    id or file name without suffix it is.

    Args:
        table: for messages; relative paths start at its folder.
        names: what each row calls its image, the best first; empty ones are passed over.
        images: by path and id.
        whose: the images are, for messages.

    Raises:
        DataError: a name may mean several images, an image has two rows, or no row is of an image.
    """
    called = _by_name(images)
    found: dict[Path, tuple[int, int]] = {}
    for place, named in enumerate(names):
        origin = f"{table}, row {place + 2}"
        image, fits = _meant(named, table.parent, called, origin)
        if image is None:
            continue
        if found.get(image, (-1, 0))[0] == fits:
            raise DataError(f"{origin}: {image} has two rows; remove one.")
        found[image] = max(found.get(image, (-1, 0)), (fits, place))
    if not found:
        raise DataError(
            f"{table}: none of its {len(names)} rows is of an image of {whose} (the first is "
            f"{names[0][0]}). Paths are those of {whose}, or file names, or ids."
        )
    return found


def rows_by_name(data: str, names: Sequence[Path]) -> dict[Path, Mammogram]:
    """Return what a table says of pictures, by their names.

    Args:
        data: whatever `data.sources.read_source` reads; labels are not needed.
        names: of the pictures; a row is matched with them by `data.matching`.

    Raises:
        DataError: there is no such table, it is wrong, or none or several of the pictures may be meant by a row.
    """
    from mammolens.data.sources import read_source  # noqa: PLC0415 - most who answer have no table

    rows = list(read_source(data, files=False, labels=False))
    place = Path(data)
    table = place / "table" if os.path.isdir(place) else place  # noqa: PTH112 - Path.is_dir raises
    images = {os.path.abspath(name): Mammogram(path=name) for name in names}  # noqa: PTH100
    called = _nearest([[_below(row.path, table.parent), row.image_id or ""] for row in rows], list(images))
    found = matches(place, called, images.values(), "those to answer for")
    _check_folders(place, {image: (fits, called[row][0]) for image, (fits, row) in found.items()})
    told = {os.path.abspath(image): rows[row] for image, (_, row) in found.items()}  # noqa: PTH100
    return {name: told[same] for name in names if (same := os.path.abspath(name)) in told}  # noqa: PTH100


def _below(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _nearest(called: Sequence[Sequence[str]], paths: Sequence[str]) -> list[Sequence[str]]:
    """Blank the rows of other pictures, which have names like these elsewhere: a table may tell of many more.

    They are those whose path tells fewer folders of any picture than others' do, unless it tells all that it has.
    """
    ends = {parts[first:] for path in paths for parts in [parts_of(path)] for first in range(len(parts))}
    told = [parts_of(named[0]) for named in called]
    depths = [max((n for n in range(len(parts) + 1) if parts[len(parts) - n :] in ends), default=0) for parts in told]
    whole = [depth == len(parts) for depth, parts in zip(depths, told, strict=True)]
    near = whole if any(whole) else [depth == max(depths) for depth in depths]
    return [named if keep else [""] for named, keep in zip(called, near, strict=True)]


def _check_folders(table: Path, found: Mapping[Path, tuple[int, str]]) -> None:
    """Refuse a table whose one folder would stand for several: each may be another patient's.

    Raises:
        DataError: it does.
    """
    folders: dict[tuple[str, ...], set[Path]] = defaultdict(set)
    for image, (fits, text) in found.items():
        parts = parts_of(text)
        if fits < len(parts):
            folders[parts[:-1]].add(image.parent)
    for parts, meant in folders.items():
        if len(meant) > 1:
            raise DataError(
                f"{table}: its folder {'/'.join(parts)} may be any of {len(meant)}: {some(sorted(meant))}. "
                "Name images by their own folders."
            )


def parts_of(name: str) -> tuple[str, ...]:
    """Return folders and name, whichever way the slashes lean."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def some(names: Sequence[object]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more


def _by_name(images: Iterable[Mammogram]) -> dict[Hashable, list[Path]]:
    """Return the images by all that they may be called: see `_names`."""
    called: dict[Hashable, list[Path]] = defaultdict(list)
    for mammogram in images:
        path = os.path.abspath(mammogram.path)  # noqa: PTH100
        parts = parts_of(path)
        others = {mammogram.image_id, mammogram.path.stem} - {None}
        for name in (path, *(parts[first:] for first in range(len(parts))), *((None, other) for other in others)):
            called[name].append(mammogram.path)
    return called


def _names(text: str, folder: Path) -> Iterator[tuple[Hashable, int]]:
    """Yield what `text`, in a table in `folder`, may mean, best first, and how many parts of a path it tells.

    That is a whole path; the end of one, as its parts; or an id or a stem, after None.
    """
    for place in (text, folder / text):
        yield os.path.abspath(place), _EXACT  # noqa: PTH100
    parts = parts_of(text)
    for first in range(len(parts)):
        yield parts[first:], len(parts) - first
    for other in (text, PurePosixPath(parts[-1]).stem if parts else ""):
        yield (None, other), 0


def _meant(
    named: Sequence[str], folder: Path, images: Mapping[Hashable, list[Path]], origin: str
) -> tuple[Path | None, int]:
    """Return the image that the first name that fits means, and how many parts of its path that tells.

    Raises:
        DataError: it may be several images.
    """
    for text in filter(None, named):
        for name, fits in _names(text, folder):
            if len(called := images.get(name, [])) > 1:
                raise DataError(
                    f"{origin}: {text} may be any of {len(called)} images: {some(called)}. Write more of the path."
                )
            if called:
                return called[0], fits
    return None, 0
