"""What it takes to start: the help of the command line, and the import of the package.

Taken in turn with an empty program, whose time is taken off.

    python -m benchmarks.starting
"""

import sys

from benchmarks.measuring import Row, alternate, keep, mammolens, ran

REPEATS = 15


def main() -> None:
    """Measure in turn, and keep what each takes above an empty program."""
    ways = {
        "nothing": [sys.executable, "-c", "pass"],
        "help": mammolens("--help"),
        "import": [sys.executable, "-c", "import mammolens"],
    }
    took = alternate({name: lambda command=command: ran(command).seconds for name, command in ways.items()}, REPEATS)  # type: ignore[misc]
    above = {
        name: [one - empty for one, empty in zip(took[name], took["nothing"], strict=True)]
        for name in ("help", "import")
    }
    against = "what `python -c pass` takes, taken off"
    keep(
        "starting",
        [
            Row("`mammolens --help`", above["help"], against, [], 0.2),
            Row("`import mammolens`", above["import"], against, [], 0.2),
        ],
    )


if __name__ == "__main__":
    main()
