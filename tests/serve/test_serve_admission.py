"""Who may ask the service."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import Service, png

import brightness
from conftest import Typed
from mammolens.serve.admission import Tokens, rule_for

TOKENS = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210")
EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness.bundle(tmp_path_factory.mktemp("grey") / "bundle").folder


@pytest.fixture(scope="module")
def local(bundle_folder: Path) -> Iterator[Service]:
    with Service(bundle_folder).open() as one:
        yield one


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    path.write_text("# of the ward\n" + "\n\n".join(TOKENS) + "\n")
    with Service(bundle_folder, rule_for("0.0.0.0", path)).open() as one:  # noqa: S104 - nobody listens
        yield one


@pytest.mark.parametrize("host", ["localhost", "localhost:8600", "127.0.0.1", "[::1]:1", "x.localhost"])
def test_this_machine_is_answered(local: Service, host: str) -> None:
    assert local.get("/v1/models", Host=host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "["])
def test_a_site_whose_name_leads_here_is_not(local: Service, host: str) -> None:
    for path in ("/v1/models", "/health", "/openapi.json"):
        assert local.get(path, Host=host).status_code == 421


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1", "["])
def test_a_page_of_another_site_is_not(local: Service, guarded: Service, origin: str) -> None:
    files = [("files", ("x.png", png(brightness.flat(9))))]
    for one in (local, guarded):
        headers = {"Origin": origin, "Authorization": f"Bearer {TOKENS[0]}"}
        answer = one.ask("/v1/predict", files, headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("token", TOKENS)
def test_who_has_a_token_is_answered(guarded: Service, token: str) -> None:
    for said in (f"Bearer {token}", f"bearer  {token} "):
        assert guarded.get("/v1/models", Authorization=said, Host="any.example").status_code == 200


@pytest.mark.parametrize(
    "said", ["", TOKENS[0], f"Basic {TOKENS[0]}", f"Bearer {TOKENS[0][:-1]}", "Bearer", "Bearer ü"]
)
def test_who_has_none_is_told_so_before_anything_is_read(guarded: Service, said: str) -> None:
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
        answer = guarded.get(path, **({"Authorization": said} if said.isascii() else {}))
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert guarded.get("/health").status_code == 200


def test_tokens_are_kept_as_hashes_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKENS[0])
    tokens = Tokens.in_file(path)
    assert TOKENS[0] not in repr(vars(tokens))
    assert tokens.has(f"Bearer {TOKENS[0]}")


@pytest.mark.parametrize(
    "content", ["", "short", "# nothing\n", f"{TOKENS[0]}\nshort", "ü" * 30, "two words of a token"]
)
def test_tokens_that_will_not_do_are_refused(mammolens: Typed, tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text(content, encoding="utf-8")
    said = mammolens("serve", "--model", "phantom", "--address", "0.0.0.0", "--token-file", path)  # noqa: S104
    assert said.code == 1
    assert "expected a token a line, of 20 letters and digits or more" in said.err


def test_where_others_reach_it_tokens_are_needed(mammolens: Typed) -> None:
    said = mammolens("serve", "--model", "phantom", "--address", "0.0.0.0")  # noqa: S104 - refused
    assert said.code == 1
    assert "Say who may: --token-file FILE" in said.err
