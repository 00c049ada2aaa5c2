"""Any system's scores: a table of them, matched with the images of a data set by their names.

Reads no image: what is judged is what the two tables say.
"""

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mammolens.data.csv_table import in_our_case, read_rows
from mammolens.data.manifest import Manifest
from mammolens.data.meanings import UNKNOWN
from mammolens.errors import DataError
from mammolens.records import Prediction

NO_ROW = "no row in the table of scores"
NO_PROBABILITY = "no probability in the table of scores"

_NAMED_BY = ("path", "image_id")
_EXACT = 1000  # more folders than any path has
_SHOWN = 3

Parts = tuple[str, ...]


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
        asked = set(judged.paths)
        said = []
        for reason in (NO_ROW, NO_PROBABILITY):
            lacking = [p.path for p in self.predictions if p.error == reason and p.path in asked]
            if lacking:
                said.append(f"{_images(len(lacking))} with {reason}: {_some(lacking)}.")
        if self.surplus:
            rows = f"{len(self.surplus)} row{'s' * (len(self.surplus) > 1)}"
            said.append(f"{rows} of scores of no image of the data set: {_some(self.surplus)}.")
        if self.by_name_alone:
            alone = f"{_images(len(self.by_name_alone))} found by file name alone, folders differ"
            said.append(f"{alone}: {_some(self.by_name_alone)}.")
        return tuple(said)


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
    cells = in_our_case(read_rows(path), (*_NAMED_BY, "probability"), path)
    rows = [{name: value.strip() for name, value in row.items()} for row in cells]
    named_by = [name for name in _NAMED_BY if name in rows[0]]
    if not named_by or "probability" not in rows[0]:
        lacks = [] if named_by else ["path"]
        lacks += [] if "probability" in rows[0] else ["probability"]
        raise DataError(
            f"{path}: column {' and '.join(lacks)} missing; found {', '.join(rows[0])}. "
            "A table of scores needs path (or image_id) and probability."
        )
    values = _probabilities(path, rows)
    names = _Names(manifest)
    found: dict[Path, tuple[int, int]] = {}  # how much of the path fits, and the row
    for place, row in enumerate(rows):
        origin = f"{path}, row {place + 2}"
        image, fits = names.find([row[name] for name in named_by], path.parent, origin)
        if image is None:
            continue
        if found.get(image, (-1, 0))[0] == fits:
            raise DataError(f"{origin}: {image} has two rows; remove one.")
        found[image] = max(found.get(image, (-1, 0)), (fits, place))
    if not found:
        raise DataError(
            f"{path}: none of its {len(rows)} rows is of an image of the data set (the first is "
            f"{rows[0][named_by[0]]}). Paths are those of the data set, or file names, or ids."
        )
    used = {place for _, place in found.values()}
    return Scores(
        [_prediction(image, found, values) for image in manifest.paths],
        tuple(row[named_by[0]] for place, row in enumerate(rows) if place not in used),
        tuple(
            image
            for image, (fits, place) in found.items()
            if fits <= 1 and len(_parts(rows[place].get("path", ""))) > 1
        ),
    )


class _Names:
    """Which image a name means."""

    def __init__(self, manifest: Manifest) -> None:
        self.exact = {os.path.abspath(path): path for path in manifest.paths}  # noqa: PTH100
        self.tails: dict[Parts, list[Path]] = defaultdict(list)
        self.others: dict[str, list[Path]] = defaultdict(list)
        for mammogram in manifest:
            path = mammogram.path
            parts = _parts(os.path.abspath(path))  # noqa: PTH100
            for first in range(len(parts)):
                self.tails[parts[first:]].append(path)
            for name in {mammogram.image_id, path.stem} - {None}:
                self.others[str(name)].append(path)

    def find(self, named: Sequence[str], folder: Path, origin: str) -> tuple[Path | None, int]:
        """Return the image, and how many parts of its path the first name that fits tells.

        Raises:
            DataError: it may be several images.
        """
        for name in filter(None, named):
            for place in (name, folder / name):
                if image := self.exact.get(os.path.abspath(place)):  # noqa: PTH100
                    return image, _EXACT
            parts = _parts(name)
            tails = [parts[first:] for first in range(len(parts))]
            for tail in tails:
                if tail in self.tails:
                    return _only(self.tails[tail], name, origin), len(tail)
            for other in (name, PurePosixPath(parts[-1]).stem if parts else ""):
                if other in self.others:
                    return _only(self.others[other], name, origin), 0
        return None, 0


def _only(images: Sequence[Path], name: str, origin: str) -> Path:
    if len(images) > 1:
        raise DataError(
            f"{origin}: {name} may be any of {len(images)} images: {_some(images)}. Write more of the path."
        )
    return images[0]


def _parts(name: str) -> Parts:
    """Return folders and name, whichever way the slashes lean."""
    parts = name.replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", "."))


def _probabilities(path: Path, rows: Sequence[Mapping[str, str]]) -> list[float]:
    """Return the probability of each row; nan where there is none. A comma is a point."""
    values, wrong = [], []
    for place, row in enumerate(rows):
        text = row["probability"]
        value = math.nan if text.lower() in (*UNKNOWN, "none") else _number(text)
        if not (0 <= value <= 1 or math.isnan(value)):
            wrong.append((place, text))
        values.append(value)
    if wrong:
        place, text = wrong[0]
        more = f" ({len(wrong)} rows are alike)" if len(wrong) > 1 else ""
        raise DataError(
            f"{path}, row {place + 2}: probability {text} is not a number from 0 to 1{more}. "
            "Divide percentages by 100; make logits probabilities, by 1 / (1 + exp(-x))."
        )
    return values


def _number(text: str) -> float:
    """Return a number that people wrote, infinite where it is none; Python also takes 1_0."""
    try:
        return math.inf if "_" in text else float(text.replace(",", "."))
    except ValueError:
        return math.inf


def _prediction(image: Path, found: Mapping[Path, tuple[int, int]], values: Sequence[float]) -> Prediction:
    if image not in found:
        return Prediction.failure(image, NO_ROW)
    value = values[found[image][1]]
    if math.isnan(value):
        return Prediction.failure(image, NO_PROBABILITY)
    return Prediction(image, value)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _some(names: Sequence[object]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
