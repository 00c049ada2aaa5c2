"""A PACS on this machine (Orthanc), a listener beside it, and examinations of phantoms that go through both."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from studies import installed, mammogram, save, stored

from mammolens.records import Laterality

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
LISTENER, ARCHIVE = "MAMMOLENS", "ORTHANC"
PATIENT = "Geheim^Grete"


def ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(true: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """Wait for something, look ten times a second, and return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not after {seconds} s"
        time.sleep(0.1)
    return found


class Orthanc:
    """A PACS that keeps what it has in a folder."""

    def __init__(self, folder: Path, listener: int) -> None:
        if not PLUGIN.exists():
            pytest.skip("Orthanc's DICOMweb is not installed (apt-get install orthanc-dicomweb)")
        self.port, self.http = ports(2)
        self.folder = folder
        self.program = installed("Orthanc", "orthanc")
        self.url = f"http://127.0.0.1:{self.http}"
        self.web = DICOMwebClient(f"{self.url}/dicom-web")
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        settings = {
            "Name": "archive",
            "StorageDirectory": str(folder / "stored"),
            "IndexDirectory": str(folder / "stored"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.http,
            "DicomAet": ARCHIVE,
            "DicomPort": self.port,
            "DicomModalities": {"listener": [LISTENER, "127.0.0.1", listener]},
            "DicomAssociationCloseDelay": 0,
            "DicomScuTimeout": 30,
            "AuthenticationEnabled": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, self.folder / "orthanc.json"], stdout=log, stderr=log)
        until(self.is_there, "Orthanc")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)

    def is_there(self) -> bool:
        try:
            return requests.get(f"{self.url}/system", timeout=5).ok
        except requests.ConnectionError:
            return False

    def take(self, files: Sequence[Path]) -> None:
        """Have pictures stored by dcmtk, as a mammography unit does."""
        command = [installed("storescu", "dcmtk"), "-aec", ARCHIVE, "127.0.0.1", str(self.port), *map(str, files)]
        subprocess.run(command, check=True, capture_output=True)

    def pass_on(self, study: str) -> bool:
        """Have it send the mammograms of a study to the listener, as a rule of a PACS does; tell whether it could."""
        found: Any = {"Level": "Series", "Query": {"StudyInstanceUID": study, "Modality": "MG"}, "Expand": True}
        series = requests.post(f"{self.url}/tools/find", json=found, timeout=60).json()
        theirs = [
            one["ID"] for one in series if not one["MainDicomTags"].get("SeriesDescription", "").startswith("mamm")
        ]
        done = requests.post(f"{self.url}/modalities/listener/store", json={"Resources": theirs}, timeout=60)
        return done.ok

    def results(self) -> dict[str, Counter[str]]:
        """Results that it has, by QIDO: of each study, how many of each modality."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        series = self.web.search_for_series(fields=["SeriesDescription"])
        for one in map(Dataset.from_json, series):
            if str(one.get("SeriesDescription", "")).startswith("mammolens"):
                found[one.StudyInstanceUID][kind_of(one)] += int(one.NumberOfSeriesRelatedInstances)
        return found


def kind_of(series: Dataset) -> str:
    """What results a series holds, of whatever side and view."""
    (kind,) = re.findall(r"^mammolens (CAD report|heat|capture)\b.*\. For research use only$", series.SeriesDescription)
    return str(kind)


class Listener:
    """`mammolens listen`, as one types it."""

    def __init__(self, folder: Path, port: int, peer: str, **changes: object) -> None:
        self.folder, self.port = folder, port
        folder.mkdir(parents=True)
        self.settings = folder / "settings.toml"
        told = {"folder": "kept", "model": "phantom", "settle": 1.5, "longest_retry": 2, **changes}
        lines = [f"{key} = {json.dumps(value)}" for key, value in told.items()]
        lines += ["[receive]", f"port = {port}", f'callers = ["{ARCHIVE}", "STORESCU", "ECHOSCU"]', peer]
        self.settings.write_text("\n".join(lines))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        before = self.said().count("listening at")
        with (self.folder / "log").open("ab") as log:
            words = [sys.executable, "-m", "mammolens", "listen", str(self.settings)]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        until(lambda: self.said().count("listening at") > before or self.process.poll() is not None, "the listener")  # type: ignore[union-attr]
        assert self.process.poll() is None, self.said()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; return its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def said(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def names_somebody(self) -> bool:
        """Tell whether what it said has a patient, or a UID of whatever kind."""
        return bool(re.search(r"(?i)geheim|grete|\d\.\d+\.\d+\.\d+\.\d+|P-\d", self.said().replace("127.0.0.1", "")))


def four_views(folder: Path, number: int, size: int = 160) -> tuple[str, list[Path]]:
    """The study and the files of an examination of a phantom patient."""
    study = f"1.2.826.0.1.3680043.8.498.77.{number}"
    files = []
    for place, (side, view) in enumerate((side, view) for side in Laterality for view in range(2)):
        changes = {
            "PatientName": PATIENT,
            "PatientID": f"P-{number}",
            "StudyInstanceUID": study,
            "SeriesInstanceUID": f"{study}.{place + 1}",
            "SOPInstanceUID": f"{study}.{place + 1}.1",
        }
        one = mammogram(stored(number, side, view, size), side, view, **changes)
        files.append(save(one, folder / f"{number}-{place}.dcm"))
    return study, files


def store_peer(archive: Orthanc) -> str:
    return f'[store]\ntitle = "{ARCHIVE}"\nhost = "127.0.0.1"\nport = {archive.port}'


def stow_peer(archive: Orthanc) -> str:
    return f'[stow]\nurl = "{archive.url}/dicom-web"'


@contextlib.contextmanager
def hospital(folder: Path, peer: Callable[[Orthanc], str] = store_peer, **changes: object) -> Iterator[Any]:
    """An archive and a listener that send each other what they have."""
    (port,) = ports(1)
    archive = Orthanc(folder / "archive", port)
    listener = Listener(folder / "listener", port, peer(archive), **changes)
    archive.start()
    try:
        listener.start()
        yield archive, listener
    finally:
        for one in (archive, listener):
            if one.process is not None and one.process.poll() is None:
                one.stop()
