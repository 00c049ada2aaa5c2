"""Studies through a PACS and back while the listener is killed in mid-study, and the PACS is away.

`python tests/pacs/outages.py` is the campaign; the suite does a little of it.
"""

import argparse
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from loop import Listener, Orthanc, four_views, hospital, until
from studies import installed

SETTLE = 5
"""Seconds: longer than what stands between the halves of a study that a kill cuts in two."""


def campaign(folder: Path, studies: int, kills: int, outages: int) -> Counter[str]:
    """Send studies of four pictures through; return what there is of results in the end, by kind.

    Raises:
        AssertionError: a study has no report or more than one, or lacks the capture of a picture.
    """
    killed = {round((place + 1) * studies / (kills + 1)) for place in range(kills)}
    away = {round((place + 0.5) * studies / outages) for place in range(outages)}
    with hospital(folder, settle=SETTLE) as (archive, listener):
        sent = []
        for number in range(studies):
            study, files = four_views(folder / "pictures", number)
            sent.append(study)
            archive.take(files)
            if number in killed:
                _kill(listener, files[:2])
            until(lambda: archive.pass_on(study), "the study passed on")  # noqa: B023 - called at once
            if number in away:
                _away(archive, listener, signal.SIGKILL if number == min(away) else signal.SIGTERM)
            for path in files:
                path.unlink()
        until(lambda: _done(listener, studies), "all answered and sent", 600)
        found = archive.results()
        assert sorted(found) == sorted(sent)
        for study, kinds in found.items():
            assert (kinds["CAD report"], kinds["capture"]) == (1, 4), f"{study}: {kinds}"
        assert not listener.names_somebody()
        return sum(found.values(), Counter())


def _kill(listener: Listener, half: list[Path]) -> None:
    """Kill the listener when it has half a study, and maybe others in work."""
    words = [installed("storescu", "dcmtk"), "-aec", "MAMMOLENS", "127.0.0.1", str(listener.port), *map(str, half)]
    subprocess.run(words, check=True, capture_output=True)
    listener.stop(signal.SIGKILL)
    listener.start()


def _away(archive: Orthanc, listener: Listener, how: signal.Signals) -> None:
    """Have the archive away until the listener has tried to send to it."""
    before = listener.said().count("peer: cannot be reached")
    archive.stop(how)
    until(lambda: listener.said().count("peer: cannot be reached") > before, "a try to send")
    archive.start()


def _done(listener: Listener, studies: int) -> bool:
    with closing(sqlite3.connect(listener.folder / "kept" / "ledger.sqlite")) as rows:
        ((answered,),) = rows.execute("SELECT count(*) FROM studies WHERE version > 0")
        ((left,),) = rows.execute("SELECT count(*) FROM pictures WHERE version IS NULL")
        ((unsent,),) = rows.execute("SELECT count(*) FROM results WHERE sent IS NULL")
    return (answered, left, unsent) == (studies, 0, 0)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    for name, count in (("studies", 200), ("kills", 3), ("outages", 2)):
        options.add_argument(f"--{name}", type=int, default=count)
    asked = vars(options.parse_args())
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        found = campaign(Path(made) / "hospital", **asked)
    took = time.monotonic() - began
    told = ", ".join(f"{count} {name}" for name, count in asked.items())
    results = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
    sys.stdout.write(f"{told}, {took:.0f} s. Results: {results}\n")
