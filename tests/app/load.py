"""Many sessions at once, which drop pictures again and again: is every answer right, and does memory stay as it is?

    python tests/app/load.py --sessions 20 --minutes 5

The page is a process of its own; each session speaks to it as a browser does, and waits for nothing but its answers.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from browsing import dicom, grey, png, served
from visiting import Visitor

from mammolens import load
from mammolens.app.uploads import EXAMPLES

Files = Sequence[tuple[str, bytes]]


@dataclass
class Seen:
    """What sessions saw.

    Attributes:
        waited: seconds from the drop to the answers, of each upload.
        wrong: a line for each picture whose answer was another or none.
        before: how many pictures were before, whenever it was said.
    """

    waited: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    before: list[int] = field(default_factory=list)


def phantoms() -> list[tuple[str, bytes]]:
    """Phantoms as PNG and as DICOM, each with the end of its name."""
    pngs = [(f"{number}.png", png(number)) for number in range(len(EXAMPLES))]
    return pngs + [(f"{number}.dcm", dicom(grey(number))) for number in range(len(EXAMPLES))]


def predicted(files: Files) -> dict[str, float | None]:
    """What `predict` answers for each file."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files:
            (Path(folder) / name).write_bytes(content)
        return {Path(one.path).name: one.probability for one in load("phantom").predict(folder)}


def visit(url: str, number: int, files: Files, right: dict[str, float | None], end: float, rounds: int) -> Seen:
    """Drop one to three files, again and again, until it is time and there were so many rounds."""
    seen, drawn = Seen(), random.Random(number)  # noqa: S311 - which pictures, no secret
    with Visitor(url) as visitor:
        while time.monotonic() < end or len(seen.waited) < rounds:
            mine = drawn.sample(files, drawn.randint(1, 3))
            named = {f"session{number}-{len(seen.waited)}-{name}": right[name] for name, _ in mine}
            start = time.monotonic()
            visitor.drop(*zip(named, (content for _, content in mine), strict=True))
            seen.waited.append(time.monotonic() - start)
            told = {one["path"]: float(one["probability"]) for one in visitor.answers()}
            if told != named:
                seen.wrong.append(f"{named}: {told}")
            seen.before += visitor.before
            visitor.before.clear()
            visitor.received.clear()
    return seen


def visits(
    url: str, sessions: int, seconds: float = 0, rounds: int = 1, watch: int | None = None
) -> tuple[Seen, list[float]]:
    """Let sessions visit the page at once; return what they saw together, and the memory of a process every 10 s."""
    files = phantoms()
    right, end = predicted(files), time.monotonic() + seconds
    memory, total = [], Seen()
    with ThreadPoolExecutor(sessions) as pool:
        coming = [pool.submit(visit, url, number, files, right, end, rounds) for number in range(sessions)]
        while watch and time.monotonic() < end:
            time.sleep(10)
            memory.append(resident(watch))
        for one in coming:
            seen = one.result()
            total.waited += seen.waited
            total.wrong += seen.wrong
            total.before += seen.before
    return total, memory


def resident(process: int) -> float:
    """Memory that a process has, in MB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "log") as (url, process):
        seen, memory = visits(url, chosen.sessions, chosen.minutes * 60, watch=process.pid)
        log = (Path(folder) / "log").read_text(encoding="utf-8")
    median, most, nearly_all = np.percentile(seen.waited, [50, 95, 99])
    lines = [
        f"{chosen.sessions} sessions, {len(seen.waited)} uploads, {len(seen.wrong)} wrong or lost",
        f"seconds to the answers: median {median:.1f}, 95 % within {most:.1f}, 99 % within {nearly_all:.1f}",
        f"pictures before one's own: at most {max(seen.before, default=0)}",
        f"MB of memory, by minute: {', '.join(f'{one:.0f}' for one in memory[5::6])}",
        f"lines in the log: {len(log.splitlines())}, names in it: {log.count('session')}",
        *seen.wrong[:10],
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
