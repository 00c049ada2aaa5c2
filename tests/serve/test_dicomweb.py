"""A study that is named, not sent: fetched from a DICOMweb server that the service was told of, and from no other."""

import json
import re
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from asking import Service
from studies import STUDY, mammogram, save, stored

from conftest import Typed
from mammolens.records import Laterality

pytest.importorskip("dicomweb_client", reason="pip install 'mammolens[pacs]'")

TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"


class Archive(BaseHTTPRequestHandler):
    """A small DICOMweb server (PS3.18): series and instances are found, and instances given, by their UIDs."""

    def __init__(self, folder: Path, *rest: Any) -> None:
        self._folder = folder
        super().__init__(*rest)

    def do_GET(self) -> None:
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        parts = self.path.partition("?")[0].strip("/").split("/")
        below = {path.stem: path.read_bytes() for path in sorted(self._folder.glob("*.dcm"))}
        if parts[:2] != ["studies", STUDY]:
            self._say(204 if parts[2:] == ["series"] else 404, "text/plain", b"")
        elif parts[2:] == ["series"]:
            asked = re.search(r"SeriesInstanceUID=([\d.]+)", self.path)
            names = {name.rpartition(".")[0] for name in below}
            told = [{"0020000E": _value(one)} for one in sorted(names) if asked is None or asked[1] == one]
            self._say(200 if told else 204, "application/dicom+json", json.dumps(told).encode())
        elif parts[-1] == "instances":
            mine = [name for name in below if name.rpartition(".")[0] == parts[3]]
            kinds = {name: TOMOSYNTHESIS if not below[name] else "1.2.840.10008.5.1.4.1.1.1.2" for name in mine}
            told = [{"00080018": _value(name), "00080016": _value(kinds[name])} for name in mine]
            self._say(200, "application/dicom+json", json.dumps(told).encode())
        else:
            part = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + below[parts[-1]] + b"\r\n--x--"
            self._say(200, 'multipart/related; type="application/dicom"; boundary=x', part)

    def _say(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _value(text: str) -> dict[str, object]:
    return {"vr": "UI", "Value": [text]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two mammograms, one that is none, one tomosynthesis, which the server does not give."""
    folder = tmp_path_factory.mktemp("study")
    for side in Laterality:
        one = mammogram(stored(3, side), side)
        save(one, folder / f"{one.SOPInstanceUID}.dcm")
    (folder / f"{STUDY}.9.1.dcm").write_bytes(b"nothing")
    (folder / f"{STUDY}.9.2.dcm").touch()
    return folder


@pytest.fixture(scope="module")
def archive(study: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("localhost", 0), partial(Archive, study))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def phantom(archive: str) -> Iterator[Service]:
    with Service("phantom", dicomweb=[f"{archive}/"]).open() as one:
        yield one


def asked(one: Service, url: str, study: str = STUDY, **more: str) -> Any:
    return one.ask("/v1/predict?level=exam", json={"dicomweb": {"url": url, "study": study, **more}})


def test_a_study_is_fetched_and_answered_as_its_files_are(
    phantom: Service, archive: str, study: Path, mammolens: Typed, tmp_path: Path
) -> None:
    names = [f"{STUDY}.{side}.1.1" for side in (1, 2)]
    mammolens("predict", *[study / f"{name}.dcm" for name in names], "--model", "phantom", "--level", "exam",
              "--out", tmp_path / "exam.json")  # fmt: skip
    text = (tmp_path / "exam.json").read_text()
    (expected,) = json.loads(text.replace(f"{study}/", "").replace(".dcm", ""))
    exam, broken, tomosynthesis = asked(phantom, archive).json()
    assert exam == expected
    assert exam["probability"] is not None
    assert broken["error"] == f"{STUDY}.9.1: could not be fetched (InvalidDicomError)."
    assert tomosynthesis["error"] == f"{STUDY}.9.2: is a tomosynthesis, which is not read."


def test_of_a_series_its_pictures_alone_are_fetched(phantom: Service, archive: str) -> None:
    (row,) = asked(phantom, archive, series=f"{STUDY}.1.1").json()
    assert [view["path"] for view in row["views"]] == [f"{STUDY}.1.1.1"]


@pytest.mark.parametrize(
    ("url", "uid", "status"),
    [
        ("http://169.254.169.254", STUDY, 403),
        ("ARCHIVE.evil.example", STUDY, 403),
        ("ARCHIVE/../x", STUDY, 403),
        ("ARCHIVE", "1.2.3", 404),
        ("ARCHIVE", "1/../../x", 422),
        ("ARCHIVE", "1" * 65, 422),
    ],
)
def test_nothing_else_is_fetched(phantom: Service, archive: str, url: str, uid: str, status: int) -> None:
    answer = asked(phantom, url.replace("ARCHIVE", archive), uid)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail"}


def test_a_server_that_sends_elsewhere_is_not_followed(archive: str) -> None:
    moved = f"{archive}/moved"
    with Service("phantom", dicomweb=[moved]).open() as one:
        answer = asked(one, moved)
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"{moved}: does not say what is in that study (HTTP 302)."


def test_a_server_that_is_not_there_is_told_of() -> None:
    nowhere = "http://localhost:1"
    with Service("phantom", dicomweb=[nowhere]).open() as one:
        answer = asked(one, nowhere)
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"{nowhere}: does not say what is in that study (ConnectionError)."
