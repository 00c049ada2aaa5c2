"""The layout of Kaggle sets: split folders (or none), in each a folder for each class.

    DATA/train/0/*.jpg  DATA/train/1/*.jpg  DATA/valid/0/…  DATA/test/1/…  DATA/metadata.csv

File names in the style of the RSNA Screening Mammography challenge (``<patient>_<image>….png``)
give patient and image ids; ``metadata.csv`` in the same style is joined on them.
"""

import re
from pathlib import Path

from mammolens.errors import DataError
from mammolens.manifest import Manifest, labels_by_name, mammogram_from_row, read_rows
from mammolens.reading import IMAGE_SUFFIXES
from mammolens.records import Split

SPLIT_FOLDERS = {
    "train": Split.TRAIN,
    "valid": Split.VALID,
    "val": Split.VALID,
    "validation": Split.VALID,
    "test": Split.TEST,
}

_RSNA_NAME = re.compile(r"(?P<patient_id>\d+)_(?P<image_id>\d+)(?:_png\.rf\.[0-9a-f]+)?")


def read(data: str, positive: str | None = None) -> Manifest:
    """List the images below the folder `data`, sorted by path.

    Raises:
        DataError: no class folders or no images are there, or which class means tumor is unclear.
    """
    root = Path(data)
    found = list(_class_folders(root))
    labels = labels_by_name({folder.name for _, folder in found}, positive, root)
    metadata = _read_metadata(root / "metadata.csv")
    mammograms = []
    for split, folder in found:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                row = _ids_from_name(path) | ({"split": split} if split else {})
                row = metadata.get(row.get("image_id", ""), {}) | row
                label = labels[folder.name]
                mammograms.append(mammogram_from_row(row, str(path), path, label))
    if not mammograms:
        raise DataError(f"{root}: its class folders hold no images.")
    return Manifest(tuple(mammograms))


def _class_folders(root: Path) -> list[tuple[Split | None, Path]]:
    """Return (split, class folder) pairs, in the order of splits and names."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    folders = _folders(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    found: list[tuple[Split | None, Path]] = [
        (SPLIT_FOLDERS[folder.name.lower()], inner)
        for folder in splits
        for inner in _folders(folder)
    ]
    if not splits:
        found = [(None, folder) for folder in folders]
    if not found:
        raise DataError(
            f"{root}: no class folders. Expected train/, valid/, test/ with a folder for each "
            "class in each, or the class folders alone."
        )
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _ids_from_name(path: Path) -> dict[str, str]:
    match = _RSNA_NAME.fullmatch(path.stem)
    return match.groupdict() if match else {}


def _read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Return rows by image id; none where the file is missing."""
    if not path.exists():
        return {}
    rows = read_rows(path)
    if "image_id" not in rows[0]:
        raise DataError(f"{path}: column image_id missing; found {', '.join(rows[0])}.")
    return {row["image_id"]: row for row in rows}
