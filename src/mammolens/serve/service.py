"""The service's routes: pictures in, answers out, by the words and digits of `mammolens predict --out answers.json`."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from mammolens import __version__
from mammolens.errors import DataError, MissingExtra
from mammolens.hosting import MAX_IMAGES
from mammolens.images.archives import Input
from mammolens.levels import Level, ServedLevel
from mammolens.model.bundle import BundleRecord
from mammolens.serve import schema
from mammolens.serve.admission import HEALTH, Admission, Rule, problem
from mammolens.serve.answering import Asked, Looked, answers_as_json, looked_at, packed
from mammolens.serve.line import Full, Line, Refused
from mammolens.serve.uploads import Drawer, Room
from mammolens.serve.watch import ANSWERING, DICOM, PREDICT, Counts, Watch
from mammolens.serving.predictor import Predictor

if TYPE_CHECKING:
    from mammolens.dicom_results.results import Results

Result = TypeVar("Result")

MOST_DRAWN = 24
"""Images of a request with heatmaps or DICOM: megabytes of its answer each, which is in memory as a whole."""

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
    501: "what writes DICOM is not installed here",
    503: "it took too long, the service ends, or its disk is full",
}


_AskedLevel = Annotated[ServedLevel, Query(description="What a row is about.")]


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
    of_points = Query(description="Operating point.", json_schema_extra={"enum": points})
    paths = frozenset((HEALTH, "/metrics", "/openapi.json", "/v1/models", *ANSWERING))
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

    async def looked(request: Request, drawer: Drawer, asked: Asked, most: int) -> list[Looked]:
        pictures = await _given(request, drawer, allowed)
        _check_count(pictures, most)
        found = await _unless_gone(request, line.each(partial(looked_at, predictor, asked), pictures))
        for one in found:
            counts.count(one.answer)
        return found

    @api.post(
        PREDICT,
        response_class=Response,
        openapi_extra={"requestBody": schema.body()},
        responses={
            200: {"content": {"application/json": {"schema": schema.answers()}}},
            **_said(*_REFUSALS.keys() - {501}),
        },
    )
    async def predict(
        request: Request,
        level: _AskedLevel = ServedLevel.IMAGE,
        point: Annotated[str, of_points] = default,
        heatmaps: Annotated[bool, Query(description="Add a PNG of each picture with heat, in base64.")] = False,
    ) -> Response:
        """Answer for images, DICOM and ZIP archives that are sent, or that a DICOMweb server has.

        What cannot be read is a row with an `error`. Nothing that is sent is kept.
        """
        _check(record, point, heatmaps=heatmaps)
        asked = Asked(level, point, heatmaps)
        async with line.entered(), room.folder() as drawer:
            found = await looked(request, drawer, asked, MOST_DRAWN if heatmaps else MAX_IMAGES)
        return _sent(answers_as_json(found, predictor, asked), "application/json")

    @api.post(
        DICOM,
        response_class=Response,
        openapi_extra={"requestBody": schema.body()},
        responses={200: {"content": {"application/zip": {"schema": schema.BINARY}}}, **_said(*_REFUSALS)},
    )
    async def dicom(
        request: Request,
        level: _AskedLevel = ServedLevel.IMAGE,
        point: Annotated[str, of_points] = default,
    ) -> Response:
        """Answer with results as DICOM, in the studies of the pictures, in a ZIP archive.

        They are those of `mammolens predict --dicom`. `answers.json` has the answers, and `left-out.txt`, if it is
        there, what has no result and why.
        """
        _check(record, point, heatmaps=False)
        asked = Asked(level, point, maps=True)
        async with line.entered(), room.folder() as drawer:
            results = _begun(drawer, predictor, point)
            found = await looked(request, drawer, asked, MOST_DRAWN)
            answers = answers_as_json(found, predictor, asked)
            content = await _unless_gone(request, _packed(line, drawer, results, found, answers))
        return _sent(content, "application/zip")

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


def _begun(drawer: Drawer, predictor: Predictor, point: str) -> "Results":
    """Return results of a request, before any work.

    Raises:
        HTTPException: what writes them is not installed.
    """
    try:
        from mammolens.dicom_results.results import Results  # noqa: PLC0415 - of another extra
    except MissingExtra as error:
        raise HTTPException(501, str(error)) from error
    folder = drawer.place / "results"
    folder.mkdir()  # a thread that works on when the request has ended makes none
    return Results.begin(folder, predictor, point)


async def _packed(line: Line, drawer: Drawer, results: "Results", found: Sequence[Looked], answers: str) -> bytes:
    """Return results in a ZIP archive; a picture's are made in its turn, as it was looked at."""
    for one in found:
        before = sum(results.written.values())
        await line.one(partial(results.add, one.answer), one.picture)
        drawer.hold(sum(results.written.values()) - before)
    return await line.one(partial(packed, results), answers)


def _sent(content: str | bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Cache-Control": "no-store"})


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
