"""VinDr-Mammo: 5,000 four-view exams of full-field digital mammography from Hanoi.

    DATA/breast-level_annotations.csv
    DATA/finding_annotations.csv                    boxes; may be missing
    DATA/metadata.csv                               DICOM tags; may be missing
    DATA/images/<study_id>/<image_id>.dicom         or .dcm, .png, .jpg; any folder

``breast-level_annotations.csv``: study_id, series_id, laterality, view_position, height, width,
image_id, breast_birads ("BI-RADS 1"), breast_density ("DENSITY C"), split (training, test).
``finding_annotations.csv`` adds finding_categories ("['Mass']"), finding_birads, xmin, ymin, xmax
and ymax in pixels, blank where there is no finding. ``metadata.csv`` is joined by its SOP Instance
UID, which is the image_id.

There is no pathology: breast BI-RADS 4 and 5 are labelled 1, 1 and 2 are labelled 0, 3 has no
label. The data set does not say which exams are of the same woman: each exam is a patient.

H. T. Nguyen et al., VinDr-Mammo: a large-scale benchmark dataset for computer-aided diagnosis in
full-field digital mammography, Scientific Data 10 (2023) 277,
https://doi.org/10.1038/s41597-023-02100-7; https://doi.org/10.13026/br2v-7517
"""

import json
import re
from collections import defaultdict
from pathlib import Path

from mammolens.data.manifest import Manifest
from mammolens.data.sources.published import (
    box_inside,
    images_by_key,
    join,
    joined,
    read_table,
)
from mammolens.errors import DataError
from mammolens.records import Split

LABEL_BY_BIRADS = {"1": "0", "2": "0", "4": "1", "5": "1"}
"""Categories of the breast that decide; all others leave the label unknown."""

_SPLITS = {"training": Split.TRAIN, "test": Split.TEST}
_COLUMNS = (
    *("study_id", "laterality", "view_position", "image_id"),
    *("breast_birads", "breast_density", "split"),
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FINDING_COLUMNS = (
    *("image_id", "height", "width", "finding_categories", "finding_birads"),
    *_CORNERS,
)
_UID, _AGE, _MODEL = "SOP Instance UID", "Patient's Age", "Manufacturer's Model Name"
_YEARS = re.compile(r"0*([1-9]\d*)Y?")  # DICOM's age string, such as 053Y; 000Y is no age
_QUOTED = re.compile(r"""['"](.+?)['"]""")


def read(root: Path, *, files: bool = True) -> Manifest:
    """List the annotated images that are below the folder `root`, split as they came.

    Raises:
        DataError: a table is missing or wrong, none of the images is there.
    """
    table = root / "breast-level_annotations.csv"
    rows = [_in_our_words(row) for row in read_table(table, _COLUMNS)]
    findings = _findings(root / "finding_annotations.csv")
    tags = _tags(root / "metadata.csv")
    images = images_by_key(root, lambda path: [path.stem])
    pairs = (
        (images.get(key), row | findings.get(key, {}) | tags.get(key, {}))
        for key, row in ((row["image_id"], row) for row in rows)
    )
    expected = "images/<study_id>/<image_id>.dicom, .dcm, .png or .jpg"
    return join(pairs, table, expected, images, files=files)


def _in_our_words(row: dict[str, str]) -> dict[str, str]:
    birads = _category(row["breast_birads"])
    return {
        "label": LABEL_BY_BIRADS.get(birads, ""),
        "split": _SPLITS.get(row["split"], row["split"]),
        "patient_id": row["study_id"],
        "image_id": row["image_id"],
        "laterality": row["laterality"],
        "view": row["view_position"],
        "BIRADS": birads,
        "density": _category(row["breast_density"]),
    }


def _category(text: str) -> str:
    """Return the 4 of "BI-RADS 4", the C of "DENSITY C"."""
    return text.rpartition(" ")[2]


def _findings(table: Path) -> dict[str, dict[str, str]]:
    """Return boxes and what they are by image; none where the table is missing."""
    if not table.exists():
        return {}
    by_image: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_table(table, _FINDING_COLUMNS):
        if any(row[name] for name in _CORNERS):
            by_image[row["image_id"]].append(row)
    return {image_id: _marked(rows, table) for image_id, rows in by_image.items()}


def _marked(rows: list[dict[str, str]], table: Path) -> dict[str, str]:
    boxes = [box for row in rows if (box := _box(row, table))]
    kinds = [kind for row in rows for kind in _QUOTED.findall(row["finding_categories"])]
    birads = [_category(row["finding_birads"]) for row in rows]
    return {
        "boxes": json.dumps(boxes),
        "findings": joined(kinds),
        "finding_birads": joined(birads),
    }


def _box(row: dict[str, str], table: Path) -> list[float] | None:
    try:
        left, top, right, bottom = (float(row[name]) for name in _CORNERS)
        return box_inside((left, top, right, bottom), float(row["width"]), float(row["height"]))
    except ValueError as error:
        raise DataError(
            f"{table}, image {row['image_id']}: {error}. Expected xmin, ymin, xmax, ymax, width "
            "and height in pixels, or no box at all."
        ) from error


def _tags(table: Path) -> dict[str, dict[str, str]]:
    """Return age and machine by image; none where the table is missing."""
    if not table.exists():
        return {}
    tags = {}
    for row in read_table(table, (_UID,)):
        years = _YEARS.fullmatch(row.get(_AGE, ""))
        age = years[1] if years else ""
        tags[row[_UID]] = {"age": age, "machine_id": row.get(_MODEL, "")}
    return tags
