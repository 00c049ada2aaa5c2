"""A Ray cluster for as long as a block lasts: one that runs already, joined, or one of this machine's cores, started.

Machines of a cluster have the same mammolens installed, and see the same files under the same paths.
"""

import logging
import os
import secrets
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import ray

from mammolens import __version__
from mammolens.errors import ClusterError, reason
from mammolens.files import scratch
from mammolens.parallel import cores, share_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"

_OBJECTS = 2**28  # bytes for what travels on this machine alone: lists, answers, gradients
_AHEAD = 2  # items a core that may be under way or waiting to be taken
_RETRIES = 3
_PATIENCE = 10.0  # seconds until somebody answers at an address
_HEAD = "Name HOST:PORT of its head, as 'ray start --head' tells it, or local for this machine's cores."
_FRAME, _SETTINGS = 9, b"\x04"  # how many bytes a frame of HTTP/2 begins with, of which the fourth is its type
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
"""What a client of gRPC says first, as Ray's do; a server says settings, too (RFC 9113, 3.4)."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined.

    Attributes:
        cpus: cores of all its machines.
        gpus: likewise.
    """

    cpus: int
    gpus: int

    def cores_a_gpu(self) -> int:
        """Return how many cores each GPU's machine has for it; at least 1."""
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return max(1, min((int(one.get("CPU", 0) // one["GPU"]) for one in there if one.get("GPU")), default=1))

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item], /, *, cpus: int = 1, gpus: float = 0
    ) -> Iterator[Result]:
        """Yield ``function(item)`` for each of `items`, in their order, worked out on whichever machine is free.

        What a worker or machine was at when it died is done anew. At most a few items a core are ahead of what was
        taken, so memory stays bounded however many items there are.

        Args:
            function: sent once; it and what it holds must be picklable, and arrays of it are read-only over there.
            items: each sent by itself.
            cpus: cores that one item takes, all of one machine.
            gpus: likewise.

        Raises:
            ClusterError: a machine has another mammolens, or an item was lost several times.
            Exception: `function` raised it.
        """
        task = ray.remote(_worked_out).options(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)
        sent, terms = ray.put(function), Terms.of(cpus)
        most = _AHEAD * max(1, self.cpus // cpus)
        pending: deque[ray.ObjectRef] = deque()
        try:
            for item in items:
                pending.append(task.remote(sent, item, terms))
                if len(pending) >= most:
                    yield _result(pending[0])
                    pending.popleft()
            while pending:
                yield _result(pending[0])
                pending.popleft()
        finally:
            for one in pending:
                ray.cancel(one, force=True)


@dataclass(frozen=True)
class Terms:
    """What a process of the cluster is told before it works: for which version, in which folder, on how many cores."""

    version: str
    folder: str
    cores: int

    @classmethod
    def of(cls, cores: int) -> "Terms":
        """Return the terms of this process, and so many cores."""
        return cls(__version__, os.getcwd(), cores)  # noqa: PTH109

    def accept(self) -> None:
        """Have this process work on these terms.

        Raises:
            ClusterError: another version is installed here.
        """
        if self.version != __version__:
            here = ray.util.get_node_ip_address()
            raise ClusterError(
                f"the machine {here} has mammolens {__version__}, not {self.version}. Install the same on all."
            )
        with suppress(OSError):  # paths that count from it are then not found, and say so
            os.chdir(self.folder)
        share_cores(self.cores)


def _worked_out(function: Callable[[Item], Result], item: Item, terms: Terms) -> Result:
    terms.accept()
    return function(item)


def _result(one: "ray.ObjectRef") -> Any:  # noqa: ANN401 - whatever the function returns
    try:
        return ray.get(one)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"the cluster lost what it was at ({_first_line(error)}). Give the command again."
        ) from error


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Join the cluster at `address`, or start one; it is left, or ended, with the block.

    A process that has joined one already, be it by Ray itself, stays in that one.

    Args:
        address: ``HOST:PORT`` of its head, ``auto`` for the one that this machine belongs to, or ``local``: this
            machine's cores, and nobody else can reach what is started.

    Raises:
        ClusterError: no cluster answers there, or it cannot be joined or started.
    """
    with ExitStack() as held:
        if not ray.is_initialized():
            _join(address, held)
        there = ray.cluster_resources()
        yield Cluster(int(there.get("CPU", 0)), int(there.get("GPU", 0)))


def _join(address: str, held: ExitStack) -> None:
    """Join or start a cluster until `held` is closed."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what else goes wrong is raised
    started: dict[str, Any] = {}
    if address == LOCAL:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())  # else Ray keeps one in the home folder
        started = {"_temp_dir": str(held.enter_context(scratch())), "_node_ip_address": "127.0.0.1"}
        started |= {"num_cpus": cores(), "object_store_memory": _OBJECTS, "include_dashboard": False}
    else:
        check_answers(address)
    held.callback(partial(ray.shutdown, wait_for_processes=address == LOCAL))
    with _alone():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **started)
        except Exception as error:  # Ray's errors have no common type
            raise ClusterError(f"{address}: this cluster cannot be joined ({_first_line(error)}).") from error


def check_answers(address: str) -> None:
    """Refuse an address at which nothing listens, or what is no cluster: Ray would ask there for ever.

    Raises:
        ClusterError: it is one, or none at all.
    """
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ClusterError(f"{address or repr(address)}: is no address of a cluster. {_HEAD}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE) as connection:
            encrypted = os.environ.get("RAY_USE_TLS", "0") != "0"
            connection.sendall(b"" if encrypted else _HELLO)
            greets = encrypted or connection.recv(_FRAME)[3:4] == _SETTINGS
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise ClusterError(
            f"{address}: no cluster answers there ({why}). Start one with 'ray start --head'."
        ) from error
    if not greets:
        raise ClusterError(f"{address}: something else than a cluster answers there. {_HEAD}")


@contextmanager
def _alone() -> Iterator[None]:
    """Keep from Ray what SIGTERM does here, which is not to end at once, and for a moment standard error."""
    before, errors = signal.getsignal(signal.SIGTERM), os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(errors, 2)
        os.close(errors)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _first_line(error: Exception) -> str:
    """Return how Ray begins to say what went wrong."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
