"""`Case`s: pictures read and answered for, how views hang side by side, the report of one."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.errors import ImageError, reason
from mammolens.images.archives import Input
from mammolens.images.breast import LEAST_AREA, Pixels, anatomy
from mammolens.images.image import Image
from mammolens.images.reading import read_image
from mammolens.model.bundle import BundleRecord
from mammolens.model.rules import Rules
from mammolens.model.rules import decided as decided_at
from mammolens.records import Laterality, Level, Prediction, View
from mammolens.reports.case import Case, case_page
from mammolens.serving.overlay import caption, overlay
from mammolens.serving.predictor import Predictor

LONGEST = 1400
"""Pixels of the longer side of a picture as it is kept and shown."""

_SIDES = {
    "L": Laterality.LEFT,
    "R": Laterality.RIGHT,
    "LEFT": Laterality.LEFT,
    "RIGHT": Laterality.RIGHT,
}
_VIEWS = {str(view): view for view in View if view is not View.AT}  # "at" is a word, too


def look(predictor: Predictor, source: Input) -> Case:
    """Read one picture and answer for it. What goes wrong becomes the case's error."""
    try:
        with source.on_disk() as path:
            answer = next(predictor.answers([Input(source.name, path)]))
            if answer.error is not None:
                return Case(answer)
            return _seen(answer, read_image(path))
    except ImageError as error:
        told = reason(error)
    except Exception as error:  # noqa: BLE001 - one file stops no other, and reaches no log
        told = f"{source.name}: could not be looked at ({type(error).__name__}). Export it anew."
    return Case(Prediction.failure(source.name, told, predictor.threshold()))


def decided(case: Case, point: str, rules: Rules) -> Case:
    """Return the case with the answer that another operating point gives."""
    return replace(case, answer=decided_at(case.answer, Level.IMAGE, point, rules))


def side_and_view(name: str) -> tuple[Laterality | None, View | None]:
    """Return what a file's name says: ``L_CC``, ``RMLO``, ``left-mlo``. A contradiction is None.

    A lone L or R counts only beside a view: many names have one for other reasons.
    """
    sides: set[Laterality] = set()
    lone: set[Laterality] = set()
    views: set[View] = set()
    for token in _tokens(name):
        if token in _SIDES:
            (lone if len(token) == 1 else sides).add(_SIDES[token])
        elif token in _VIEWS:
            views.add(_VIEWS[token])
        elif token[:1] in _SIDES and token[1:] in _VIEWS:
            sides.add(_SIDES[token[0]])
            views.add(_VIEWS[token[1:]])
    if views:
        sides |= lone
    return (sides.pop() if len(sides) == 1 else None, views.pop() if len(views) == 1 else None)


def exam_of(case: Case, cases: Sequence[Case]) -> list[Case]:
    """Return the cases that hang together with `case`, itself among them, in their order.

    Those of one patient, where headers name one. Else those that the page was given together, if
    no side and view is there twice; else those whose names differ in side and view alone.
    """
    if case.place is None:
        return [case]
    known = [one for one in cases if one.place]
    if case.answer.patient_id is not None:
        return [one for one in known if one.answer.patient_id == case.answer.patient_id]
    nameless = [one for one in known if one.answer.patient_id is None]
    if len({one.place for one in nameless}) == len(nameless):
        return nameless
    return [one for one in nameless if _rest(one.name) == _rest(case.name)]


def hung(case: Case, cases: Sequence[Case]) -> list[tuple[Case | None, Case | None]]:
    """Return the exam of `case` in rows of two: CC on top, MLO below, other views after them.

    The right breast hangs on the left of the screen, as if the patient faced the reader. Of one
    breast alone, two views share a row. Where a view is there twice, `case` goes first.
    """
    placed = {one.place: one for one in (*reversed(exam_of(case, cases)), case)}
    right, left = ([placed.get((side, view)) for view in View] for side in (Laterality.RIGHT, Laterality.LEFT))
    if any(right) and any(left):
        return [row for row in zip(right, left, strict=True) if any(row)]
    one_side = [one for one in (*right, *left) if one is not None]
    return list(zip_longest(one_side[::2], one_side[1::2]))


def case_report(case: Case, record: BundleRecord) -> str:
    """Return the report of a case as one self-contained page of HTML, A4 when printed."""
    pictures = []
    if case.picture is not None:
        pixels = case.picture.astype(np.float32) / np.float32(65535)
        pictures.append((overlay(pixels, np.zeros((1, 1), np.float32)), "The picture as read"))
        if case.answer.score_map is not None:
            pictures.append((overlay(pixels, case.answer.score_map), caption([case.answer.score_map])))
    return case_page(case, record, pictures)


def _seen(answer: Prediction, image: Image) -> Case:
    side, view = side_and_view(str(answer.path))
    breast = anatomy(image.pixels).breast
    height, width = image.pixels.shape
    return Case(
        answer=answer,
        picture=_shrunk(image.pixels),
        facts=f"{image.format}, {width} × {height} pixels, {image.bit_depth} bits",
        laterality=answer.laterality or side,
        view=answer.view or view,
        told_by_name=(answer.laterality is None and side is not None) or (answer.view is None and view is not None),
        chest_wall_right=breast.chest_wall_right if breast.area >= LEAST_AREA else None,
    )


def _shrunk(pixels: Pixels) -> NDArray[np.uint16]:
    scale = min(1.0, LONGEST / max(pixels.shape))
    width, height = (max(1, round(side * scale)) for side in pixels.shape[::-1])
    small = pixels
    if scale < 1:
        small = np.asarray(Pillow.fromarray(pixels).resize((width, height), Pillow.Resampling.BOX))
    return np.rint(np.clip(small, 0, 1) * 65535).astype(np.uint16)


def _tokens(name: str) -> list[str]:
    stem = re.sub(r"\.[A-Za-z]+$", "", name)
    return [token for token in re.split(r"[^A-Z0-9]+", stem.upper()) if token]


def _rest(name: str) -> tuple[str, ...]:
    """Return what is left of a name without side and view."""
    placed = {*_SIDES, *_VIEWS, *(side + view for side in "LR" for view in _VIEWS)}
    return tuple(token for token in _tokens(name) if token not in placed)
