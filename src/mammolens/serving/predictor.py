"""Images in, `Prediction`s out, on ONNX Runtime. All that shapes an answer is in the bundle.

A network is data, but data that can ask for any memory and never end: it gets `MEMORY` and `SECONDS`. Its bytes alone
are handed over: ONNX Runtime then opens no file beside it, and knows no operators but its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from os import PathLike
from pathlib import Path
from threading import Timer

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mammolens.data.identity import known_of
from mammolens.data.matching import rows_by_name
from mammolens.errors import BundleError, reason
from mammolens.files import check_writable
from mammolens.images.archives import Named, Picture, named, pictures_in
from mammolens.images.breast import Pixels
from mammolens.images.preprocess import as_float
from mammolens.levels import Identifier, Level, ServedLevel
from mammolens.model.age import usable_age
from mammolens.model.bundle import Bundle, find_bundle, open_bundle
from mammolens.model.decisions import decided
from mammolens.parallel import FEW, Turns, cores, map_in_order, tracked
from mammolens.records import Mammogram, Prediction
from mammolens.reports.answers import Predictions
from mammolens.serving.exams import joined
from mammolens.serving.journal import Journal, answered
from mammolens.serving.overlay import write_overlays
from mammolens.serving.pictures import Seen, seen_or_reason
from mammolens.workers.crew import start

MEMORY = 4 * 2**30
"""Bytes that the networks of a process may have at once, weights included."""

SECONDS = 120
"""How long a network may take for one picture."""

AT_ONCE = 8
"""Pictures that a network looks at side by side at most: they share `MEMORY`. Where it is too little, one at a time."""

_SILENT = 4  # what goes wrong is raised

_GPU, _PROCESSOR = "CUDAExecutionProvider", "CPUExecutionProvider"

_ON_GPU = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit": str(MEMORY)}
"""In 32 bits, as on the processor, and by an algorithm that is chosen at once and alike each time."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model ready to answer; `mammolens.load` returns one.

    Attributes:
        bundle: where the network, its preprocessing and its thresholds come from.
        operating_point: the name of the threshold that decides where none is named.
    """

    bundle: Bundle
    operating_point: str
    _session: onnxruntime.InferenceSession
    _turn: Turns = field(default_factory=lambda: Turns(AT_ONCE))

    def __repr__(self) -> str:
        return f"<model {self.bundle.record.name}, operating point {self.operating_point}>"

    @classmethod
    def load(cls, model: str | Path | None = None, operating_point: str | None = None) -> "Predictor":
        """Open a bundle, a run's bundle, or a model that ships with the package, by name.

        Raises:
            BundleError: there is no such bundle, it is damaged, or has no such operating point.
        """
        start()
        bundle = open_bundle(find_bundle(model))
        chosen = _checked(operating_point or bundle.record.default_operating_point, bundle)
        session = _opened(bundle, cores())
        _check_ends(bundle, session)
        return cls(bundle, chosen, session)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU runs the network."""
        return _GPU in self._session.get_providers()

    def threshold(self, level: ServedLevel = ServedLevel.IMAGE) -> float:
        """Return the probability from which an answer is tumor, in [0, 1]."""
        return self.bundle.record.operating_points[level.judged][self.operating_point].threshold

    def predict(  # noqa: PLR0913 - an argument an option
        self,
        items: "Picture | Iterable[Picture]",
        *,
        level: ServedLevel | str = ServedLevel.IMAGE,
        data: str | Path | None = None,
        point: str | None = None,
        ungated: bool = False,
        overlay: str | Path | None = None,
        maps: bool = True,
        with_age: bool = False,
        report: str | Path | None = None,
        identify: Iterable[Identifier | str] = (),
        progress: bool = False,
        also: Callable[[Prediction, "Picture"], None] | None = None,
    ) -> Predictions:
        """Answer for whatever holds pictures, as `mammolens predict` does.

        What cannot be read, or is no picture, is an answer with an `error`: it stops no other.

        Args:
            items: files, folders, ZIP archives, arrays, Pillow images or pydicom data sets: one, or
                any of them mixed. A folder or archive stands for the pictures in it, sorted.
            level: what the answers are about: ``image``; ``breast``: the mean of its views;
                ``exam``: the larger of the breasts of one examination.
            data: a table, or another source of data, of side, view, patient_id and study_id of the pictures: it
                goes before their DICOM headers, which go before their names.
            point: the operating point that decides; None: the model's own.
            ungated: give the probability and map of what does not look like a mammogram, too: they
                mean nothing, and there is no decision all the same.
            overlay: folder for a heatmap of each picture, as PNG.
            maps: keep the score maps: those of a thousand pictures take up to 250 MB.
            with_age: give a second probability, of the picture and age together, where a DICOM header
                tells the age.
            report: a new folder for a report of each examination, as HTML: `examination-00003.html` is that of the
                third answer. One that has an error gets none.
            identify: what reports may tell of whose an examination is: ``patient``, ``study``, ``files``.
            progress: show a bar on standard error.
            also: what else is done with the answer for each picture, in order, while its map is at hand.

        Raises:
            BundleError: the model has no such operating point, no map to draw, or no answer with age.
            DataError: `overlay` or `report` cannot be written to, `report` holds something or is not of examinations,
                there is no such level, or `data` is wrong.
        """
        answers = self.answers(
            pictures_in(items),
            level=level,
            data=data,
            point=point,
            ungated=ungated,
            overlay=overlay,
            maps=maps,
            with_age=with_age,
            report=report,
            identify=identify,
            progress=progress,
            also=also,
        )
        return Predictions(answers, level=level, with_age=with_age)

    def answers(  # noqa: PLR0913 - likewise
        self,
        pictures: "Sequence[Picture | Named]",
        *,
        level: ServedLevel | str = ServedLevel.IMAGE,
        data: str | Path | None = None,
        point: str | None = None,
        ungated: bool = False,
        overlay: str | Path | None = None,
        maps: bool = True,
        with_age: bool = False,
        report: str | Path | None = None,
        identify: Iterable[Identifier | str] = (),
        progress: bool = False,
        kept: Journal | None = None,
        also: Callable[[Prediction, "Picture"], None] | None = None,
    ) -> Iterator[Prediction]:
        """Return an iterator of one `Prediction` a picture, in order: for more than memory holds.

        Several threads each have a picture decoded and prepared by a process of their own, and show it to
        the network; memory stays bounded. It sees each picture by itself, so that an answer does not depend on
        its company. At the level of breasts or examinations, all pictures are looked at before the first
        answer, which holds those for its pictures.

        A picture that does not look like a mammogram gets no decision and has no say in that of
        its breast or examination. Its probability and map, which mean nothing, are left out;
        `ungated` gives them, each alone.

        Args:
            pictures: each a picture itself, with a name of its own or not: for folders and archives, see `pictures_in`.
            level: as in `predict`, like all that follow.
            data: likewise.
            point: likewise.
            ungated: likewise.
            overlay: likewise.
            maps: likewise.
            with_age: likewise.
            report: likewise.
            identify: likewise.
            progress: likewise.
            kept: a journal of these answers: what it holds is not asked again, the others are kept in it. Its reports
                may lie in `report` already.
            also: likewise.

        Raises:
            BundleError: see `predict`, likewise the others.
            DataError: likewise.
        """
        if isinstance(pictures, str | PathLike):
            pictures = [pictures]
        level = ServedLevel.named(level)
        reports = None
        if report is not None or identify:
            from mammolens.serving.exam_reports import Reports, reported  # noqa: PLC0415 - with templates: few ask

            reports = Reports.checked(report, identify, level, kept)
        chosen = _checked(point or self.operating_point, self.bundle)
        if with_age and self.bundle.record.with_age is None:
            raise BundleError(
                f"{self.bundle.folder}: has no answer with age: that takes validation images with ages, of 20 patients "
                "with and 20 without a tumor. Export it anew (mammolens export) with such data, or leave out --age."
            )
        if overlay is not None:
            if self.bundle.record.outputs.score_map is None:
                raise BundleError(f"{self.bundle.folder}: its network has no score map. Leave out --overlay.")
            check_writable(Path(overlay))
        given = named(pictures)
        rows = {} if data is None else rows_by_name(str(data), [name for name, _ in given])
        record = self.bundle.record
        answer = partial(self._answers, rows=rows, point=chosen, ungated=ungated, with_age=with_age, progress=progress)
        heat = None if overlay is None else Path(overlay)
        draw = iter if heat is None else partial(write_overlays, pictures=[one.picture for one in given], folder=heat)
        mapped = (reports is not None or also is not None) and record.outputs.score_map is not None
        answers = answered(given, answer, draw, kept, heat=heat, maps=mapped)
        answers = _told(answers, given, also)
        second = record.with_age if with_age else None
        join = partial(joined, level=level, point=chosen, rules=record.rules(), with_age=second)
        if reports is not None:
            return reported(answers, [one.picture for one in given], join, reports, record, maps=maps)
        if not maps:
            answers = (replace(answer, score_map=None) for answer in answers)
        return answers if level is ServedLevel.IMAGE else join(answers)

    def _answers(
        self,
        given: Sequence[Named],
        rows: Mapping[Path, Mammogram],
        point: str,
        *,
        ungated: bool,
        with_age: bool,
        progress: bool,
    ) -> Iterator[Prediction]:
        record = self.bundle.record
        rules = record.rules()
        ready = self if len(given) <= FEW else replace(self, _session=self._beside_others)
        turn = self._turn

        def answer(one: Named) -> Prediction:
            picture = seen_or_reason(one, record.preprocess, record.gate)
            scored = turn(partial(ready._scored, one.name, picture, rows.get(one.name), ungated=ungated))  # noqa: SLF001
            second = self._with_age(scored) if with_age else None
            return replace(decided(scored, ServedLevel.IMAGE, point, rules), probability_with_age=second)

        yield from tracked(map_in_order(answer, given), "Predicting", len(given), visible=progress)

    def _with_age(self, answer: Prediction) -> float | None:
        """Return the second answer, where there is a first and age is known."""
        both = self.bundle.record.with_age
        if both is None or answer.probability is None or answer.age is None:
            return None
        return float(both(answer.probability, answer.age))

    def score(self, levels: NDArray[np.uint16]) -> tuple[float, Pixels | None]:
        """Return the network's raw score in [0, 1] and its score map for one prepared picture.

        Args:
            levels: (height, width), as `Preprocess` makes them.

        Raises:
            BundleError: the network takes too long or too much memory, or gives no probability.
        """
        record = self.bundle.record
        names = [name for name in (record.outputs.probability, record.outputs.score_map) if name]
        shown = {record.input: as_float(levels)[np.newaxis, ..., np.newaxis]}
        try:
            score, *maps = _run(self._session, names, shown)
        except Exception as error:  # ONNX Runtime's errors have no common type
            remedy = "Set CUDA_VISIBLE_DEVICES= to leave the GPU alone." if self.on_gpu else "Export it again."
            raise BundleError(f"{self.bundle.folder}: its network fails ({reason(error)}). {remedy}") from error
        if score.size != 1 or not 0 <= score.item() <= 1 or any(each.ndim != 4 for each in maps):  # noqa: PLR2004
            found = f"{score.ravel()[:2]}, with maps of {[each.shape for each in maps]}"
            raise BundleError(
                f"{self.bundle.folder}: its network gives {found}, where one number from 0 to 1 and a map "
                "of (1, rows, columns, 1) were expected. Export it again."
            )
        return score.item(), maps[0][0, ..., 0] if maps else None

    @cached_property
    def _beside_others(self) -> onnxruntime.InferenceSession:
        # Each thread of a batch runs the network itself. Where there are more threads than turns, the rest helps.
        return _opened(self.bundle, max(1, cores() - AT_ONCE + 1))

    def _scored(self, name: Path, picture: Seen | str, row: Mammogram | None, *, ungated: bool) -> Prediction:
        """Return what the network says of one picture, and whose it is; nothing is decided yet."""
        if isinstance(picture, str):
            return Prediction.failure(name, picture)
        known = known_of(name, picture.header, row)
        answer = Prediction(
            path=name,
            probability=None,
            **vars(known.identity),
            by_name=known.by_name,
            age=picture.header.age if usable_age(picture.header.age) else None,
            warnings=(*picture.warnings, *known.warnings),
            admitted=picture.admitted,
        )
        if not (picture.admitted or ungated):
            return answer
        score, score_map = self.score(picture.levels)
        probability = float(self.bundle.record.calibration(score))
        whole = None if score_map is None else picture.geometry.to_image(score_map)
        return replace(answer, probability=probability, score_map=whole)


def _told(
    answers: Iterator[Prediction], given: Sequence[Named], also: Callable[[Prediction, Picture], None] | None
) -> Iterator[Prediction]:
    for answer, one in zip(answers, given, strict=True):
        if also is not None:
            also(answer, one.picture)
        yield answer


def _checked(point: str, bundle: Bundle) -> str:
    points = bundle.record.operating_points[Level.IMAGE]
    if point not in points:
        raise BundleError(f"{bundle.folder}: no operating point '{point}'; it has {', '.join(points)}.")
    return point


def _run(
    session: onnxruntime.InferenceSession, names: Sequence[str], shown: Mapping[str, Pixels]
) -> list[NDArray[np.float32]]:
    """Run a network, but no longer than `SECONDS`: between two operators it is told to stop."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    timer = Timer(SECONDS, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return list(session.run(names, shown, options))
    finally:
        timer.cancel()


@cache
def _limit_memory() -> None:
    """Give all networks of this process one memory, of `MEMORY` bytes at most, and never another."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": MEMORY}))


def knows_gpus() -> bool:
    """Tell whether what is installed would answer by a GPU, if there is one."""
    return _GPU in onnxruntime.get_available_providers()


def _opened(bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    _limit_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Threads that wait by spinning would take the cores from those who decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime's own way to the processor prints, and is open to threads that run the network meanwhile.
    opened = partial(onnxruntime.InferenceSession, bundle.model, options, enable_fallback=False)
    if knows_gpus():
        with suppress(Exception):  # its libraries, a GPU, or memory of one are missing
            return opened(providers=[(_GPU, _ON_GPU), _PROCESSOR])
    try:
        return opened(providers=[_PROCESSOR])
    except Exception as error:  # ONNX Runtime's errors have no common type
        raise BundleError(f"{bundle.folder}: its network cannot be opened ({reason(error)}).") from error


def _check_ends(bundle: Bundle, session: onnxruntime.InferenceSession) -> None:
    """Refuse a network that takes or gives something other than the record says."""
    record = bundle.record
    takes = [(node.name, node.shape[1:]) for node in session.get_inputs()]
    gives = {node.name for node in session.get_outputs()}
    wanted = {record.outputs.probability, record.outputs.score_map or record.outputs.probability}
    if takes != [(record.input, [*record.preprocess.shape, 1])] or not wanted <= gives:
        raise BundleError(
            f"{bundle.folder}: its network takes {takes} and gives {sorted(gives)}, which is not "
            "what its record says. Export it again."
        )
