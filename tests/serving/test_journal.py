"""Answers that are kept while a batch runs: taken again after an interruption, by the same batch alone."""

import csv
import dataclasses
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mishaps import outcome
from test_dicom import mammogram, save

import brightness
from conftest import Typed
from mammolens.data.manifest import Manifest
from mammolens.images.archives import find_inputs, named
from mammolens.judging.predictions import scores_from
from mammolens.model.bundle import Bundle
from mammolens.records import ImageWarning, Laterality, Mammogram, Prediction, Reason, View
from mammolens.reports.examination import examination_page
from mammolens.serving.exams import STANDARD
from mammolens.serving.journal import answered, journal
from mammolens.serving.predictor import Predictor


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return brightness.bundle(tmp_path_factory.mktemp("bundles") / "brightness")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four views of each of two patients, as DICOM, and a file that cannot be read."""
    folder = tmp_path / "study"
    folder.mkdir()
    for patient in "ab":
        for number, (side, view) in enumerate(STANDARD):
            stored = np.full((64, 48), 1000 + 700 * number, np.uint16)
            header = {"PatientID": patient, "StudyInstanceUID": f"1.2.{ord(patient)}"}
            header |= {"ViewPosition": view, "ImageLaterality": side}
            save(folder / f"{patient}{side}{view}.dcm", mammogram(stored, bits=12, **header))
    (folder / "c.dcm").write_bytes(b"nothing")
    return folder


@dataclass
class Asked:
    """The pictures that the network was asked about, and after how many Ctrl-C comes."""

    pictures: list[str] = field(default_factory=list)
    most: int = 1000


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    one = Asked()
    scored = Predictor._scored

    def counted(self: Predictor, name: Path, *given: Any, **more: Any) -> Prediction:
        if len(one.pictures) == one.most:
            raise KeyboardInterrupt
        one.pictures.append(name.name)
        return scored(self, name, *given, **more)

    monkeypatch.setattr(Predictor, "_scored", counted)
    return one


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a disk that becomes full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_answer_is_kept_with_all_that_it_says(study: Path, tmp_path: Path) -> None:
    (one,) = named(find_inputs([study / "aLCC.dcm"]))
    full = Prediction(
        path=one.name,
        probability=0.123456,
        decision="tumor",
        threshold=0.1 + 0.2,
        operating_point="balanced",
        uncertain=True,
        laterality=Laterality.LEFT,
        view=View.MLO,
        patient_id=os.fsdecode(b"\xe4 =1"),
        study_id="1.2",
        by_name=True,
        age=63,
        probability_with_age=1 / 3,
        warnings=(ImageWarning.INVERTED, ImageWarning.SMALL.about(3, 4)),
        reason=Reason.BOTH,
        admitted=False,
        score_map=np.array([[0.1, 1 / 3]], np.float32),
    )
    unlike = dataclasses.asdict(Prediction(Path(), None))
    elsewhere = {"level", "error", "views", "breasts"}
    assert all(name in elsewhere or getattr(full, name) is not value for name, value in unlike.items())
    with suppress(KeyboardInterrupt), journal(tmp_path / "a.csv", {}) as kept:
        list(answered([one], lambda _: iter([full]), iter, kept, maps=True))
        raise KeyboardInterrupt
    with journal(tmp_path / "a.csv", {}, resume=True) as kept:
        (again,) = answered([one], iter, iter, kept, maps=True)  # type: ignore[arg-type]
    assert again.score_map is not None
    assert full.score_map is not None
    np.testing.assert_array_equal(again.score_map, full.score_map)
    plain = [dataclasses.asdict(dataclasses.replace(answer, score_map=None)) for answer in (again, full)]
    assert plain[0] == plain[1]
    assert [warning.kind for warning in again.warnings] == [ImageWarning.INVERTED, ImageWarning.SMALL]
    assert not list(tmp_path.glob(".a*"))


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
@pytest.mark.parametrize("level", ["image", "breast", "exam"])
def test_an_interrupted_batch_goes_on_where_it_stopped(
    mammolens: Typed, bundle: Bundle, study: Path, asked: Asked, tmp_path: Path, suffix: str, level: str
) -> None:
    def typed(place: Path) -> list[object]:
        words = ["predict", study, "--model", bundle.folder, "--level", level, "--out", place / f"a.{suffix}", "-q"]
        words += ["--overlay", place / "heat"]
        return [*words, "--report", place / "reports"] if level == "exam" else words

    whole, place = tmp_path / "whole", tmp_path / "place"
    assert mammolens(*typed(whole)).code == 1, "one file is broken"
    asked.pictures.clear()
    for most, resume in ((3, []), (5, ["--resume"])):
        asked.most = most
        said = mammolens(*typed(place), *resume)
        assert said.code == 130
        assert f"a.{suffix} was not written. {most} answers are kept: go on with --resume." in said.err
        assert not (place / f"a.{suffix}").exists()
    asked.most = 1000
    said = mammolens(*typed(place))
    assert said.code == 1
    assert "was interrupted after 5 answers. To go on, give the same command with --resume; to start anew" in said.err
    with (place / f".a.{suffix}.journal").open("ab") as stream:
        stream.write(b'{"picture": ["torn')
    assert mammolens(*typed(place), "--resume").code == 1
    assert asked.pictures == sorted(path.name for path in study.iterdir()), "each once"
    assert outcome(place) == outcome(whole)


def interrupted(mammolens: Typed, asked: Asked, after: int, *typed: object) -> None:
    asked.most = after
    assert mammolens(*typed, "-q").code == 130
    asked.pictures.clear()
    asked.most = 1000


def test_answers_of_another_model_or_point_are_not_taken(
    mammolens: Typed, bundle: Bundle, study: Path, asked: Asked, tmp_path: Path
) -> None:
    out = tmp_path / "a.csv"
    typed = ("predict", study, "--model", bundle.folder, "--out", out)
    interrupted(mammolens, asked, 3, *typed)
    said = mammolens(*typed, "--resume", "--point", "sensitivity-90", "--ungated")
    assert said.code == 1
    assert "was begun with point balanced, now sensitivity-90; ungated False, now True. To go on, give" in said.err
    other = brightness.bundle(tmp_path / "other", licence="another").folder
    assert (
        "was begun with model brightness " in mammolens("predict", study, "--model", other, *typed[4:], "--resume").err
    )
    assert asked.pictures == []
    (tmp_path / ".a.csv.journal").unlink()
    assert mammolens(*typed, "--point", "sensitivity-90", "-q").code == 1
    assert out.exists()


def test_a_file_that_has_changed_is_answered_anew(
    mammolens: Typed, bundle: Bundle, study: Path, asked: Asked, tmp_path: Path
) -> None:
    typed = ("predict", study, "--model", bundle.folder, "--out", tmp_path / "a.csv")
    interrupted(mammolens, asked, 4, *typed)
    (study / "aLCC.dcm").write_bytes((study / "bRMLO.dcm").read_bytes())
    os.utime(study / "aLCC.dcm", ns=(0, 0))
    (study / "c.dcm").write_bytes((study / "bRMLO.dcm").read_bytes())
    assert mammolens(*typed, "--resume", "-q").code == 0
    assert asked.pictures == ["aLCC.dcm", "bLCC.dcm", "bLMLO.dcm", "bRCC.dcm", "bRMLO.dcm", "c.dcm"]


@pytest.mark.parametrize(
    "line",
    [
        '{"heatmaps": {}}',
        '{"reports": []}',
        '{"settings": 5}',
        '{"picture": 5}',
        '{"picture": [["a"]], "answer": {}, "heat": null, "map": null}',
        "[" * 100_000,
    ],
)
def test_a_line_that_somebody_wrote_into_it_ends_it(tmp_path: Path, line: str) -> None:
    out = tmp_path / "answers.csv"
    out.with_name(f".{out.name}.journal").write_text(f'{{"settings": {{}}}}\n{line}\n')
    with journal(out, {}, resume=True) as kept:
        assert kept.count == 0
        assert line not in kept.path.read_text()


def test_heatmaps_that_go_elsewhere_are_all_there(
    mammolens: Typed, bundle: Bundle, study: Path, asked: Asked, tmp_path: Path
) -> None:
    typed = ("predict", study, "--model", bundle.folder, "--out", tmp_path / "a.csv", "--overlay")
    interrupted(mammolens, asked, 4, *typed, tmp_path / "first")
    assert mammolens(*typed, tmp_path / "second", "--resume", "-q").code == 1
    assert len(list((tmp_path / "second").iterdir())) == 8


def test_of_two_processes_with_one_output_the_second_is_told_of_the_first(
    mammolens: Typed, bundle: Bundle, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.csv"
    typed = ("predict", study, "--model", bundle.folder, "--out", out, "-q")
    hold = (
        "import sys; from pathlib import Path; from mammolens.serving.journal import journal\n"
        "with journal(Path(sys.argv[1]), {}): print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, out], **pipes) as first:  # type: ignore[call-overload]
        assert first.stdout.readline() == b"held\n"
        said = mammolens(*typed)
        assert said.code == 1
        assert f"error: {out}: is being written by another process ({first.pid}). Wait until" in said.err
        assert mammolens(*typed[:4], "--out", tmp_path / "b.csv", "-q").code == 1
        first.kill()
    assert mammolens(*typed).err.count("error") == 0
    assert out.exists()


def test_a_disk_that_becomes_full_loses_no_answer(
    mammolens: Typed, bundle: Bundle, study: Path, asked: Asked, tmp_path: Path
) -> None:
    out = tmp_path / "a.csv"
    typed = ("predict", study, "--model", bundle.folder, "--out", out, "-q")
    with largest_file(3000):
        said = mammolens(*typed)
    assert said.code == 1
    kept = len(asked.pictures) - 1
    assert f"cannot be written here (File too large). Choose another place. {kept} answers are kept" in said.err
    assert 0 < kept < 8
    assert [path.name for path in tmp_path.glob("*a.csv*")] == [".a.csv.journal"]
    assert mammolens(*typed, "--resume").code == 1
    assert len(asked.pictures) == 10, "the one that did not fit, twice; the broken one, once"


def test_reports_that_cannot_be_written_lose_no_answer(
    mammolens: Typed, bundle: Bundle, study: Path, asked: Asked, tmp_path: Path
) -> None:
    typed = ("predict", study, "--model", bundle.folder, "--level", "exam", "--out", tmp_path / "a.csv", "-q")
    with largest_file(20_000):
        said = mammolens(*typed, "--report", tmp_path / "r")
    assert said.code == 1
    assert "r/examination-00001.html: cannot be written here" in said.err
    assert "8 answers are kept: go on with --resume" in said.err
    asked.pictures.clear()
    assert mammolens(*typed, "--resume", "--report", tmp_path / "s").code == 1
    assert asked.pictures == ["c.dcm"], "the broken one alone is tried again"
    assert len(list((tmp_path / "s").iterdir())) == 2
    assert (tmp_path / "a.csv").exists()


def test_reports_that_were_begun_are_ended_in_the_same_folder(
    mammolens: Typed, bundle: Bundle, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed(place: Path) -> list[object]:
        words = ["predict", study, "--model", bundle.folder, "--level", "exam", "--out", place / "a.csv", "-q"]
        return [*words, "--report", place / "reports"]

    def interrupted(exam: Prediction, *given: Any, **more: Any) -> str:
        if exam.patient_id == "b":
            raise KeyboardInterrupt
        return examination_page(exam, *given, **more)

    whole, place = tmp_path / "whole", tmp_path / "place"
    assert mammolens(*typed(whole)).code == 1
    with monkeypatch.context() as patched:
        patched.setattr("mammolens.serving.exam_reports.examination_page", interrupted)
        assert mammolens(*typed(place)).code == 130
    (place / "reports" / ".examination-00002.part-abcdefgh.html").write_text("torn")
    assert len(list((place / "reports").iterdir())) == 2
    assert mammolens(*typed(place), "--resume").code == 1
    assert outcome(place) == outcome(whole)


def test_reports_and_answers_may_share_a_folder(mammolens: Typed, bundle: Bundle, study: Path, tmp_path: Path) -> None:
    place = tmp_path / "all"
    typed = ["predict", study, "--model", bundle.folder, "--level", "exam", "--report", place]
    assert mammolens(*typed, "--out", place / "a.csv", "-q").code == 1
    names = ["a.csv", "examination-00001.html", "examination-00002.html"]
    assert sorted(path.name for path in place.iterdir()) == names
    said = mammolens(*typed, "--out", place / "b.csv", "-q")
    assert "exists already" in said.err
    assert sorted(path.name for path in place.iterdir()) == names


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--report", "r.csv", "--level", "exam", "--out", "./r.csv"], 1, "--out and --report name one place"),
        (["--overlay", "r.csv", "--out", "r.csv"], 1, "--out and --overlay name one place"),
        (["--report", "", "--level", "exam"], 2, "'' is no name"),
        (["--out", ""], 2, "'' is no name"),
        (["--resume"], 2, "--out"),
    ],
)
def test_places_that_cannot_be_are_refused(mammolens: Typed, options: list[str], code: int, told: str) -> None:
    said = mammolens("predict", "nowhere", "--model", "nowhere", *options)
    assert said.code == code
    assert told in said.err


def test_a_link_whose_folder_is_not_there_yet_will_do(
    mammolens: Typed, bundle: Bundle, study: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    said = mammolens("predict", study, "--model", bundle.folder, "--level", "exam", "--report", tmp_path / "link", "-q")
    assert f"written to {tmp_path}/link" in said.out
    assert len(list((tmp_path / "target").iterdir())) == 2


def test_what_was_not_written_is_not_said_to_be(mammolens: Typed, bundle: Bundle, study: Path, tmp_path: Path) -> None:
    for name in ("heat", "reports"):
        (tmp_path / name).mkdir()
    typed = ("predict", study / "c.dcm", "--model", bundle.folder, "--level", "exam", "-q")
    said = mammolens(*typed, "--overlay", tmp_path / "heat", "--report", tmp_path / "reports")
    assert said.code == 1
    assert "written to" not in said.out


def test_a_folder_that_is_named_twice_is_said_to_be(mammolens: Typed, bundle: Bundle, study: Path) -> None:
    said = mammolens("predict", study, f"{study}/../{study.name}", "--model", bundle.folder, "-q")
    assert "warning: 9 of 18 inputs are files that were named before, such as" in said.err
    assert "named before" not in mammolens("predict", study, "--model", bundle.folder, "-q").err


def test_text_from_files_is_no_formula_in_a_spreadsheet_and_is_matched_all_the_same(
    mammolens: Typed, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stored = np.full((64, 48), 1024, np.uint16)
    for name in ("=a", "-b"):
        save(tmp_path / name, mammogram(stored, bits=12, PatientID="=HYPERLINK(1)"))
    assert mammolens("predict", "./=a", "./-b", "--model", bundle.folder, "--out", "a.csv", "-q").code == 0
    with Path("a.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["path"], row["patient_id"]) for row in rows] == [("'=a", "'=HYPERLINK(1)"), ("'-b", "'=HYPERLINK(1)")]
    images = Manifest(tuple(Mammogram(path=tmp_path / name, label=1) for name in ("=a", "-b")))
    scores = scores_from(Path("a.csv"), images)
    assert [one.probability for one in scores.predictions] == [float(row["probability"]) for row in rows]
    table = tmp_path / "data.csv"
    images.save(table)
    assert "'=a" in table.read_text(encoding="utf-8")
    assert Manifest.load(table).paths == images.paths
