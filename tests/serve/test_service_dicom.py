"""The service gives the results as DICOM that `predict --dicom` writes, and says what has none."""

import errno
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from asking import SLOW, Service, files, png
from pydicom import Dataset, dcmread
from pydicom.uid import MammographyCADSRStorage
from studies import examination, without_dates

import brightness
from conftest import Typed
from mammolens import errors
from mammolens.dicom_results import heat
from mammolens.dicom_results import results as written
from mammolens.dicom_results.results import Results
from mammolens.dicom_results.source import Source
from mammolens.errors import DataError
from mammolens.model.bundle import Outputs
from mammolens.records import Prediction
from mammolens.serve import uploads

ASKED = "/v1/dicom"


@pytest.fixture(scope="module")
def phantom() -> Iterator[Service]:
    with Service("phantom").open() as one:
        yield one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An examination as DICOM, a picture that is none, and a file that is no picture."""
    place = tmp_path_factory.mktemp("examined")
    examination(place)
    (place / "grey.png").write_bytes(png(brightness.flat(128)))
    (place / "short.dcm").write_bytes(next(place.glob("*.dcm")).read_bytes()[:3000])
    return place


def unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        assert len(names) == len({*names})
        return {name: archive.read(name) for name in names}


def lasting(content: bytes) -> Dataset:
    """A result without what changes from one moment to the next."""
    return without_dates(dcmread(io.BytesIO(content)))


@pytest.mark.parametrize(("level", "point"), [("image", "balanced"), ("exam", "specificity-90")])
def test_results_are_those_of_predict(
    phantom: Service,
    folder: Path,
    mammolens: Typed,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    level: str,
    point: str,
) -> None:
    monkeypatch.chdir(folder)
    paths = sorted(folder.iterdir())
    out, results = tmp_path / "answers.json", tmp_path / "results"
    typed = [path.name for path in paths]
    mammolens(
        "predict", *typed, "--model", "phantom", "--level", level, "--point", point, "--out", out, "--dicom", results
    )
    answer = phantom.ask(f"{ASKED}?level={level}&point={point}", files(*paths))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    held = unpacked(answer.content)
    assert held.pop("answers.json") == out.read_bytes()
    assert held.pop("left-out.txt") == b"1 pictures are no DICOM: no DICOM results of them\n"
    written = {path.name: path.read_bytes() for path in results.iterdir()}
    assert {*held} == {*written}
    assert {name.partition("-")[0] for name in held} == {"CAD", "heat", "capture"}
    for name, content in held.items():
        assert lasting(content) == lasting(written[name]), name


def test_a_picture_that_is_sent_twice_has_one_result(phantom: Service, folder: Path) -> None:
    path = folder / "R-1.dcm"
    held = unpacked(phantom.ask(ASKED, files(path, path)).content)
    assert sorted(name.partition("-")[0] for name in held) == ["CAD", "answers.json", "capture", "heat"]


def test_a_model_without_a_map_has_a_report_alone(folder: Path, tmp_path: Path) -> None:
    with Service(brightness.bundle(tmp_path / "bundle", outputs=Outputs()).folder).open() as one:
        held = unpacked(one.ask(ASKED, files(*folder.glob("?-?.dcm"))).content)
        (report,) = (lasting(content) for name, content in held.items() if name.endswith(".dcm"))
        assert report.SOPClassUID == MammographyCADSRStorage
        assert 'mammolens_requests_total{path="/v1/dicom",status="200"} 1.0' in one.get("/metrics").text


def test_too_many_are_refused(phantom: Service, folder: Path) -> None:
    answer = phantom.ask(ASKED, files(folder / "grey.png") * 25)
    assert (answer.status_code, answer.json()["detail"]) == (413, "25 images: send 24 at a time")


def test_a_full_disk_is_told_of(phantom: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DataError("x: cannot be written here") from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Results, "add", full)
    answer = phantom.ask(ASKED, files(folder / "grey.png"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["detail"] == "there is no room on the disk for what is sent"


def test_an_odd_picture_stops_no_other_whatever_it_is_called(
    phantom: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Results._drawn

    def stumble(results: Results, answer: Prediction, *rest: Any) -> Source:
        if answer.path.name.endswith("odd.dcm"):
            raise KeyError("Rows")
        return drawn(results, answer, *rest)

    monkeypatch.setattr(Results, "_drawn", stumble)
    head = 'Content-Disposition: form-data; name="files"; filename='
    parts = [(r'"\ud800odd.dcm"', "L-0.dcm"), ('"R-1.dcm"', "R-1.dcm")]
    body = b"".join(
        f"--B\r\n{head}{name}\r\n\r\n".encode() + (folder / file).read_bytes() + b"\r\n" for name, file in parts
    )
    kind = {"Content-Type": "multipart/form-data; boundary=B; charset=unicode_escape"}
    answer = phantom.ask(ASKED, headers=kind, content=body + b"--B--\r\n")
    assert answer.status_code == 200
    held = unpacked(answer.content)
    assert held["left-out.txt"] == rb"\ud800odd.dcm: no DICOM results could be made of it (KeyError)." + b"\n"
    assert sorted(name.partition("-")[0] for name in held if name.endswith(".dcm")) == ["CAD", "capture", "heat"]


def test_results_do_not_count_as_what_is_sent(phantom: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_TOTAL", 2**20)  # of the results, each capture is nearly that
    monkeypatch.setattr(uploads, "_FORM", 2**13)
    paths = sorted(folder.glob("?-?.dcm"))[:2]
    assert sum(path.stat().st_size for path in paths) < 2**20
    assert phantom.ask(ASKED, files(*paths)).status_code == 200


def test_who_has_no_time_left_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun, go_on = Event(), Event()

    def late(*words: Any) -> Dataset:
        begun.set()
        assert go_on.wait(SLOW)
        return heat.capture(*words)

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(written, "capture", late)
    with Service("phantom", seconds=5).open() as one:
        answer = one.ask(ASKED, files(folder / "R-1.dcm"))
        assert answer.status_code == 503
        assert begun.is_set()
        go_on.set()
    assert list(tmp_path.glob("mammolens-*")) == []


def test_where_nothing_writes_dicom_it_says_what_is_missing(
    phantom: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda _: None)
    for name in [name for name in sys.modules if name.startswith("mammolens.dicom_results")]:
        monkeypatch.delitem(sys.modules, name)
    answer = phantom.ask(ASKED, files(folder / "grey.png"))
    assert answer.status_code == 501
    assert answer.json()["detail"].endswith("Install with: pip install 'mammolens[dicom]'")
