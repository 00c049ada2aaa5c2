"""The bundle: a trained network as data. All that serving knows of a model, and all it needs.

BUNDLE/model.onnx    the network: pixels in; `probability` and, where it can, `score_map` out
       bundle.json   what is done to an image before and to a score after, where it comes from,
                     how good it is, and the checksum of every other file

Nothing in a bundle is executed: a graph of known operators, and JSON that pydantic checks.
"""

import hashlib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mammolens import __version__
from mammolens.errors import BundleError
from mammolens.files import folder_written_whole, write_text
from mammolens.images.preprocess import VERSION, Preprocess
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.model.age import WithAge
from mammolens.model.calibration import Calibration
from mammolens.model.decisions import Conformal, OperatingPoints, Rules
from mammolens.model.gate import Gate
from mammolens.model.provenance import Provenance
from mammolens.records import LABEL_NAMES

MODEL, RECORD = "model.onnx", "bundle.json"

MAX_BYTES = 2 * 2**30
"""Of a file: ONNX can hold no more."""

DEFAULT = "accurate"
"""The bundle that answers where no model is named."""

INTENDED_USE = (
    "Research on breast tumor detection in mammograms. Not a medical device; not for any decision about a person."
)

_FROZEN = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")
_Share = Annotated[float, Field(gt=0, lt=1)]


class TrainingData(BaseModel):
    """What a network was learnt from.

    Attributes:
        name: of the data set.
        images: in training and validation.
        patients: they belong to this many.
        prevalence: share of validation images with a tumor, at which probabilities are calibrated.
        fingerprint: SHA-256 of the manifest, as far as it is training and validation.
        synthetic: whether the patients are drawn, not real.
        calibration_only: whether the network learnt elsewhere, and was but calibrated on these.
    """

    model_config = _FROZEN

    name: str
    images: int
    patients: int
    prevalence: _Share
    fingerprint: str
    synthetic: bool
    calibration_only: bool = False


class Learnt(BaseModel):
    """How one network was learnt, as far as a report tells of it; the rest is in its run.

    Attributes:
        network: a name from `networks.NETWORKS`, or of `keras.applications`.
        data: name of the data set.
        started_from: what its first weights were.
        optimizer: as in its recipe.
        monitor: what of validation chose the epoch: ``loss``, ``auc``, or ``nothing``.
        made_with: the code and the libraries; None in bundles from before it was recorded.
    """

    model_config = _FROZEN

    network: str
    data: str
    started_from: Literal["random weights", "ImageNet weights", "another network"]
    optimizer: str
    monitor: Literal["loss", "auc", "nothing"]
    made_with: Provenance | None = None


class Outputs(BaseModel):
    """Names of the network's outputs."""

    model_config = _FROZEN

    probability: str = "probability"
    score_map: str | None = None


class BundleRecord(BaseModel):
    """What `bundle.json` holds.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        mammolens_version: that wrote it.
        name: of the model.
        created: UTC, ISO 8601.
        intended_use: in one sentence.
        licence: of the weights.
        training_data: what it was learnt from, or None where nothing is known.
        learnt: how each network that answers was learnt; None where it is not recorded, as of
            files trained elsewhere, and in bundles from before it was.
        preprocess: what is done to an image first.
        preprocess_version: `preprocess.VERSION` when it was trained.
        labels: what outputs 0 and 1 mean.
        input: name of the network's input, float32 (images, height, width, 1) in [0, 1].
        outputs: names of the network's outputs.
        calibration: from scores to probabilities, and by which method.
        operating_points: thresholds on the probability, by level and name.
        default_operating_point: the one that decides where none is chosen.
        conformal: which classes a probability leaves possible, by level; empty where nothing was
            measured, and in bundles from before there was such a thing.
        with_age: from probability and age to a second answer; None where validation lacks ages, and in
            bundles from before there was such a thing.
        gate: what an image must look like to be answered for, or None.
        metrics: ROC AUC and others on validation, by image, with intervals by patient.
        parity: largest difference between the network before and after export, on real images.
        made_with: the code and the libraries that exported it; None in bundles from before it was recorded.
        files: SHA-256 of every other file, by name.
    """

    model_config = _FROZEN

    schema_version: Literal[1] = 1
    mammolens_version: str = __version__
    name: str
    created: str
    intended_use: str = INTENDED_USE
    licence: str
    training_data: TrainingData | None
    learnt: tuple[Learnt, ...] | None = None
    preprocess: Preprocess
    preprocess_version: int = VERSION
    labels: tuple[str, str] = LABEL_NAMES
    input: str = "image"
    outputs: Outputs
    calibration: Calibration
    operating_points: dict[Level, OperatingPoints]
    default_operating_point: str
    conformal: dict[Level, Conformal] = Field(default_factory=dict)
    with_age: WithAge | None = None
    gate: Gate | None
    metrics: dict[str, Estimate]
    parity: float
    made_with: Provenance | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _every_level_can_decide(self) -> Self:
        names = [set(self.operating_points.get(level, {})) for level in Level]
        if self.default_operating_point not in names[0] or names.count(names[0]) < len(names):
            raise ValueError("every level needs the same operating points, the default among them")
        return self

    def rules(self, operating_point: str | None = None) -> Rules:
        """Return how probabilities become answers, at this point where none is named later."""
        point = operating_point or self.default_operating_point
        return Rules(point, self.operating_points, self.conformal)


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle, checked.

    Attributes:
        folder: where it is.
        record: what `bundle.json` says.
        model: the ONNX file's bytes, whose checksum was verified.
    """

    folder: Path
    record: BundleRecord
    model: bytes = field(repr=False)


def write_bundle(record: BundleRecord, model: bytes, out: Path) -> Bundle:
    """Write a bundle into the new folder `out`, whole or not at all.

    Raises:
        DataError: `out` exists or cannot be written.
    """
    complete = record.model_copy(update={"files": {MODEL: hashlib.sha256(model).hexdigest()}})
    with folder_written_whole(out) as temporary:
        temporary.mkdir(parents=True)
        (temporary / MODEL).write_bytes(model)
        write_text(temporary / RECORD, complete.model_dump_json(indent=2) + "\n")
    return open_bundle(out)


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle and verify it.

    Raises:
        BundleError: it is not a bundle, was written by a newer mammolens, or a file is missing or
            not the one that was exported.
    """
    try:
        text = _content(folder / RECORD)
    except OSError as error:
        raise BundleError(f"{folder}: not a bundle: it holds no readable {RECORD}.") from error
    try:
        record = BundleRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "as a whole"
        raise BundleError(
            f"{folder / RECORD}: not a bundle of this version of mammolens ({__version__}): "
            f"{place}: {first['msg']}. Export it again."
        ) from error
    if record.preprocess_version != VERSION:
        raise BundleError(
            f"{folder}: its preprocessing is of version {record.preprocess_version}, this "
            f"mammolens has {VERSION} and would show it other pixels. Export it again."
        )
    if set(record.files) != {MODEL}:
        raise BundleError(f"{folder / RECORD}: expected the checksum of {MODEL}, no more or less.")
    try:
        model = _content(folder / MODEL)
    except OSError as error:
        raise BundleError(f"{folder / MODEL}: missing. Export or copy the bundle anew.") from error
    if hashlib.sha256(model).hexdigest() != record.files[MODEL]:
        raise BundleError(
            f"{folder / MODEL}: not the file that was exported (its checksum differs). Export or copy the bundle anew."
        )
    return Bundle(folder, record, model)


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # a device has no end
        raise BundleError(f"{path}: is no file. Export or copy the bundle anew.")
    if path.stat().st_size > MAX_BYTES:
        raise BundleError(f"{path}: is over the limit of {MAX_BYTES // 2**20} MiB.")
    return path.read_bytes()


def find_bundle(model: str | Path | None = None) -> Path:
    """Return the folder of a bundle: a bundle, a run that has one, or one that ships, by name.

    Raises:
        BundleError: `model` is none of these.
    """
    shipped = packaged_bundles()
    if model is None or str(model) in shipped:
        return shipped[str(model or DEFAULT)]
    path = Path(model)
    if path.suffix.lower() in {".h5", ".keras", ".hdf5"} and not path.is_dir():
        raise BundleError(f"{path}: a Keras model, not a bundle. Turn it into one: mammolens export {path} BUNDLE.")
    for folder in (path, path / "bundle"):
        if (folder / RECORD).is_file():
            return folder
    if (path / "recipe.toml").is_file():
        raise BundleError(f"{path}: a run without a bundle: its training did not end. Train again.")
    raise BundleError(f"{path}: not a run, a bundle or one of the models that ship ({', '.join(shipped)}).")


def packaged_bundles() -> dict[str, Path]:
    """Return the bundles that ship with the package, by name."""
    root = Path(str(resources.files("mammolens") / "bundles"))
    return {folder.parent.name: folder.parent for folder in sorted(root.glob(f"*/{RECORD}"))}
