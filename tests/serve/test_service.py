"""The service says what the command line says, to the last digit, and refuses what is too much."""

import asyncio
import base64
import errno
import io
import shutil
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from asking import Sent, Service, files, png
from PIL import Image
from studies import mammogram, save, stored

import brightness
from conftest import Typed
from mammolens.levels import ServedLevel
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view
from mammolens.records import Laterality
from mammolens.serve import answering, uploads
from mammolens.serve import service as routes
from mammolens.serving import overlay
from mammolens.serving.predictor import Predictor

ASKED = "/v1/predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two women's pictures by the same names, a DICOM examination, an archive, one in colour, one cut short."""
    place = tmp_path_factory.mktemp("pictures")
    for number, name in ((54, "ann"), (8, "eve")):
        patient = draw_patient(number, 2026)
        for breast in (patient.left, patient.right):
            for view in VIEWS:
                path = place / name / f"{breast.laterality}_{view}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(draw_view(breast, view, size=320).pixels).save(path)
    for side in Laterality:
        save(mammogram(stored(3, side), side), place / f"{side.word}.dcm")
    with zipfile.ZipFile(place / "more.zip", "w") as archive:
        archive.write(place / "ann" / "L_CC.png", "x/L_CC.png")
        archive.write(place / "eve" / "L_CC.png", "y/L_CC.png")
    petals = np.random.default_rng(0).integers(0, 256, (640, 480, 3), dtype=np.uint8)
    petals[..., 0] = 255
    (place / "flower.png").write_bytes(png(petals))
    (place / "short.png").write_bytes((place / "ann" / "L_CC.png").read_bytes()[:2000])
    return place


@pytest.fixture(scope="module")
def phantom() -> Iterator[Service]:
    with Service("phantom").open() as one:
        yield one


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose model is quick, and tells how bright a picture is."""
    with Service(brightness.bundle(tmp_path_factory.mktemp("grey") / "bundle").folder).open() as one:
        yield one


GREY: Sent = [("files", (f"{level}.png", png(brightness.flat(level)))) for level in (25, 77, 128, 204)]


@pytest.mark.parametrize("level", list(ServedLevel))
@pytest.mark.parametrize("point", ["balanced", "specificity-90"])
def test_answers_are_the_bytes_that_predict_writes(
    phantom: Service, folder: Path, mammolens: Typed, monkeypatch: pytest.MonkeyPatch, level: ServedLevel, point: str
) -> None:
    monkeypatch.chdir(folder)
    paths = sorted(path for path in folder.rglob("*.*") if path.suffix in {".png", ".dcm", ".zip"})
    typed = [path.relative_to(folder) for path in paths]
    out = folder / "answers.json"
    said = mammolens("predict", *typed, "--model", "phantom", "--level", level, "--point", point, "--out", out)
    assert said.code == 1, "one was cut short"
    answer = phantom.ask(f"{ASKED}?level={level}&point={point}", files(*paths, below=folder))
    assert answer.status_code == 200
    assert answer.content == out.read_bytes()
    rows = answer.json()
    assert len(rows) == {"image": 14, "breast": 10, "exam": 7}[level]
    assert [row["path"] for row in rows if row["error"]] == ["short.png"]


def test_heatmaps_are_those_of_predict(phantom: Service, folder: Path, mammolens: Typed, tmp_path: Path) -> None:
    paths = [folder / "ann" / "R_CC.png", folder / "ann" / "R_MLO.png", folder / "flower.png", folder / "short.png"]
    mammolens("predict", *paths, "--model", "phantom", "--overlay", tmp_path / "heat")
    drawn = {path.name[6:]: path.read_bytes() for path in (tmp_path / "heat").iterdir()}
    (exam, *_) = phantom.ask(f"{ASKED}?level=exam&heatmaps=true", files(*paths)).json()
    images = phantom.ask(f"{ASKED}?heatmaps=true", files(*paths)).json()
    assert {row["path"]: base64.b64decode(row["heatmap"]) for row in images if row["heatmap"]} == drawn
    assert {view["path"]: base64.b64decode(view["heatmap"]) for view in exam["views"]} == drawn
    assert set(drawn) == {"R_CC.png", "R_MLO.png"}


def test_a_picture_that_cannot_be_looked_at_stops_no_other(grey: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"P5 30000 30000 255\n"
    rows = grey.ask(ASKED, [*GREY, ("files", ("bomb.pgm", bomb))]).json()
    assert [row["decision"] for row in rows] == ["no tumor", "no tumor", "tumor", "tumor", None]
    assert "over the limit of" in rows[4]["error"]
    monkeypatch.setattr(Predictor, "answers", lambda *_, **__: 1 / 0)
    rows = grey.ask(ASKED, GREY[:1]).json()
    assert rows[0]["error"] == "25.png: could not be looked at (ZeroDivisionError). Export it anew."


@pytest.mark.parametrize(
    ("name", "kept"),
    [("a/b.png", "a/b.png"), ("../../b.png", "b.png"), (r"C:\x\b.png", "b.png"), ("/", "unnamed")],
)
def test_names_lead_nowhere(grey: Service, name: str, kept: str) -> None:
    (row,) = grey.ask(ASKED, [("files", (name, GREY[0][1][1]))]).json()
    assert (row["path"], row["error"]) == (kept, None)


def test_what_makes_no_sense_is_refused_in_a_sentence(grey: Service) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answers = [
        grey.ask(f"{ASKED}?level=woman", GREY),
        grey.ask(f"{ASKED}?point=best", GREY),
        grey.ask(ASKED, data={"a": "b"}),
        grey.ask(ASKED, headers=form, content=b"--x--\r\n"),
        grey.ask(ASKED, [*GREY, ("file", GREY[0][1])]),
        grey.ask(ASKED, GREY, data={"a": "b"}),
        grey.ask(ASKED, json={"dicomweb": {"url": "http://localhost:1", "study": "1"}}),
        grey.ask(ASKED, json={"dicomweb": "x" * 2**17}),
    ]
    assert [(one.status_code, one.json()["detail"]) for one in answers] == [
        (422, "query.level: Input should be 'image', 'breast' or 'exam'"),
        (422, "query.point: expected balanced, sensitivity-90, specificity-90"),
        (415, "expected a multipart form with files, or JSON with a DICOMweb reference"),
        (422, "expected a multipart form with one file or more, each called 'files'"),
        (422, "expected a multipart form with one file or more, each called 'files'"),
        (400, "Too many fields. Maximum number of fields is 0."),
        (403, "from that DICOMweb server nothing is fetched: see --dicomweb"),
        (413, "expected JSON with a DICOMweb reference alone"),
    ]


def test_a_form_that_breaks_off_is_refused_as_a_whole(grey: Service) -> None:
    request = httpx.Request("POST", f"http://localhost{ASKED}", files=GREY)
    whole, kind = request.read(), {"Content-Type": request.headers["Content-Type"]}
    for lost in (4, 100, len(whole) // 2):
        answer = grey.ask(ASKED, content=whole[:-lost], headers=kind)
        assert (answer.status_code, answer.json()) == (400, {"detail": "the form breaks off before its end"})


def test_too_much_is_refused_before_all_of_it_came(grey: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [("files", (f"{number}.png", b"x")) for number in range(101)]
    assert grey.ask(ASKED, many).status_code == 400
    monkeypatch.setattr(uploads, "MAX_TOTAL", 2**20)
    monkeypatch.setattr(uploads, "_FORM", 0)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        while True:
            taken += 2**16
            yield bytes(2**16)

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = grey.ask(ASKED, content=endless(), headers=form)
    assert (answer.status_code, answer.json()["detail"]) == (413, "over 1 MiB: send fewer files at a time")
    assert taken < 2**21
    announced = grey.ask(ASKED, content=b"", headers=form | {"Content-Length": str(2**30)})
    assert announced.status_code == 413
    monkeypatch.setattr(uploads, "MAX_FILE", 10)
    rows = grey.ask(ASKED, GREY[:1]).json()
    assert rows[0]["error"].startswith("25.png: is over 0 MiB")
    monkeypatch.undo()
    monkeypatch.setattr(routes, "MAX_IMAGES", 1)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for _, (name, content) in GREY:
            archive.writestr(name, content)
    answer = grey.ask(ASKED, [("files", ("four.zip", packed.getvalue()))])
    assert (answer.status_code, answer.json()["detail"]) == (413, "4 images: send 1 at a time")
    monkeypatch.undo()
    monkeypatch.setattr(routes, "MOST_DRAWN", 3)
    assert grey.ask(f"{ASKED}?heatmaps=true", GREY).status_code == 413


def test_nothing_that_was_sent_is_left(grey: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert grey.ask(f"{ASKED}?heatmaps=true", GREY).status_code == 200
    assert list(tmp_path.iterdir()) == []
    room = uploads.Room(most=100)
    monkeypatch.setattr(routes, "Room", lambda: room)
    with Service(grey.bundle).open() as small:
        answer = small.ask(ASKED, GREY)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_of(grey: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    answer = grey.ask(ASKED, GREY)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert answer.json() == {"detail": "there is no room on the disk for what is sent"}


def test_a_heatmap_that_nobody_waits_for_any_more_is_in_no_file(
    grey: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    at_once = overlay.captioned

    def ended_meanwhile(*asked: Any) -> Image.Image:
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)
        return at_once(*asked)

    monkeypatch.setattr(overlay, "captioned", ended_meanwhile)
    (row,) = grey.ask(f"{ASKED}?heatmaps=true", GREY[:1]).json()
    assert row["heatmap"]
    assert list(tmp_path.iterdir()) == []


def test_who_is_too_many_is_told_when_to_come_back(grey: Service) -> None:
    async def asked() -> httpx.Response:
        async with grey.client() as client, grey.line.entered(), grey.line.entered():
            async with grey.line.entered(), grey.line.entered():
                answer = await client.post(ASKED, files=GREY)
            assert (await client.post(ASKED, files=GREY)).status_code == 200
            return answer

    answer = asyncio.run(asked())
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["detail"] == "4 requests are being answered or wait"


def test_who_takes_too_long_is_told_so(grey: Service) -> None:
    with Service(grey.bundle, seconds=0).open() as hurried:
        answer = hurried.ask(ASKED, GREY)
        assert (answer.status_code, answer.json()["detail"]) == (503, "not answered within 0 seconds")
        assert hurried.line.under_way == 0


def test_who_has_gone_is_not_worked_for(grey: Service) -> None:
    request = httpx.Request("POST", f"http://localhost{ASKED}", files=GREY * 20)
    body = request.read()
    said: list[int] = []

    async def receive() -> dict[str, object]:
        nonlocal body
        piece, body = body, b""
        return {"type": "http.request", "body": piece} if piece else {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        said.append(int(str(message.get("status", 0))))

    headers = [(name.lower(), value) for name, value in request.headers.raw]
    scope = {"type": "http", "method": "POST", "path": ASKED, "query_string": b"", "headers": headers}
    asyncio.run(grey.app(scope, receive, send))  # type: ignore[arg-type]
    assert said[0] == 499
    assert grey.line.under_way == 0
    assert grey.ask(ASKED, GREY).status_code == 200


def test_models_and_metrics_tell_of_the_model_and_of_no_file(grey: Service) -> None:
    with Service(grey.bundle).open() as one:
        one.ask(f"{ASKED}?patient=jane", [*GREY, ("files", ("jane.png", b"x"))])
        one.get("/jane")
        text = one.get("/metrics").text
        assert "jane" not in text
        assert 'mammolens_pictures_total{outcome="answered"} 4.0' in text
        assert 'mammolens_pictures_total{outcome="failed"} 1.0' in text
        assert 'mammolens_requests_total{path="other",status="404"} 1.0' in text
        (model,) = one.get("/v1/models").json()
    assert (model["name"], model["default_operating_point"]) == ("brightness", "balanced")
    assert model["operating_points"]["patient"] == {"balanced": 0.45, "sensitivity-90": 0.3, "specificity-90": 0.6}
    assert len(model["fingerprint"]) == 64


def test_what_nobody_foresaw_quotes_nothing(
    grey: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(*_: object) -> None:
        raise ValueError("jane"[::-1])

    monkeypatch.setattr(answering, "_rows", stumble)
    answer = grey.ask(ASKED, GREY)
    assert (answer.status_code, answer.json()) == (
        500,
        {"detail": "something went wrong in the service: its log says where"},
    )
    assert "enaj" not in caplog.text
    assert "ValueError" in caplog.text
    assert "in stumble" in caplog.text
