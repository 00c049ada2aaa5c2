"""The `Manifest`: every image of a data set, what is known of it, and its split; a CSV on disk."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mammolens.errors import DataError
from mammolens.files import written_whole
from mammolens.records import Laterality, Mammogram, Split, View

COLUMNS = ("path", "label", "split", "patient_id", "image_id", "laterality", "view", "boxes")
"""Columns with a meaning of their own; any other column of the CSV is metadata."""

_SURPLUS = "\0"  # where csv puts cells beyond the header
_LATERALITIES = {"l": Laterality.LEFT, "left": Laterality.LEFT} | {
    "r": Laterality.RIGHT,
    "right": Laterality.RIGHT,
}


@dataclass(frozen=True)
class Manifest:
    """The images of a data set, in a fixed order; no path twice.

    Raises:
        DataError: a path stands in it twice.
    """

    mammograms: tuple[Mammogram, ...]

    def __post_init__(self) -> None:
        seen: set[Path] = set()
        for mammogram in self.mammograms:
            if mammogram.path in seen:
                raise DataError(f"{mammogram.path}: stands twice in the data set; remove one row.")
            seen.add(mammogram.path)

    def __len__(self) -> int:
        return len(self.mammograms)

    def __iter__(self) -> Iterator[Mammogram]:
        return iter(self.mammograms)

    @property
    def paths(self) -> list[Path]:
        """The files, in order."""
        return [mammogram.path for mammogram in self]

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """Labels in order, float32 of shape (images,): 0, 1, or NaN where unknown."""
        known = [np.nan if m.label is None else m.label for m in self]
        return np.array(known, dtype=np.float32)

    @property
    def patients(self) -> list[str]:
        """Patient keys in order; an image without a known patient is a patient of its own."""
        return [mammogram.patient_key for mammogram in self]

    def where(self, keep: Callable[[Mammogram], bool]) -> "Manifest":
        """Return the images for which `keep` is true."""
        return Manifest(tuple(mammogram for mammogram in self if keep(mammogram)))

    def of_split(self, split: Split) -> "Manifest":
        """Return the images of one split."""
        return self.where(lambda mammogram: mammogram.split is split)

    def with_label(self, label: int) -> "Manifest":
        """Return the images of one class."""
        return self.where(lambda mammogram: mammogram.label == label)

    def labelled(self) -> "Manifest":
        """Return the images whose label is known."""
        return self.where(lambda mammogram: mammogram.label is not None)

    def save(self, path: Path) -> None:
        """Write the manifest as CSV; files inside the CSV's folder get relative paths."""
        extra = sorted({name for mammogram in self for name in mammogram.metadata})
        folder = path.parent.resolve()
        with (
            written_whole(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow((*COLUMNS, *extra))
            for mammogram in self:
                writer.writerow(_to_row(mammogram, folder, extra))

    def fingerprint(self) -> str:
        """Return a SHA-256 of file names, labels, splits and patients, whatever their order."""
        rows = sorted(f"{m.path.name}|{m.label}|{m.split}|{m.patient_id}" for m in self)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @classmethod
    def load(cls, path: Path, positive: str | None = None) -> "Manifest":
        """Read a CSV with at least the columns ``path`` and ``label``; the rest is optional.

        Relative paths start at the CSV's folder. An empty cell means unknown. `positive` is the
        label that means tumor, where labels are not 0 and 1.

        Raises:
            DataError: the file, a column or a value is wrong; the message names the row.
        """
        rows = read_rows(path)
        if missing := {"path", "label"} - rows[0].keys():
            raise DataError(
                f"{path}: column {' and '.join(sorted(missing))} missing; "
                f"found {', '.join(rows[0])}. A table needs at least path and label."
            )
        named = [row["label"].strip() for row in rows]
        labels = labels_by_name({name for name in named if name}, positive, path)
        numbers = [labels.get(name) for name in named]
        folder = path.parent
        mammograms = tuple(
            mammogram_from_row(row, f"{path}, row {line}", folder / row["path"], label)
            for line, (row, label) in enumerate(zip(rows, numbers, strict=True), start=2)
        )
        manifest = cls(mammograms)
        if not any(mammogram.path.exists() for mammogram in manifest):
            raise DataError(
                f"{path}: none of its {len(manifest)} files exist (the first is "
                f"{manifest.paths[0]}). Relative paths start at the folder of the CSV."
            )
        return manifest


def read_rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Read a CSV as one dict a row, all values text.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or ragged.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restkey=_SURPLUS, delimiter=delimiter)
            rows = [{key: value or "" for key, value in row.items()} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 CSV table ({error}).") from error
    if not rows:
        raise DataError(f"{path}: the table has no rows; expected a header and a row an image.")
    for line, row in enumerate(rows, start=2):
        if _SURPLUS in row:
            raise DataError(f"{path}, row {line}: has more cells than the header has columns.")
    return rows


def labels_by_name(names: set[str], positive: str | None, origin: Path) -> dict[str, int]:
    """Return 0 or 1 for each class name: by `positive`, else only where names are 0 and 1.

    Raises:
        DataError: there are other than two classes, or which one means tumor is not known.
    """
    if positive is not None and positive not in names:
        raise DataError(
            f"{origin}: no class is named '{positive}'; found {', '.join(sorted(names)) or 'none'}."
        )
    if positive is None and names <= {"0", "1"}:
        return {name: int(name) for name in names}
    if len(names) > 2:  # noqa: PLR2004 - tumor or not
        raise DataError(
            f"{origin}: expected two classes, found {len(names)}: {', '.join(sorted(names))}."
        )
    if positive is None:
        raise DataError(
            f"{origin}: which of the classes {' and '.join(sorted(names))} means tumor? "
            "Say so with --positive NAME (mammolens manifest DATA OUT.csv --positive NAME)."
        )
    return {name: int(name == positive) for name in names}


def mammogram_from_row(
    row: Mapping[str, str], origin: str, path: Path, label: int | None
) -> Mammogram:
    """Build a `Mammogram` from a table's row; empty cells and unknown views stay unknown.

    Raises:
        DataError: a value cannot be what its column says; the message starts with `origin`.
    """
    known = {name: value.strip() for name, value in row.items() if value.strip()}
    metadata = {name: value for name, value in known.items() if name not in COLUMNS}
    view = known.get("view", "").upper()
    if view and view not in View.__members__:
        metadata["view"] = known["view"]
    try:
        boxes = [
            dict(zip(("x", "y", "width", "height"), box, strict=True))
            for box in json.loads(known.get("boxes", "[]"))
        ]
        return Mammogram(
            path=path,
            label=label,  # type: ignore[arg-type]  # pydantic checks it
            split=Split(known["split"]) if "split" in known else None,
            patient_id=known.get("patient_id"),
            image_id=known.get("image_id"),
            laterality=_LATERALITIES.get(known.get("laterality", "").lower()),
            view=View.__members__.get(view),
            boxes=boxes,  # type: ignore[arg-type]  # pydantic turns dicts into boxes
            metadata=metadata,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{origin}: {where} is wrong: {first['msg']}.") from error
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{origin}: {error}. Expected split train, valid or test, "
            "and boxes as [[x, y, width, height], ...]."
        ) from error


def _to_row(mammogram: Mammogram, folder: Path, extra: list[str]) -> list[str]:
    resolved = Path(os.path.abspath(mammogram.path))  # noqa: PTH100 - links stay links
    inside = resolved.is_relative_to(folder)
    boxes = [[box.x, box.y, box.width, box.height] for box in mammogram.boxes]
    return [
        (resolved.relative_to(folder) if inside else resolved).as_posix(),
        "" if mammogram.label is None else str(mammogram.label),
        mammogram.split or "",
        mammogram.patient_id or "",
        mammogram.image_id or "",
        mammogram.laterality or "",
        mammogram.view or "",
        json.dumps(boxes) if boxes else "",
        *(mammogram.metadata.get(name, "") for name in extra),
    ]
