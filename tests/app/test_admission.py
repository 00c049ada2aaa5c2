"""Who is let in to a page that others reach, and what everybody else gets: nothing of it."""

import asyncio
import os
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from browsing import NEEDED, served
from playwright.sync_api import Browser, expect
from starlette.requests import Request as Asked

from conftest import Typed
from mammolens.app import admission, server
from mammolens.app.admission import (
    DELAY,
    Admission,
    Password,
    ProxyHeader,
    Rule,
    rule_for,
)
from mammolens.errors import MammolensError
from mammolens.hosting import ThisMachine, is_of_this_machine, url_at

EVERYWHERE = "0.0.0.0"  # noqa: S104 - all addresses of this machine
RIGHT, WRONG = "correct horse", "battery staple"
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Told(NamedTuple):
    """What came back: a status, or None where a websocket was closed or the page itself answered."""

    status: int | None
    body: str
    headers: dict[str, str]
    reached: bool


@pytest.fixture
def password(tmp_path: Path) -> Password:
    file = tmp_path / "password"
    file.write_text(f"{RIGHT}\nwhat follows is not of it\n")
    return Password.in_file(file)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the gate waited, which takes no time."""
    waited: list[float] = []

    async def at_once(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(admission.asyncio, "sleep", at_once)  # type: ignore[attr-defined]
    return waited


def ask(
    gate: Admission, reached: list[str], kind: str = "http", method: str = "GET", body: bytes = b"", **headers: str
) -> Told:
    """Ask as a server does; `reached` is what the page behind saw."""
    sent: list[dict[str, Any]] = []
    names = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": "/", "query_string": b"", "headers": names, "scheme": "http"}
    scope |= {"server": ("localhost", 80)}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    before = len(reached)
    asyncio.run(gate(scope, receive, send))
    start = next((one for one in sent if one["type"] == "http.response.start"), None)
    told = {name.decode(): value.decode() for name, value in start["headers"]} if start else {}
    said = b"".join(one.get("body", b"") for one in sent).decode()
    return Told(start["status"] if start else None, said, told, len(reached) > before)


def gated(rule: Rule) -> tuple[Admission, list[str]]:
    reached: list[str] = []

    async def page(scope: Any, _receive: object, _send: object) -> None:
        reached.append(scope["type"])

    return Admission(page, rule), reached


def sign_in(gate: Admission, reached: list[str], password: str) -> Told:
    body = f"password={password.replace(' ', '+')}".encode()
    return ask(gate, reached, method="POST", body=body, **FORM)


def test_without_a_password_nothing_of_the_page_is_reached(password: Password) -> None:
    gate, reached = gated(password)
    first = ask(gate, reached)
    assert first.status == 401
    assert 'type="password"' in first.body
    assert "For research use only" in first.body
    assert ask(gate, reached, method="PUT", body=b"a picture").status == 401
    assert ask(gate, reached, "websocket").body == ""
    assert ask(gate, reached, Cookie=f"{gate.cookie}=x.y").status == 401
    assert ask(gate, reached, Cookie=f"{gate.cookie}=\u00e9").status == 401
    assert reached == []


def test_the_password_opens_the_page_and_its_cookie_keeps_it_open(password: Password, waits: list[float]) -> None:
    gate, reached = gated(password)
    told = sign_in(gate, reached, RIGHT)
    assert (told.status, told.headers["location"]) == (303, ".")
    assert "HttpOnly" in told.headers["set-cookie"]
    cookie = SimpleCookie(told.headers["set-cookie"])[gate.cookie].value
    assert RIGHT not in cookie
    for kind in ("http", "websocket"):
        assert ask(gate, reached, kind, Cookie=f"{gate.cookie}={cookie}").reached
    assert not ask(gate, reached, Cookie=f"{gate.cookie}={cookie[:-1]}").reached
    other, behind = gated(password)
    assert not ask(other, behind, Cookie=f"{other.cookie}={cookie}").reached, "another start, another key"
    assert other.cookie != gate.cookie, "or two pages of one machine sign people out of each other"
    assert waits == []


@pytest.mark.parametrize("name", ["Host", "user-agent", "Cookie", "Accept-Language", "Sec-Fetch-Site", "Upgrade"])
def test_a_header_that_every_browser_sends_is_refused(name: str) -> None:
    with pytest.raises(MammolensError, match="every browser sends it"):
        rule_for("192.0.2.1", None, name, no_login=False)


@pytest.mark.parametrize("origin", ["null", "http://[", "http://evil"])
def test_a_websocket_of_another_site_is_closed(origin: str) -> None:
    gate, reached = gated(None)
    ask(gate, reached, "websocket", Origin=origin, Host="here:8501")
    assert reached == []


@pytest.mark.parametrize("content", ["\ufeffa password\r\nmore\n", "a password\n", "a password"])
def test_the_first_line_is_the_password_however_it_was_saved(tmp_path: Path, content: str) -> None:
    (tmp_path / "word").write_bytes(content.encode())
    assert Password.in_file(tmp_path / "word").is_right("a password")


def test_blanks_are_no_password(tmp_path: Path) -> None:
    (tmp_path / "word").write_text(" " * 12)
    with pytest.raises(MammolensError, match="8 characters or more"):
        Password.in_file(tmp_path / "word")


def test_a_wrong_password_waits_and_tells_nothing(password: Password, waits: list[float]) -> None:
    gate, reached = gated(password)
    for tried in (WRONG, "", RIGHT + "r", RIGHT.upper()):
        told = sign_in(gate, reached, tried)
        assert told.status == 403
        assert "This is not the password." in told.body
        assert "set-cookie" not in told.headers
    assert waits == [DELAY] * 4
    assert ask(gate, reached, method="POST", body=b"password=" + b"x" * 10_000, **FORM).status == 403
    assert reached == []
    assert RIGHT not in repr(password)
    assert RIGHT.encode() not in password.digest


def asked_from(address: str) -> Asked:
    return Asked({"type": "http", "method": "POST", "path": "/", "headers": [], "client": (address, 1)})


def test_who_floods_the_sign_in_keeps_no_other_address_out(password: Password, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, _ = gated(password)

    async def given(asked: Asked) -> str:
        return RIGHT if asked.client and asked.client.host == "192.0.2.8" else WRONG

    async def everybody() -> None:
        flood = [asyncio.create_task(gate._tried(asked_from("192.0.2.7"))) for _ in range(50)]
        assert (await gate._tried(asked_from("192.0.2.8"))).status_code == 303
        assert any(not one.done() for one in flood)
        for one in flood:
            one.cancel()

    monkeypatch.setattr(admission, "_password_in", given)
    asyncio.run(everybody())


def test_many_sessions_try_no_more_often_than_one(password: Password, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, _ = gated(password)
    at_once: list[int] = []
    real = asyncio.sleep

    async def watched(_: float) -> None:
        at_once.append(1)
        assert sum(at_once) == 1, "one try at a time"
        await real(0)
        at_once.append(-1)

    async def answer(address: str) -> int:
        return (await gate._tried(asked_from(address))).status_code

    async def given(_: object) -> str:
        return WRONG

    async def everybody() -> list[int]:
        return await asyncio.gather(*(answer("192.0.2.7") for _ in range(50)))

    monkeypatch.setattr(admission, "_password_in", given)
    monkeypatch.setattr(admission.asyncio, "sleep", watched)  # type: ignore[attr-defined]
    codes = asyncio.run(everybody())
    assert set(codes) == {403, 429}
    assert codes.count(403) <= 21


def test_a_proxy_says_who_is_signed_in() -> None:
    gate, reached = gated(ProxyHeader("X-Forwarded-User"))
    for kind in ("http", "websocket"):
        assert not ask(gate, reached, kind).reached
        assert not ask(gate, reached, kind, X_Forwarded_User=" ").reached
        assert not ask(gate, reached, kind, X_Forwarded_Email="ann").reached
        assert ask(gate, reached, kind, x_forwarded_user="ann").reached
    assert ask(gate, reached).status == 403


def test_a_page_of_another_site_may_not_talk_to_it() -> None:
    gate, reached = gated(None)
    assert ask(gate, reached).reached
    assert ask(gate, reached, "websocket", Host="ours:8501", Origin="http://ours:8501").reached
    assert not ask(gate, reached, "websocket", Host="ours:8501", Origin="http://theirs").reached


@pytest.mark.parametrize(
    ("host", "named"),
    [
        *(
            (host, True)
            for host in ("localhost:8501", "LOCALHOST", "127.0.0.1:8501", "[::1]:8501", "a.localhost", "here")
        ),
        *((host, False) for host in ("evil.example:8501", "127.0.0.1.evil.example", "localhost.evil.example")),
        *((host, False) for host in ("", "[", "evil.example@", "evil")),
    ],
)
def test_a_page_of_this_machine_answers_to_its_names_alone(host: str, named: bool) -> None:
    gate, reached = gated(ThisMachine("here"))
    for kind in ("http", "websocket"):
        assert ask(gate, reached, kind, Host=host, Origin=f"http://{host}").reached == named
    if not named:
        assert ask(gate, reached, Host=host).status == 421
        assert "--proxy-header NAME, or with --no-login" in ask(gate, reached, Host=host).body


def test_what_a_page_of_another_site_sends_is_not_done() -> None:
    gate, reached = gated(None)
    assert ask(gate, reached, method="PUT", Host="ours:8501", Origin="http://ours:8501").reached
    told = ask(gate, reached, method="PUT", Host="ours:8501", Origin="http://theirs")
    assert (told.status, told.reached) == (403, False)


@pytest.mark.parametrize("address", [EVERYWHERE, "::", "192.0.2.7", ""])
def test_an_address_that_others_reach_needs_a_choice(address: str, tmp_path: Path) -> None:
    with pytest.raises(MammolensError, match=r"--password-file FILE.*--proxy-header NAME.*--no-login"):
        rule_for(address, None, None, no_login=False)
    assert rule_for(address, None, None, no_login=True) is None
    assert rule_for(address, None, "X-User", no_login=False) == ProxyHeader("X-User")
    with pytest.raises(MammolensError, match="choose one"):
        rule_for(address, tmp_path, "X-User", no_login=False)


def test_this_machine_alone_needs_none() -> None:
    for address in ("localhost", "127.0.0.1", "127.0.0.2", "::1"):
        assert is_of_this_machine(address)
        assert rule_for(address, None, None, no_login=False) == ThisMachine(address)


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "8 characters"), (b"short\n", "8 characters"), (b"\xff" * 9, "UTF-8")]
)
def test_a_password_that_will_not_do_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(MammolensError, match=told) as refused:
        Password.in_file(file)
    assert str(refused.value).startswith(str(file))
    with pytest.raises(MammolensError, match="no such file"):
        Password.in_file(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    for waits_for_ever in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(MammolensError, match="is no file"):
            Password.in_file(waits_for_ever)
    with pytest.raises(MammolensError, match="no name of a header"):
        rule_for("localhost", None, "X User: ann", no_login=False)


def test_the_command_line_refuses_before_it_serves(mammolens: Typed, tmp_path: Path) -> None:
    said = mammolens("app", "--model", "phantom", "--address", EVERYWHERE)
    assert said.code == 1
    assert "no login of its own" in said.err
    said = mammolens("app", "--model", "phantom", "--address", EVERYWHERE, "--password-file", tmp_path / "gone")
    assert "no such file" in said.err


def test_what_others_type_is_told() -> None:
    assert url_at("localhost", 8501) == "http://localhost:8501"
    assert url_at("::1", 8501) == "http://[::1]:8501"
    assert EVERYWHERE not in url_at(EVERYWHERE, 8501)
    assert "cross the network unencrypted" in " ".join(server._said_of(None))
    assert server._said_of(ThisMachine("localhost")) == []
    assert "whoever else reaches this port can set it" in " ".join(server._said_of(ProxyHeader("X-User")))


@pytest.fixture(scope="module")
def locked_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page at all addresses of this machine, behind a password."""
    place = tmp_path_factory.mktemp("locked")
    (place / "password").write_text(RIGHT)
    options = ("--address", EVERYWHERE, "--password-file", str(place / "password"))
    with served(place / "log", *options) as (url, _):
        yield url


def status(url: str, method: str = "GET") -> int | None:
    try:
        with urlopen(Request(url, method=method), timeout=30) as answer:  # noqa: S310 - our own page
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except (URLError, OSError):
        return None


def test_streamlit_itself_answers_nobody_who_is_not_signed_in(locked_page: str) -> None:
    asked = {
        "GET": ("", "/_stcore/health", "/_stcore/host-config", "/static/index.html", "/media/x.png"),
        "PUT": ("/_stcore/upload_file/session/file",),
    }
    for method, paths in asked.items():
        assert [status(locked_page + path, method) for path in paths] == [401] * len(paths)


@pytest.mark.skipif(NEEDED[0].args[0], reason="no chromium: apt-get install chromium")
def test_one_signs_in_and_sees_the_page(browser: Browser, locked_page: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(locked_page)
    for tried in (WRONG, RIGHT):
        page.get_by_label("Password of this page").fill(tried)
        page.get_by_role("button", name="Sign in").click()
        if tried is WRONG:
            expect(page.get_by_role("alert")).to_have_text("This is not the password.")
    expect(page.get_by_text("Drop mammograms, or choose an example")).to_be_visible()
    context.close()
