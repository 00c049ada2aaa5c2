"""What goes in and comes out, for the OpenAPI document, and what is refused of what goes in."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mammolens.levels import Level, ServedLevel
from mammolens.model.bundle import MODEL
from mammolens.reports.answers import BOOLEANS, NUMBERS, OF_VIEW, VIEWS, columns_of
from mammolens.serving.predictor import Predictor

HEATMAP = "heatmap"
"""Further column where heatmaps are asked for: a PNG file in base64, or null."""

BINARY = {"type": "string", "format": "binary"}

Uid = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]

_STRICT = ConfigDict(extra="forbid")


class Study(BaseModel):
    """What is fetched: the mammograms of a study, or of one series of it."""

    model_config = _STRICT

    url: str = Field(description="The DICOMweb server, as the service was told of it when it was started.")
    study: Uid
    series: Uid | None = None


class Reference(BaseModel):
    """Pictures that a DICOMweb server has."""

    model_config = _STRICT

    dicomweb: Study


class Problem(BaseModel):
    """Why there is no answer, in one sentence."""

    detail: str


class Health(BaseModel):
    """Whether it serves."""

    status: str


class ModelFacts(BaseModel):
    """The model that answers.

    Attributes:
        name: of the model.
        fingerprint: SHA-256 of its network.
        mammolens: version that answers.
        created: UTC, ISO 8601.
        intended_use: in one sentence.
        licence: of the weights.
        synthetic: whether it learnt from drawn mammograms alone; null where nothing is known.
        score_map: whether there are heatmaps.
        default_operating_point: which decides where none is named.
        operating_points: the probability from which an answer is tumor, by level (an examination is judged as a
            patient) and name.
    """

    name: str
    fingerprint: str
    mammolens: str
    created: str
    intended_use: str
    licence: str
    synthetic: bool | None
    score_map: bool
    default_operating_point: str
    operating_points: dict[Level, dict[str, float]]

    @classmethod
    def of(cls, predictor: Predictor, version: str) -> "ModelFacts":
        """Return what is told of the model that answers."""
        record = predictor.bundle.record
        points = {
            level: {name: point.threshold for name, point in points.items()}
            for level, points in record.operating_points.items()
        }
        return cls(
            name=record.name,
            fingerprint=record.files[MODEL],
            mammolens=version,
            created=record.created,
            intended_use=record.intended_use,
            licence=record.licence,
            synthetic=None if record.training_data is None else record.training_data.synthetic,
            score_map=record.outputs.score_map is not None,
            default_operating_point=predictor.operating_point,
            operating_points=points,
        )


def body() -> dict[str, Any]:
    """Return what is sent for an answer."""
    files = {"type": "array", "minItems": 1, "items": BINARY}
    forms = {"multipart/form-data": ("files", files), "application/json": ("dicomweb", Study.model_json_schema())}
    closed = {"type": "object", "additionalProperties": False}
    content = {
        kind: {"schema": closed | {"properties": {name: what}, "required": [name]}}
        for kind, (name, what) in forms.items()
    }
    return {"required": True, "content": content}


def answers() -> dict[str, Any]:
    """Return what `POST /v1/predict` answers with: rows as `mammolens predict --out answers.json` writes them."""
    view = {name: _kind(name) for name in OF_VIEW}
    columns = dict.fromkeys(name for level in ServedLevel for name in columns_of(level))
    row = {name: _kind(name) for name in columns}
    heatmap = {HEATMAP: {"type": ["string", "null"], "contentEncoding": "base64", "contentMediaType": "image/png"}}
    views = {"type": "array", "items": {"type": "object", "properties": view | heatmap, "required": [*view]}}
    properties = row | {VIEWS: views} | heatmap
    return {
        "type": "array",
        "items": {"type": "object", "properties": properties, "required": [*columns_of()]},
    }


def _kind(column: str) -> dict[str, Any]:
    kind = "number" if column in NUMBERS else "boolean" if column in BOOLEANS else "string"
    return {"type": [kind, "null"]}
