"""The page by Streamlit's own protocol, websocket and uploads, without a browser: what tests of its server share."""

import csv
import io
import re
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from html import unescape
from http.cookies import SimpleCookie
from typing import Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from streamlit.proto.BackMsg_pb2 import BackendOperationRequest, BackMsg, DeferredFileRequestPayload
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.Common_pb2 import FileUploaderState, FileURLs, FileURLsRequest, UploadedFileInfo
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState, WidgetStates
from websockets.sync.client import connect
from websockets.typing import Subprotocol

BOUNDARY = "of-this-test"
SLOW = 60  # seconds that an answer may take on a busy machine


class Visitor:
    """One session of the page, as a browser has it.

    Attributes:
        elements: what is on the page, by its place.
        fragments: those of the script.
        before: what was said of pictures that were before, in the order in which it was said.
        received: every message, as bytes.
    """

    def __init__(self, url: str, **headers: str) -> None:
        self.url = url
        with urlopen(f"{url}/_stcore/health", timeout=SLOW) as answer:  # noqa: S310 - our own page
            self.token = SimpleCookie(answer.headers["Set-Cookie"])["_streamlit_xsrf"].value
        self.elements: dict[tuple[int, ...], Element] = {}
        self.fragments: set[str] = set()
        self.before: list[int] = []
        self.received: list[bytes] = []
        self._known: dict[str, ForwardMsg] = {}
        self._files: list[UploadedFileInfo] = []
        self._headers = {"Cookie": f"_streamlit_xsrf={self.token}", "Origin": url, **headers}
        self._stack = ExitStack()
        self.session = ""

    def __enter__(self) -> Self:
        place = urlsplit(self.url)
        host = self._headers.pop("Host", place.netloc)
        opened = connect(
            f"ws://{host}/_stcore/stream",
            sock=socket.create_connection((place.hostname, place.port)),
            subprotocols=[Subprotocol("streamlit"), Subprotocol(self.token)],
            additional_headers=self._headers,
            max_size=None,
            open_timeout=SLOW,
        )
        self._socket = self._stack.enter_context(opened)
        self.run()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, fragment: str = "") -> None:
        """Have the script run, or a fragment of it, and do not wait for it."""
        states = WidgetStates()
        if self.elements:
            files = FileUploaderState(uploaded_file_info=self._files)
            states.widgets.append(WidgetState(id=self.uploader, file_uploader_state_value=files))
        self._send(BackMsg(rerun_script=ClientState(widget_states=states, fragment_id=fragment)))

    def run(self, fragment: str = "") -> None:
        """Have the script run to its end."""
        self.ask(fragment)
        self.until_done()

    def until_before(self, count: int) -> None:
        """Wait until so many pictures are before one's own."""
        while count not in self.before:
            self._next("delta")

    def until_done(self) -> None:
        while self._next("script_finished").script_finished != ForwardMsg.FINISHED_SUCCESSFULLY:
            pass

    def put(self, *files: tuple[str, bytes]) -> list[int]:
        """Upload files beside those that are there; return what the server said of each."""
        names = [name for name, _ in files]
        self._send(BackMsg(file_urls_request=FileURLsRequest(request_id="1", file_names=names)))
        told = self._next("file_urls_response").file_urls_response.file_urls
        said = []
        for (name, content), place in zip(files, told, strict=True):
            said.append(self._put(place, name, content))
            if said[-1] == 204:
                self._files.append(
                    UploadedFileInfo(file_id=place.file_id, name=name, size=len(content), file_urls=place)
                )
        return said

    def drop(self, *files: tuple[str, bytes]) -> None:
        """Upload files instead of those that are there, and have them looked at."""
        self.take_away()
        assert set(self.put(*files)) == {204}
        self.run()

    def take_away(self) -> None:
        for one in self._files:
            self.request(one.file_urls.delete_url, "DELETE")
        self._files.clear()

    def answers(self) -> list[dict[str, str]]:
        """The answers of all pictures, as the page gives them to keep."""
        return list(csv.DictReader(io.StringIO(self.download("(CSV)").decode())))

    def download(self, label: str) -> bytes:
        status, content = self.request(self.prepared(label))
        assert status == 200
        return content

    def prepared(self, label: str) -> str:
        """Where it is what a button gives to keep, whose label has this in it."""
        (button,) = [one.download_button for one in self._of("download_button") if label in one.download_button.label]
        wanted = DeferredFileRequestPayload(file_id=button.deferred_file_id)
        asked = BackendOperationRequest(request_id="2", session_id=self.session, deferred_file=wanted)
        self._send(BackMsg(backend_operation_request=asked))
        told = self._next("backend_operation_response").backend_operation_response
        assert not told.error_msg, told.error_msg
        return told.deferred_file.url

    def request(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Ask for something over HTTP, as the browser of this session."""
        mine = {"Cookie": f"_streamlit_xsrf={self.token}", "X-Xsrftoken": self.token}
        return request(f"{self.url}/{path.lstrip('/')}", method, body, {**mine, **(headers or {})})

    def text(self) -> str:
        """All that is on the page as HTML or as a complaint, markup left out."""
        told = [one.html.body for one in self._of("html") if "<style>" not in one.html.body]
        told += [one.alert.body.replace("\\", "") for one in self._of("alert")]
        return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", " ".join(told))))

    def pixels(self) -> list[str]:
        """Where the pixels of the pictures are that are shown."""
        told = " ".join(one.bidi_component.json for one in self._of("bidi_component"))
        return re.findall(r"media/[^\"]+", told)

    @property
    def uploader(self) -> str:
        return self._of("file_uploader")[0].file_uploader.id

    def _of(self, kind: str) -> list[Element]:
        return [one for one in self.elements.values() if one.WhichOneof("type") == kind]

    def _put(self, place: FileURLs, name: str, content: bytes) -> int:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.request(place.upload_url, "PUT", body, {"Content-Type": kind})[0]

    def _send(self, message: BackMsg) -> None:
        self._socket.send(message.SerializeToString())

    def _next(self, kind: str) -> ForwardMsg:
        """Take in all that comes, until there is one of a kind."""
        while True:
            told = self._socket.recv(timeout=SLOW)
            assert isinstance(told, bytes)
            self.received.append(told)
            message: ForwardMsg = ForwardMsg.FromString(told)
            if message.metadata.cacheable:
                self._known[message.hash] = message
            if message.WhichOneof("type") == "ref_hash":
                message = self._known[message.ref_hash]
            self._take_in(message)
            if message.WhichOneof("type") == kind:
                return message

    def _take_in(self, message: ForwardMsg) -> None:
        if message.WhichOneof("type") == "new_session":
            self.session = message.new_session.initialize.session_id or self.session
            self.elements.clear()
        elif message.WhichOneof("type") == "delta":
            element = message.delta.new_element
            self.fragments |= {message.delta.fragment_id} - {""}
            self.elements[tuple(message.metadata.delta_path)] = element
            said = re.search(r"(\d+) pictures? (?:is|are) before yours", element.html.body)
            if said:
                self.before.append(int(said[1]))


def request(
    url: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Return the status and the content that come back."""
    try:
        with urlopen(Request(url, body, dict(headers or {}), method=method), timeout=SLOW) as answer:  # noqa: S310
            return int(answer.status), answer.read()
    except HTTPError as error:
        return error.code, error.read()
