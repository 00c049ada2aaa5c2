"""The service in a process of its own: its ends, and what it leaves on the screen."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from asking import SLOW, files, png, served

import brightness
from conftest import Typed

HELD = """
import sys
from contextlib import suppress
from pathlib import Path
from mammolens.serve import line, service
line.GRACE = float(sys.argv.pop(1))
gate = Path(sys.argv.pop(1))
at_once = service.looked_at
def looked(*asked):
    with suppress(FileNotFoundError):
        gate.read_bytes()  # waits until the test, which opened it, closes it
    return at_once(*asked)
service.looked_at = looked
from mammolens.__main__ import main
main()
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return brightness.bundle(tmp_path / "bundle").folder


def grey(folder: Path, name: str = "grey.png") -> Path:
    path = folder / name
    path.write_bytes(png(brightness.flat(204)))
    return path


@pytest.mark.parametrize(
    ("end", "grace", "expected"), [("SIGTERM", "600", 200), ("SIGINT", "600", 200), ("SIGTERM", "0", 503)]
)
def test_who_is_being_answered_when_it_ends_is_answered_or_refused(
    tmp_path: Path, gate: Path, model: Path, end: str, grace: str, expected: int
) -> None:
    log = tmp_path / "log.txt"
    with (
        ThreadPoolExecutor(1) as other,
        served(log, "--model", model, start=("-c", HELD, grace, str(gate))) as (url, process),
    ):
        asked = other.submit(httpx.post, f"{url}/v1/predict", files=files(grey(tmp_path)), timeout=SLOW)
        with gate.open("wb"):
            gate.unlink()
            process.send_signal(getattr(signal, end))
            if expected != 200:
                assert asked.result().status_code == expected
                assert asked.result().json() == {"detail": "the service is ending"}
            while True:
                try:
                    httpx.get(f"{url}/health")
                except httpx.TransportError:
                    break
        assert asked.result().status_code == expected
        assert process.wait(SLOW) == 0
    assert "Traceback" not in log.read_text()


def test_a_client_that_is_killed_costs_nothing(tmp_path: Path, gate: Path, model: Path) -> None:
    pictures = [grey(tmp_path, f"{number}.png") for number in range(8)]
    log = tmp_path / "log.txt"
    with served(log, "--model", model, "--most", "1", start=("-c", HELD, "1", str(gate))) as (url, _):
        request = httpx.Request("POST", f"{url}/v1/predict", files=files(*pictures))
        body = request.read()
        leaving = socket.create_connection(("localhost", int(url.rpartition(":")[2])))
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        leaving.sendall(f"POST /v1/predict HTTP/1.1\r\n{head}\r\n".encode() + body)
        with gate.open("wb"):
            gate.unlink()
            assert httpx.post(f"{url}/v1/predict", files=files(pictures[0])).status_code == 429
            leaving.close()
            while 'path="/v1/predict",status="499"' not in httpx.get(f"{url}/metrics").text:
                pass
        answer = httpx.post(f"{url}/v1/predict", files=files(*pictures), timeout=SLOW)
        assert [row["decision"] for row in answer.json()] == ["tumor"] * 8
        assert 'mammolens_pictures_total{outcome="answered"} 8.0' in httpx.get(f"{url}/metrics").text


def test_nothing_that_names_anybody_is_on_the_screen(tmp_path: Path, model: Path) -> None:
    log, token = tmp_path / "log.txt", "0123456789abcdef-jane"
    (tmp_path / "tokens").write_text(token)
    picture = grey(tmp_path, "jane_L_CC.png")
    with served(log, "--model", model, "--token-file", tmp_path / "tokens") as (url, _):
        known = {"Authorization": f"Bearer {token}", "X-Patient": "jane"}
        answer = httpx.post(f"{url}/v1/predict?patient=jane", files=files(picture), headers=known, timeout=SLOW)
        assert answer.json()[0]["path"] == picture.name
        httpx.get(f"{url}/v1/studies/jane", headers=known)
        httpx.post(
            f"{url}/v1/predict", content=b"jane", headers=known | {"Content-Type": "multipart/form-data; boundary=jane"}
        )
    said = log.read_text()
    assert "POST /v1/predict 200 in" in said
    assert "- other 404 in" in said
    assert "jane" not in said.replace(str(tmp_path), "")


def test_a_port_that_is_taken_is_told_of(mammolens: Typed) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        said = mammolens("serve", "--model", "phantom", "--port", taken.getsockname()[1])
    assert said.code == 1
    assert "the service cannot be served here" in said.err
