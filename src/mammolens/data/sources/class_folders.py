"""The layout of Kaggle sets: split folders (or none), in each a folder for each class.

    DATA/train/0/*.jpg  DATA/train/1/*.jpg  DATA/valid/0/…  DATA/test/1/…  DATA/metadata.csv

Images may lie in folders below their class. What classes and splits are called is told by
`mammolens.data.meanings`. File names in the style of the RSNA Screening Mammography challenge
(``<patient>_<image>….png``) give patient and image ids; ``metadata.csv`` in the same style is
joined on them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from mammolens.data.csv_table import read_rows
from mammolens.data.manifest import Manifest, mammogram_from_row
from mammolens.data.meanings import label_named, labels_by_name, split_named
from mammolens.data.sources.published import list_data_set
from mammolens.errors import DataError
from mammolens.images.listing import LeftOut, Listing
from mammolens.records import Split

_RSNA_NAME = re.compile(r"(?P<patient_id>\d+)_(?P<image_id>\d+)(?:_png\.rf\.[0-9a-f]+)?")
_EXPECTED = "Expected train/, valid/, test/ with a folder for each class in each, or the class folders alone."


_Placed = tuple[Path, Split | None, str]
"""An image in a class folder: its split and class."""


def read(root: Path, positive: str | None = None) -> Manifest:
    """List the images below the class folders of `root`, sorted by path.

    Raises:
        DataError: no class folders or no images are there, or which class means tumor is unclear.
    """
    listing = list_data_set(root)
    placed, unplaced = _placed(root, listing)
    left_out = (*listing.left_out, *unplaced)
    if not placed:
        raise DataError(f"{root}: {_nothing(root, listing, left_out)} {_EXPECTED}")
    names = {name for _, _, name in placed}
    if positive is None and len(names) == 1 and label_named(only := min(names)) is None:
        raise DataError(
            f"{root}: which of the classes {only} means tumor? All images lie below it: name the "
            "folder that holds the class folders, or say --positive NAME (mammolens manifest DATA "
            "OUT.csv --positive NAME)."
        )
    labels = labels_by_name(names, positive, root)
    metadata = _read_metadata(root / "metadata.csv")
    mammograms = []
    for path, split, name in placed:
        ids = _RSNA_NAME.fullmatch(path.stem)
        told = (ids.groupdict() if ids else {}) | ({"split": split} if split else {})
        row = metadata.get(told.get("image_id", ""), {}) | told
        mammograms.append(mammogram_from_row(row, str(path), path, labels[name]))
    return Manifest(tuple(mammograms), left_out)


def _placed(root: Path, listing: Listing) -> tuple[list[_Placed], list[LeftOut]]:
    """Tell images in class folders from others: in split folders, if any is there."""
    below = [(path, path.relative_to(root).parts) for path in listing.images]
    split = any(len(parts) > 2 and split_named(parts[0]) for _, parts in below)  # noqa: PLR2004
    placed: list[_Placed] = []
    unplaced = []
    for path, parts in below:
        named = split_named(parts[0])
        if split and named and len(parts) > 2:  # noqa: PLR2004 - split, class, file
            placed.append((path, named, parts[1]))
        elif not split and not named and len(parts) > 1:
            placed.append((path, None, parts[0]))
        else:
            unplaced.append(LeftOut(path, f"lies in no class folder{' of a split' * split}."))
    return placed, unplaced


def _nothing(root: Path, listing: Listing, left_out: Sequence[LeftOut]) -> str:
    """Say what is there instead of class folders with images."""
    if left_out:
        count = f"{len(left_out)} files were left out, such as " if len(left_out) > 1 else ""
        return f"no class folders with images; {count}{left_out[0]}"
    if any(path.is_dir() for path in root.iterdir()):
        return f"its class folders hold no images: {listing.contents()}."
    return f"no class folders: {listing.contents()}."


def _read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Return rows by image id; none where the file is missing."""
    if not path.exists():
        return {}
    rows = read_rows(path)
    if "image_id" not in rows[0]:
        raise DataError(f"{path}: column image_id missing; found {', '.join(rows[0])}.")
    return {row["image_id"]: row for row in rows}
