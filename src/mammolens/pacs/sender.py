"""Results to a peer, by C-STORE (PS3.4 B) or STOW-RS (PS3.18 10.5). It knows them by their UIDs: twice is as once."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from mammolens.errors import DataError
from mammolens.files import why_not_opened
from mammolens.pacs.ledger import Kept
from mammolens.pacs.settings import Settings, Store, Stow

_NO_ROOM, _WARNING = 0xA7, 0xB0
"""The first digits of statuses of C-STORE: out of resources; taken all the same (PS3.4 B.2.3)."""

_THERE = 0x0111
"""Duplicate SOP Instance (PS3.7 C.5.10): sent before, by one that was killed before it noted so."""

_REFUSED = (400, 409, 413, 415)
"""Of HTTP: this result will not do; with any other error, none will."""

_SOP = "00080018"  # SOP Instance UID (PS3.18 F.2)


class Peer(Protocol):
    """Where results go."""

    def echo(self) -> None:
        """Ask whether it is there.

        Raises:
            ConnectionError: it is not, or wants nothing of us.
        """

    def send(self, results: Sequence[Kept]) -> Iterator[tuple[Kept, str | None]]:
        """Send results, and yield each with the reason why it was refused; None where it was taken.

        Raises:
            ConnectionError: the peer cannot be reached, or takes nothing now; what was yielded, it has.
        """


def peer_of(settings: Settings) -> Peer:
    """Return where results go.

    Raises:
        DataError: a certificate or file of it will not do.
    """
    if settings.store is not None:
        if settings.store.tls is not None:
            settings.store.tls.context(server=False)
        return StorePeer(settings.store, settings.receive.title, settings.timeout)
    assert settings.stow is not None  # noqa: S101 - one of the two, say the settings
    return StowPeer(_client(settings.stow, settings.timeout))


@dataclass(frozen=True)
class StorePeer:
    """A storage SCP.

    Attributes:
        store: where it is.
        title: ours.
        timeout: seconds for each answer.
    """

    store: Store
    title: str
    timeout: float

    def echo(self) -> None:
        """See `Peer`."""
        with self._associated(()) as association:
            if refusal := _status(association.send_c_echo().get("Status")):
                raise ConnectionError(f"answers {refusal}")

    def send(self, results: Sequence[Kept]) -> Iterator[tuple[Kept, str | None]]:
        """See `Peer`."""
        heads = [dcmread(one.file, specific_tags=["SOPClassUID"], stop_before_pixels=True) for one in results]
        kinds = {(str(head.SOPClassUID), str(head.file_meta.TransferSyntaxUID)) for head in heads}
        with self._associated(sorted(kinds)) as association:
            for one in results:
                yield one, _stored(association, one)

    @contextmanager
    def _associated(self, kinds: Iterable[tuple[str, str]]) -> Iterator[Association]:
        entity = AE(ae_title=self.title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self.timeout
        entity.connection_timeout = self.timeout
        tls = self.store.tls
        try:
            association = entity.associate(
                self.store.host,
                self.store.port,
                # One that any peer accepts: a kind that it does not accept is then told from a peer that is away.
                [build_context(Verification), *(build_context(*kind) for kind in kinds)],
                ae_title=self.store.title,
                tls_args=None if tls is None else (tls.context(server=False), self.store.host),
            )
        except OSError as error:
            raise ConnectionError("cannot be found by its name") from error
        if not association.is_established:
            rejected = "rejects the association" if association.is_rejected else "cannot be reached"
            raise ConnectionError(rejected)
        try:
            yield association
        finally:
            association.release() if association.is_established else association.abort()


def _stored(association: Association, result: Kept) -> str | None:
    """Store a result; return why it was refused."""
    try:
        status = association.send_c_store(result.file).get("Status")
    except ValueError:
        return "it accepts no such kind of object"
    except RuntimeError as error:
        raise ConnectionError("ended the association") from error
    return _status(status)


def _status(status: int | None) -> str | None:
    """Return why a status is a refusal; None where it is none."""
    if status is None:
        raise ConnectionError("gives no answer")
    if status >> 8 == _NO_ROOM:
        raise ConnectionError(f"is out of resources (status {status:04X}H)")
    return None if status in (0, _THERE) or status >> 8 == _WARNING else f"status {status:04X}H"


@dataclass(frozen=True)
class StowPeer:
    """A DICOMweb service."""

    client: DICOMwebClient

    def echo(self) -> None:
        """See `Peer`."""
        try:
            with _told():
                self.client.search_for_studies(limit=1)
        except _RefusedError as error:
            raise ConnectionError(f"answers {error}") from error

    def send(self, results: Sequence[Kept]) -> Iterator[tuple[Kept, str | None]]:
        """See `Peer`."""
        for one in results:
            yield one, self._stored(one)

    def _stored(self, result: Kept) -> str | None:
        """Store a result; return why it was refused. It was taken if the service says so, or is found to have it."""
        one, why = dcmread(result.file), "it does not say that it has it"
        try:
            with _told():
                told = self.client.store_instances([one])
        except _RefusedError as error:
            why = str(error)
        else:
            taken = [item.get("ReferencedSOPInstanceUID") for item in told.get("ReferencedSOPSequence") or ()]
            if result.uid in taken:
                return None
            if failed := told.get("FailedSOPSequence"):
                why = f"failure {failed[0].get('FailureReason') or 0:04X}H"
        return None if self._has(result.uid, one.StudyInstanceUID) else why

    def _has(self, uid: str, study: str) -> bool:
        """Tell whether the service has a result: some refuse one that was sent before."""
        try:
            with _told():
                found = self.client.search_for_instances(study, search_filters={"SOPInstanceUID": uid})
        except (ConnectionError, _RefusedError):
            return False
        return any(one.get(_SOP, {}).get("Value") == [uid] for one in found)


class _RefusedError(Exception):
    """A service does not take one object."""


@contextmanager
def _told() -> Iterator[None]:
    """Make of what HTTP says a refusal, or a peer that is away; neither quotes an address."""
    try:
        yield
    except requests.HTTPError as error:
        code = 0 if error.response is None else error.response.status_code
        if code in _REFUSED:
            raise _RefusedError(f"HTTP {code}") from error
        raise ConnectionError(f"answers HTTP {code}") from error
    except (requests.RequestException, OSError) as error:
        raise ConnectionError(f"cannot be reached ({type(error).__name__})") from error


def _client(stow: Stow, timeout: float) -> DICOMwebClient:
    session = requests.Session()
    session.trust_env = False  # the settings say all: no proxy, no ~/.netrc
    session.max_redirects = 0  # nor another server
    session.hooks["response"].append(_plainly_typed)
    if stow.tls is not None:
        stow.tls.context(server=False)
        session.verify = str(stow.tls.authorities)
        session.cert = (str(stow.tls.certificate), str(stow.tls.key))
    if stow.authorization_file is not None:
        try:
            header = stow.authorization_file.read_text(encoding="ascii").splitlines()[0].strip()
        except OSError as error:
            raise DataError(f"{stow.authorization_file}: {why_not_opened(stow.authorization_file, error)}") from error
        except (ValueError, IndexError) as error:
            raise DataError(f"{stow.authorization_file}: its first line should be a header's value.") from error
        session.headers["Authorization"] = header
    client = DICOMwebClient(stow.url.rstrip("/"), session=session, timeout=timeout)
    client.set_http_retry_params(retry=False)
    return client


def _plainly_typed(response: requests.Response, **_: object) -> None:
    """Leave out parameters of a media type, such as its character set, with which dicomweb-client reads no answer."""
    response.headers["Content-Type"] = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
