"""Synthetic patients on disk, in the Kaggle layout with a ``metadata.csv``: no download."""

import csv
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as Pillow

from mammolens.data.manifest import Manifest
from mammolens.data.sources import class_folders
from mammolens.data.splits import split_by_patient
from mammolens.files import cache_folder, folder_written_whole
from mammolens.parallel import map_in_order, tracked
from mammolens.phantoms.drawing import VIEWS, Breast, Patient, draw_patient, draw_view
from mammolens.records import Mammogram, View
from mammolens.workers.crew import apart

VERSION = 2
"""Raised whenever the same seed would draw other images or rows."""

INVERTED_SHARE = 0.15
"""Share of patients whose images have a white background, as on one machine in seven."""

_PREFIX = "phantom"
_DEFAULT_PATIENTS = 100
_QUALITY = 92


@dataclass(frozen=True)
class _Exposure:
    """One image to draw and where it goes."""

    patient: Patient
    breast: Breast
    view: View
    inverted: bool
    image_id: str
    path: Path

    @property
    def label(self) -> Literal[0, 1]:
        return 0 if self.breast.lesion is None else 1


def is_request(data: str) -> bool:
    """Tell whether `data` asks for phantoms: ``phantom`` or ``phantom:200``."""
    name, _, count = data.partition(":")
    return name == _PREFIX and (not count or (count.isdecimal() and int(count) > 0))


def read(data: str) -> Manifest:
    """Return the images of a request such as ``phantom:200``, drawn once and kept in the cache folder."""
    patients = int(data.partition(":")[2] or _DEFAULT_PATIENTS)
    folder = cache_folder() / f"phantoms-{VERSION}-{patients}"
    if not folder.exists():
        write_phantoms(folder, patients)
    return class_folders.read(folder)


def write_phantoms(out: Path, patients: int, *, size: int = 640, seed: int = 0, progress: bool = False) -> Manifest:
    """Draw `patients` × 4 images into the new folder `out`, all of them or none.

    Raises:
        DataError: `out` exists already, or there are too few patients for three splits.
    """
    with folder_written_whole(out) as temporary:
        exposures = _planned(patients, seed)
        drawn = map_in_order(partial(apart, _drawn, size=size), exposures)
        rows = []
        for exposure, (picture, row) in zip(
            exposures, tracked(drawn, "Drawing phantoms", len(exposures), visible=progress), strict=True
        ):
            path = temporary / exposure.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
            rows.append(row)
        with (temporary / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return class_folders.read(out)


def _planned(patients: int, seed: int) -> list[_Exposure]:
    """Return every image with its final path, split by patient."""
    exposures = {}
    for number in range(patients):
        patient = draw_patient(number, seed, tumor_share=float(_has_tumor(number, seed)))
        generator = np.random.default_rng([seed, number, 2])
        inverted = bool(generator.random() < INVERTED_SHARE)
        suffixes = generator.permutation(90) + 10
        for (breast, view), suffix in zip(product((patient.left, patient.right), VIEWS), suffixes, strict=False):
            image_id = f"{number + 1000}{suffix}"
            path = Path(f"{patient.patient_id}_{image_id}.jpg")
            exposures[path] = _Exposure(patient, breast, view, inverted, image_id, path)
    rows = (Mammogram(path=e.path, label=e.label, patient_id=e.patient.patient_id) for e in exposures.values())
    divided = split_by_patient(Manifest(tuple(rows)), seed=seed)
    return [replace(exposures[m.path], path=Path(m.split or "", str(m.label), m.path)) for m in divided]


def _has_tumor(number: int, seed: int) -> bool:
    """Two patients of every five, so that small sets have enough of each kind to be split."""
    block, place = divmod(number, 5)
    return bool(np.random.default_rng([seed, block, 1]).permutation(5)[place] < 2)  # noqa: PLR2004


def _drawn(exposure: _Exposure, size: int) -> tuple[bytes, dict[str, str]]:
    """Return one image as a JPEG file, and its row of the metadata."""
    phantom = draw_view(exposure.breast, exposure.view, size=size, inverted=exposure.inverted)
    picture = BytesIO()
    Pillow.fromarray(phantom.pixels).save(picture, "JPEG", quality=_QUALITY)
    lesion = exposure.breast.lesion
    boxes = [[box.x, box.y, box.width, box.height] for box in phantom.boxes]
    row = {
        "patient_id": exposure.patient.patient_id,
        "image_id": exposure.image_id,
        "laterality": exposure.breast.laterality,
        "view": exposure.view,
        "age": str(exposure.patient.age),
        "cancer": str(exposure.label),
        "density": exposure.breast.density,
        "lesion": lesion.kind if lesion else "",
        "inverted": str(int(exposure.inverted)),
        "boxes": str(boxes) if boxes else "",
        "synthetic": "1",
    }
    return picture.getvalue(), row
