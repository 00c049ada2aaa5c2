"""The RSNA Screening Mammography Breast Cancer Detection challenge (Kaggle, 2022).

    DATA/train.csv
    DATA/train_images/10006/462822612.dcm        as published, or as .png or .jpg
    DATA/train_images/10006_462822612.png        or flat, as most conversions are; or in DATA itself

``train.csv``: site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive,
BIRADS, implant, density, machine_id, difficult_negative_case. ``cancer`` is that of the breast,
proven by biopsy; BI-RADS and density are blank where the site did not give them.
https://www.kaggle.com/competitions/rsna-breast-cancer-detection/data
"""

from pathlib import Path

from mammolens.data.manifest import Manifest
from mammolens.data.sources.published import images_by_key, join, read_table

_COLUMNS = ("patient_id", "image_id", "laterality", "view", "cancer")
_WHOLE_NUMBERS = ("age", "BIRADS")
_EXPECTED = "train_images/<patient_id>/<image_id>.dcm, .png or .jpg, or <patient_id>_<image_id>.png"


def read(root: Path, *, files: bool = True) -> Manifest:
    """List the images of ``train.csv`` that are below the folder `root`; there are no splits.

    Raises:
        DataError: the table is missing or wrong, or none of its images is there.
    """
    table = root / "train.csv"
    rows = [_in_our_words(row) for row in read_table(table, _COLUMNS)]
    images = images_by_key(root, _keys)
    pairs = ((images.get(row["image_id"]), row) for row in rows)
    return join(pairs, table, _EXPECTED, images, files=files)


def _keys(path: Path) -> list[str]:
    """Return the image's id; of what the challenge keeps its labels to itself, nothing."""
    return [] if path.parts[0] == "test_images" else [path.stem.rpartition("_")[2]]


def _in_our_words(row: dict[str, str]) -> dict[str, str]:
    """Rename `cancer`; the table writes ages and categories as 61.0."""
    kept = {name: value for name, value in row.items() if name != "cancer"}
    whole = {name: row[name].removesuffix(".0") for name in _WHOLE_NUMBERS if name in row}
    return kept | whole | {"label": row["cancer"]}
