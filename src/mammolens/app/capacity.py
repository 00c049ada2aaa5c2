"""How much of this machine all who use the page take together: turns at its cores, and memory for their pictures."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakKeyDictionary

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from streamlit import runtime

from mammolens.app.uploads import NOT_TAKEN
from mammolens.hosting import MAX_FILE, MAX_IMAGES, MAX_TOTAL, MOST_UPLOADED
from mammolens.parallel import cores

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

MOST_LOOKED_AT = 2 * 2**30
"""Bytes of pixels that all sessions keep together; beyond, those used longest ago are let go."""

_SAID_EVERY = 0.5  # seconds; where nothing is said, nobody notices that a browser is closed
_UPLOADS = "/_stcore/upload_file/"
_END_OF_HEAD, _LONGEST_HEAD = b"\r\n\r\n", 2**16


class Turns:
    """A line for all sessions: so many pictures are looked at at a time, in the order in which they came.

    A session asks anew for each picture: one with many lets one with few pass between them.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._line: list[object] = []
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, said: Callable[[int], object]) -> Iterator[None]:
        """Wait for a place, and keep it for as long as it lasts.

        Args:
            said: called while one waits with how many pictures are before; what it raises leaves the line.
        """
        mine = object()
        with self._moved:
            self._line.append(mine)
        try:
            while before := self._before(mine):
                said(before)
            yield
        finally:
            with self._moved:
                self._line.remove(mine)
                self._moved.notify_all()

    def _before(self, mine: object) -> int:
        """Return how many are before one that must wait still; 0 where it need not."""
        with self._moved:
            if self._moved.wait_for(lambda: self._line.index(mine) < self._places, _SAID_EVERY):
                return 0
            return self._line.index(mine)


class Holder(Protocol):
    """What holds the pixels of one session."""

    @property
    def size(self) -> int:
        """Bytes."""

    def let_go(self) -> None:
        """Hold nothing; what is asked for again is looked at anew."""


class Memory:
    """Keeps the pixels of all sessions within bounds: beyond, those that nobody asked for for longest are let go."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._uses: WeakKeyDictionary[Holder, int] = WeakKeyDictionary()  # how many now, last used last
        self._lock = threading.Lock()

    @contextmanager
    def used(self, mine: Holder) -> Iterator[None]:
        """Let nothing of `mine` go while it lasts; then see that all fit, for which others may have to let go."""
        with self._lock:
            self._uses[mine] = self._uses.pop(mine, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._uses[mine] -= 1
                excess = sum(one.size for one in self._uses) - self._most
                for one in [one for one, uses in self._uses.items() if uses == 0 and one is not mine]:
                    if excess > 0:
                        excess -= one.size
                        one.let_go()


TURNS = Turns(cores())
MEMORY = Memory(MOST_LOOKED_AT)


class UploadLimit:
    """Takes a file only while all of its session, and those of all sessions, are within bounds. Plain ASGI.

    Of what is too much the page gets the name, and why there is no more of it, to say so: a status code tells nobody.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app
        self._coming: Counter[str] = Counter()  # bytes on their way, by session

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request as ASGI does, or hand it on."""
        if scope["type"] != "http" or scope["method"] != "PUT" or _UPLOADS not in scope["path"]:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length, kind = headers.get("content-length", ""), headers.get("content-type", "")
        size = int(length) if length.isdecimal() else MAX_FILE
        session = scope["path"].partition(_UPLOADS)[2].partition("/")[0]
        if _files_of(session) >= 10 * MAX_IMAGES:
            await PlainTextResponse("Too many files.", 413)(scope, receive, send)
            return
        if size <= MAX_FILE and (why := _too_much(session, self._coming + Counter({session: size}))):
            await self._app(scope, _with_content(NOT_TAKEN + why.encode(), receive, kind), send)
            return
        self._coming[session] += size
        try:
            await self._app(scope, receive, send)
        finally:
            self._coming -= Counter({session: size})


def _with_content(content: bytes, receive: "Receive", kind: str) -> "Receive":
    """Receive a form with a file's name as it was sent, and other content for it."""
    head = b""

    async def received() -> "Message":
        nonlocal head
        while (message := await receive())["type"] == "http.request":
            if _END_OF_HEAD not in head and len(head) < _LONGEST_HEAD:
                head += message.get("body", b"")
            if not message.get("more_body"):
                end = f"\r\n--{kind.partition('boundary=')[2]}--\r\n".encode()
                body = head.partition(_END_OF_HEAD)[0] + _END_OF_HEAD + content + end
                return {"type": "http.request", "body": body, "more_body": False}
        return message

    return received


def _uploads() -> "MemoryUploadedFileManager":
    return cast("MemoryUploadedFileManager", runtime.get_instance().uploaded_file_mgr)


def _files_of(session: str) -> int:
    return len(_uploads().file_storage.get(session, ()))


def _bytes_held() -> dict[str, int]:
    """Return how many bytes of files each session has."""
    files = {name: list(of_session.values()) for name, of_session in list(_uploads().file_storage.items())}
    return {name: sum(len(one.data) for one in of_session) for name, of_session in files.items()}


def _too_much(session: str, coming: Mapping[str, int]) -> str | None:
    """Return why no more is taken of a session. Who closed the page gives way."""
    held = _bytes_held()
    if held.get(session, 0) + coming[session] > MAX_TOTAL + MAX_FILE:
        return f"all files together pass {MAX_TOTAL // 2**20} MB"
    room = MOST_UPLOADED - sum(coming.values())
    if sum(held.values()) > room:
        for closed in [name for name in held if not runtime.get_instance().is_active_session(name)]:
            _uploads().remove_session_files(closed)
        if sum(_bytes_held().values()) > room:
            return "others have too many files on the page. Try again when they are done"
    return None
