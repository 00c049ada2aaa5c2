"""Results of a batch, written while answers pass: heat of each picture at once, a report of each study at the end."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from pydicom import Dataset

from mammolens.dicom_results.heat import capture, peak_of, segmentation
from mammolens.dicom_results.maker import Maker
from mammolens.dicom_results.report import Examined, cad_report
from mammolens.dicom_results.source import Source, header_of
from mammolens.errors import DataError, ImageError, reason
from mammolens.files import check_writable, written_whole
from mammolens.images.archives import Picture, image_in
from mammolens.images.image import unquoted
from mammolens.levels import ServedLevel
from mammolens.model.decisions import Rules
from mammolens.records import Prediction
from mammolens.serving.exams import joined
from mammolens.serving.predictor import Predictor


@dataclass
class Results:
    """DICOM results of the answers that are given to `add`; `finish` once, after the last.

    Attributes:
        folder: where they are written; each file is named by its kind and UID.
        makes: whether `folder` is made with the first of them. One that was there before is not made again: whoever
            deleted it meanwhile wants no results.
        written: the files, in order, and the bytes of each; of a picture that was given twice, once.
        foreign: how many pictures are no DICOM and get none.
        left_out: of DICOM pictures, why one gets none, or not all, as a sentence that names it.
    """

    folder: Path
    maker: Maker
    rules: Rules
    makes: bool = True
    written: dict[Path, int] = field(default_factory=dict)
    foreign: int = 0
    left_out: list[str] = field(default_factory=list)
    _answers: list[Prediction] = field(default_factory=list)
    _sources: dict[Prediction, Source] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: str | Path, predictor: Predictor, point: str | None = None) -> Self:
        """Return results of a model, before any work.

        Args:
            folder: where they go; made with the first, if it is not there.
            predictor: that answers.
            point: the operating point that decides; None: the predictor's.

        Raises:
            DataError: the folder cannot be written to.
        """
        check_writable(Path(folder))
        record = predictor.bundle.record
        makes = not Path(folder).exists()
        return cls(Path(folder), Maker(record, point or predictor.operating_point), record.rules(), makes)

    def add(self, answer: Prediction, picture: Picture) -> None:
        """Write what one picture gets, and keep what its study's report says of it.

        Args:
            answer: for the picture, with its map.
            picture: read once more.

        Raises:
            DataError: the disk is full.
        """
        kept = replace(answer, score_map=None)
        self._answers.append(kept)
        try:
            content = header_of(picture, answer.path)
            if content is None:
                self.foreign += answer.error is None
            elif answer.error is None:
                self._sources[kept] = self._drawn(answer, kept, content, picture)
            elif _is_mammogram(source := Source(kept, None, content)):
                self._sources[kept] = source
        except ImageError as error:
            if answer.error is None:  # else it is told already
                self.left_out.append(reason(error))
        except (DataError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - as of `_write`: one odd file stops no other
            self.left_out.append(f"{answer.path}: no DICOM results could be made of it ({unquoted(error)}).")

    def finish(self) -> None:
        """Write a report of each examination, in which pictures that failed are told of, too.

        Raises:
            DataError: the disk is full.
        """
        for examined in self._examined():
            name = examined.sources[0].answer.path
            self._write("CAD-report", name, partial(cad_report, examined, self.maker))

    def _drawn(self, answer: Prediction, kept: Prediction, content: bytes, picture: Picture) -> Source:
        """Write the heat of a picture that has any, both ways."""
        score_map, source = answer.score_map, Source(kept, None, content)
        if score_map is None or not answer.admitted:
            return source
        header, pixels = source.header, image_in(picture, answer.path).pixels
        if pixels.shape != (header.get("Rows"), header.get("Columns")):
            raise ImageError(f"{answer.path}: its header tells of another size: no DICOM result can lie on it.")
        self._write("heat", answer.path, partial(segmentation, header, kept, score_map, self.maker))
        self._write("capture", answer.path, partial(capture, header, kept, pixels, score_map, self.maker))
        return replace(source, peak=peak_of(score_map, pixels.shape))

    def _examined(self) -> list[Examined]:
        exams = joined(self._answers, ServedLevel.EXAM, self.maker.point, self.rules)
        found = [_sourced(exam, self._sources) for exam in exams if exam.error is None]
        found = [one for one in found if one.sources]
        for source in self._sources.values():
            if source.answer.error is not None:
                study = source.header.StudyInstanceUID
                fits = (place for place, one in enumerate(found) if one.sources[0].header.StudyInstanceUID == study)
                place = next(fits, len(found))
                exam = found[place] if place < len(found) else Examined(None, ())
                found[place : place + 1] = [replace(exam, sources=(*exam.sources, source))]
        return found

    def _write(self, kind: str, name: Path, make: Callable[[], Dataset | None]) -> None:
        """Write a result, whole or not at all; what cannot be made of an odd header is told of."""
        try:
            with warnings.catch_warnings(action="ignore"):  # they quote what is odd in headers
                made = make()
        except Exception as error:  # noqa: BLE001 - libraries have no one error for what a header may say
            self.left_out.append(f"{name}: no {kind} could be made of its header ({unquoted(error)}).")
            return
        if made is not None:
            path = self.folder / f"{kind}-{made.SOPInstanceUID}.dcm"
            with written_whole(path, make=self.makes) as temporary, warnings.catch_warnings(action="ignore"):
                made.save_as(temporary, enforce_file_format=True)
                size = temporary.stat().st_size
            self.written[path] = size


def _is_mammogram(source: Source) -> bool:
    header = source.header
    return header.get("Modality") == "MG" and "Rows" in header


def _sourced(exam: Prediction, sources: Mapping[Prediction, Source]) -> Examined:
    known = tuple(sources[view] for view in exam.views if view in sources)
    return Examined(exam, known, sum(view.admitted and view not in sources for view in exam.views))
