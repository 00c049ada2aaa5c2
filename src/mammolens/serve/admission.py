"""Who may ask the service: by a token, or of this machine alone. Plain ASGI, before anything is read of a request."""

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from mammolens.errors import MammolensError
from mammolens.hosting import ThisMachine, is_of_another_site, is_of_this_machine, lines_of_secrets

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH = "/health"
"""What needs no token."""

_LEAST = 20  # characters of a token: it cannot be guessed, so its hash needs no salt


@dataclass(frozen=True)
class Tokens:
    """Whoever sends one of them may ask; their hashes alone are kept.

    Attributes:
        digests: SHA-256 of each.
    """

    digests: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def in_file(cls, path: Path) -> "Tokens":
        """Read tokens, one a line; empty lines and those that begin with ``#`` are none.

        Raises:
            MammolensError: the file cannot be read, has none, or one is shorter than 20 characters or not ASCII.
        """
        lines = [line.strip() for line in lines_of_secrets(path, "a token a line")]
        tokens = [line for line in lines if line and not line.startswith("#")]
        if not tokens or any(len(one) < _LEAST or not one.isascii() or " " in one for one in tokens):
            raise MammolensError(
                f"{path}: expected a token a line, of {_LEAST} letters and digits or more, as "
                "`openssl rand -hex 32` makes them."
            )
        return cls(tuple(_digest(one) for one in tokens))

    def has(self, authorization: str) -> bool:
        """Tell whether an Authorization header (RFC 6750) has one, in the same time whatever is wrong with it."""
        kind, _, token = authorization.partition(" ")
        tried = _digest(token.strip())
        right = [hmac.compare_digest(tried, one) for one in self.digests]
        return kind.lower() == "bearer" and any(right)


Rule = Tokens | ThisMachine
"""Who may ask."""


def rule_for(address: str, token_file: Path | None) -> Rule:
    """Return who may ask at an address; one that others reach needs tokens.

    Raises:
        MammolensError: it has none, or they will not do.
    """
    if token_file is not None:
        return Tokens.in_file(token_file)
    if not is_of_this_machine(address):
        raise MammolensError(
            f"{address}: other machines reach the service there. Say who may: --token-file FILE, with a token a line."
        )
    return ThisMachine(address)


class Admission:
    """Lets requests through to the service that may ask it, and none that a page of another site sends."""

    def __init__(self, app: "ASGIApp", rule: Rule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request as ASGI does, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(scope["path"], Headers(scope=scope))) is not None:
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        if isinstance(self._rule, ThisMachine) and not self._rule.is_meant(headers.get("host", "")):
            return problem("the service is of this machine alone: ask it at localhost, or start it with tokens", 421)
        if is_of_another_site(headers.get("origin"), headers.get("host")):
            return problem("a page of another site asks", 403)
        known = isinstance(self._rule, ThisMachine) or self._rule.has(headers.get("authorization", ""))
        if known or path == HEALTH:
            return None
        return problem("a token is needed, as in 'Authorization: Bearer TOKEN'", 401, {"WWW-Authenticate": "Bearer"})


def problem(why: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return why a request is not answered, in one sentence."""
    return JSONResponse({"detail": why}, status, headers)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()
