"""What a request gets of its pictures: rows, heatmaps, results as DICOM. Knows no HTTP."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile

from mammolens.images.archives import Input, Named, Picture
from mammolens.levels import ServedLevel
from mammolens.model.decisions import decided
from mammolens.records import Prediction
from mammolens.reports.answers import VIEWS, Row, as_json, columns_of, row_of
from mammolens.serve.schema import HEATMAP
from mammolens.serving.exams import joined
from mammolens.serving.overlay import drawn
from mammolens.serving.predictor import Predictor

if TYPE_CHECKING:
    from mammolens.dicom_results.results import Results


@dataclass(frozen=True)
class Asked:
    """What one request wants.

    Attributes:
        level: what answers are about.
        point: the operating point that decides.
        heatmaps: whether there is one of each picture.
        maps: whether maps are kept, for what is made of them later.
    """

    level: ServedLevel
    point: str
    heatmaps: bool = False
    maps: bool = False


@dataclass(frozen=True)
class Looked:
    """One picture, the answer for it, and its heatmap as PNG."""

    picture: Input
    answer: Prediction
    heatmap: bytes | None


def looked_at(predictor: Predictor, asked: Asked, given: Input) -> Looked:
    """Answer for one picture, as `mammolens predict` does; it stops no other, and writes no file."""
    heat = BytesIO()

    def draw(answer: Prediction, picture: Picture) -> None:
        if answer.score_map is not None:
            drawn(answer, answer.score_map, picture).save(heat, format="PNG")

    also = draw if asked.heatmaps else None
    try:
        (answer,) = predictor.answers([Named(given.name, given)], point=asked.point, maps=asked.maps, also=also)
        return Looked(given, answer, heat.getvalue() or None)
    except Exception as error:  # noqa: BLE001 - one file stops no other, and reaches no log
        told = f"{given.name}: could not be looked at ({type(error).__name__}). Export it anew."
        failed = Prediction.failure(given.name, told)
        rules = predictor.bundle.record.rules()
        return Looked(given, decided(failed, ServedLevel.IMAGE, asked.point, rules), None)


def answers_as_json(looked: Sequence[Looked], predictor: Predictor, asked: Asked) -> str:
    """Return rows as `mammolens predict --out answers.json` writes them, with heatmaps where they are asked for."""
    return "".join(as_json(_rows(looked, predictor, asked)))


def _rows(looked: Sequence[Looked], predictor: Predictor, asked: Asked) -> Iterator[Row]:
    answers = [one.answer for one in looked]
    heat = {one.answer: one.heatmap and base64.b64encode(one.heatmap).decode() for one in looked}
    if asked.level is not ServedLevel.IMAGE:
        answers = list(joined(answers, asked.level, asked.point, predictor.bundle.record.rules()))
    columns = columns_of(asked.level)
    for answer in answers:
        row = row_of(answer, columns)
        if asked.heatmaps and asked.level is ServedLevel.IMAGE:
            row[HEATMAP] = heat[answer]
        elif asked.heatmaps:
            for view, cells in zip(answer.views, row[VIEWS], strict=True):
                cells[HEATMAP] = heat[view]
        yield row


def packed(results: "Results", answers: str) -> bytes:
    """Finish results as DICOM; return them in a ZIP archive, with the answers, and with what is left out and why."""
    results.finish()
    left_out = [*results.left_out]
    if results.foreign:
        left_out.append(f"{results.foreign} pictures are no DICOM: no DICOM results of them")
    archive = BytesIO()
    with ZipFile(archive, "w", ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("answers.json", answers)
        for path in results.written:
            file.write(path, path.name)
        if left_out:
            lines = "".join(f"{line}\n" for line in left_out)
            file.writestr("left-out.txt", lines.encode("utf-8", "backslashreplace"))  # a name may be no text
    return archive.getvalue()
