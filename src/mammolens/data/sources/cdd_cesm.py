"""CDD-CESM: contrast-enhanced examinations; their low-energy pictures are read, as plain mammograms look.

Either a prepared table, with boxes in pixels of the prepared 512 × 512 images:

    DATA/labels.csv      path, patient_id, laterality, view, malignant, birads, density, age, findings,
                         boxes_xywh_512
    DATA/P102_R_DM_CC.jpg  …

or as published at TCIA, with the sheet "all" of its workbook saved as CSV:

    DATA/Radiology-manual-annotations.csv    Image_name, Patient_ID, Side, View, Age, Breast density (ACR),
                                             BIRADS, Findings, Pathology Classification/ Follow up, Machine, …
    DATA/anywhere/P1_L_DM_MLO.jpg

Subtracted pictures (P1_L_CM_MLO.jpg) show contrast medium, are no mammograms, and left out with their
rows. Normal and Benign are labelled 0, Malignant 1. $ parts several findings; _ is unknown.

Boxes of the prepared table surround the published masks of whatever was found. Those over 8 % of the
picture are left out: they mark skin or the whole breast, or say too little of where. So are those
under 0.06 %: they are specks. An image may keep no box, and its label all the same. Published outlines
(Radiology_hand_drawn_segmentations_v2.csv) are not read.

R. Khaled et al., Categorized contrast enhanced mammography dataset for diagnostic and artificial
intelligence research, Scientific Data 9 (2022) 122, https://doi.org/10.1038/s41597-022-01238-0
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mammolens.data.manifest import Manifest
from mammolens.data.sources.published import Described, PublishedSet, Row, joined, read_prepared_table, read_table
from mammolens.records import Box

WORKBOOK = "Radiology-manual-annotations.xlsx"
"""As it is published; whoever reads it as a table is told to save it as CSV."""

_NAME = "CDD-CESM"
_PREPARED_COLUMNS = (
    *("path", "patient_id", "laterality", "view", "malignant"),
    *("birads", "density", "age", "findings", "boxes_xywh_512"),
)
_PATHOLOGY, _DENSITY = "Pathology Classification/ Follow up", "Breast density (ACR)"
_COLUMNS = ("Image_name", "Patient_ID", "Side", "View", "Age", _DENSITY, "BIRADS", "Findings", _PATHOLOGY)
_LABELS = {"normal": "0", "benign": "0", "malignant": "1"}
_PICTURE = 512 * 512  # pixels
_SMALLEST, _LARGEST = 0.0006, 0.08


def read_prepared(root: Path, *, files: bool = True) -> Manifest:
    """List the images that ``labels.csv`` in the folder `root` describes; there are no splits.

    Raises:
        DataError: the table is missing or wrong, or none of its images is there.
    """
    manifest = read_prepared_table(root / "labels.csv", _PREPARED_COLUMNS, _prepared_words, _NAME, files=files)
    mammograms = (replace(one, boxes=tuple(box for box in one.boxes if _tells_where(box))) for one in manifest)
    return replace(manifest, mammograms=tuple(mammograms))


def _tells_where(box: Box) -> bool:
    return _SMALLEST <= box.width * box.height / _PICTURE <= _LARGEST


def _prepared_words(row: Row) -> Row:
    return {
        "label": row["malignant"],
        "patient_id": row["patient_id"],
        "laterality": row["laterality"],
        "view": row["view"],
        "boxes": row["boxes_xywh_512"],
        "BIRADS": _several(row["birads"]),
        "density": row["density"],
        "age": row["age"],
        "findings": _several(row["findings"]),
    }


def _described(root: Path) -> Iterator[Described]:
    table = root / CDD_CESM.table
    for cells in read_table(table if table.exists() else root / WORKBOOK, _COLUMNS, _NAME):
        row = {name: "" if value == "_" else value for name, value in cells.items()}
        if not _subtracted(row["Image_name"]):
            yield (
                [row["Image_name"]],
                {
                    "label": _LABELS.get(row[_PATHOLOGY].lower(), ""),
                    "patient_id": row["Patient_ID"],
                    "image_id": row["Image_name"],
                    "laterality": row["Side"],
                    "view": row["View"],
                    "pathology": row[_PATHOLOGY],
                    "BIRADS": _several(row["BIRADS"]),
                    "density": row[_DENSITY],
                    "age": row["Age"].removesuffix(".0"),
                    "findings": _several(row["Findings"]),
                    "machine_id": row.get("Machine", ""),
                },
            )


def _subtracted(name: str) -> bool:
    return "_CM_" in name


def _several(cell: str) -> str:
    return joined(part.strip() for part in cell.split("$"))


CDD_CESM = PublishedSet(
    table="Radiology-manual-annotations.csv",
    described=_described,
    names=lambda path: [] if _subtracted(path.stem) else [path.stem.strip()],  # some names end in a space
    expected="P1_L_DM_MLO.jpg, in any folder",
)
"""Has no splits."""
