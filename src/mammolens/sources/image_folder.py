"""Images somewhere below a folder, joined with the rows of the table that describes them.

What the sources of published data sets share. Knows none of their column names.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mammolens.dicom import DICOM_SUFFIXES
from mammolens.errors import DataError
from mammolens.manifest import Manifest, mammogram_from_row, read_rows
from mammolens.reading import IMAGE_SUFFIXES

_LABELS: dict[str, int | None] = {"": None, "0": 0, "1": 1}
_NO_LABEL = -1  # refused by Mammogram, with the name of the field


def read_table(path: Path, columns: Iterable[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Read a CSV that has `columns`; names and values lose the white space around them.

    Raises:
        DataError: the file is missing, empty or ragged, or a column is missing.
    """
    rows = [
        {name.strip(): value.strip() for name, value in row.items()}
        for row in read_rows(path, delimiter)
    ]
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


def images_by_key(root: Path, keys: Callable[[Path], Iterable[str]]) -> dict[str, Path]:
    """Return the image files below `root` by what `keys` makes of each relative path.

    Where several files have a key in common, a raster file goes before a DICOM file, then the
    first by path. Hidden files are no images.
    """
    found = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    images: dict[str, Path] = {}
    for path in sorted(found, key=lambda path: (path.suffix.lower() in DICOM_SUFFIXES, path)):
        for key in keys(path.relative_to(root)):
            images.setdefault(key, path)
    return images


def join(
    pairs: Iterable[tuple[Path | None, Mapping[str, str]]], origin: Path, expected: str
) -> Manifest:
    """List the described images that are there, in order.

    Args:
        pairs: an image file, None where it is not there, and its row in the words of
            `mammolens.manifest.COLUMNS`; ``label`` is 0, 1 or empty, other names are metadata.
        origin: the table, for messages.
        expected: where images should be, for messages.

    Raises:
        DataError: none of the images is there, or a value cannot be what its column says.
    """
    described = list(pairs)
    mammograms = [
        mammogram_from_row(
            row, f"{origin}, {path.name}", path, _LABELS.get(row["label"], _NO_LABEL)
        )
        for path, row in described
        if path is not None
    ]
    if not mammograms:
        raise DataError(
            f"{origin}: none of the {len(described)} images it describes is there. "
            f"Expected them as {expected}."
        )
    return Manifest(tuple(mammograms))


def refuse_positive(positive: str | None, origin: Path) -> None:
    """Refuse a choice of class where the data set itself says which images show a tumor.

    Raises:
        DataError: a class was chosen.
    """
    if positive is not None:
        raise DataError(
            f"{origin}: this data set defines which images show a tumor; "
            f"leave out --positive {positive}."
        )


def joined(values: Iterable[str]) -> str:
    """Return what is known of several lesions as one cell: each value once, in order."""
    return "|".join(dict.fromkeys(value for value in values if value))


def box_inside(
    corners: tuple[float, float, float, float], width: float, height: float
) -> list[float] | None:
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
