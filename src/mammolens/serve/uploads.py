"""Files of a request → on disk, counted while they come: never more of them in memory than a piece."""

import asyncio
import errno
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mammolens.errors import DataError
from mammolens.files import scratch, system_error
from mammolens.hosting import MAX_FILE, MAX_IMAGES, MAX_TOTAL, MOST_UPLOADED, inputs_called, kept_as
from mammolens.images.archives import Input, close_archives
from mammolens.serve.line import Refused

if TYPE_CHECKING:
    from starlette.types import Message, Receive

_MIB = 2**20
_FORM = 2**16  # bytes of a form beside each file
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WAIT = 10  # seconds, where there is no room


class Room:
    """How many bytes of files all requests have here together."""

    def __init__(self, most: int = MOST_UPLOADED) -> None:
        self._most = most
        self._held = 0

    @asynccontextmanager
    async def folder(self) -> AsyncIterator["Drawer"]:
        """Yield a folder of one request, which nobody else may look into, and which is gone afterwards.

        Raises:
            Refused: the disk is full.
        """
        with scratch() as place:
            drawer = Drawer(place, self)
            try:
                yield drawer
            except (OSError, DataError) as error:
                cause = system_error(error)
                if cause is None or cause.errno not in _FULL:
                    raise
                raise Refused("there is no room on the disk for what is sent", _WAIT) from error
            finally:
                self._held -= drawer.size
                close_archives()

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            HTTPException: they are too many.
        """
        if self._held + size > self._most:
            raise HTTPException(429, "others have too many files here", {"Retry-After": str(_WAIT)})
        self._held += size


class Drawer:
    """The files of one request, on disk.

    Attributes:
        place: the folder.
        size: bytes that it takes.
    """

    def __init__(self, place: Path, room: Room) -> None:
        self.place = place
        self.size = 0
        self._room = room

    def take(self, size: int) -> None:
        """Hold so many bytes more that are sent.

        Raises:
            HTTPException: they are too many.
        """
        _check_size(self.size + size)
        self.hold(size)

    def hold(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            HTTPException: all requests together have too many.
        """
        self._room.take(size)
        self.size += size

    async def filled(self, request: Request) -> list[Input]:
        """Return the images in the files of a form, those of archives one by one, by the names that they came with.

        Raises:
            HTTPException: it is no form with files, or there are too many.
        """
        length = request.headers.get("content-length", "")
        if length.isdecimal():
            _check_size(int(length))
        counted = Request(request.scope, self._counted(request))
        try:
            form = await _Form(request.headers, counted.stream(), max_files=MAX_IMAGES, max_fields=0).parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from error
        try:
            files = [part for name, part in form.multi_items() if name == "files" and isinstance(part, UploadFile)]
            if not files or len(files) < len(form.multi_items()):
                raise HTTPException(422, "expected a multipart form with one file or more, each called 'files'")
            return await asyncio.to_thread(self._kept, files)
        finally:
            await form.close()

    def _counted(self, request: Request) -> "Receive":
        async def receive() -> "Message":
            message = await request.receive()
            self.take(len(message.get("body", b"")))
            return message

        return receive

    def _kept(self, files: list[UploadFile]) -> list[Input]:
        pictures = []
        for number, part in enumerate(files, start=1):
            name = _named(part.filename or "")
            if (part.size or 0) > MAX_FILE:
                pictures.append(Input(name, Path(), problem=f"is over {MAX_FILE // _MIB} MiB."))
                continue
            path = self.place / kept_as(name.name, number)
            with path.open("wb") as file:
                shutil.copyfileobj(part.file, file)
            part.file.close()
            pictures += inputs_called(name, path)
        return pictures


class _Form(MultiPartParser):
    """A form that comes to its end: of one that breaks off, the last file would be left out without a word."""

    _ended = False

    def on_end(self) -> None:
        """Note that the last boundary came."""
        self._ended = True

    async def parse(self) -> FormData:
        """Return what is in it; see `MultiPartParser`."""
        self.stream = self._whole(self.stream)
        return await super().parse()

    async def _whole(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(stream):
            async for piece in stream:
                yield piece
        if not self._ended:
            raise MultiPartException("the form breaks off before its end")


def _check_size(size: int) -> None:
    if size > MAX_TOTAL + MAX_IMAGES * _FORM:
        raise HTTPException(413, f"over {MAX_TOTAL // _MIB} MiB: send fewer files at a time")


def _named(name: str) -> Path:
    """Return the name of a file with its folders, of any system; none leads out of them."""
    parts = name.replace("\\", "/").split("/")
    return Path(*[part for part in parts if part not in ("", ".", "..")] or ["unnamed"])
