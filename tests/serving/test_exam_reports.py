"""Reports of examinations on disk: one each, whole, by no name, whatever else lies there."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom import mammogram, save

import brightness
from conftest import Typed
from mammolens.errors import DataError
from mammolens.images.archives import image_in
from mammolens.levels import ServedLevel
from mammolens.model.bundle import Bundle
from mammolens.records import Laterality, View
from mammolens.reports.case import Case
from mammolens.reports.examination import examination_page
from mammolens.serving.exam_reports import examination_report
from mammolens.serving.exams import STANDARD, joined
from mammolens.serving.overlay import LOOKED
from mammolens.serving.predictor import Predictor

SECRETS = ("4711", "JANE", "1.2.840.77", "visit")
GREYS = {"CC": 1000, "MLO": 2000}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return brightness.bundle(tmp_path_factory.mktemp("bundles") / "brightness")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two patients' views as DICOM, one a file short; and a file that cannot be read."""
    folder = tmp_path / "visit"
    folder.mkdir()
    for patient, places in (("a", STANDARD), ("b", STANDARD[:3])):
        for side, view in places:
            stored = np.full((64, 48), GREYS[view], np.uint16)
            stored[:, :24] = 0 if side is Laterality.RIGHT else GREYS[view]
            stored[:, 24:] = 0 if side is Laterality.LEFT else GREYS[view]
            header = {"PatientID": f"{patient}-4711", "ViewPosition": view, "ImageLaterality": side}
            header |= {"PatientName": "DOE^JANE", "StudyInstanceUID": f"1.2.840.77.{ord(patient)}"}
            save(folder / f"{patient}-JANE-{side}{view}.dcm", mammogram(stored, bits=12, **header))
    (folder / "c-JANE.dcm").write_bytes(b"nothing")
    return folder


def pictures_of(page: str) -> list[Image.Image]:
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_predict_writes_a_report_an_examination(
    mammolens: Typed, bundle: Bundle, studies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reports"
    typed = ("predict", studies, "--model", bundle.folder, "--level", "exam", "--report", out, "-q")
    said = mammolens(*typed)
    assert said.code == 1, "a file got no answer"
    assert f"written to {out}" in said.out
    assert sorted(path.name for path in out.iterdir()) == ["examination-00001.html", "examination-00002.html"]
    pages = [path.read_text(encoding="utf-8") for path in sorted(out.iterdir())]
    for page in pages:
        assert not [secret for secret in SECRETS if secret in page]
        for picture in pictures_of(page):
            assert not picture.getexif()
            assert not picture.info.get("comment")
    assert [len(pictures_of(page)) for page in pages] == [4, 3]
    assert "R MLO: not found" in pages[1]
    assert "Not readable among what was given: 1 file" in pages[1]
    said = mammolens(*typed)
    assert said.code == 1
    assert "exists already" in said.err


def test_names_are_there_where_they_are_asked_for(bundle: Bundle, studies: Path, tmp_path: Path) -> None:
    opened = Predictor.load(bundle.folder)
    opened.predict(studies, level="exam", report=tmp_path / "r", identify=["patient", "files"])
    page = (tmp_path / "r" / "examination-00001.html").read_text(encoding="utf-8")
    assert "a-4711" in page
    assert "a-JANE-LCC.dcm" in page
    assert "1.2.840.77" not in page


def test_reports_change_no_answer(bundle: Bundle, studies: Path, tmp_path: Path) -> None:
    opened = Predictor.load(bundle.folder)
    plain, reported = (opened.predict(studies, level="exam", report=out) for out in (None, tmp_path / "r"))
    assert [one.probability for one in reported] == [one.probability for one in plain]
    assert all(view.score_map is not None for one in reported for view in one.views), "maps are kept"
    bare = opened.predict(studies, level="exam", report=tmp_path / "s", maps=False)
    assert all(view.score_map is None for one in bare for view in one.views)
    assert LOOKED in (tmp_path / "s" / "examination-00001.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"report": "r", "level": "image"}, "--level exam"),
        ({"report": None, "identify": ["patient"]}, "--report"),
        ({"report": "r", "identify": ["name"]}, "expected patient, study, files"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=told):
        Predictor.load(bundle.folder).answers([], **{"level": "exam"} | options)  # type: ignore[arg-type]
    assert not (tmp_path / "r").exists()


def test_ctrl_c_leaves_whole_reports_alone(
    mammolens: Typed, bundle: Bundle, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def interrupted(*given: object, **more: object) -> str:
        if pages:
            raise KeyboardInterrupt
        pages.append(examination_page(*given, **more))  # type: ignore[arg-type]
        return pages[0]

    monkeypatch.setattr("mammolens.serving.exam_reports.examination_page", interrupted)
    out = tmp_path / "reports"
    said = mammolens("predict", studies, "--model", bundle.folder, "--level", "exam", "--report", out, "-q")
    assert said.code == 130
    assert [path.name for path in out.iterdir()] == ["examination-00001.html"]
    assert (out / "examination-00001.html").read_text(encoding="utf-8") == pages[0]


def test_a_picture_that_is_gone_at_second_sight_stops_nothing(
    bundle: Bundle, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def gone(picture: object, name: Path) -> object:
        if name.name == "a-JANE-LCC.dcm":
            name.unlink()
        return image_in(picture, name)  # type: ignore[arg-type]

    monkeypatch.setattr("mammolens.serving.exam_reports.image_in", gone)
    answers = Predictor.load(bundle.folder).predict(studies, level="exam", report=tmp_path / "r")
    assert len(answers) == 3
    page = (tmp_path / "r" / "examination-00001.html").read_text(encoding="utf-8")
    assert len(pictures_of(page)) == 3
    assert "L CC: could not be read a second time" in page


def test_the_page_makes_the_same_report_of_pictures_that_it_has(bundle: Bundle) -> None:
    opened = Predictor.load(bundle.folder)
    pixels = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (64, 1))
    seen = [
        opened.predict([pixels])[0].__class__(Path(f"JANE-{side}{view}.png"), 0.2, laterality=side, view=view)
        for side, view in STANDARD
    ]
    levels = np.rint(pixels * 65535).astype(np.uint16)
    cases = [Case(one, levels, chest_wall_right=True) for one in seen]
    record = bundle.record
    (exam,) = joined([case.answer for case in cases], ServedLevel.EXAM, "balanced", record.rules())
    page = examination_report(exam, cases, record)
    assert "JANE" not in page
    drawn = [np.asarray(picture.convert("L"), dtype=float) for picture in pictures_of(page)]
    assert len(drawn) == 4
    for number, picture in enumerate(drawn):
        is_left = number % 2 == 1
        assert (picture[:, :8].mean() > picture[:, -8:].mean()) == is_left, "chest walls face the middle"
    assert View.CC in [one.view for one in exam.views]
