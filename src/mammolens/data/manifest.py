"""The `Manifest`: every image of a data set, what is known of it, and its split; a CSV on disk."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mammolens.data.csv_table import read_rows, write_row
from mammolens.data.meanings import UNKNOWN, labels_by_name, split_named
from mammolens.errors import DataError
from mammolens.files import written_whole
from mammolens.images.listing import LeftOut
from mammolens.records import Laterality, Mammogram, Split, View

COLUMNS = ("path", "label", "split", "patient_id", "image_id", "laterality", "view", "boxes")
"""Columns with a meaning of their own; any other column of the CSV is metadata."""

STUDY = "study_id"
"""The column of metadata that tells examinations of a patient apart."""

_BOX = ("x", "y", "width", "height")
_LATERALITIES = {name: side for side in Laterality for name in (side.name, side.value)}


@dataclass(frozen=True)
class Manifest:
    """The images of a data set, in a fixed order; no path twice.

    Attributes:
        mammograms: one an image.
        left_out: what was found beside them, may be an image of the set, and is not in it. Told
            once, by whoever lists the set: subsets and saved manifests know nothing of it.

    Raises:
        DataError: a path stands in it twice.
    """

    mammograms: tuple[Mammogram, ...]
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for path in self.paths:
            place = os.path.abspath(path)  # noqa: PTH100 - as it is saved
            if place in seen:
                raise DataError(f"{path}: stands twice in the data set; remove one row.")
            seen.add(place)

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
        return np.array([np.nan if m.label is None else m.label for m in self], dtype=np.float32)

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

    def with_splits(self, split_of: Callable[[Mammogram], Split]) -> "Manifest":
        """Return the images with the split that `split_of` gives each."""
        return Manifest(tuple(replace(mammogram, split=split_of(mammogram)) for mammogram in self))

    def save(self, path: Path) -> None:
        """Write the manifest as CSV; files inside the CSV's folder get relative paths."""
        extra = sorted({name for mammogram in self for name in mammogram.metadata})
        folder = path.parent.resolve()
        with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            write_row(stream, (*COLUMNS, *extra))
            for mammogram in self:
                write_row(stream, _to_row(mammogram, folder, extra))

    def fingerprint(self) -> str:
        """Return a SHA-256 of file names, labels, splits and patients, whatever their order."""
        rows = sorted(f"{m.path.name}|{m.label}|{m.split}|{m.patient_id}" for m in self)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @classmethod
    def load(cls, path: Path, positive: str | None = None, *, files: bool = True, labels: bool = True) -> "Manifest":
        """Read a CSV with at least the columns ``path`` and ``label``; the rest is optional.

        Relative paths start at the CSV's folder. An empty cell means unknown. `positive` is the
        label that means tumor, where that is not plain.

        Args:
            path: the CSV.
            positive: the label that means tumor.
            files: whether the images themselves are needed; without, ``image_id`` may stand in for
                ``path``.
            labels: whether labels are needed; without, they are not looked at.

        Raises:
            DataError: the file, a column or a value is wrong; the message names the row.
        """
        rows = read_rows(path, (*COLUMNS, STUDY))
        named = "path" if files or "image_id" not in rows[0] or "path" in rows[0] else "image_id"
        needed = {named, "label"} if labels else {named}
        if missing := needed - rows[0].keys():
            raise DataError(
                f"{path}: column {' and '.join(sorted(missing))} missing; "
                f"found {', '.join(rows[0])}. A table needs at least path{' and label' * labels}."
            )
        meanings = labels_by_name({text for row in rows if (text := _label(row))}, positive, path) if labels else {}
        mammograms = []
        for line, row in enumerate(rows, start=2):
            origin = f"{path}, row {line}"
            if not row[named].strip():
                raise DataError(f"{origin}: {named} is empty; name an image, or remove the row.")
            file = located(path.parent, row[named].strip())
            mammograms.append(mammogram_from_row(row, origin, file, meanings.get(_label(row))))
        manifest = cls(tuple(mammograms))
        if files and not any(os.path.exists(file) for file in manifest.paths):  # noqa: PTH110
            raise DataError(
                f"{path}: none of its {len(manifest)} files exist (the first is "
                f"{manifest.paths[0]}). Relative paths start at the folder of the CSV."
            )
        return manifest


def located(folder: Path, text: str) -> Path:
    """Return the file that a table in `folder` calls `text`; backslashes are folders, too.

    On systems where a name may hold a backslash, one that is there by that name goes first.
    """
    path = folder / text
    if "\\" not in text or os.path.exists(path):  # noqa: PTH110 - Path.exists raises, too
        return path
    return folder / text.replace("\\", "/")


def mammogram_from_row(row: Mapping[str, str], origin: str, path: Path, label: int | None) -> Mammogram:
    """Build a `Mammogram` from a table's row; empty cells and unknown views stay unknown.

    So does what `UNKNOWN` names, such as nan, but for metadata: there it may be a value as others.
    Columns without a name, such as row numbers, are left out.

    Raises:
        DataError: a value cannot be what its column says; the message starts with `origin`.
    """
    cells = {
        name: value.strip()
        for name, value in row.items()
        if name and value.strip() and not (name in COLUMNS and value.strip().lower() in UNKNOWN)
    }
    ours = {name: cells.get(name) for name in COLUMNS}
    metadata = {name: value for name, value in cells.items() if name not in COLUMNS}
    view, split = (ours["view"] or "").upper(), ours["split"]
    if view and view not in View.__members__:
        metadata["view"] = cells["view"]
    try:
        boxes = json.loads(ours["boxes"] or "[]")
        return Mammogram(
            path=path,
            label=label,  # type: ignore[arg-type]  # pydantic checks it
            split=(split_named(split) or Split(split)) if split else None,
            patient_id=ours["patient_id"],
            image_id=ours["image_id"],
            laterality=_LATERALITIES.get((ours["laterality"] or "").upper()),
            view=View.__members__.get(view),
            boxes=[dict(zip(_BOX, box, strict=True)) for box in boxes],  # type: ignore[arg-type]  # likewise
            metadata=metadata,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{origin}: {where} is wrong: {first['msg']}.") from error
    except (ValueError, TypeError, RecursionError) as error:  # lists in lists without end
        raise DataError(
            f"{origin}: {error}. Expected split train, valid or test, and boxes as [[x, y, width, height], ...]."
        ) from error


def _label(row: Mapping[str, str]) -> str:
    """Return the label's name; empty where it is not known."""
    label = row.get("label", "").strip()
    return "" if label.lower() in UNKNOWN else label


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
