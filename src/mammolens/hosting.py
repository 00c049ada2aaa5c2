"""What the two servers, page and service, have in common: where one listens, who is meant, how much it takes."""

import ipaddress
import re
import socket
import stat
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from mammolens.errors import MammolensError
from mammolens.files import why_not_opened
from mammolens.images.archives import Input, find_inputs

MAX_FILE = 200 * 2**20
"""Bytes of one file; the largest mammograms are below 100 MB."""

MAX_TOTAL = 500 * 2**20
"""Bytes of all files that one sends: on the page at one time, to the service in one request."""

MAX_IMAGES = 100
"""Images of one sender, likewise, those in archives included."""

MOST_UPLOADED = 4 * 2**30
"""Bytes of files that all senders have here together."""

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_WILDCARDS = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104 - no binding
_NOWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # for documentation, RFC 5737 and RFC 3849
_LONGEST = 4096  # characters of a line of a file of secrets


def kept_as(name: str, number: int = 0) -> str:
    """Return how a file that was sent is called on disk while it is read: nothing but the suffix of its own name."""
    suffix = Path(name).suffix
    return f"file{number or ''}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


def inputs_called(name: str | Path, path: Path) -> list[Input]:
    """Return the images of a file that was sent, those of an archive one by one, named as their owner names them."""
    return [replace(one, name=Path(name) / one.name.relative_to(path)) for one in find_inputs([path])]


@dataclass(frozen=True)
class ThisMachine:
    """Who asks for what is of this machine alone by one of its own names.

    A site elsewhere may let its name lead here, so that its page in a browser of this machine is of the same origin
    as ours (DNS rebinding). It has no power over addresses in figures, nor over ``localhost``.

    Attributes:
        address: where the server listens, which is one more name.
    """

    address: str

    def is_meant(self, host: str) -> bool:
        """Tell whether a Host header names this machine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # no name at all
            return False
        return name in {"localhost", self.address.lower()} or name.endswith(".localhost") or _is_in_figures(name)


def _is_in_figures(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return False


def is_of_this_machine(address: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    try:
        found = {str(one[4][0]).partition("%")[0] for one in socket.getaddrinfo(address or "0.0.0.0", None)}  # noqa: S104
    except OSError:
        return False
    return all(ipaddress.ip_address(one).is_loopback for one in found)


def is_of_another_site(origin: str | None, host: str | None) -> bool:
    """Tell whether a page of another site asks: by a request's Origin header, if any, and its Host header."""
    try:
        return origin is not None and urlsplit(origin).netloc != host
    except ValueError:  # no address at all
        return True


def lines_of_secrets(path: Path, what: str, most: int = 1000) -> list[str]:
    """Return so many lines of a small file at most, of which each is a secret.

    Raises:
        MammolensError: it cannot be read, is no file (to wait for a pipe may be for ever), or no text.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MammolensError(f"{path}: is no file. Expected one with {what}.")
        with path.open(encoding="utf-8-sig") as file:
            return [line.rstrip("\r\n") for line in islice(iter(partial(file.readline, _LONGEST), ""), most)]
    except (OSError, ValueError) as error:
        why = "is not UTF-8 text." if isinstance(error, UnicodeDecodeError) else why_not_opened(path, error)
        raise MammolensError(f"{path}: {why}") from error


def check_free(port: int, address: str, what: str) -> None:
    """Refuse, before any work, where nobody can listen.

    Raises:
        MammolensError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise MammolensError(
                f"{address}:{port}: {what} cannot be served here ({error.strerror}). "
                "Choose another --port, or end the program that has it."
            ) from error


def url_at(address: str, port: int) -> str:
    """Return what others type to reach a server: this machine's own address where it listens on all of them."""
    family = _WILDCARDS.get(address)
    shown = address if family is None else _own_address(family)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _own_address(family: socket.AddressFamily) -> str:
    """Return the address that this machine has in its network; nothing is sent to find it."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_NOWHERE[family], 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
