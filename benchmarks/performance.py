"""docs/performance.md, made of what the benchmarks have kept: no figure on it is typed by hand.

    python -m benchmarks.performance

What was measured on another machine, such as one with a GPU, lies beside this file as `NAME.json`; what did not help
is told in `did_not_help.md`.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.measuring import HEADINGS, KEPT, Row

PAGE = Path("docs/performance.md")

SECTIONS = {
    "starting": "Starting",
    "reading": "Preparing pictures",
    "answering": "An answer",
    "serving": "From files to a table",
    "service": "Over HTTP",
    "baseline": "Training the baseline",
    "training": "A step of training",
    "reports": "Reports of a data set",
    "many": "Many images",
    "cluster": "On a cluster",
    "gpu": "With a GPU",
}
"""By the benchmark whose rows a section shows."""

_ABOVE = """# Speed

Made from what the benchmarks measured on one machine (`make bench`), each section in one run of one of them; no figure
in its tables is typed by hand. Each row is the same work done two ways in turn (A B, B A, …), fresh processes where
that is said; figures are medians, with the smallest and the largest of n repeats. *Ratio* is theirs to ours: 2 is twice
as fast, or half the memory. Where there is nothing to hold it against, the target is the most that it may be. Times
differ between machines, ratios less so.
"""


def section(title: str, told: dict[str, Any]) -> str:
    """Return the section of one benchmark: its table, and where the rest goes."""
    rows = [Row(**row) for row in told["rows"]]
    lines = [f"## {title}", "", _line(HEADINGS), _line(["---"] * len(HEADINGS)), *(_line(row.cells()) for row in rows)]
    notes = [f"- {row.work}: {row.note}." for row in rows if row.note]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _line(cells: Any) -> str:  # noqa: ANN401 - of words
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def measured_on(machine: dict[str, Any]) -> str:
    """Say what measured."""
    sets = ", ".join(machine["instruction_sets"]) or "none that are asked for"
    matrix = "" if any(one.startswith("amx") for one in machine["instruction_sets"]) else "; no matrix units (AMX)"
    versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores{gpu}, {machine['memory_gib']} GiB; instruction sets: {sets}"
        f"{matrix}. {machine['system']}, Python {machine['python']}; {versions}. Code: `{machine['commit']}`.\n"
    )


def main() -> None:
    """Write the page."""
    home = Path(__file__).parent
    files = {
        name: next((f for f in (KEPT / f"{name}.json", home / f"{name}.json") if f.is_file()), None)
        for name in SECTIONS
    }
    told = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file}
    machine = next((one["machine"] for one in told.values()), None)
    parts = [_ABOVE] if machine is None else [_ABOVE, f"**Machine.** {measured_on(machine)}"]
    for name, one in told.items():
        code, mine = one["machine"]["commit"], (machine or {}).get("commit")
        elsewhere = {**one["machine"], "commit": mine} != machine
        other = [f"On another machine: {measured_on(one['machine'])}"] if elsewhere else []
        other += [f"Of other code: `{code}`.\n"] if code != mine and not elsewhere else []
        parts += [section(SECTIONS[name], one), *other]
    missing = [SECTIONS[name] for name in SECTIONS if name not in told]
    parts += [f"Not measured in this run: {', '.join(missing)}.\n"] if missing else []
    parts.append((home / "did_not_help.md").read_text(encoding="utf-8"))
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"{PAGE}: {sum(len(one['rows']) for one in told.values())} rows")


if __name__ == "__main__":
    main()
