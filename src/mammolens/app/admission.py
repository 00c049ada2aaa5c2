"""Who is let in to a page that is served to others: it stands before everything that Streamlit answers, uploads too.

Plain ASGI, around the whole of Streamlit. A page on this machine alone has no login, and answers only who calls it so.
"""

import asyncio
import hmac
import secrets
from dataclasses import dataclass, field
from hashlib import scrypt, sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from mammolens.errors import MammolensError
from mammolens.hosting import ThisMachine, is_of_another_site, is_of_this_machine, lines_of_secrets
from mammolens.reports.case import blocks
from mammolens.reports.pages import template

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

DELAY = 2.0
"""Seconds after a wrong password in which no other of the same address is tried."""

_LEAST = 8  # letters of a password
_WAITING = 20  # tries that wait for their turn; more are turned away
_LONGEST = 4096  # bytes of a form
_HASH = {"n": 2**14, "r": 8, "p": 1}  # of scrypt: 16 MB and 50 ms a try
_FORM = "application/x-www-form-urlencoded"
_READING = frozenset(("GET", "HEAD", "OPTIONS"))
_SENT = "Not done: a page of another site asked for it."
_ELSEWHERE = (
    "This page is of this machine alone: open it at localhost, or at the address that was printed. "
    "Where a proxy stands before it, start it with --proxy-header NAME, or with --no-login."
)
_OF_EVERYBODY = frozenset(
    ("accept", "connection", "cookie", "host", "keep-alive", "origin", "referer", "te", "upgrade", "user-agent")
)
_OF_EVERYBODY_TOO = ("accept-", "cache-", "content-", "if-", "sec-", "upgrade-")
"""Headers, or how they begin, that every browser sends: they tell nothing of who it is."""


@dataclass(frozen=True)
class Password:
    """One password for all; only its hash is kept.

    Attributes:
        salt: drawn when the page is started.
        digest: scrypt of the password.
    """

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @classmethod
    def in_file(cls, path: Path) -> "Password":
        """Read the first line of a file.

        Raises:
            MammolensError: it cannot be read, is no file (to wait for a pipe may be for ever), or has fewer than 8
                characters.
        """
        password = next(iter(lines_of_secrets(path, "the password in its first line", 1)), "")
        if len(password.strip()) < _LEAST:
            raise MammolensError(f"{path}: expected a password of {_LEAST} characters or more in its first line.")
        salt = secrets.token_bytes(16)
        return cls(salt, _hash(password, salt))

    def is_right(self, tried: str) -> bool:
        """Tell whether it is the password, in the same time whatever is wrong with it."""
        return hmac.compare_digest(_hash(tried, self.salt), self.digest)


@dataclass(frozen=True)
class ProxyHeader:
    """A reverse proxy signs people in, and says so in a header that it takes out of what comes from outside.

    Attributes:
        name: of the header, such as ``X-Forwarded-User``.
    """

    name: str


Rule = Password | ProxyHeader | ThisMachine | None
"""Who is let in; None is everybody."""


def rule_for(address: str, password_file: Path | None, proxy_header: str | None, *, no_login: bool) -> Rule:
    """Return who is let in to a page at an address; one that others reach needs a choice.

    Raises:
        MammolensError: nothing is chosen though others reach it, several things are, or the password will not do.
    """
    if (password_file is not None) + (proxy_header is not None) + no_login > 1:
        raise MammolensError("choose one of --password-file, --proxy-header and --no-login.")
    if password_file is not None:
        return Password.in_file(password_file)
    if proxy_header is not None:
        if not proxy_header.replace("-", "").isalnum() or not proxy_header.isascii():
            raise MammolensError(f"'{proxy_header}': no name of a header. Expected one such as X-Forwarded-User.")
        if proxy_header.lower() in _OF_EVERYBODY or proxy_header.lower().startswith(_OF_EVERYBODY_TOO):
            raise MammolensError(f"'{proxy_header}': every browser sends it. Expected one such as X-Forwarded-User.")
        return ProxyHeader(proxy_header)
    if no_login:
        return None
    if not is_of_this_machine(address):
        raise MammolensError(
            f"{address}: other machines reach the page there, and it has no login of its own. Add --password-file FILE "
            "(one password for all), --proxy-header NAME (a reverse proxy signs people in), or --no-login, if whoever "
            "reaches the address may see the page."
        )
    return ThisMachine(address)


@dataclass
class _Turn:
    """Whose turn it is to try, of one address."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Admission:
    """Lets through to the page who may see it, and nobody whom a page of another site sends."""

    def __init__(self, app: "ASGIApp", rule: Rule) -> None:
        self._app = app
        self._rule = rule
        self._key = secrets.token_bytes(32)
        self._turns: dict[str, _Turn] = {}
        self.cookie = f"mammolens-{secrets.token_hex(4)}"  # browsers share cookies among the ports of a machine

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request as ASGI does, or hand it on."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        enters = self._may_enter(asked)
        # Of another site, Streamlit would ask the internet for this machine's address, to compare.
        reads = scope["type"] == "http" and scope["method"] in _READING
        is_sent = not reads and is_of_another_site(asked.headers.get("origin"), asked.headers.get("host"))
        if enters and not is_sent:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            answer = PlainTextResponse(_SENT, 403) if enters else await self._turned_away(Request(scope, receive))
            answer.headers["Cache-Control"] = "no-store"
            await answer(scope, receive, send)

    def _may_enter(self, asked: HTTPConnection) -> bool:
        if isinstance(self._rule, ProxyHeader):
            return bool(asked.headers.get(self._rule.name, "").strip())
        if isinstance(self._rule, Password):
            name, _, proof = asked.cookies.get(self.cookie, "").partition(".")
            return hmac.compare_digest(proof.encode(), self._proof(name).encode())
        return self._rule is None or self._rule.is_meant(asked.headers.get("host", ""))

    def _proof(self, name: str) -> str:
        return hmac.new(self._key, name.encode(), sha256).hexdigest()

    async def _turned_away(self, asked: Request) -> Response:
        if isinstance(self._rule, ProxyHeader):
            return PlainTextResponse("Not signed in: this page is reached through its proxy alone.", 403)
        if isinstance(self._rule, ThisMachine):
            return PlainTextResponse(_ELSEWHERE, 421)
        if asked.method == "POST" and asked.headers.get("content-type", "").startswith(_FORM):
            return await self._tried(asked)
        if asked.method in {"GET", "HEAD"}:
            return _form()
        return PlainTextResponse("Sign in first.", 401)

    async def _tried(self, asked: Request) -> Response:
        """Look at a password: of an address one at a time, so that many sessions try no more often than one."""
        address = asked.client.host if asked.client else ""
        turn = self._turns.setdefault(address, _Turn())
        if turn.waiting >= _WAITING:
            return _form("Too many tries at the moment. Wait a minute.", 429)
        turn.waiting += 1
        try:
            tried = await _password_in(asked)
            async with turn.lock:
                if await asyncio.to_thread(self._is_right, tried):
                    return self._admitted(asked)
                await asyncio.sleep(DELAY)
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(address, None)
        return _form("This is not the password.", 403)

    def _is_right(self, tried: str) -> bool:
        return isinstance(self._rule, Password) and self._rule.is_right(tried)

    def _admitted(self, asked: Request) -> Response:
        answer = RedirectResponse(".", 303)
        name = secrets.token_urlsafe(16)
        secure = asked.url.scheme == "https"
        answer.set_cookie(self.cookie, f"{name}.{self._proof(name)}", httponly=True, samesite="lax", secure=secure)
        return answer


async def _password_in(asked: Request) -> str:
    """Return the password of a form; nothing where it is larger than forms are."""
    body = b""
    async for chunk in asked.stream():
        body += chunk
        if len(body) > _LONGEST:
            return ""
    return parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]


def _form(said: str = "", code: int = 401) -> Response:
    return HTMLResponse(template("sign-in.html.j2").render(said=said, blocks=blocks), code)


def _hash(password: str, salt: bytes) -> bytes:
    return scrypt(password.encode("utf-8", "replace"), salt=salt, n=_HASH["n"], r=_HASH["r"], p=_HASH["p"])
