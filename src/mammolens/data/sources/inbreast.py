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
from pathlib import Path

from mammolens.data.manifest import Manifest
from mammolens.data.sources.published import images_by_key, join, read_table

LABEL_BY_BIRADS = {"1": "0", "2": "0"} | dict.fromkeys(("4", "4a", "4b", "4c", "5", "6"), "1")
"""Categories that decide; all others leave the label unknown."""

_COLUMNS = ("Laterality", "View", "File Name", "ACR", "Bi-Rads")
_NAME = re.compile(
    r"(?P<image_id>\d+)"
    r"(?:_(?P<patient_id>[^_]+)(?:_[^_]+)*_(?P<laterality>[LR])_(?P<view>[A-Z]+)_ANON)?"
)
_REMOVED = "removed"


def read(root: Path, *, files: bool = True) -> Manifest:
    """List the images of ``INbreast.csv`` that are below the folder `root`; there are no splits.

    Raises:
        DataError: the table is missing or wrong, or none of its images is there.
    """
    table = root / "INbreast.csv"
    rows = read_table(table, _COLUMNS)
    images = images_by_key(root, lambda path: [_pieces(path)["image_id"]])
    paths = [images.get(row["File Name"]) for row in rows]
    pairs = ((path, _in_our_words(row, path)) for path, row in zip(paths, rows, strict=True))
    expected = "20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm, .png, .jpg or .tif"
    return join(pairs, table, expected, images, files=files)


def _pieces(path: Path) -> dict[str, str]:
    """Return what a file name says; all empty where it is no image of the data set."""
    match = _NAME.fullmatch(path.stem)
    return match.groupdict(default="") if match else dict.fromkeys(_NAME.groupindex, "")


def _in_our_words(row: dict[str, str], path: Path | None) -> dict[str, str]:
    known = {name: value for name, value in row.items() if value and value != _REMOVED}
    named = _pieces(path) if path else {}
    view = known.get("View") or named.get("view", "")
    return {
        "label": LABEL_BY_BIRADS.get(row["Bi-Rads"].lower(), ""),
        "patient_id": named.get("patient_id", ""),
        "image_id": row["File Name"],
        "laterality": known.get("Laterality") or named.get("laterality", ""),
        "view": "MLO" if view == "ML" else view,
        "BIRADS": known.get("Bi-Rads", ""),
        "density": known.get("ACR", ""),
        "age": known.get("Patient age", ""),
        "acquisition_date": known.get("Acquisition date", ""),
    }
