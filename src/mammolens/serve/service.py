"""The service's routes: pictures in, answers out, by the words and digits of `mammolens predict --out answers.json`."""

import asyncio
import base64
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from mammolens import __version__
from mammolens.errors import DataError
from mammolens.hosting import MAX_IMAGES
from mammolens.images.archives import Input, Named, Picture
from mammolens.levels import Level, ServedLevel
from mammolens.model.bundle import BundleRecord
from mammolens.model.decisions import decided
from mammolens.records import Prediction
from mammolens.reports.answers import VIEWS, Row, as_json, columns_of, row_of
from mammolens.serve import schema
from mammolens.serve.admission import HEALTH, Admission, Rule, problem
from mammolens.serve.line import Full, Line, Refused
from mammolens.serve.uploads import Drawer, Room
from mammolens.serve.watch import Counts, Watch
from mammolens.serving.exams import joined
from mammolens.serving.overlay import drawn
from mammolens.serving.predictor import Predictor

Result = TypeVar("Result")

MOST_DRAWN = 24
"""Images of a request with heatmaps: a megabyte of its answer each, which is in memory as a whole."""

_LONGEST = 2**16  # bytes of a reference
_REFUSALS = {
    400: "it is no form",
    401: "there is no token, or no right one",
    403: "a page of another site asks, or for a DICOMweb server that the service was not told of",
    404: "the DICOMweb server has no mammogram there, or does not answer",
    413: "it is too much",
    415: "it is neither a form nor JSON",
    421: "it is not called by a name of this machine",
    422: "it makes no sense",
    429: "there are too many requests: see Retry-After",
    503: "it took too long, the service ends, or its disk is full",
}


@dataclass(frozen=True)
class Asked:
    """What one request wants.

    Attributes:
        level: what answers are about.
        point: the operating point that decides.
        heatmaps: whether there is one of each picture.
    """

    level: ServedLevel
    point: str
    heatmaps: bool


@dataclass(frozen=True)
class Looked:
    """The answer for one picture, and its heatmap as PNG."""

    answer: Prediction
    heatmap: bytes | None


def service(predictor: Predictor, line: Line, rule: Rule, dicomweb: Sequence[str] = ()) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        predictor: that answers.
        line: of its requests.
        rule: who may ask.
        dicomweb: servers from which it may be told to fetch.
    """
    allowed = {url.rstrip("/") for url in dicomweb}
    counts, room = Counts(line), Room()
    record, default = predictor.bundle.record, predictor.operating_point
    points: list[JsonValue] = [*record.operating_points[Level.IMAGE]]
    paths = frozenset((HEALTH, "/metrics", "/openapi.json", "/v1/models", "/v1/predict"))
    api = FastAPI(
        title="mammolens",
        version=__version__,
        description="Detect breast tumors in mammograms. Research use only: not a medical device.",
        docs_url=None,  # it would have browsers fetch scripts from elsewhere
        redoc_url=None,
        middleware=[Middleware(Watch, counts=counts, paths=paths), Middleware(Admission, rule=rule)],
        exception_handlers={RequestValidationError: _invalid, Refused: _refused, ClientDisconnect: _gone},
    )

    @api.get(HEALTH)
    def health() -> schema.Health:
        """Tell that it serves; the one path that needs no token."""
        return schema.Health(status="ok")

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **_said(401, 421)})
    def metrics() -> Response:
        """Return counts, for Prometheus."""
        return Response(counts.text(), media_type="text/plain; version=0.0.4")

    @api.get("/v1/models", responses=_said(401, 421))
    def models() -> list[schema.ModelFacts]:
        """Return the model that answers."""
        return [schema.ModelFacts.of(predictor, __version__)]

    @api.post(
        "/v1/predict",
        response_class=Response,
        openapi_extra={"requestBody": schema.body()},
        responses={200: {"content": {"application/json": {"schema": schema.answers()}}}, **_said(*_REFUSALS)},
    )
    async def predict(
        request: Request,
        level: Annotated[ServedLevel, Query(description="What a row is about.")] = ServedLevel.IMAGE,
        point: Annotated[str, Query(description="Operating point.", json_schema_extra={"enum": points})] = default,
        heatmaps: Annotated[bool, Query(description="Add a PNG of each picture with heat, in base64.")] = False,
    ) -> Response:
        """Answer for images, DICOM and ZIP archives that are sent, or that a DICOMweb server has.

        What cannot be read is a row with an `error`. Nothing that is sent is kept.
        """
        _check(record, point, heatmaps=heatmaps)
        async with line.entered(), room.folder() as drawer:
            pictures = await _given(request, drawer, allowed)
            _check_count(pictures, MOST_DRAWN if heatmaps else MAX_IMAGES)
            asked = Asked(level, point, heatmaps)
            looked = await _unless_gone(request, line.each(partial(_looked, predictor, asked), pictures))
        for one in looked:
            counts.count(one.answer)
        text = "".join(as_json(_rows(looked, predictor, asked)))
        return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})

    return api


def _check(record: BundleRecord, point: str, *, heatmaps: bool) -> None:
    """Refuse what the model does not have.

    Raises:
        HTTPException: it has no such operating point, or no score map.
    """
    points = record.operating_points[Level.IMAGE]
    if point not in points:
        raise HTTPException(422, f"query.point: expected {', '.join(points)}")
    if heatmaps and record.outputs.score_map is None:
        raise HTTPException(422, "the model has no score map: there are no heatmaps")


def _check_count(pictures: Sequence[Input], most: int) -> None:
    if len(pictures) > most:
        raise HTTPException(413, f"{len(pictures)} images: send {most} at a time")


async def _given(request: Request, drawer: Drawer, allowed: set[str]) -> list[Input]:
    """Return the pictures that a request is about.

    Raises:
        HTTPException: it has none, or too many.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await drawer.filled(request)
    if kind != "application/json":
        raise HTTPException(415, "expected a multipart form with files, or JSON with a DICOMweb reference")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST:
            raise HTTPException(413, "expected JSON with a DICOMweb reference alone")
    try:
        study = schema.Reference.model_validate_json(body).dicomweb
    except ValidationError as error:
        raise HTTPException(422, _first(error.errors())) from error
    if study.url.rstrip("/") not in allowed:
        raise HTTPException(403, "from that DICOMweb server nothing is fetched: see --dicomweb")
    return await _fetched(study, drawer)


async def _fetched(study: schema.Study, drawer: Drawer) -> list[Input]:
    from mammolens.pacs.retrieval import fetched  # noqa: PLC0415 - of another extra

    pictures: list[Input] = []
    coming = fetched(study.url, study.study, study.series, drawer.place)
    try:
        while (one := await asyncio.to_thread(next, coming, None)) is not None:
            pictures.append(one)
            drawer.take(one.file.stat().st_size if one.problem is None else 0)
            _check_count(pictures, MAX_IMAGES)
    except DataError as error:
        raise HTTPException(404, str(error)) from error
    return pictures


def _looked(predictor: Predictor, asked: Asked, given: Input) -> Looked:
    """Answer for one picture, as `mammolens predict` does; it stops no other, and writes no file."""
    heat = BytesIO()

    def draw(answer: Prediction, picture: Picture) -> None:
        if answer.score_map is not None:
            drawn(answer, answer.score_map, picture).save(heat, format="PNG")

    also = draw if asked.heatmaps else None
    try:
        (answer,) = predictor.answers([Named(given.name, given)], point=asked.point, maps=False, also=also)
        return Looked(answer, heat.getvalue() or None)
    except Exception as error:  # noqa: BLE001 - one file stops no other, and reaches no log
        told = f"{given.name}: could not be looked at ({type(error).__name__}). Export it anew."
        failed = Prediction.failure(given.name, told)
        return Looked(decided(failed, ServedLevel.IMAGE, asked.point, predictor.bundle.record.rules()), None)


def _rows(looked: Sequence[Looked], predictor: Predictor, asked: Asked) -> Iterator[Row]:
    """Yield rows as `mammolens predict --out answers.json` writes them, with heatmaps where they are asked for."""
    answers = [one.answer for one in looked]
    heat = {one.answer: one.heatmap and base64.b64encode(one.heatmap).decode() for one in looked}
    if asked.level is not ServedLevel.IMAGE:
        answers = list(joined(answers, asked.level, asked.point, predictor.bundle.record.rules()))
    columns = columns_of(asked.level)
    for answer in answers:
        row = row_of(answer, columns)
        if asked.heatmaps and asked.level is ServedLevel.IMAGE:
            row[schema.HEATMAP] = heat[answer]
        elif asked.heatmaps:
            for view, cells in zip(answer.views, row[VIEWS], strict=True):
                cells[schema.HEATMAP] = heat[view]
        yield row


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Await work, but no longer than the client waits for it."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the client has gone")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _invalid(_: Request, error: Exception) -> Response:
    told = _first(error.errors()) if isinstance(error, RequestValidationError) else "it makes no sense"
    return problem(told, 422)


async def _gone(_: Request, __: Exception) -> Response:
    return problem("the client has gone", 499)


async def _refused(_: Request, error: Exception) -> Response:
    wait = error.wait if isinstance(error, Refused) else 1
    return problem(str(error), 429 if isinstance(error, Full) else 503, {"Retry-After": str(wait)})


def _first(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong first."""
    place = ".".join(map(str, errors[0]["loc"]))
    return f"{place}: {errors[0]['msg']}" if place else str(errors[0]["msg"])


def _said(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": schema.Problem, "description": _REFUSALS[code]} for code in codes}
