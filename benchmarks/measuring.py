"""How speed is measured: ways in turn within one run, medians with their spread, ratios, and the machine.

A benchmark makes `Row`s and keeps them in ``build/bench/NAME.json``; `benchmarks.performance` makes the page of those.
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mammolens.model.provenance import provenance
from mammolens.parallel import cores

KEPT = Path("build/bench")

COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""For programs of Python: they keep what they compile, as where they are installed, whatever is set here."""

_SAMPLED = 0.25  # seconds between two looks at memory
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd")


@dataclass(frozen=True)
class Row:
    """One piece of work, measured, and what it is held against.

    Attributes:
        work: what is done, in plain words, with its n.
        ours: seconds, or what `unit` says, one a repeat.
        against: what it is held against, in plain words.
        theirs: as `ours`, of the same repeats, in turn with them; empty where the target is an absolute limit.
        target: the ratio of medians, theirs to ours, that is wished for; or the most that ours may be; None where
            it is only reported.
        unit: of `ours` and `theirs`.
        note: where the rest goes, as measured.
    """

    work: str
    ours: list[float]
    against: str
    theirs: list[float]
    target: float | None
    unit: str = "s"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times as long theirs takes, by the medians; None where there is no theirs."""
        return statistics.median(self.theirs) / statistics.median(self.ours) if self.theirs else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return statistics.median(self.ours) <= self.target if self.ratio is None else self.ratio >= self.target

    def cells(self) -> tuple[str, ...]:
        """Return the row as a table has it, without its note."""
        limit = "≤" if self.ratio is None else "≥"
        return (
            self.work,
            spread(self.ours, self.unit),
            self.against,
            spread(self.theirs, self.unit) if self.theirs else "–",
            "–" if self.ratio is None else f"{self.ratio:.2f}",
            "–" if self.target is None else f"{limit} {self.target:g}{f' {self.unit}' * (limit == '≤')}",
            {None: "–", True: "yes", False: "no"}[self.reached],
        )


HEADINGS = ("work", "ours", "against", "theirs", "ratio", "target", "reached")


def spread(values: Sequence[float], unit: str) -> str:
    """Write the median of some repeats, and the smallest and largest."""
    middle = statistics.median(values)
    if unit == "s" and middle < 1:
        values, middle, unit = [1000 * value for value in values], 1000 * middle, "ms"
    digits = 2 if middle < 10 else 1 if middle < 100 else 0
    if len(values) == 1:
        return f"{middle:.{digits}f} {unit}"
    return f"{middle:.{digits}f} {unit} ({min(values):.{digits}f}–{max(values):.{digits}f}, n = {len(values)})"


def alternate(ways: Mapping[str, Callable[[], float | None]], repeats: int) -> dict[str, list[float]]:
    """Measure each way so many times, in turn, the order turned round each time (A B, B A, A B).

    Args:
        ways: by name. A way returns what it measured itself, or None: then its time by the clock counts.
        repeats: how often each is measured. What warms up is called before.
    """
    measured: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(repeats):
        for name in order:
            started = time.perf_counter()
            own = ways[name]()
            measured[name].append(time.perf_counter() - started if own is None else own)
        order.reverse()
    return measured


def each_of(count: int, call: Callable[[], object]) -> float:
    """Return the seconds that one of so many calls takes."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


@dataclass(frozen=True)
class Ran:
    """A process that was started and has ended well.

    Attributes:
        seconds: from its start to its end, by the clock.
        peak: largest memory of it and its children together, MB, shared pages counted once; 0 where nobody looked.
        out: what it printed.
    """

    seconds: float
    peak: float
    out: str


def ran(command: Sequence[str | Path], *, memory: bool = False, ends: Sequence[int] = (0,), **environment: str) -> Ran:
    """Run a program to its end.

    Args:
        command: the program and its arguments.
        memory: look at its memory, four times a second.
        ends: exit codes of success.
        environment: variables, beside those that are set.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    said, peak, started = KEPT / "said.txt", 0.0, time.perf_counter()
    with said.open("w+", encoding="utf-8") as stream:
        with subprocess.Popen(
            command, stdout=stream, stderr=stream, env=os.environ | COMPILED | environment
        ) as process:
            while memory and process.poll() is None:
                peak = max(peak, sum(map(_resident, _family(process.pid))))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_SAMPLED)
        seconds = time.perf_counter() - started
    out = said.read_text(encoding="utf-8")
    said.unlink()
    if process.returncode not in ends:
        raise RuntimeError(f"{command} failed:\n{out}")
    return Ran(seconds, peak, out)


def mammolens(*words: str | Path) -> list[str | Path]:
    """Return the command line that runs a verb of this environment's mammolens."""
    return [Path(sys.executable).with_name("mammolens"), *words]


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    try:
        told = [thread.read_text(encoding="ascii") for thread in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has just ended
        return []
    return [pid, *(one for children in told for child in children.split() for one in _family(int(child)))]


def _resident(pid: int) -> float:
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return int(told.partition("\nPss:")[2].split()[0]) * 1024 / 1e6


def machine() -> dict[str, object]:
    """Return what measures: processor, cores, instruction sets, memory, versions of libraries."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    name = re.search(r"model name\s*: (.*)", told)
    flags = set(told.split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    made = provenance()
    return {
        "processor": name[1] if name else platform.processor(),
        "cores": cores(),
        "instruction_sets": [one for one in _INSTRUCTION_SETS if one in flags],
        "memory_gib": round(memory, 1),
        "system": platform.platform(terse=True),
        "python": made.python,
        "libraries": made.packages,
        "commit": made.commit,
    }


def keep(name: str, rows: Sequence[Row]) -> None:
    """Write rows, with the machine, to ``build/bench/NAME.json``, and print them."""
    KEPT.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    (KEPT / f"{name}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*row.cells())
    Console().print(table)
    for row in rows:
        if row.note:
            Console().print(f"{row.work}: {row.note}", style="dim")
