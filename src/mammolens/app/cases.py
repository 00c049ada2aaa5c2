"""`Case`s: pictures read and answered for, their examinations, how views hang side by side, the report of one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.app.viewer import OF_FILE, UPRIGHT, levels_of, overview
from mammolens.data.identity import exam_keys
from mammolens.errors import ImageError, reason
from mammolens.images.archives import Input, Named, image_in
from mammolens.images.breast import Breast, Pixels, anatomy
from mammolens.images.image import Image, Window
from mammolens.levels import ServedLevel
from mammolens.model.bundle import BundleRecord
from mammolens.model.decisions import Rules
from mammolens.model.decisions import decided as decided_at
from mammolens.records import Laterality, Prediction, View
from mammolens.reports.case import Case, case_page
from mammolens.serving.exams import joined
from mammolens.serving.overlay import caption, overlay
from mammolens.serving.predictor import Predictor

_TISSUE = (2, 99.8)  # percentiles of pixels in the breast that are black and white


def answered(predictor: Predictor, source: Input) -> Case:
    """Read one picture, once, and answer for it. What goes wrong becomes the case's error."""
    try:
        image = image_in(source, source.name, windows=True)
        return _with_picture(next(predictor.answers([Named(source.name, image)])), image)
    except ImageError as error:
        told = reason(error)
    except Exception as error:  # noqa: BLE001 - one file stops no other, and reaches no log
        told = f"{source.name}: could not be looked at ({type(error).__name__}). Export it anew."
    failed = Case(Prediction.failure(source.name, told))
    return decided(failed, predictor.operating_point, predictor.bundle.record.rules())


def decided(case: Case, point: str, rules: Rules) -> Case:
    """Return the case with the answer that another operating point gives."""
    return replace(case, answer=decided_at(case.answer, ServedLevel.IMAGE, point, rules))


def whole(source: Input, *, inverted: bool) -> NDArray[np.uint16]:
    """Return every pixel of a picture as levels 0 to 65535, upright; before any window, where there are some to choose.

    Raises:
        ImageError: it cannot be read any more.
    """
    image = image_in(source, source.name, windows=True)
    pixels = image.unwindowed.pixels if image.unwindowed else image.pixels
    return levels_of(_upright(pixels, inverted=inverted))


def _upright(pixels: Pixels, *, inverted: bool) -> Pixels:
    return 1 - pixels if inverted else pixels


def _with_picture(answer: Prediction, image: Image) -> Case:
    seen = anatomy(image.pixels)
    breast, (height, width) = seen.breast, image.pixels.shape
    inverted = answer.admitted and seen.polarity.inverted
    small = _upright(overview(image.pixels), inverted=inverted)
    before = _upright(overview(image.unwindowed.pixels), inverted=inverted) if image.unwindowed else None
    spacing = image.header.spacing if image.header else None
    return Case(
        answer=answer,
        picture=levels_of(small),
        shape=(height, width),
        inverted=inverted,
        spacing=spacing[1] if spacing else None,
        windows=_windows(image, small if before is None else before, breast, inverted=inverted),
        unwindowed=None if before is None else levels_of(before),
        facts=f"{image.format}, {width} × {height} pixels, {image.bit_depth} bits",
        chest_wall_right=breast.chest_wall_right if breast.is_found else None,
    )


def _windows(image: Image, pixels: Pixels, breast: Breast, *, inverted: bool) -> dict[str, Window]:
    """Return the windows of upright pixels: those of `PRESETS`, then the file's own by their explanation."""
    mask = Pillow.fromarray(breast.or_everything().mask).resize(pixels.shape[::-1], Pillow.Resampling.NEAREST)
    low, high = np.percentile(pixels[np.asarray(mask)], _TISSUE)
    heeded, offered = Window(0, 1), {}
    if image.unwindowed:
        heeded, offered = image.unwindowed.heeded, {f"{OF_FILE}{k}": w for k, w in image.unwindowed.windows.items()}
    of_file = {name: window.inverted() if inverted else window for name, window in {"file": heeded, **offered}.items()}
    measured = {
        "full": Window(float(pixels.min()), float(pixels.max())),
        "tissue": Window(float(low), float(high)),
    }
    return of_file | measured


@dataclass(frozen=True, eq=False)
class Examination:
    """What is said of the pictures of one examination, as `predict --level breast` and `--level exam` say it.

    Attributes:
        answer: for the examination.
        breasts: for each of its breasts, left first; pictures of unknown side are breasts of their own.
        numbers: which cases are its pictures.
    """

    answer: Prediction
    breasts: tuple[Prediction, ...]
    numbers: tuple[int, ...]


def examinations(cases: Sequence[Case], point: str, rules: Rules) -> list[Examination]:
    """Return the examinations that pictures are of, in the order of their first; what was not read is of none."""
    read = {id(case.answer): number for number, case in enumerate(cases) if case.answer.error is None}
    answers = [cases[number].answer for number in read.values()]
    breasts = sorted(joined(answers, ServedLevel.BREAST, point, rules), key=lambda one: one.laterality or "unknown")
    found = []
    for answer in joined(answers, ServedLevel.EXAM, point, rules):
        mine = set(map(id, answer.views))
        numbers = tuple(read[id(view)] for view in answer.views)
        found.append(Examination(answer, tuple(one for one in breasts if id(one.views[0]) in mine), numbers))
    return found


def most_suspicious(cases: Sequence[Case], numbers: Iterable[int]) -> int:
    """Return which of these cases has the highest probability of a tumor; the first where none has any."""
    return max(numbers, key=lambda number: -1.0 if (p := cases[number].answer.probability) is None else p)


def exam_of(case: Case, cases: Sequence[Case]) -> list[Case]:
    """Return the cases that hang together with `case`, itself among them, in their order: those of its examination."""
    if case.place is None:
        return [case]
    read = [one for one in cases if one.answer.error is None]
    keys = exam_keys([one.answer for one in read])
    mine = next(key for key, one in zip(keys, read, strict=True) if one is case)
    return [one for key, one in zip(keys, read, strict=True) if one.place and key == mine]


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
        said = f"The picture: {UPRIGHT}" if case.inverted else "The picture as read"
        pictures.append((overlay(pixels, np.zeros((1, 1), np.float32)), said))
        if case.answer.score_map is not None:
            pictures.append((overlay(pixels, case.answer.score_map), caption([case.answer.score_map])))
    return case_page(case, record, pictures)
