"""Answers as tables: those of a report, to be judged and compared again, and any other system's scores.

Reads no image: what is judged is what the tables say.
"""

import math
import os
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammolens.data.csv_table import read_rows
from mammolens.data.manifest import Manifest
from mammolens.data.meanings import UNKNOWN
from mammolens.errors import DataError
from mammolens.files import written_whole
from mammolens.measures.metrics import Array
from mammolens.records import Mammogram, Prediction

PREDICTIONS = "predictions.parquet"
"""Of a report's folder: one row a judged image."""

NO_ROW = "no row in the table of scores"
NO_PROBABILITY = "no probability in the table of scores"

_KNOWN = ("patient_id", "laterality", "view", "split")  # of an image, as text
_NAMED_BY = ("path", "image_id")
_EXACT = 1000  # more folders than any path has
_SHOWN = 3


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
        DataError: the folder holds no such table.
    """
    path = folder / PREDICTIONS
    try:
        table = pd.read_parquet(path).dropna(subset=["label", "probability"])
        images = Manifest(tuple(_mammogram(row) for row in table.to_dict("records")))
        return ScoredImages(images, table["probability"].to_numpy(np.float64), table["admitted"].to_numpy(bool))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: holds no {PREDICTIONS}. Name the folder that mammolens evaluate wrote.") from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a table that mammolens wrote ({error}).") from error


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
            f"{_counted(images, 'image')} with {reason}: {_some(images)}."
            for reason, images in lacking.items()
            if images
        ]
        if rows := self.surplus:
            notes.append(f"{_counted(rows, 'row')} of scores of no image of the data set: {_some(rows)}.")
        if images := self.by_name_alone:
            notes.append(f"{_counted(images, 'image')} found by file name alone, folders differ: {_some(images)}.")
        return tuple(notes)


def scores_from(path: Path, manifest: Manifest) -> Scores:
    """Read any system's scores: a CSV with ``probability`` and ``path`` or ``image_id``.

    A path may be absolute or relative, from another machine, with slashes or backslashes: the
    image is the one whose path ends as it does, in as many parts as possible. Without one, the
    image whose id or file name without suffix it is. An empty probability, nan, NA and the like,
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
    matches = _matches(path, [[row[name] for name in named_by] for row in rows], manifest)
    used = {place for _, place in matches.values()}
    return Scores(
        [_prediction(image, values[matches[image][1]] if image in matches else None) for image in manifest.paths],
        tuple(row[named_by[0]] for place, row in enumerate(rows) if place not in used),
        tuple(
            image
            for image, (fits, place) in matches.items()
            if fits <= 1 and len(_parts(rows[place].get("path", ""))) > 1
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


def _matches(path: Path, names: Sequence[Sequence[str]], manifest: Manifest) -> dict[Path, tuple[int, int]]:
    """Return of each image that a row is of how many parts of its path the row tells, and the row."""
    images = _by_name(manifest)
    matches: dict[Path, tuple[int, int]] = {}
    for place, named in enumerate(names):
        origin = f"{path}, row {place + 2}"
        image, fits = _meant(named, path.parent, images, origin)
        if image is None:
            continue
        if matches.get(image, (-1, 0))[0] == fits:
            raise DataError(f"{origin}: {image} has two rows; remove one.")
        matches[image] = max(matches.get(image, (-1, 0)), (fits, place))
    if not matches:
        raise DataError(
            f"{path}: none of its {len(names)} rows is of an image of the data set (the first is "
            f"{names[0][0]}). Paths are those of the data set, or file names, or ids."
        )
    return matches


def _by_name(manifest: Manifest) -> dict[Hashable, list[Path]]:
    """Return the images by all that they may be called: see `_names`."""
    images: dict[Hashable, list[Path]] = defaultdict(list)
    for mammogram in manifest:
        path = os.path.abspath(mammogram.path)  # noqa: PTH100
        parts = _parts(path)
        others = {mammogram.image_id, mammogram.path.stem} - {None}
        for name in (path, *(parts[first:] for first in range(len(parts))), *((None, other) for other in others)):
            images[name].append(mammogram.path)
    return images


def _names(text: str, folder: Path) -> Iterator[tuple[Hashable, int]]:
    """Yield what `text`, in a table in `folder`, may mean, best first, and how many parts of a path it tells.

    That is a whole path; the end of one, as its parts; or an id or a stem, after None.
    """
    for place in (text, folder / text):
        yield os.path.abspath(place), _EXACT  # noqa: PTH100
    parts = _parts(text)
    for first in range(len(parts)):
        yield parts[first:], len(parts) - first
    for other in (text, PurePosixPath(parts[-1]).stem if parts else ""):
        yield (None, other), 0


def _meant(
    named: Sequence[str], folder: Path, images: Mapping[Hashable, list[Path]], origin: str
) -> tuple[Path | None, int]:
    """Return the image that the first name that fits means, and how many parts of its path that tells.

    Raises:
        DataError: it may be several images.
    """
    for text in filter(None, named):
        for name, fits in _names(text, folder):
            if len(called := images.get(name, [])) > 1:
                raise DataError(
                    f"{origin}: {text} may be any of {len(called)} images: {_some(called)}. Write more of the path."
                )
            if called:
                return called[0], fits
    return None, 0


def _parts(name: str) -> tuple[str, ...]:
    """Return folders and name, whichever way the slashes lean."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


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


def _some(names: Sequence[object]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
