"""What a storage SCP takes, what it refuses, and what is on disk when it says that it has it."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from loop import ports
from pydicom import Dataset, dcmread
from pydicom.uid import UID, CTImageStorage, DigitalMammographyXRayImageStorageForPresentation
from pynetdicom import AE, _config
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from studies import installed, mammogram, save, stored

from mammolens.errors import DataError
from mammolens.pacs.ledger import Ledger
from mammolens.pacs.receiver import ANOTHER, NO_ROOM, NOT_UNDERSTOOD, SUCCESS, receiving
from mammolens.pacs.settings import Receive, Tls
from mammolens.records import Laterality


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "kept")) as made:
        yield made


@pytest.fixture
def receive() -> Receive:
    return Receive(title="HERE", port=ports(1)[0], callers=("UNIT",))


def picture(**changes: Any) -> Dataset:
    return mammogram(stored(0, Laterality.LEFT, size=64), **changes)


def called(receive: Receive, us: str = "UNIT", them: str = "HERE", kind: str = "", **more: Any) -> Any:
    entity = AE(us)
    entity.add_requested_context(Verification)
    entity.add_requested_context(kind or DigitalMammographyXRayImageStorageForPresentation)
    return entity.associate(receive.address, receive.port, ae_title=them, **more)


def status_of(receive: Receive, one: Dataset | Path, **more: Any) -> int:
    association = called(receive, **more)
    status = association.send_c_store(one).Status
    association.release()
    return int(status)


def test_a_mammogram_is_on_disk_and_in_the_ledger_when_it_was_taken(ledger: Ledger, receive: Receive) -> None:
    heard: list[int] = []
    one = picture()
    with receiving(receive, 10, ledger, heard.append):
        assert status_of(receive, one) == SUCCESS
        assert status_of(receive, one) == SUCCESS
    assert heard == [1] == ledger.receiving(), "the same twice is no new work"
    ((uid, file),) = ledger.pictures(1)
    assert uid == one.SOPInstanceUID
    assert dcmread(file) == one
    assert file.stat().st_mode & 0o077 == 0
    assert str(one.SOPInstanceUID) not in file.name


def test_what_has_no_study_or_is_not_what_it_is_called_is_refused(
    ledger: Ledger, receive: Receive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # it is called what the file's own header says
    misnamed = picture()
    misnamed.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    misnamed.preamble = bytes(128)
    misnamed.save_as(tmp_path / "misnamed.dcm")
    with receiving(receive, 10, ledger, lambda _: None):
        assert status_of(receive, tmp_path / "misnamed.dcm") == ANOTHER
        assert status_of(receive, save(picture(StudyInstanceUID=""), tmp_path / "none.dcm")) == NOT_UNDERSTOOD
    assert not list((ledger.folder / "pictures").iterdir())
    assert ledger.receiving() == []


def test_other_kinds_of_objects_are_not_accepted(ledger: Ledger, receive: Receive) -> None:
    with receiving(receive, 10, ledger, lambda _: None):
        association = called(receive, kind=CTImageStorage)
        assert [one.abstract_syntax for one in association.accepted_contexts] == [Verification]
        assert association.send_c_echo().Status == SUCCESS
        association.release()


@pytest.mark.parametrize("names", [{"us": "STRANGER"}, {"them": "ELSEWHERE"}])
def test_titles_decide_who_may_send(ledger: Ledger, receive: Receive, names: dict[str, str]) -> None:
    with receiving(receive, 10, ledger, lambda _: None):
        assert called(receive, **names).is_rejected


def test_where_there_is_no_room_the_sender_hears_of_it(ledger: Ledger, receive: Receive) -> None:
    (ledger.folder / "pictures").write_text("in the way")
    with receiving(receive, 10, ledger, lambda _: None):
        assert status_of(receive, picture()) == NO_ROOM
    assert ledger.receiving() == []


def test_an_address_that_is_taken_is_one_line(ledger: Ledger, receive: Receive) -> None:
    with (
        receiving(receive, 10, ledger, lambda _: None),
        pytest.raises(DataError, match="cannot listen at"),
        receiving(receive, 10, ledger, lambda _: None),
    ):
        pass


def test_tls_asks_for_a_certificate(ledger: Ledger, receive: Receive, tmp_path: Path) -> None:
    tls = certified(tmp_path)
    encrypted = receive.model_copy(update={"tls": tls})
    with (
        receiving(encrypted, 10, ledger, lambda _: None),
        closing(
            socket.create_connection((receive.address, receive.port))
        ),  # says nothing, and holds nobody up for long
    ):
        assert status_of(encrypted, picture(), tls_args=(tls.context(server=False), "localhost")) == SUCCESS
    assert ledger.receiving() == [1]


def certified(folder: Path) -> Tls:
    """A certificate that is its own authority."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [installed("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    told = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command, *told, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return Tls.model_validate({"certificate": certificate, "key": key, "authorities": certificate}, context=folder)
