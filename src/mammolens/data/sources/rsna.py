"""The RSNA Screening Mammography Breast Cancer Detection challenge (Kaggle, 2022).

    DATA/train.csv
    DATA/train_images/10006/462822612.dcm        as published, or as .png or .jpg
    DATA/train_images/10006_462822612.png        or flat, as most conversions are; or in DATA itself

``train.csv``: site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive,
BIRADS, implant, density, machine_id, difficult_negative_case. ``cancer`` is that of the breast,
proven by biopsy; BI-RADS and density are blank where the site did not give them.
https://www.kaggle.com/competitions/rsna-breast-cancer-detection/data
"""

from collections.abc import Iterator
from pathlib import Path

from mammolens.data.sources.published import Described, PublishedSet, read_table

_COLUMNS = ("patient_id", "image_id", "laterality", "view", "cancer")
_WHOLE_NUMBERS = ("age", "BIRADS")  # which the table writes as 61.0


def _described(root: Path) -> Iterator[Described]:
    for row in read_table(root / RSNA.table, _COLUMNS):
        metadata = {name: value for name, value in row.items() if name != "cancer"}
        whole = {name: row[name].removesuffix(".0") for name in _WHOLE_NUMBERS if name in row}
        yield [row["image_id"]], metadata | whole | {"label": row["cancer"]}


def _names(path: Path) -> list[str]:
    """Return the image's id; of what the challenge keeps its labels to itself, nothing."""
    return [] if path.parts[0] == "test_images" else [path.stem.rpartition("_")[2]]


RSNA = PublishedSet(
    table="train.csv",
    described=_described,
    names=_names,
    expected="train_images/<patient_id>/<image_id>.dcm, .png or .jpg, or <patient_id>_<image_id>.png",
)
"""Has no splits."""
