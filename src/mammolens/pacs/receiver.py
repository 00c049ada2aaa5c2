"""A storage SCP: a mammogram is on disk, and in the ledger, before its sender hears of success (PS3.4 B)."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import uid
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    Verification,
)

from mammolens.dicom_results.source import header_of, parsed
from mammolens.errors import DataError, ImageError
from mammolens.files import synced, written_whole
from mammolens.pacs.ledger import PICTURES, Kept, Ledger
from mammolens.pacs.settings import Receive

SYNTAXES = (
    *(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian),
    *(uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    *(uid.JPEG2000Lossless, uid.JPEG2000, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.RLELossless),
)
"""How pictures may be encoded that come in: what is decoded here."""

MOST_SENDERS = 8
"""Associations at one time: each holds a picture in memory."""

SUCCESS, NO_ROOM, ANOTHER, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of C-STORE (PS3.4 B.2.3)."""


@contextmanager
def receiving(receive: Receive, timeout: float, ledger: Ledger, heard: Callable[[int], None]) -> Iterator[AE]:
    """Take pictures in while the block runs, each once.

    Args:
        receive: where, and of whom.
        timeout: seconds that a caller has between two messages.
        ledger: where they are noted.
        heard: told the number of the study of each picture that is new, in some thread.

    Raises:
        DataError: the address is taken, or a certificate will not do.
    """
    entity = AE(ae_title=receive.title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(receive.callers)
    entity.maximum_associations = MOST_SENDERS
    entity.network_timeout = entity.dimse_timeout = entity.acse_timeout = timeout
    entity.add_supported_context(Verification)
    for kind in _kinds(receive):
        entity.add_supported_context(kind, list(SYNTAXES))
    tls = None if receive.tls is None else receive.tls.context(server=True)

    def store(event: Event) -> int:
        return _stored(event, ledger, heard)

    try:
        entity.start_server(
            (receive.address, receive.port), block=False, ssl_context=tls, evt_handlers=[(evt.EVT_C_STORE, store)]
        )
    except OSError as error:
        where = f"{receive.address}:{receive.port}"
        raise DataError(f"cannot listen at {where} ({error.strerror or error}). Name another in [receive].") from error
    try:
        yield entity
    finally:
        entity.shutdown()


def _kinds(receive: Receive) -> Iterator[uid.UID]:
    yield DigitalMammographyXRayImageStorageForPresentation
    if receive.for_processing:
        yield DigitalMammographyXRayImageStorageForProcessing


class _OtherError(Exception):
    """A picture is not what its message says."""


def _stored(event: Event, ledger: Ledger, heard: Callable[[int], None]) -> int:
    """Keep a picture, and return the status for its sender."""
    instance = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
    path = ledger.folder / PICTURES / f"{hashlib.sha256(instance.encode()).hexdigest()[:32]}.dcm"
    try:
        if ledger.has(instance):
            return SUCCESS
        with written_whole(path, 0o600) as temporary:
            temporary.write_bytes(event.encoded_dataset())
            study = _study_of(temporary, instance, str(event.context.abstract_syntax))
            synced(temporary)
        synced(path.parent)
        heard(ledger.add(Kept(instance, path), study))
    except _OtherError:
        return ANOTHER
    except ImageError:
        return NOT_UNDERSTOOD
    except (DataError, OSError):
        return NO_ROOM
    return SUCCESS


def _study_of(path: Path, instance: str, kind: str) -> str:
    """Return the study of a picture, whose header a worker reads."""
    header = parsed(header_of(path, Path("the picture")) or b"")
    if (header.get("SOPInstanceUID"), header.get("SOPClassUID")) != (instance, kind):
        raise _OtherError
    return str(header.StudyInstanceUID)
