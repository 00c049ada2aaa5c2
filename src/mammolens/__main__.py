"""`python -m mammolens` is `mammolens`: the command line, and Ctrl-C while it is still loading.

What else asks a program to end (`kill`, a closed terminal, a queue whose time is up) is taken for
Ctrl-C: nothing half-written is left.
"""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has both
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores
            signal.signal(number, _interrupt)
    try:
        from mammolens.cli import main as command_line  # noqa: PLC0415 - it takes a moment

        command_line()
    except KeyboardInterrupt as interrupt:
        if sys.stderr is not None:
            sys.stderr.write("Interrupted.\n")
        sys.exit(128 + (interrupt.args or (signal.SIGINT,))[0])


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    main()
