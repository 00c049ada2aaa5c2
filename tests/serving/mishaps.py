"""What happens to batches: damaged files among good ones, and kills at random moments.

`python tests/serving/mishaps.py damaged` and `... kills` are the campaigns; the suite does a little of each.
"""

import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle, product
from pathlib import Path

import numpy as np

from mammolens.data.sources.phantom import write_phantoms
from mammolens.images.listing import list_folder


def _cut(source: Path, path: Path) -> None:
    path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


def _garbled(source: Path, path: Path) -> None:
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)


def _too_large(source: Path, path: Path) -> None:
    content = bytearray(source.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    path.write_bytes(content)


def _archive_cut(source: Path, path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + source.read_bytes()[:1000])


DAMAGES: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "empty": (".png", lambda _, path: path.touch()),
    "text": (".png", lambda _, path: path.write_text("no picture")),
    "portable document": (".jpg", lambda _, path: path.write_bytes(b"%PDF-1.7\n" + bytes(500))),
    "PNG cut short": (".png", _cut),
    "PNG garbled": (".png", _garbled),
    "PNG that says it is huge": (".png", _too_large),
    "DICOM of a preamble": (".dcm", lambda _, path: path.write_bytes(bytes(128) + b"DICM" + bytes(8))),
    "archive cut short": (".zip", _archive_cut),
    "link to nothing": (".png", lambda _, path: path.symlink_to("nothing")),
    "pipe": (".png", lambda _, path: os.mkfifo(path)),
}
"""What a file may have suffered → the ending of its name, and how it is made of a good PNG."""


def damaged(folder: Path, files: int, every: int = 10) -> Counter[str]:
    """Answer for `files` files, each of `every` damaged; return how many of each damage were named.

    Raises:
        AssertionError: a row or a reason is missing, or the exit code is not 1.
    """
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    good = pictures(folder / "good")
    damages = cycle(DAMAGES.items())
    suffered: dict[str, str] = {}
    for number in range(files):
        source = good[number % len(good)]
        if number % every:
            os.link(source, inputs / f"{number:05d}.png")
            continue
        name, (suffix, damage) = next(damages)
        path = inputs / f"{number:05d}{suffix}"
        damage(source, path)
        suffered[str(path)] = name
    out = folder / "answers.csv"
    assert subprocess.run(command(inputs, out), check=False, capture_output=True).returncode == 1
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == sorted(str(path) for path in inputs.iterdir())
    assert {row["path"] for row in rows if row["error"]} == set(suffered)
    assert all(bool(row["decision"]) != bool(row["error"] or row["reason"]) for row in rows)
    for row in rows:
        assert not row["error"] or row["path"] in row["error"], row
    return Counter(suffered[row["path"]] for row in rows if row["error"])


def pictures(folder: Path, patients: int = 12) -> list[Path]:
    """Draw small mammograms, four a patient; return the files, which are PNG."""
    from PIL import Image  # noqa: PLC0415 - as the rest of what it needs

    write_phantoms(folder, patients, size=96, seed=3)
    for path in list_folder(folder).images:
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    return list(list_folder(folder).images)


def command(inputs: Path, out: Path, *options: object) -> list[str]:
    """Return what is typed."""
    words = ["predict", inputs, "--model", "phantom", "--out", out, "--quiet", *options]
    return [sys.executable, "-m", "mammolens", *map(str, words)]


def outcome(folder: Path) -> dict[str, bytes]:
    """Return all that lies below a folder, by name; reports without the time when they were made."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"", content)
        if path.suffix == ".html"
        else content
        for path in files
        for content in [path.read_bytes()]
    }


KINDS = list(product(("csv", "json", "parquet"), ("image", "breast", "exam")))


def kills(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Kill batches `count` times, of each format and level in turn, and go on; return where they were.

    Raises:
        AssertionError: one ended otherwise than the batch that was never killed.
    """
    generator = np.random.default_rng(seed)
    inputs = folder / "inputs"
    pictures(inputs)
    (inputs / "test" / "0" / "broken.png").write_text("no picture")
    moments: Counter[str] = Counter()
    for trial, (suffix, level) in enumerate(cycle(KINDS)):
        if moments.total() >= count:
            return moments

        def typed(place: Path, level: str = level, suffix: str = suffix) -> list[str]:
            options = ["--level", level, "--data", inputs, "--overlay", place / "heat"]
            options += ["--report", place / "reports"] if level == "exam" else []
            return command(inputs, place / f"answers.{suffix}", *options)

        code, seconds = ended(typed(folder / f"whole-{trial}"), folder / f"whole-{trial}")
        assert code == 1, "a picture is broken"
        assert any((folder / f"whole-{trial}" / "heat").iterdir())
        place = folder / f"killed-{trial}"
        for attempt in range(int(generator.integers(1, 4))):
            again = ["--resume"] if attempt else []
            code, _ = ended([*typed(place), *again], place, generator.uniform(0, 1) * seconds)
            if code != -signal.SIGKILL:
                break
            moments[where(place)] += 1
        if any(place.glob(".*.journal")) or not any(place.glob("answers.*")):
            assert ended([*typed(place), "--resume"], place)[0] == 1
        assert outcome(place) == outcome(folder / f"whole-{trial}"), (suffix, level, where(place))
    raise AssertionError("unreachable")


def where(place: Path) -> str:
    """Say how far a batch was that was killed."""
    if any(place.glob("answers.*")):
        return "after its output"
    if any(place.glob("reports/*")):
        return "while reports were written"
    lines = [line for path in place.glob(".*.journal") for line in path.read_bytes().splitlines()]
    answers = sum(b'"picture"' in line for line in lines)
    return "before the first answer" if not answers else "before the last answer"


def ended(typed: list[str], place: Path, seconds: float | None = None) -> tuple[int, float]:
    """Run it, kill it so many seconds after its journal was there; return how it ended, and after how many."""
    process = subprocess.Popen(typed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = sum(path.stat().st_size for path in place.glob(".*.journal"))
    while process.poll() is None and sum(path.stat().st_size for path in place.glob(".*.journal")) <= before:
        time.sleep(0.01)
    begun = time.monotonic()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait(), time.monotonic() - begun


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        counted = damaged(Path(temporary), 1000) if sys.argv[1] == "damaged" else kills(Path(temporary), 30)
        for what, times in counted.items():
            print(f"{what}: {times}")  # noqa: T201
        print(f"{counted.total()} in all")  # noqa: T201
