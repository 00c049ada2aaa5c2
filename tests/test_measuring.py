"""What benchmarks measure with: ways in turn, medians, and rows that are kept."""

import json
import sys
from pathlib import Path

import pytest
from benchmarks import performance
from benchmarks.measuring import KEPT, Row, alternate, keep, ran, spread


def test_ways_take_turns_and_the_order_is_turned_round() -> None:
    called: list[str] = []
    ways = {name: lambda name=name: called.append(name) or 2.0 for name in "abc"}  # type: ignore[func-returns-value]
    assert alternate(ways, 3) == {name: [2.0] * 3 for name in "abc"}
    assert "".join(called) == "abc" + "cba" + "abc"


def test_a_way_that_measures_nothing_is_measured_by_the_clock() -> None:
    measured = alternate({"long": lambda: sum(range(1_000_000)) and None, "short": lambda: None}, 3)
    assert min(measured["long"]) > max(measured["short"]) > 0


def test_targets_are_ratios_of_medians_or_limits() -> None:
    twice = Row("ours", [1.0, 2.0, 9.0], "theirs", [4.0, 4.0, 5.0], 2)
    assert (twice.ratio, twice.reached) == (2.0, True)
    assert Row("ours", [1.0, 2.0, 9.0], "theirs", [4.0, 4.0, 5.0], 2.1).reached is False
    assert Row("ours", [1.0, 2.0, 9.0], "–", [], 1.9).reached is False
    assert Row("ours", [1.0, 2.0, 9.0], "–", [], 2.0).reached is True
    assert Row("ours", [1.0], "theirs", [1.0], None).reached is None


def test_spread_shows_the_median_and_the_ends() -> None:
    assert spread([3.0, 1.0, 2.0], "s") == "2.00 s (1.00–3.00, n = 3)"
    assert spread([0.0123], "s") == "12.3 ms"
    assert spread([480.0, 470.0], "MB") == "475 MB (470–480, n = 2)"


def test_rows_are_kept_with_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = Row("work of n = 3", [1.0, 2.0, 3.0], "theirs", [2.0, 4.0, 6.0], 2, note="half of it is decoding")
    keep("some", [row])
    told = json.loads((KEPT / "some.json").read_text(encoding="utf-8"))
    assert [Row(**one) for one in told["rows"]] == [row]
    assert told["machine"]["cores"] >= 1
    assert told["machine"]["libraries"]["numpy"]


def test_the_page_is_made_of_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    performance.PAGE.parent.mkdir()
    keep("starting", [Row("help", [0.12, 0.1, 0.11], "nothing", [], 0.2)])
    keep("baseline", [Row("an epoch", [10.0, 11.0], "Keras", [16.0, 15.5], 2, note="most of it convolutions")])
    performance.main()
    page = performance.PAGE.read_text(encoding="utf-8")
    assert "| help | 110 ms (100–120, n = 3) | nothing | – | – | ≤ 0.2 s | yes |" in page
    assert "| an epoch | 10.5 s (10.0–11.0, n = 2) | Keras | 15.8 s (15.5–16.0, n = 2) | 1.50 | ≥ 2 | no |" in page
    assert "- an epoch: most of it convolutions." in page
    assert "Not measured in this run: Preparing pictures," in page
    assert "## What did not help" in page


def test_a_section_of_other_code_or_another_machine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    performance.PAGE.parent.mkdir()
    for name, changes in (
        ("starting", {}),
        ("reading", {}),
        ("serving", {"commit": "an earlier one"}),
        ("gpu", {"cores": 999}),
    ):
        keep(name, [Row(name, [0.1], "nothing", [], 0.2)])
        file = KEPT / f"{name}.json"
        told = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(told | {"machine": told["machine"] | changes}), encoding="utf-8")
    performance.main()
    _, *sections = performance.PAGE.read_text(encoding="utf-8").split("\n## ")
    said = {one.partition("\n")[0]: "Of other code" in one or "On another machine" in one for one in sections}
    assert [title for title, is_said in said.items() if is_said] == ["From files to a table", "With a GPU"]
    assert "Of other code: `an earlier one`." in "".join(sections)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_that_of_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    child = "held = bytearray(b'x') * 200_000_000; print('child', flush=True); input()"
    parent = (
        "import subprocess, sys; held = bytearray(b'x') * 100_000_000; "
        f"one = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=-1, stdout=-1); one.stdout.readline(); "
        "sum(range(20_000_000)); one.communicate(b'\\n'); print('told')"
    )
    done = ran([sys.executable, "-c", parent], memory=True)
    assert done.out == "told\n"
    assert 300 < done.peak < 400


def test_programs_are_measured_as_they_are_installed_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    Path("imported.py").write_text("", encoding="utf-8")
    ran([sys.executable, "-c", "import imported"])
    assert list(Path("__pycache__").glob("imported.*.pyc"))


def test_a_program_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="no such luck"):
        ran([sys.executable, "-c", "raise SystemExit('no such luck')"])
