"""INbreast: 410 full-field digital mammograms of 115 cases.

    DATA/INbreast.csv
    DATA/AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm    or .png, .jpg, .tif; any folder

``INbreast.csv``: Patient ID, Patient age, Laterality, View, Acquisition date, File Name, ACR,
Bi-Rads. Ids and ages are "removed", so the patient is the second piece of the file name, as the
README of the data set says. Views are CC and MLO; file names write ML where the table has MLO for
the same image, so ML is read as MLO. One image has the view FB: unknown, kept in the metadata.

The table has no pathology: BI-RADS 4a to 6 are labelled 1, 1 and 2 are labelled 0, 3 and blanks
have no label. ACR is the density, 1 to 4.

I. C. Moreira et al., INbreast: toward a full-field digital mammographic database, Academic
Radiology 19 (2012) 236-248, https://doi.org/10.1016/j.acra.2011.09.014
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mammolens.data.sources.published import LABEL_BY_BIRADS, Described, PublishedSet, Row, read_table

_COLUMNS = ("Laterality", "View", "File Name", "ACR", "Bi-Rads")
_NAME = re.compile(
    r"(?P<image_id>\d+)"
    r"(?:_(?P<patient_id>[^_]+)(?:_[^_]+)*_(?P<laterality>[LR])_(?P<view>[A-Z]+)_ANON)?"
)
_VIEWS = {"ML": "MLO"}


def _described(root: Path) -> Iterator[Described]:
    for cells in read_table(root / INBREAST.table, _COLUMNS):
        row = {name: "" if value == "removed" else value for name, value in cells.items()}
        yield (
            [row["File Name"]],
            {
                "label": LABEL_BY_BIRADS.get(row["Bi-Rads"].lower(), ""),
                "image_id": row["File Name"],
                "laterality": row["Laterality"],
                "view": _VIEWS.get(row["View"], row["View"]),
                "BIRADS": row["Bi-Rads"],
                "density": row["ACR"],
                "age": row.get("Patient age", ""),
                "acquisition_date": row.get("Acquisition date", ""),
            },
        )


def _told_by_name(path: Path) -> Row:
    """Return what a file name says; nothing where it is no image of the data set."""
    match = _NAME.fullmatch(path.stem)
    told = match.groupdict(default="") if match else {}
    return {name: _VIEWS.get(value, value) for name, value in told.items()}


INBREAST = PublishedSet(
    table="INbreast.csv",
    described=_described,
    names=lambda path: [_told_by_name(path).get("image_id", path.stem)],
    expected="20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm, .png, .jpg or .tif",
    told_by_name=_told_by_name,
)
"""Has no splits."""
