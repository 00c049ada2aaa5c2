"""Images somewhere below a folder, joined with the rows of the table that describes them.

What the sources of published data sets share. Knows none of their column names.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammolens.data.csv_table import read_rows
from mammolens.data.manifest import Manifest, mammogram_from_row
from mammolens.errors import DataError
from mammolens.images.listing import LeftOut, Listing, list_folder
from mammolens.images.raster import RASTER_SUFFIXES
from mammolens.images.reading import ZIP

_LABELS: dict[str, int | None] = {"": None, "0": 0, "1": 1}
_NO_LABEL = -1  # refused by Mammogram, with the name of the field


def list_data_set(root: Path) -> Listing:
    """List what is below the folder `root`, for a data set: in it, archives are not looked into.

    Names that are no UTF-8 are left out as well: tables and reports could not hold them.

    Raises:
        DataError: `root` is no folder, or cannot be looked into.
    """
    if not os.path.isdir(root):  # noqa: PTH112 - Path.is_dir raises where one may not look
        raise DataError(f"{root}: no such folder.")
    listing = list_folder(root)
    if listing.left_out and listing.left_out[0].path == root:
        raise DataError(str(listing.left_out[0]))
    packed = [LeftOut(path, f"is {ZIP.name}. {ZIP.remedy}") for path in listing.archives]
    odd = [path for path in listing.images if str(path) != _text(path)]
    named = [LeftOut(path, "its name is no UTF-8. Rename it.") for path in odd]
    left_out = (LeftOut(Path(_text(one.path)), one.why) for one in (*listing.left_out, *packed, *named))
    return replace(
        listing,
        images=tuple(path for path in listing.images if path not in set(odd)),
        archives=(),
        left_out=tuple(sorted(left_out, key=lambda one: one.path)),
    )


def named_some(left_out: Sequence[LeftOut]) -> str:
    """Count what is left out and name the first, as a sentence."""
    more = f"{len(left_out)} files were left out, such as " if len(left_out) > 1 else ""
    return f"{more}{left_out[0]}"


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a CSV that has `columns`; names and values lose the white space around them.

    Raises:
        DataError: the file is missing, empty or ragged, or a column is missing.
    """
    rows = [{name.strip(): value.strip() for name, value in row.items()} for row in read_rows(path)]
    require_columns(columns, rows[0], path)
    return rows


def require_columns(columns: Iterable[str], found: Iterable[str], table: Path) -> None:
    """Refuse a table without `columns`.

    Raises:
        DataError: a column is missing.
    """
    there = list(found)
    if missing := [name for name in columns if name not in there]:
        raise DataError(
            f"{table}: column {' and '.join(missing)} missing; found {', '.join(there)}. "
            "Use the table as it was published."
        )


@dataclass(frozen=True)
class Below:
    """Images below a folder, by what a table calls them.

    Attributes:
        listing: all that is there.
        by_key: the image that each key means.
        keys: of each image; none where it is known to be no mammogram of the set.
    """

    listing: Listing
    by_key: Mapping[str, Path]
    keys: Mapping[Path, tuple[str, ...]]

    def get(self, key: str) -> Path | None:
        """Return the image that `key` means, if it is there."""
        return self.by_key.get(key)

    def undescribed(self, used: Iterable[Path]) -> list[LeftOut]:
        """Name the images that no row describes; other files of an image that is used are none."""
        known = {key for path in used for key in self.keys.get(path, ())}
        return [
            LeftOut(path, "no row of the table describes it.")
            for path, keys in self.keys.items()
            if keys and known.isdisjoint(keys)
        ]


def images_by_key(root: Path, keys: Callable[[Path], Iterable[str]]) -> Below:
    """Return the images below `root` by what `keys` makes of each relative path.

    Where several files have a key in common, a raster file goes before a DICOM file, then the
    first by path.

    Raises:
        DataError: `root` is no folder, or cannot be looked into.
    """
    listing = list_data_set(root)
    named = {path: tuple(keys(path.relative_to(root))) for path in listing.images}
    images: dict[str, Path] = {}
    for path in sorted(named, key=lambda path: (path.suffix.lower() not in RASTER_SUFFIXES, path)):
        for key in named[path]:
            images.setdefault(key, path)
    return Below(listing, images, named)


def join(
    pairs: Iterable[tuple[Path | None, Mapping[str, str]]],
    origin: Path,
    expected: str,
    below: Below | None = None,
    *,
    files: bool = True,
) -> Manifest:
    """List the described images that are there, in order; the others are in `left_out`.

    Args:
        pairs: an image file, None where it is not there, and its row in the words of
            `mammolens.data.manifest.COLUMNS`; ``label`` is 0, 1 or empty, other names are metadata.
        origin: the table, for messages.
        expected: where images should be, for messages.
        below: what is in the folder, to tell what no row describes.
        files: whether images must be there; else one that is not is listed by its ``image_id``.

    Raises:
        DataError: none of the images is there, or a value cannot be what its column says.
    """
    described = list(pairs)
    missing = [
        LeftOut(Path(row["image_id"]), f"{origin.name} describes it, and it is not there.")
        for path, row in described
        if path is None and files
    ]
    named = ((path or (None if files else origin.parent / row["image_id"]), row) for path, row in described)
    mammograms = [
        mammogram_from_row(row, f"{origin}, {path.name}", path, _LABELS.get(row["label"], _NO_LABEL))
        for path, row in named
        if path is not None
    ]
    if not mammograms:
        raise DataError(
            f"{origin}: none of the {len(described)} images it describes is there. Expected them as {expected}."
        )
    listed = Manifest(tuple(mammograms))
    if below is None or not files:
        return replace(listed, left_out=tuple(missing))
    others = (*below.listing.left_out, *below.undescribed(listed.paths))
    return replace(listed, left_out=(*missing, *others))


def joined(values: Iterable[str]) -> str:
    """Return what is known of several lesions as one cell: each value once, in order."""
    return "|".join(dict.fromkeys(value for value in values if value))


def box_inside(corners: tuple[float, float, float, float], width: float, height: float) -> list[float] | None:
    """Return [x, y, width, height] of what lies inside the image, or None where nothing does.

    Args:
        corners: left, top, right and bottom in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    left, right = (min(max(edge, 0.0), width) for edge in corners[0::2])
    top, bottom = (min(max(edge, 0.0), height) for edge in corners[1::2])
    if right <= left or bottom <= top:
        return None
    return [left, top, right - left, bottom - top]


def _text(path: Path) -> str:
    """Return a path as text that can be written: what is no UTF-8 is told by its bytes."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
