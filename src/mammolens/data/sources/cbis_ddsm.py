"""CBIS-DDSM: digitised films with proven masses and calcifications; no normal films.

Either a prepared table, with boxes in pixels of the prepared 800 × 800 images:

    DATA/labels.csv      path, split, patient_id, laterality, view, malignant, pathologies,
                         assessments, density, boxes_xywh_800
    DATA/train/00001_LEFT_CC.jpg  …

or any of the four official tables, and images found by a piece of their "image file path" (a
folder of that name) or named after the case:

    DATA/mass_case_description_train_set.csv    …_test_set.csv, calc_case_description_…
    DATA/Mass-Training_P_00001_LEFT_CC/<uid>/<uid>/000000.dcm    or …/<uid>/1-1.jpg
    DATA/anywhere/Mass-Training_P_00001_LEFT_CC.png

Cut-outs and masks (Mass-Training_P_00001_LEFT_CC_1…) are no mammograms and left out.

A row is an abnormality; BENIGN_WITHOUT_CALLBACK is benign. 71 films are published twice, for
their masses and for their calcifications: both copies get what either table says. The mass and the
calcification sets were split apart from each other, so that 31 women are in the training set of
one and the test set of the other: split by patient where both are used.

R. S. Lee et al., A curated mammography data set for use in computer-aided detection and diagnosis
research, Scientific Data 4 (2017) 170177, https://doi.org/10.1038/sdata.2017.177
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from mammolens.data.manifest import Manifest
from mammolens.data.sources.published import (
    Described,
    PublishedSet,
    Row,
    joined,
    read_prepared_table,
    read_table,
    require_columns,
)
from mammolens.errors import DataError
from mammolens.records import Split

TABLES = "*_case_description_*_set.csv"
"""Names of the official tables."""

_PREPARED_COLUMNS = (
    *("path", "split", "patient_id", "laterality", "view", "malignant"),
    *("pathologies", "assessments", "density", "boxes_xywh_800"),
)
_OFFICIAL_COLUMNS = (
    *("patient id", "breast density", "left or right breast", "image view"),
    *("abnormality type", "assessment", "pathology", "image file path"),
)
_BENIGN = {"BENIGN", "BENIGN_WITHOUT_CALLBACK"}
_CASE = re.compile(r"((?:Mass|Calc)-(?:Training|Test)_P_\d+_(?:LEFT|RIGHT)_(?:CC|MLO))(.*)")
_LESION_NUMBER = re.compile(r"_[1-9]\d?(?!\d)")
_CUT_OUT = re.compile(r"(?<![a-z])(?:crop|mask|roi)", re.IGNORECASE)


def read(root: Path, *, files: bool = True) -> Manifest:
    """List the described films that are below the folder `root`, split as they came.

    Raises:
        DataError: no table is there, it is wrong, or none of its images is there.
    """
    prepared = root / "labels.csv"
    if prepared.exists():
        return read_prepared_table(prepared, _PREPARED_COLUMNS, _prepared_words, "CBIS-DDSM", files=files)
    return _OFFICIAL.read(root, files=files)


def _prepared_words(row: Row) -> Row:
    return {
        "label": row["malignant"],
        "split": row["split"],
        "patient_id": row["patient_id"],
        "laterality": row["laterality"],
        "view": row["view"],
        "boxes": row["boxes_xywh_800"],
        "pathology": joined(row["pathologies"].split("|")),
        "BIRADS": joined(row["assessments"].split("|")),
        "density": _density(row["density"]),
    }


def _described(root: Path) -> Iterator[Described]:
    """Describe each image by its own row and by all abnormalities of the film."""
    films: dict[str, list[Row]] = defaultdict(list)
    images: dict[str, Row] = {}
    for row in _abnormalities(root):
        films[row["film"]].append(row)
        images.setdefault(row["image file path"], row)
    for file_path, row in images.items():
        abnormalities = films[row["film"]]
        folders = file_path.split("/")[:-1]
        words = {
            "label": _label({one["pathology"] for one in abnormalities}),
            "split": row["split"],
            "patient_id": row["patient id"],
            "image_id": file_path.partition("/")[0],
            "laterality": row["left or right breast"],
            "view": row["image view"],
            "pathology": joined(one["pathology"] for one in abnormalities),
            "BIRADS": joined(one["assessment"] for one in abnormalities),
            "density": _density(row["breast density"]),
            "abnormality": joined(one["abnormality type"] for one in abnormalities),
        }
        yield folders, words


def _abnormalities(root: Path) -> Iterator[Row]:
    """Yield rows of all tables with names in one spelling, the split and the film's name."""
    tables = sorted(root.glob(TABLES))
    if not tables:
        raise DataError(
            f"{root}: neither labels.csv nor mass_ or calc_case_description_train_set.csv or "
            "_test_set.csv is there. Put the official tables beside the images."
        )
    for table in tables:
        split = Split.TEST if "_test_" in table.name else Split.TRAIN
        for row in read_table(table, ()):
            named = {name.replace("_", " "): value for name, value in row.items()}
            require_columns(_OFFICIAL_COLUMNS, named, table)
            film = f"{named['patient id']}_{named['left or right breast']}_{named['image view']}"
            yield named | {"split": split, "film": film}


def _label(pathologies: set[str]) -> str:
    if "MALIGNANT" in pathologies:
        return "1"
    return "0" if pathologies <= _BENIGN else ""


def _density(category: str) -> str:
    """Return 1 to 4; two calcification cases have the category 0, which does not exist."""
    return "" if category == "0" else category


def _names(path: Path) -> list[str]:
    """Return the names by which an image file may be found: its case, and its folders."""
    case = _CASE.match(path.stem)
    if _CUT_OUT.search(str(path)) or (case and _LESION_NUMBER.match(case[2])):
        return []
    return [*([case[1]] if case else []), *path.parts[:-1]]


_OFFICIAL = PublishedSet(
    table=TABLES,
    described=_described,
    names=_names,
    expected="Mass-Training_P_00001_LEFT_CC.png or .jpg, or in a folder of that name",
)
