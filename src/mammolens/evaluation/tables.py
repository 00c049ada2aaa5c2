"""Judged answers as a table that can be judged, and compared, again; other systems' scores."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammolens.csv_table import read_rows
from mammolens.errors import DataError
from mammolens.files import written_whole
from mammolens.manifest import Manifest
from mammolens.records import Laterality, Mammogram, Prediction, Split, View

PREDICTIONS = "predictions.parquet"
"""Of a report's folder: one row a judged image."""

_TEXT = ("patient_id", "laterality", "view", "split", "error")


def write_predictions(predictions: Sequence[Prediction], manifest: Manifest, folder: Path) -> None:
    """Write what is known of each image of `manifest` that was answered for, as Parquet.

    Columns: path, label (0, 1 or missing), patient_id, laterality, view, split, probability,
    warnings, error. What an operating point decides is in the report, with its threshold.
    """
    known = {mammogram.path: mammogram for mammogram in manifest}
    rows = [_row(known[one.path], one) for one in predictions if one.path in known]
    table = pd.DataFrame(rows).astype(dict.fromkeys(_TEXT, "string"))
    with written_whole(folder / PREDICTIONS) as temporary:
        table.astype({"label": "Int8"}).to_parquet(temporary, index=False)


def read_predictions(folder: Path) -> tuple[Manifest, NDArray[np.float64]]:
    """Return the labelled and answered images of a report's folder, and their probabilities.

    Raises:
        DataError: the folder holds no such table.
    """
    path = folder / PREDICTIONS
    try:
        table = pd.read_parquet(path)
        chosen = table[table["label"].notna() & table["probability"].notna()]
        mammograms = tuple(_mammogram(row) for row in chosen.to_dict("records"))
        return Manifest(mammograms), chosen["probability"].to_numpy(np.float64)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder}: holds no {PREDICTIONS}. Name the folder that mammolens evaluate wrote."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a table that mammolens wrote ({error}).") from error


def scores_from(path: Path, manifest: Manifest) -> list[Prediction]:
    """Read any system's scores: a CSV with the columns ``path`` and ``probability``.

    A path is that of the manifest, one from the CSV's folder, or a file name that stands there
    once. Rows of other images are passed over; an empty probability is an image without answer.

    Returns:
        A prediction for each image of `manifest`, decided by nothing yet; one without a row is one
        without answer.

    Raises:
        DataError: a column is missing, a probability is not a number in [0, 1], an image has two
            rows, or no row is of an image of `manifest`.
    """
    rows = read_rows(path)
    if missing := {"path", "probability"} - rows[0].keys():
        raise DataError(
            f"{path}: column {' and '.join(sorted(missing))} missing; found {', '.join(rows[0])}. "
            "A table of scores needs path and probability."
        )
    places = _places(manifest)
    found: dict[Path, Prediction] = {}
    for line, row in enumerate(rows, start=2):
        named = Path(row["path"].strip())
        image = next((places[key] for key in _names(named, path.parent) if key in places), None)
        if image is None:
            continue
        if image in found:
            raise DataError(f"{path}, row {line}: {image} has two rows; remove one.")
        found[image] = _scored(image, row["probability"].strip(), f"{path}, row {line}")
    if not found:
        raise DataError(
            f"{path}: none of its {len(rows)} rows is of an image of the data set (the first is "
            f"{rows[0]['path']}). Paths are those of the data set, or file names."
        )
    nothing = "no row in the table of scores"
    return [found.get(m.path) or Prediction.failure(m.path, nothing, 0.5) for m in manifest]


def _row(mammogram: Mammogram, answer: Prediction) -> dict[str, object]:
    return {
        "path": str(mammogram.path),
        "label": mammogram.label,
        "patient_id": mammogram.patient_id,
        "laterality": mammogram.laterality,
        "view": mammogram.view,
        "split": mammogram.split,
        "probability": answer.probability,
        "warnings": "; ".join(answer.warnings),
        "error": answer.error,
    }


def _mammogram(row: Mapping[Any, Any]) -> Mammogram:
    def known(name: str) -> str | None:
        value = row[name]
        return None if pd.isna(value) else str(value)

    side, view, split = known("laterality"), known("view"), known("split")
    return Mammogram(
        path=Path(str(row["path"])),
        label=int(str(row["label"])),  # type: ignore[arg-type]  # pydantic checks it
        patient_id=known("patient_id"),
        laterality=Laterality(side) if side else None,
        view=View(view) if view else None,
        split=Split(split) if split else None,
    )


def _places(manifest: Manifest) -> dict[str, Path]:
    """Return the image that each way of naming it means; names that several share mean none."""
    count = Counter(path.name for path in manifest.paths)
    by_name = {path.name: path for path in manifest.paths if count[path.name] == 1}
    return by_name | {str(path.absolute()): path for path in manifest.paths}


def _names(named: Path, folder: Path) -> tuple[str, ...]:
    return str(named.absolute()), str((folder / named).absolute()), named.name


def _scored(image: Path, text: str, origin: str) -> Prediction:
    if not text:
        return Prediction.failure(image, "no probability in the table", 0.5)
    try:
        probability = float(text)
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise DataError(f"{origin}: probability {text} is not a number from 0 to 1.")
    return Prediction.answer(image, probability, 0.5)
