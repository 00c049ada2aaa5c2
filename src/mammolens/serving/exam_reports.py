"""Reports of examinations, written while answers pass: each view is read once more and hung, with its heat."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import ImageOps

from mammolens.errors import DataError, ImageError
from mammolens.files import check_new_folder, sweep_in, write_text
from mammolens.images.archives import Picture, image_in
from mammolens.images.breast import Pixels, anatomy
from mammolens.levels import Identifier, ServedLevel
from mammolens.model.bundle import BundleRecord
from mammolens.records import Prediction
from mammolens.reports.case import Case, jpeg
from mammolens.reports.examination import Print, examination_page
from mammolens.serving.journal import Journal
from mammolens.serving.overlay import caption, overlay

_NO_MAP = np.zeros((1, 1), np.float32)
_UNMAPPED = "There is no map of where the network looked."


@dataclass(frozen=True)
class Reports:
    """Where reports of examinations go, and what they may tell.

    Attributes:
        folder: new, or empty.
        identifiers: what reports may tell of whose an examination is.
    """

    folder: Path
    identifiers: frozenset[Identifier] = frozenset()

    @classmethod
    def checked(
        cls, folder: str | Path | None, identifiers: Iterable[str], level: ServedLevel, kept: Journal | None = None
    ) -> "Reports | None":
        """Return what is asked for, before any work; None is no report.

        Args:
            folder: where reports go; one in which those of `kept` were begun already will do.
            identifiers: what they may tell.
            level: of the answers.
            kept: the journal of the answers, which may lie in `folder`.

        Raises:
            DataError: `folder` holds something, answers are not of examinations, or identifiers are asked for without
                reports.
        """
        shown = frozenset(map(Identifier.named, identifiers))
        if folder is None:
            if shown:
                raise DataError(f"{', '.join(sorted(shown))}: said in reports alone. Name a folder for them: --report.")
            return None
        if level is not ServedLevel.EXAM:
            raise DataError(f"{folder}: reports are of examinations. Say --level exam, too, or leave out --report.")
        if kept is None or not kept.holds_reports(Path(folder)):
            check_new_folder(Path(folder), besides=None if kept is None else kept.path)
        if kept is not None:
            kept.begin_reports(Path(folder))
        return cls(Path(os.path.realpath(folder)), shown)

    def path(self, row: int) -> Path:
        """Return the report of the examination that is in this row of the answers, counted from 1; names nobody."""
        return self.folder / f"examination-{row:05d}.html"

    def clear(self) -> None:
        """Delete what a process that was killed left."""
        sweep_in(self.folder, ".examination-*.html")
        for path in self.folder.glob("examination-*.html"):
            path.unlink()


def reported(
    answers: Iterable[Prediction],
    pictures: Sequence[Picture],
    join: Callable[[Iterable[Prediction]], Iterable[Prediction]],
    reports: Reports,
    record: BundleRecord,
    *,
    maps: bool = False,
) -> Iterator[Prediction]:
    """Yield the answers for examinations while a report of each is written, whole or not at all.

    What could not be read is a row without a report.

    Args:
        answers: one a picture, in the order of `pictures`.
        pictures: read a second time for their pixels.
        join: from answers for pictures to those for examinations.
        reports: where they go.
        record: of the model.
        maps: keep the score maps.
    """
    prints: dict[Prediction, Print] = {}
    unread: list[Prediction] = []

    def passing() -> Iterator[Prediction]:
        for answer, picture in zip(answers, pictures, strict=True):
            printed = _printed(answer, picture)
            kept = answer if maps else replace(answer, score_map=None)
            prints.update({kept: printed} if printed else {})
            unread.extend([kept] if kept.error is not None else [])
            yield kept

    reports.clear()
    for row, exam in enumerate(join(passing()), start=1):
        if exam.error is None:
            page = _page(exam, record, prints, identifiers=reports.identifiers, unread=len(unread))
            write_text(reports.path(row), page)
        for view in exam.views:
            prints.pop(view, None)
        yield exam


def examination_report(exam: Prediction, cases: Sequence[Case], record: BundleRecord, unread: int = 0) -> str:
    """Return the report of an examination whose pictures are read already; it names nobody.

    Args:
        exam: an answer for an examination, whose views are answers of `cases`.
        cases: those of the examination, others ignored.
        record: of the model.
        unread: files that were given with it and could not be read.
    """
    prints = {}
    for case in cases:
        if case.picture is not None:
            pixels = case.picture.astype(np.float32) / np.float32(65535)
            prints[case.answer] = _print(pixels, case.answer, inverted=case.inverted, mirrored=case.hangs_mirrored)
    return _page(exam, record, prints, unread=unread)


def _page(
    exam: Prediction,
    record: BundleRecord,
    prints: Mapping[Prediction, Print],
    *,
    identifiers: Collection[Identifier] = (),
    unread: int = 0,
) -> str:
    said = [prints[view].caption for view in exam.views if view in prints and prints[view].caption]
    looked = min(said, key=len, default=_UNMAPPED)  # longer where nothing is drawn
    return examination_page(exam, record, prints, looked=looked, identifiers=identifiers, unread=unread)


def _printed(answer: Prediction, picture: Picture) -> Print | None:
    """Read a picture once more; None where that fails."""
    if answer.error is not None:
        return None
    try:
        pixels = image_in(picture, answer.path).pixels
    except ImageError:
        return None
    seen = anatomy(pixels)
    inverted = answer.admitted and seen.polarity.inverted
    wall = seen.breast.chest_wall_right if seen.breast.is_found else None
    mirrored = Case(answer, chest_wall_right=wall).hangs_mirrored
    return _print(1 - pixels if inverted else pixels, answer, inverted=inverted, mirrored=mirrored)


def _print(pixels: Pixels, answer: Prediction, *, inverted: bool, mirrored: bool) -> Print:
    heat = answer.score_map if answer.admitted else None
    drawn = overlay(pixels, _NO_MAP if heat is None else heat)
    picture = jpeg(ImageOps.mirror(drawn) if mirrored else drawn)
    return Print(picture, "" if heat is None else caption([heat]), inverted, mirrored)
