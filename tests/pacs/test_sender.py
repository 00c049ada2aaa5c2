"""What peers say to results: one that is refused is told from a peer that takes none."""

import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from loop import ports
from pydicom import Dataset, dcmread
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.events import Event
from studies import examination

from mammolens.dicom_results.results import Results
from mammolens.errors import DataError
from mammolens.pacs.ledger import Kept
from mammolens.pacs.sender import Peer, peer_of
from mammolens.pacs.settings import Settings
from mammolens.serving.predictor import Predictor


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Kept]:
    folder = tmp_path_factory.mktemp("results")
    predictor = Predictor.load("phantom")
    made = Results.begin(folder / "made", predictor)
    predictor.predict(examination(folder / "pictures")[:1], also=made.add)
    made.finish()
    return [Kept(dcmread(path).SOPInstanceUID, path) for path in made.written]


def kinds(results: Sequence[Kept]) -> list[str]:
    return [dcmread(one.file).SOPClassUID for one in results]


def store(folder: Path, port: int, host: str = "127.0.0.1") -> Peer:
    told = {"folder": folder, "timeout": 5, "store": {"title": "PACS", "host": host, "port": port}}
    return peer_of(Settings.model_validate(told))


@contextmanager
def archive(accepted: Sequence[str], status: int, port: int) -> Iterator[list[Dataset]]:
    """A storage SCP that gives one status to all, and what it was sent."""
    taken: list[Dataset] = []

    def stored(event: Event) -> int:
        taken.append(event.dataset)
        return status

    entity = AE("PACS")
    for kind in (*accepted, "1.2.840.10008.1.1"):
        entity.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)
    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, stored)])
    try:
        yield taken
    finally:
        entity.shutdown()


def test_a_kind_that_is_not_accepted_holds_up_no_other(results: list[Kept], tmp_path: Path) -> None:
    (port,), last = ports(1), kinds(results)[-1]
    with archive([last], 0, port) as taken:
        told = dict(store(tmp_path, port).send(results))
    assert [one.SOPInstanceUID for one in taken] == [results[-1].uid]
    assert told == {one: None if one == results[-1] else "it accepts no such kind of object" for one in results}


@pytest.mark.parametrize(
    ("status", "said"), [(0xB000, None), (0x0111, None), (0xA900, "status A900H"), (0xC000, "status C000H")]
)
def test_a_refusal_is_of_one_result(status: int, said: str | None, results: list[Kept], tmp_path: Path) -> None:
    (port,) = ports(1)
    with archive(kinds(results), status, port) as taken:
        assert dict(store(tmp_path, port).send(results)) == dict.fromkeys(results, said)
    assert len(taken) == len(results)


def test_a_peer_without_room_or_that_is_away_takes_nothing(results: list[Kept], tmp_path: Path) -> None:
    (port,) = ports(1)
    with archive(kinds(results), 0xA700, port), pytest.raises(ConnectionError, match="out of resources"):
        list(store(tmp_path, port).send(results))
    with pytest.raises(ConnectionError, match="cannot be reached"):
        list(store(tmp_path, port).send(results))


def test_a_peer_whose_name_leads_nowhere_is_away(results: list[Kept], tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="cannot be found by its name"):
        list(store(tmp_path, 104, "nowhere.invalid").send(results))


REFERRED, FAILED, REASON = "00081199", "00081198", "00081197"
SOP, THEIRS = "00080018", "00081155"
JSON = "application/dicom+json"


def module(tag: str, **item: object) -> bytes:
    """What a service says of one instance (PS3.18 I.2.2)."""
    told = {key[1:]: {"vr": "US" if key[1:] == REASON else "UI", "Value": [value]} for key, value in item.items()}
    return json.dumps({tag: {"vr": "SQ", "Value": [told]}}).encode()


@pytest.mark.parametrize("kind", [JSON, f"{JSON};charset=utf-8", "Application/Json; charset=UTF-8"])
def test_a_service_takes_or_refuses(kind: str, results: list[Kept], tmp_path: Path) -> None:
    one = results[-1]
    answers = [
        (200, module(REFERRED, _00081155=one.uid), None),
        (200, module(REFERRED, _00081155="1.2.3"), "it does not say that it has it"),
        (200, b"{}", "it does not say that it has it"),
        (202, module(FAILED, _00081197=0xA900), "failure A900H"),
        (409, module(FAILED, _00081197=0xA900), "HTTP 409"),
    ]
    for status, body, said in answers:
        with service(status, body, kind) as (url, headers):
            assert dict(stow(tmp_path, url).send([one])) == {one: said}
        assert headers[0] == "Bearer of a token"


def test_what_a_service_has_already_was_taken(results: list[Kept], tmp_path: Path) -> None:
    one = results[-1]
    for there, said in ((one.uid, None), ("1.2.3", "HTTP 409")):
        found = json.dumps([{SOP: {"vr": "UI", "Value": [there]}}]).encode()
        with service(409, b"{}", found=found) as (url, _):
            assert dict(stow(tmp_path, url).send([one])) == {one: said}


def test_a_web_page_in_place_of_a_service_takes_nothing(results: list[Kept], tmp_path: Path) -> None:
    one, page = results[-1], b"<html>Sign in</html>"
    with service(200, page, "text/html", found=page) as (url, _):
        assert dict(stow(tmp_path, url).send([one])) == {one: "it does not say that it has it"}
        with pytest.raises(ConnectionError):
            stow(tmp_path, url).echo()


def test_a_service_that_sends_elsewhere_gets_nothing(results: list[Kept], tmp_path: Path) -> None:
    with (
        service(200, b"{}") as (elsewhere, headers),
        service(307, b"", location=elsewhere) as (url, _),
        pytest.raises(ConnectionError, match="TooManyRedirects"),
    ):
        list(stow(tmp_path, url).send(results[-1:]))
    assert headers == []


def test_a_service_that_finds_no_studies_is_told_of(tmp_path: Path) -> None:
    with service(200, b"", found=None) as (url, _), pytest.raises(ConnectionError, match="answers HTTP 400"):
        stow(tmp_path, url).echo()


@pytest.mark.parametrize("text", ["", "Bearer …"])
def test_an_authorization_that_is_no_header_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "authorization").write_text(text, encoding="utf-8")
    told = {"folder": tmp_path, "stow": {"url": "http://pacs", "authorization_file": tmp_path / "authorization"}}
    with pytest.raises(DataError, match="its first line should be a header's value"):
        peer_of(Settings.model_validate(told))


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_service_that_fails_takes_nothing(status: int, results: list[Kept], tmp_path: Path) -> None:
    with service(status, b"") as (url, _), pytest.raises(ConnectionError, match=f"answers HTTP {status}"):
        list(stow(tmp_path, url).send(results[-1:]))
    with pytest.raises(ConnectionError, match="cannot be reached"):
        list(stow(tmp_path, url).send(results[-1:]))


def stow(folder: Path, url: str) -> Peer:
    (folder / "authorization").write_text("Bearer of a token\n")
    told = {"folder": folder, "stow": {"url": url, "authorization_file": folder / "authorization"}}
    return peer_of(Settings.model_validate(told))


@contextmanager
def service(
    status: int, body: bytes, kind: str = JSON, *, found: bytes | None = b"[]", location: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """A DICOMweb service that says one thing to all that store and one to all that query, and what who asks told it."""
    told: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.headers["Authorization"])
            while self.headers["Transfer-Encoding"] and (size := int(self.rfile.readline(), 16)):
                self.rfile.read(size + 2)
            self.rfile.read(int(self.headers["Content-Length"] or 2))
            self._say(status, body)

        def do_GET(self) -> None:
            self._say(400 if found is None else 200, found or b"")

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dicom-web", told
        finally:
            server.shutdown()
            thread.join()
