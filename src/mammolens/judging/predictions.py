"""Judged answers as a table that can be judged, and compared, again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammolens.data.manifest import Manifest
from mammolens.errors import DataError
from mammolens.files import written_whole
from mammolens.records import Laterality, Mammogram, Prediction, Split, View

PREDICTIONS = "predictions.parquet"
"""Of a report's folder: one row a judged image."""

_TEXT = ("patient_id", "laterality", "view", "split", "error")


def write_predictions(predictions: Sequence[Prediction], manifest: Manifest, folder: Path) -> None:
    """Write what is known of each image of `manifest` that was answered for, as Parquet.

    Columns: path, label (0, 1 or missing), patient_id, laterality, view, split, probability,
    warnings, error, admitted. What an operating point decides is in the report, with its threshold.
    """
    known = {mammogram.path: mammogram for mammogram in manifest}
    rows = [_row(known[one.path], one) for one in predictions if one.path in known]
    table = pd.DataFrame(rows).astype(dict.fromkeys(_TEXT, "string"))
    with written_whole(folder / PREDICTIONS) as temporary:
        table.astype({"label": "Int8"}).to_parquet(temporary, index=False)


def read_predictions(folder: Path) -> tuple[Manifest, NDArray[np.float64], NDArray[np.bool_]]:
    """Return the labelled images of a report's folder, their probabilities, and which are admitted.

    Of reports from before the last was written, all are taken as admitted.

    Raises:
        DataError: the folder holds no such table.
    """
    path = folder / PREDICTIONS
    try:
        table = pd.read_parquet(path)
        chosen = table[table["label"].notna() & table["probability"].notna()]
        mammograms = tuple(_mammogram(row) for row in chosen.to_dict("records"))
        probabilities = chosen["probability"].to_numpy(np.float64)
        everyone = pd.Series(data=True, index=chosen.index)
        admitted = chosen.get("admitted", everyone).to_numpy(dtype=bool)
        return Manifest(mammograms), probabilities, admitted
    except FileNotFoundError as error:
        raise DataError(f"{folder}: holds no {PREDICTIONS}. Name the folder that mammolens evaluate wrote.") from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a table that mammolens wrote ({error}).") from error


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
        "admitted": answer.admitted,
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
