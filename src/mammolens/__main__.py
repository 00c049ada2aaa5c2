"""`python -m mammolens` is `mammolens`: the command line, and Ctrl-C while it is still loading."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    try:
        from mammolens.cli import main as command_line  # noqa: PLC0415 - it takes a moment

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
