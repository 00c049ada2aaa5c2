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
from collections.abc import Iterator
from pathlib import Path

from mammolens.data.sources.published import (
    LABEL_BY_BIRADS,
    Described,
    PublishedSet,
    Row,
    box_inside,
    joined,
    read_table,
)
from mammolens.errors import DataError
from mammolens.records import Split

_SPLITS = {"training": Split.TRAIN, "test": Split.TEST}
_COLUMNS = ("study_id", "laterality", "view_position", "image_id", "breast_birads", "breast_density", "split")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FINDING_COLUMNS = ("image_id", "height", "width", "finding_categories", "finding_birads", *_CORNERS)
_UID, _AGE, _MODEL = "SOP Instance UID", "Patient's Age", "Manufacturer's Model Name"
_YEARS = re.compile(r"0*([1-9]\d*)Y?")  # DICOM's age string, such as 053Y; 000Y is no age
_QUOTED = re.compile(r"""['"](.+?)['"]""")


def _described(root: Path) -> Iterator[Described]:
    rows = read_table(root / VINDR_MAMMO.table, _COLUMNS)
    findings = _findings(root / "finding_annotations.csv")
    tags = _tags(root / "metadata.csv")
    for row in rows:
        image_id, birads = row["image_id"], _category(row["breast_birads"])
        breast = {
            "label": LABEL_BY_BIRADS.get(birads, ""),
            "split": _SPLITS.get(row["split"], row["split"]),
            "patient_id": row["study_id"],
            "image_id": image_id,
            "laterality": row["laterality"],
            "view": row["view_position"],
            "BIRADS": birads,
            "density": _category(row["breast_density"]),
        }
        yield [image_id], breast | findings.get(image_id, {}) | tags.get(image_id, {})


def _category(text: str) -> str:
    """Return the 4 of "BI-RADS 4", the C of "DENSITY C"."""
    return text.rpartition(" ")[2]


def _findings(table: Path) -> dict[str, Row]:
    """Return boxes and what they are by image; none where the table is missing."""
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(table, _FINDING_COLUMNS) if table.exists() else []:
        if any(row[name] for name in _CORNERS):
            by_image[row["image_id"]].append(row)
    return {
        image_id: {
            "boxes": json.dumps([box for row in rows if (box := _box(row, table))]),
            "findings": joined(kind for row in rows for kind in _QUOTED.findall(row["finding_categories"])),
            "finding_birads": joined(_category(row["finding_birads"]) for row in rows),
        }
        for image_id, rows in by_image.items()
    }


def _box(row: Row, table: Path) -> list[float] | None:
    try:
        left, top, right, bottom = (float(row[name]) for name in _CORNERS)
        return box_inside((left, top, right, bottom), float(row["width"]), float(row["height"]))
    except ValueError as error:
        raise DataError(
            f"{table}, image {row['image_id']}: {error}. Expected xmin, ymin, xmax, ymax, width "
            "and height in pixels, or no box at all."
        ) from error


def _tags(table: Path) -> dict[str, Row]:
    """Return age and machine by image; none where the table is missing."""
    tags = {}
    for row in read_table(table, (_UID,)) if table.exists() else []:
        years = _YEARS.fullmatch(row.get(_AGE, ""))
        tags[row[_UID]] = {"age": years[1] if years else "", "machine_id": row.get(_MODEL, "")}
    return tags


VINDR_MAMMO = PublishedSet(
    table="breast-level_annotations.csv",
    described=_described,
    names=lambda path: [path.stem],
    expected="images/<study_id>/<image_id>.dicom, .dcm, .png or .jpg",
)
"""Split as it came."""
