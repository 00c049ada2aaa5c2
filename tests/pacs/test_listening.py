"""What `listen` does where results cannot be sent, or a peer fails at one study: the others do not wait for it."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from loop import LISTENER, PATIENT, Listener, ports, until
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    MammographyCADSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event as Received
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from studies import STUDY, mammogram, save, stored

from mammolens.pacs.ledger import PICTURES, RESULTS, Kept, Ledger
from mammolens.pacs.listening import listen
from mammolens.pacs.settings import Settings
from mammolens.records import Laterality
from mammolens.serving.predictor import Predictor

STUDIES = (f"{STUDY}.1", f"{STUDY}.2")
KINDS = (MammographyCADSRStorage, SegmentationStorage, SecondaryCaptureImageStorage)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("phantom")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a listener whose folder has a picture of each study."""
    folder = tmp_path / "kept"
    with closing(Ledger(folder)) as ledger:
        for study in STUDIES:
            one = mammogram(stored(0, Laterality.LEFT, size=64), StudyInstanceUID=study, SOPInstanceUID=f"{study}.1")
            path = save(one, folder / PICTURES / f"{study[-1]}.dcm")
            ledger.add(Kept(one.SOPInstanceUID, path), study)
    ours, theirs = ports(2)
    peer = {"title": "PACS", "host": "127.0.0.1", "port": theirs}
    told = {"folder": folder, "settle": 0.1, "timeout": 5, "longest_retry": 1, "receive": {"port": ours}, "store": peer}
    return Settings.model_validate(told)


@contextmanager
def listening(settings: Settings, predictor: Predictor) -> Iterator[list[str]]:
    """What it says while it listens."""
    end, told = Event(), list[str]()
    thread = Thread(target=listen, args=(settings, predictor, end, told.append))
    thread.start()
    try:
        yield told
    finally:
        end.set()
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def archive(settings: Settings, *, not_of: str = "") -> Iterator[list[str]]:
    """A peer that breaks off where it is sent a result of one study; the studies of those that it took."""
    taken: list[str] = []

    def store(event: Received) -> int:
        study = str(event.dataset.StudyInstanceUID)
        if study == not_of:
            event.assoc.abort()
        else:
            taken.append(study)
        return 0

    entity = AE("PACS")
    for kind in (*KINDS, Verification):
        entity.add_supported_context(kind)
    assert settings.store is not None
    entity.start_server(
        (settings.store.host, settings.store.port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    try:
        yield taken
    finally:
        entity.shutdown()


def begins(told: Sequence[str], what: str) -> bool:
    return any(line.startswith(what) for line in told)


def test_a_study_at_which_the_peer_breaks_off_holds_up_no_other(settings: Settings, predictor: Predictor) -> None:
    with archive(settings, not_of=STUDIES[0]) as taken, listening(settings, predictor) as told:
        until(lambda: begins(told, "study 2:") and STUDIES[1] in taken, "results of the second study")
    assert STUDIES[0] not in taken


def test_a_result_that_is_gone_holds_up_no_other_study(settings: Settings, predictor: Predictor) -> None:
    with listening(settings, predictor) as told:
        until(lambda: begins(told, "study 2: answer") and begins(told, "peer: cannot be reached"), "two answers")
    next((settings.folder / RESULTS / "1-1").iterdir()).unlink()
    with archive(settings) as taken, listening(settings, predictor) as told:
        until(lambda: begins(told, "study 2:"), "results of the second study")
        assert begins(told, "study 1: results cannot be sent (No such file or directory), tried again in")
    assert set(taken) == {STUDIES[1]}


def test_a_peer_whose_name_leads_nowhere_ends_nothing(settings: Settings, predictor: Predictor) -> None:
    assert settings.store is not None
    lost = settings.model_copy(update={"store": settings.store.model_copy(update={"host": "nowhere.invalid"})})
    with listening(lost, predictor) as told:
        until(lambda: begins(told, "peer: cannot be found by its name, tried again in"), "a try to send")
        until(lambda: begins(told, "study 2: answer"), "an answer for the second study")


def test_what_libraries_remark_on_headers_is_said_nowhere(tmp_path: Path) -> None:
    ours, nobody = ports(2)
    listener = Listener(tmp_path / "listener", ours, f'[store]\ntitle = "PACS"\nhost = "127.0.0.1"\nport = {nobody}')
    listener.start()
    try:
        entity = AE("STORESCU")
        entity.add_requested_context(DigitalMammographyXRayImageStorageForPresentation)
        association = entity.associate("127.0.0.1", ours, ae_title=LISTENER)
        with warnings.catch_warnings(action="ignore"):
            uids = {"SOPInstanceUID": "1.2.03.4.5.6", "SeriesInstanceUID": "1.2.03.4.5", "StudyInstanceUID": "1.2.03.4"}
            told: dict[str, Any] = {**uids, "PatientName": PATIENT, "TypeOfPatientID": "geheim"}
            assert association.send_c_store(mammogram(stored(0, Laterality.LEFT, size=64), **told)).Status == 0
        association.release()
        until(lambda: "study 1: answer 1" in listener.said(), "an answer")
    finally:
        assert listener.stop() == 0
    assert not listener.names_somebody()
    assert "Warning" not in listener.said()
