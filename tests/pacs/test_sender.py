"""What peers say to results: one that is refused is told from a peer that takes none."""

import http.server
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


def store(folder: Path, port: int) -> Peer:
    told = {"folder": folder, "timeout": 5, "store": {"title": "PACS", "host": "127.0.0.1", "port": port}}
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


@pytest.mark.parametrize(("status", "said"), [(0xB000, None), (0xA900, "status A900H"), (0xC000, "status C000H")])
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


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"{}", None),
        (202, b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [43264]}}]}}', "failure A900H"),
        (409, b"{}", "HTTP 409"),
    ],
)
def test_a_service_takes_or_refuses(
    status: int, body: bytes, said: str | None, results: list[Kept], tmp_path: Path
) -> None:
    with service(status, body) as (url, headers):
        told = dict(stow(tmp_path, url).send(results[-1:]))
    assert told == {results[-1]: said}
    assert headers == ["Bearer of a token"]


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
def service(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A DICOMweb service that says one thing to all, and what it was told of who asks."""
    told: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
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
