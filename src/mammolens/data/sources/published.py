"""What the sources of published data sets share: tables that describe images somewhere below a folder.

Knows none of their column names.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammolens.data.csv_table import read_rows
from mammolens.data.manifest import Manifest, located, mammogram_from_row
from mammolens.errors import DataError
from mammolens.images.listing import LeftOut, Listing, list_folder
from mammolens.images.raster import RASTER_SUFFIXES
from mammolens.images.reading import ZIP

_LABELS: dict[str, int | None] = {"": None, "0": 0, "1": 1}
_NO_LABEL = -1  # refused by Mammogram, with the name of the field

LABEL_BY_BIRADS = {"1": "0", "2": "0"} | dict.fromkeys(("4", "4a", "4b", "4c", "5", "6"), "1")
"""Labels where there is no pathology: these categories decide, all others leave the label unknown."""

Row = dict[str, str]
"""What is known of an image, by `mammolens.data.manifest.COLUMNS`; label is 0, 1 or empty, other names are metadata."""

Described = tuple[Sequence[str], Row]
"""What an image may be called, the likeliest first, and its row, which has at least image_id and label."""


@dataclass(frozen=True)
class PublishedSet:
    """A data set that was published with a table of its images.

    Attributes:
        table: its name in the data set's folder.
        described: yields what the tables in that folder say of each image.
        names: what an image file is called, by its path below the folder; nothing where it is known
            to be no mammogram of the set.
        expected: where images should be, for messages.
        told_by_name: what a file's name says where the table says nothing.
    """

    table: str
    described: Callable[[Path], Iterator[Described]]
    names: Callable[[Path], Sequence[str]]
    expected: str
    told_by_name: Callable[[Path], Row] = lambda _: {}

    def read(self, root: Path, *, files: bool = True) -> Manifest:
        """List the described images below the folder `root`; what is not there or not described is in `left_out`.

        Where several files have a name in common, a raster file goes before a DICOM file, then the
        first by path.

        Args:
            root: the folder.
            files: whether images must be there; else one that is not is listed by its ``image_id``.

        Raises:
            DataError: a table is missing or wrong, or none of its images is there.
        """
        described = list(self.described(root))
        listing = list_data_set(root)
        names = {path: self.names(path.relative_to(root)) for path in listing.images}
        images: dict[str, Path] = {}
        for path in sorted(names, key=lambda path: (path.suffix.lower() not in RASTER_SUFFIXES, path)):
            for name in names[path]:
                images.setdefault(name, path)
        pairs = []
        for called, row in described:
            image = next((images[name] for name in called if name in images), None)
            told = self.told_by_name(image) if image else {}
            pairs.append((image, row | {column: value for column, value in told.items() if not row.get(column)}))
        manifest = joined_with_files(pairs, root / self.table, self.expected, files=files)
        if not files:
            return manifest
        used = {name for path in manifest.paths for name in names[path]}
        undescribed = (
            LeftOut(path, "no row of the table describes it.")
            for path, called in names.items()
            if called and used.isdisjoint(called)  # other files of an image that is used are described
        )
        return replace(manifest, left_out=(*manifest.left_out, *listing.left_out, *undescribed))


def joined_with_files(
    pairs: Sequence[tuple[Path | None, Row]], table: Path, expected: str, *, files: bool = True
) -> Manifest:
    """List the images that are there, in order; the others are in `left_out`.

    Args:
        pairs: an image file, None where it is not there, and its row.
        table: that describes them, for messages.
        expected: where images should be, for messages.
        files: as in `PublishedSet.read`.

    Raises:
        DataError: none of the images is there, or a value cannot be what its column says.
    """
    placed = [(path or (None if files else table.parent / row["image_id"]), row) for path, row in pairs]
    mammograms = [
        mammogram_from_row(row, f"{table}, {path.name}", path, _LABELS.get(row["label"], _NO_LABEL))
        for path, row in placed
        if path is not None
    ]
    if not mammograms:
        raise DataError(f"{table}: none of the {len(pairs)} images it describes is there. Expected them as {expected}.")
    why = f"{table.name} describes it, and it is not there."
    missing = (LeftOut(Path(row["image_id"]), why) for path, row in placed if path is None)
    return Manifest(tuple(mammograms), tuple(missing))


def read_prepared_table(
    table: Path, columns: Iterable[str], words: Callable[[Row], Row], data_set: str, *, files: bool = True
) -> Manifest:
    """List the images that a prepared table names in its column path, which starts at its folder.

    Args:
        table: the CSV.
        columns: that it must have, path among them.
        words: what a row says, by `mammolens.data.manifest.COLUMNS`; image_id is told by path.
        data_set: its name, for messages.
        files: as in `PublishedSet.read`.

    Raises:
        DataError: the table is missing or wrong, or none of its images is there.
    """
    rows = read_table(table, columns, data_set)
    paths = [located(table.parent, row["path"]) for row in rows]
    pairs = [
        (
            path if not files or os.path.isfile(path) else None,  # noqa: PTH113
            {"image_id": Path(row["path"]).stem} | words(row),
        )
        for path, row in zip(paths, rows, strict=True)
    ]
    return joined_with_files(pairs, table, f"its column path says, such as {paths[0]}", files=files)


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
    odd = [LeftOut(path, "its name is no UTF-8. Rename it.") for path in listing.images if str(path) != _text(path)]
    left_out = [LeftOut(Path(_text(one.path)), one.why) for one in (*listing.left_out, *packed, *odd)]
    return replace(
        listing,
        images=tuple(path for path in listing.images if str(path) == _text(path)),
        archives=(),
        left_out=tuple(sorted(left_out, key=lambda one: one.path)),
    )


def _text(path: Path) -> str:
    """Return a path as text that can be written: what is no UTF-8 is told by its bytes."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def read_table(path: Path, columns: Iterable[str], data_set: str = "") -> list[Row]:
    """Read a CSV that has `columns`; names and values lose the white space around them.

    Raises:
        DataError: the file is missing, empty or ragged, or a column is missing.
    """
    rows = [{name.strip(): value.strip() for name, value in row.items()} for row in read_rows(path)]
    require_columns(columns, rows[0], path, data_set)
    return rows


def require_columns(columns: Iterable[str], row: Mapping[str, str], table: Path, data_set: str = "") -> None:
    """Refuse a table without `columns`; the message names the data set where its name is given.

    Raises:
        DataError: a column is missing.
    """
    if missing := [name for name in columns if name not in row]:
        raise DataError(
            f"{table}: column {' and '.join(missing)} missing; found {', '.join(row)}. "
            f"Use the table{data_set and f' of {data_set}'} as it was published."
        )


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
    return [left, top, right - left, bottom - top] if right > left and bottom > top else None
