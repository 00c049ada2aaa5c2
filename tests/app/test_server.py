"""The page's server as others meet it: sites elsewhere, too much of anything, strangers at one page, many at once."""

import http.client
import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsing import NEEDED, bomb, png, served
from load import visits
from visiting import Visitor, request
from websockets.exceptions import InvalidStatus

from mammolens.hosting import MAX_FILE, MAX_IMAGES

pytestmark = NEEDED[1]

EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of somebody whose own settings of Streamlit open everything."""
    home = tmp_path_factory.mktemp("home")
    (home / ".streamlit").mkdir()
    opening = ("enableXsrfProtection = false", "enableCORS = false", "enableAgentApi = true")
    (home / ".streamlit" / "config.toml").write_text("\n".join(("[server]", *opening)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        with served(home / "log.txt") as (address, _):
            yield address


@pytest.mark.parametrize(
    "headers",
    [{"Origin": EVIL}, {"Origin": "null"}, {"Host": "evil.example", "Origin": EVIL}, {"Origin": "http://localhost:1"}],
    ids=str,
)
def test_a_page_of_another_site_opens_no_session(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused, Visitor(url, **headers):
        pass
    assert refused.value.response.status_code == 403


def test_a_site_whose_name_leads_here_sees_nothing(url: str) -> None:
    for path in ("", "_stcore/health", "_stcore/host-config"):
        status, said = request(f"{url}/{path}", headers={"Host": "evil.example"})
        assert (status, said[:36]) == (421, b"This page is of this machine alone: ")


def test_uploads_are_taken_of_the_page_itself_alone(url: str) -> None:
    with Visitor(url) as one:
        place = f"_stcore/upload_file/{one.session}/x"
        for headers in ({"X-Xsrftoken": ""}, {"Cookie": ""}, {"Origin": EVIL}, {"Origin": "null"}):
            assert one.request(place, "PUT", b"x", headers)[0] == 403
            assert one.request(place, "DELETE", None, headers)[0] == 403
        assert one.put(("x.png", b"x")) == [204]


def test_no_other_site_may_read_what_is_answered(url: str) -> None:
    asked = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    for method, path in (("GET", "/_stcore/health"), ("OPTIONS", "/_stcore/upload_file/a/b")):
        asked.request(method, path, headers={"Origin": EVIL, "Access-Control-Request-Method": "PUT"})
        answer = asked.getresponse()
        answer.read()
        assert answer.headers.get("Access-Control-Allow-Origin") not in {"*", EVIL, "null"}
    asked.close()
    assert request(f"{url}/_stcore/agent/interact", "POST", b"{}", {"Content-Type": "application/json"})[0] == 403


def archive(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, content)
    return file.getvalue()


def test_each_file_that_is_too_much_gets_a_sentence_and_the_page_lives(url: str) -> None:
    with Visitor(url) as one:
        one.drop(("many.png", bomb()), ("bomb.zip", archive("x.png", bytes(600 * 2**20))), ("good_L_CC.png", png(0)))
        assert "many.png: over the limit of 80,000,000 pixels." in one.text()
        assert "bomb.zip/x.png: 600 MiB is over the limit of 512 MiB a file." in one.text()
        assert [bool(row["error"]) for row in one.answers()] == [True, True, False]


def test_a_file_over_the_limit_is_refused_before_it_is_sent(url: str) -> None:
    with Visitor(url) as one:
        asked = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        asked.putrequest("PUT", f"/_stcore/upload_file/{one.session}/x")
        head = {"Cookie": f"_streamlit_xsrf={one.token}", "X-Xsrftoken": one.token, "Content-Length": MAX_FILE + 2**20}
        for name, value in head.items():
            asked.putheader(name, str(value))
        asked.endheaders()
        assert asked.getresponse().status == 413
        asked.close()
        one.drop(("good.png", png(0)))
        assert one.answers()[0]["error"] == ""


def test_of_a_thousand_files_a_hundred_are_looked_at_and_no_more_are_taken(url: str) -> None:
    with Visitor(url) as one:
        assert set(one.put(*((f"{number}.png", b"x") for number in range(1000)))) == {204}
        assert one.put(("more.png", b"x")) == [413]
        one.run()
        assert "895 more files were not looked at." in one.text()
        assert f"{MAX_IMAGES} pictures could not be read: the table says why." in one.text()
        one.drop(("good.png", png(0)))
        assert one.answers()[0]["error"] == ""


def test_nobody_sees_pictures_of_another(url: str) -> None:
    with Visitor(url) as ann, Visitor(url) as eve:
        ann.drop(("ann_L_CC.png", png(0)))
        eve.drop(("eve_L_CC.png", png(1)))
        assert not any(secret.encode() in b"".join(eve.received) for secret in ("ann_L", ann.session, *ann.pixels()))
        assert not any(secret.encode() in b"".join(ann.received) for secret in ("eve_L", eve.session, *eve.pixels()))
        assert [row["path"] for row in eve.answers()] == ["eve_L_CC.png"]
        before = ann.pixels()
        assert [ann.request(place)[0] for place in before] == [200, 200]
        eve.drop(("eve_L_CC.png", png(0)))
        assert not set(before) & set(eve.pixels()), "who has a picture learns not who else has"
        ann.take_away()
        ann.run()
        assert [ann.request(place)[0] for place in before] == [404, 404]


def test_what_one_has_prepared_to_keep_stays_whatever_others_do(url: str) -> None:
    with Visitor(url) as ann, Visitor(url) as eve:
        ann.drop(("ann_L_CC.png", png(0)))
        places = [ann.prepared(label) for label in ("(CSV)", "Report of this picture")]
        for _ in range(3):
            eve.run()
        assert [ann.request(place)[0] for place in places] == [200, 200]
        ann.take_away()
        for _ in range(3):
            ann.run()
        assert [ann.request(place)[0] for place in places] == [404, 404]


ONE_AT_A_TIME = """
from pathlib import Path
from mammolens.app import capacity, cases
capacity.TURNS = capacity.Turns(1)
capacity.MEMORY = capacity.Memory(0)
capacity.MAX_TOTAL, capacity.MAX_FILE, capacity.MOST_UPLOADED = 500_000, 2**20, 2_500_000
at_once = cases.answered
def answered(predictor, source):
    if Path("GATE").exists():
        Path("GATE").read_bytes()  # waits until the test, which opened it, closes it
    return at_once(predictor, source)
cases.answered = answered
from mammolens.cli import main
main()
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a pipe is, whoever comes to look at a picture waits until it was opened and closed."""
    return tmp_path_factory.mktemp("gate") / "pipe"


@pytest.fixture(scope="module")
def small(gate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a machine that looks at one picture at a time, and has hardly any memory."""
    start = ("-c", ONE_AT_A_TIME.replace("GATE", str(gate)))
    with served(tmp_path_factory.mktemp("small") / "log.txt", start=start) as (address, _):
        yield address


def test_who_waits_is_told_how_many_are_before_and_who_closes_the_page_leaves(small: str, gate: Path) -> None:
    os.mkfifo(gate)
    with Visitor(small) as first, Visitor(small) as leaves, Visitor(small) as stays:
        for one in (first, leaves, stays):
            one.put(("x_L_CC.png", png(0)))
        first.ask()
        with gate.open("wb"):
            gate.unlink()
            for count, one in enumerate((leaves, stays), start=1):
                one.ask()
                one.until_before(count)
            leaves.__exit__()
            stays.until_before(1)
        for one in (first, stays):
            one.until_done()
            assert "Left breast Above the threshold" in one.text()
            assert "before yours" not in one.text()


def test_pictures_that_were_let_go_come_back(small: str) -> None:
    with Visitor(small) as first, Visitor(small) as second:
        first.drop(("x_L_CC.png", png(0)))
        told, pixels = first.answers(), first.pixels()
        second.drop(("y_L_CC.png", png(1)))
        (fragment,) = first.fragments
        first.run(fragment)
        assert first.answers() == told
        assert len(first.pixels()) == len(pixels)


def not_taken(visitor: Visitor, name: str, content: bytes) -> str:
    """What the page says of a file of which no more than its name is taken."""
    assert visitor.put((name, content)) == [204]
    visitor.run()
    said = re.search(rf"{name}: not looked at, because (.*?)\.", visitor.text())
    return said[1] if said else ""


def test_one_session_and_all_together_hold_so_many_bytes(small: str) -> None:
    content, too_many = bytes(1_000_000), "others have too many files on the page"
    with Visitor(small) as first, Visitor(small) as second:
        assert not_taken(first, "a.png", content) == ""
        assert not_taken(first, "b.png", content) == "all files together pass 0 MB"
        with Visitor(small) as closed:
            assert not_taken(closed, "a.png", content) == ""
            assert not_taken(second, "a.png", content) == too_many
        assert not_taken(second, "b.png", content) == "", "who closed the page gives way"
        first.take_away()
        first.run()
        assert not_taken(first, "c.png", content) == ""


def test_many_at_once_get_each_their_own_answers(url: str) -> None:
    seen, _ = visits(url, sessions=3, rounds=3)
    assert seen.wrong == []
    assert len(seen.waited) == 9
