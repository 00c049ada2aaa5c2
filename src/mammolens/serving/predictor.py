"""Images in, `Prediction`s out, on ONNX Runtime. All that shapes an answer is in the bundle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mammolens.errors import BundleError, ImageError, reason
from mammolens.images.archives import Input
from mammolens.images.breast import Pixels
from mammolens.images.image import Header, Image, check_size
from mammolens.images.preprocess import Geometry, Preprocess, as_float
from mammolens.images.reading import read_image
from mammolens.model.bundle import Bundle, find_bundle, open_bundle
from mammolens.model.gate import Gate, is_admitted
from mammolens.model.rules import aggregated, decided
from mammolens.parallel import FEW, cores, map_in_order, tracked
from mammolens.records import ImageWarning, Level, Mammogram, Prediction, Warned

Picture = Path | str | Input | NDArray[np.generic]
"""A file, one in an archive, or an array (height, width): float in [0, 1], uint8 or uint16."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a worker makes of one picture: all that the network and the answer need, no more."""

    levels: NDArray[np.uint16]
    geometry: Geometry
    admitted: bool
    header: Header
    warnings: tuple[Warned, ...]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network ready to answer.

    Attributes:
        bundle: where the network, its preprocessing and its thresholds come from.
        operating_point: the name of the threshold that decides.
    """

    bundle: Bundle
    operating_point: str
    _session: onnxruntime.InferenceSession

    @classmethod
    def load(cls, model: str | Path | None = None, operating_point: str | None = None) -> "Predictor":
        """Open a bundle, a run's bundle, or a model that ships with the package, by name.

        Raises:
            BundleError: there is no such bundle, it is damaged, or has no such operating point.
        """
        bundle = open_bundle(find_bundle(model))
        record = bundle.record
        chosen = operating_point or record.default_operating_point
        if chosen not in record.operating_points[Level.IMAGE]:
            known = ", ".join(record.operating_points[Level.IMAGE])
            raise BundleError(f"{bundle.folder}: no operating point '{chosen}'; it has {known}.")
        session = _opened(bundle, cores())
        _check_ends(bundle, session)
        return cls(bundle, chosen, session)

    def threshold(self, level: Level = Level.IMAGE) -> float:
        """Return the probability from which an answer is tumor, in [0, 1]."""
        return self.bundle.record.operating_points[level][self.operating_point].threshold

    def predict(
        self,
        pictures: Sequence[Picture],
        *,
        level: Level = Level.IMAGE,
        gated: bool = True,
        progress: bool = False,
    ) -> Iterator[Prediction]:
        """Yield one `Prediction` a picture, in order; one that cannot be read yields its reason.

        Pictures are decoded and prepared by several processes ahead of the network; memory stays
        bounded. The network sees one picture at a time, so that an answer does not depend on its
        company. At the level of breasts or patients, all pictures are looked at before the first
        answer, and those of one breast or patient get the same.

        A picture that does not look like a mammogram gets no decision and has no say in that of
        its breast or patient. Its probability and map, which mean nothing, are left out.

        Args:
            pictures: files, files in archives, or arrays.
            level: what the answers are about.
            gated: False gives the probability and map of such pictures, too, each alone; there is
                no decision all the same.
            progress: show a bar.
        """
        record = self.bundle.record
        work = map_in_order(partial(look, preprocess=record.preprocess, gate=record.gate), pictures)
        named = zip(map(_name, pictures, range(len(pictures))), work, strict=True)
        shown = tracked(named, "Predicting", len(pictures), visible=progress)
        # Where other processes decode meanwhile, they are left half of the cores.
        ready = self if len(pictures) <= FEW else replace(self, _session=self._beside_others)
        answers = (
            (ready._answer(name, seen, gated=gated), seen)  # noqa: SLF001
            for name, seen in shown
        )
        joined = (
            iter(answers)
            if level is Level.IMAGE
            else _together([(answer, _light(seen)) for answer, seen in answers], level)
        )
        rules = record.rules()
        for answer, seen in joined:
            yield _placed(decided(answer, level, self.operating_point, rules), seen)

    def score(self, levels: NDArray[np.uint16]) -> tuple[float, Pixels | None]:
        """Return the network's raw score in [0, 1] and its score map for one prepared picture.

        Args:
            levels: (height, width), as `Preprocess` makes them.
        """
        record = self.bundle.record
        names = [name for name in (record.outputs.probability, record.outputs.score_map) if name]
        found = self._session.run(names, {record.input: as_float(levels)[np.newaxis, ..., np.newaxis]})
        return float(found[0].ravel()[0]), found[1][0, ..., 0] if len(found) > 1 else None

    @cached_property
    def _beside_others(self) -> onnxruntime.InferenceSession:
        return _opened(self.bundle, max(1, cores() // 2))

    def _answer(self, name: Path, seen: Seen | str, *, gated: bool) -> Prediction:
        """Return what the network says of one picture; nothing is decided yet."""
        if isinstance(seen, str):
            return Prediction.failure(name, seen)
        answer = Prediction(
            path=name,
            probability=None,
            laterality=seen.header.laterality,
            view=seen.header.view,
            patient_id=seen.header.patient_id,
            warnings=seen.warnings if seen.admitted else (ImageWarning.NOT_LIKE_TRAINING, *seen.warnings),
            admitted=seen.admitted,
        )
        if gated and not seen.admitted:
            return answer
        score, score_map = self.score(seen.levels)
        probability = float(self.bundle.record.calibration(score))
        return replace(answer, probability=probability, score_map=score_map)


def _opened(bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait by spinning would take the cores from those who decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
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


def _name(picture: Picture, index: int) -> Path:
    if isinstance(picture, Input):
        return picture.name
    return Path(picture) if isinstance(picture, str | Path) else Path(f"array {index}")


def look(picture: Picture, preprocess: Preprocess, gate: Gate | None) -> Seen | str:
    """Read and prepare one picture, or say why not: one bad file never stops a batch."""
    try:
        image = _read(picture)
    except ImageError as error:
        return reason(error)
    prepared = preprocess(image.pixels)
    height, width = image.pixels.shape
    said = [*image.warnings, *prepared.warnings]
    if height < preprocess.height or width < preprocess.width:
        said.append(ImageWarning.SMALL.about(width, height))
    return Seen(
        prepared.pixels,
        prepared.geometry,
        is_admitted(image, gate),
        image.header or Header(),
        tuple(said),
    )


def _read(picture: Picture) -> Image:
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    if isinstance(picture, Input):
        with picture.on_disk() as path:
            try:
                return read_image(path)
            except ImageError as error:
                raise ImageError(str(error).replace(str(path), str(picture.name))) from error
    return _from_array(picture)


def _from_array(array: NDArray[np.generic]) -> Image:
    if array.ndim != 2:  # noqa: PLR2004 - height and width
        raise ImageError(f"an array of shape {array.shape}: expected (height, width), grey.")
    check_size(Path("array"), *array.shape)
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    if kind == "u" and bits <= 16:  # noqa: PLR2004 - in either byte order
        return Image(array.astype(np.float32) / np.float32(2**bits - 1), "array", bits)
    if kind not in "buif":
        raise ImageError(f"an array of {array.dtype}: expected float, uint8 or uint16.")
    values: Any = array
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ImageError("an array with values outside [0, 1]: scale it, or give uint8 or uint16.")
    return Image(array.astype(np.float32), "array", 16)


def _together(answers: list[tuple[Prediction, Seen | str]], level: Level) -> Iterator[tuple[Prediction, Seen | str]]:
    """Give all pictures of a breast or patient the probability of their breast or patient."""
    joining = [(a, a.probability) for a, _ in answers if a.admitted and a.probability is not None]
    known = [Mammogram(path=a.path, patient_id=a.patient_id, laterality=a.laterality) for a, _ in joining]
    joined = aggregated(
        [probability for _, probability in joining],
        [mammogram.breast_key for mammogram in known],
        [mammogram.patient_key for mammogram in known],
        level,
    )
    probabilities = iter(joined.tolist())
    for answer, seen in answers:
        if not answer.admitted or answer.probability is None:
            yield answer, seen
            continue
        told = answer.patient_id is not None and answer.laterality is not None
        said = answer.warnings if told else (*answer.warnings, ImageWarning.NO_SIDE)
        yield replace(answer, probability=next(probabilities), warnings=said), seen


def _light(seen: Seen | str) -> Seen | str:
    """Return what was seen without its pixels: thousands may wait."""
    return seen if isinstance(seen, str) else replace(seen, levels=np.empty((0, 0), np.uint16))


def _placed(answer: Prediction, seen: Seen | str) -> Prediction:
    """Return the answer with its map over the whole picture instead of over the canvas."""
    if answer.score_map is None or isinstance(seen, str):
        return answer
    return replace(answer, score_map=seen.geometry.to_image(answer.score_map))
