"""Answers as tables: those of a report, to be judged and compared again, and any other system's scores.

Reads no image: what is judged is what the tables say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammolens.data.csv_table import read_rows
from mammolens.data.manifest import Manifest
from mammolens.data.matching import matches, parts_of, some
from mammolens.data.meanings import UNKNOWN
from mammolens.errors import DataError, reason
from mammolens.files import written_whole
from mammolens.measures.metrics import Array
from mammolens.records import Mammogram, Prediction

PREDICTIONS = "predictions.parquet"
"""Of a report's folder: one row a judged image."""

NO_ROW = "no row in the table of scores"
NO_PROBABILITY = "no probability in the table of scores"

_KNOWN = ("patient_id", "laterality", "view", "split")  # of an image, as text
_NAMED_BY = ("path", "image_id")


class ScoredImages(NamedTuple):
    """Images that have a label and an answer.

    Attributes:
        manifest: the images.
        probabilities: of tumor, (images,).
        admitted: which look like mammograms, (images,).
    """

    manifest: Manifest
    probabilities: Array
    admitted: NDArray[np.bool_]


def scored_images(predictions: Sequence[Prediction], manifest: Manifest) -> ScoredImages:
    """Return the images of `manifest` that have a label and, among `predictions`, a probability."""
    answers = {one.path: one for one in predictions if one.probability is not None}
    images = manifest.where(lambda m: m.label is not None and m.path in answers)
    judged = [answers[path] for path in images.paths]
    probabilities = np.array([one.probability for one in judged], dtype=np.float64)
    return ScoredImages(images, probabilities, np.array([one.admitted for one in judged], dtype=bool))


def write_predictions(predictions: Sequence[Prediction], manifest: Manifest, folder: Path) -> None:
    """Write what is known of each image of `manifest` that was answered for, as Parquet.

    Columns: path, label (0, 1 or missing), patient_id, laterality, view, split, probability,
    warnings, error, admitted. What an operating point decides is in the report, with its threshold.
    """
    mammograms = {mammogram.path: mammogram for mammogram in manifest}
    rows = [_row(mammograms[one.path], one) for one in predictions if one.path in mammograms]
    table = pd.DataFrame(rows).astype(dict.fromkeys((*_KNOWN, "error"), "string"))
    with written_whole(folder / PREDICTIONS) as temporary:
        table.astype({"label": "Int8"}).to_parquet(temporary, index=False)


def read_predictions(folder: Path) -> ScoredImages:
    """Return the labelled images of a report's folder that have a probability.

    Raises:
        DataError: the folder holds no such table, or it is damaged.
    """
    path = folder / PREDICTIONS
    try:
        table = pd.read_parquet(path).dropna(subset=["label", "probability"])
        images = Manifest(tuple(_mammogram(row) for row in table.to_dict("records")))
        scored = ScoredImages(images, table["probability"].to_numpy(np.float64), table["admitted"].to_numpy(bool))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: holds no {PREDICTIONS}. Name the folder that mammolens evaluate wrote.") from error
    except Exception as error:  # pandas and pyarrow raise whatever they trip over
        raise DataError(f"{path}: not a table that mammolens wrote ({reason(error)}).") from error
    if not ((scored.probabilities >= 0) & (scored.probabilities <= 1)).all():
        raise DataError(f"{path}: has probabilities that are no numbers from 0 to 1.")
    return scored


@dataclass(frozen=True)
class Scores:
    """A table of scores, matched with a data set.

    Attributes:
        predictions: one for each image, in its order, decided by nothing yet; one without a score
            is one without answer.
        surplus: what the table calls rows that are of no image, or of one with a better match.
        by_name_alone: images that were matched by file name, though the table names folders, too.
    """

    predictions: list[Prediction]
    surplus: tuple[str, ...]
    by_name_alone: tuple[Path, ...]

    def notes(self, judged: Manifest) -> tuple[str, ...]:
        """Say, one sentence each, what did not fit together."""
        paths = set(judged.paths)
        lacking = {
            reason: [one.path for one in self.predictions if one.error == reason and one.path in paths]
            for reason in (NO_ROW, NO_PROBABILITY)
        }
        notes = [
            f"{_counted(images, 'image')} with {reason}: {some(images)}."
            for reason, images in lacking.items()
            if images
        ]
        if rows := self.surplus:
            notes.append(f"{_counted(rows, 'row')} of scores of no image of the data set: {some(rows)}.")
        if images := self.by_name_alone:
            notes.append(f"{_counted(images, 'image')} found by file name alone, folders differ: {some(images)}.")
        return tuple(notes)


def scores_from(path: Path, manifest: Manifest) -> Scores:
    """Read any system's scores: a CSV with ``probability`` and ``path`` or ``image_id``.

    Whose score a row has is told by `data.matching`. An empty probability, nan, NA and the like,
    are an image without answer.

    Raises:
        DataError: a column is missing, a probability is not a number in [0, 1], a name may mean
            several images, an image has two rows, or no row is of an image of `manifest`.
    """
    cells = read_rows(path, (*_NAMED_BY, "probability"))
    rows = [{name: value.strip() for name, value in row.items()} for row in cells]
    named_by = [name for name in _NAMED_BY if name in rows[0]]
    lacks = [] if named_by else ["path"]
    lacks += [] if "probability" in rows[0] else ["probability"]
    if lacks:
        raise DataError(
            f"{path}: column {' and '.join(lacks)} missing; found {', '.join(rows[0])}. "
            "A table of scores needs path (or image_id) and probability."
        )
    values = _probabilities(path, [row["probability"] for row in rows])
    found = matches(path, [[row[name] for name in named_by] for row in rows], manifest)
    used = {place for _, place in found.values()}
    return Scores(
        [_prediction(image, values[found[image][1]] if image in found else None) for image in manifest.paths],
        tuple(row[named_by[0]] for place, row in enumerate(rows) if place not in used),
        tuple(
            image
            for image, (fits, place) in found.items()
            if fits <= 1 and len(parts_of(rows[place].get("path", ""))) > 1
        ),
    )


def _row(mammogram: Mammogram, answer: Prediction) -> dict[str, object]:
    return {
        "path": str(mammogram.path),
        **{name: getattr(mammogram, name) for name in ("label", *_KNOWN)},
        "probability": answer.probability,
        "warnings": "; ".join(answer.warnings),
        "error": answer.error,
        "admitted": answer.admitted,
    }


def _mammogram(row: Mapping[Any, Any]) -> Mammogram:
    cells: dict[str, Any] = {name: str(row[name]) for name in _KNOWN if not pd.isna(row[name])}
    return Mammogram(path=Path(str(row["path"])), label=int(row["label"]), **cells)  # type: ignore[arg-type]  # pydantic checks it


def _probabilities(path: Path, texts: Sequence[str]) -> list[float]:
    """Return the probability of each row; nan where there is none. A comma is a point."""
    values = [math.nan if text.lower() in (*UNKNOWN, "none") else _number(text) for text in texts]
    wrong = [place for place, value in enumerate(values) if not (0 <= value <= 1 or math.isnan(value))]
    if wrong:
        more = f" ({len(wrong)} rows are alike)" if len(wrong) > 1 else ""
        raise DataError(
            f"{path}, row {wrong[0] + 2}: probability {texts[wrong[0]]} is not a number from 0 to 1{more}. "
            "Divide percentages by 100; make logits probabilities, by 1 / (1 + exp(-x))."
        )
    return values


def _number(text: str) -> float:
    """Return a number that people wrote, infinite where it is none; Python also takes 1_0."""
    try:
        return math.inf if "_" in text else float(text.replace(",", "."))
    except ValueError:
        return math.inf


def _prediction(image: Path, score: float | None) -> Prediction:
    if score is None:
        return Prediction.failure(image, NO_ROW)
    return Prediction.failure(image, NO_PROBABILITY) if math.isnan(score) else Prediction(image, score)


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) > 1)}"
