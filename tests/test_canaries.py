"""Names planted in headers, in comments of pictures and in names of files come out only where they are asked for."""

import io
import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from canaries import NAME, ROOT, leaks, leaks_below, write_dicom, write_jpeg_dicom, write_raster
from conftest import QUICK, Typed
from mammolens.images.reading import read_or_reason
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view
from mammolens.records import Laterality

PATIENTS = 4  # a split
CHANGES = [part for change in [*QUICK, "epochs=1"] for part in ("--set", change)]
STEERING = "\x1b[31m"


def write_named(path: Path, pixels: np.ndarray) -> None:
    """Write a picture without a word in it, in a folder and under a name that tell of its patient."""
    folder = path.parent / f"{NAME}FOLDER{path.name}"
    folder.mkdir()
    Pillow.fromarray(pixels).save(folder / f"{NAME}{STEERING}<b>-{path.name}-R-CC.png")


def write_planted(path: Path, pixels: np.ndarray) -> None:
    """Write a picture full of names under a name that says nothing: one in two is DICOM."""
    number = int(path.name)
    if number % 2:
        write_raster(path.with_suffix(".png"), pixels)
    else:
        who = {"PatientID": f"{NAME}-PATIENT-{number // 2}", "StudyInstanceUID": f"{ROOT}.99.{number // 2}"}
        write_dicom(path.with_suffix(".dcm"), pixels.astype(np.uint16) << 4, ViewPosition="CC", **who)


def data_set(folder: Path, write: Callable[[Path, np.ndarray], None]) -> Path:
    """Write small synthetic examinations in folders of splits and classes."""
    for place, split in enumerate(("train", "valid", "test")):
        for number in range(PATIENTS):
            patient = draw_patient(100 * place + number, 9)
            (folder / split / str(number % 2)).mkdir(parents=True, exist_ok=True)
            for side, breast in enumerate((patient.left, patient.right)):
                name = f"{2 * (PATIENTS * place + number) + side:03d}"
                write(folder / split / str(number % 2) / name, draw_view(breast, VIEWS[0], size=96).pixels)
    return folder


def run_all(mammolens: Typed, data: Path, out: Path) -> dict[str, str]:
    """Run every verb that looks at pictures; return what each printed."""
    model = ["--model", out / "bundle", "--quiet"]
    one = min((data / "test" / "0").rglob("*.*"))
    commands: dict[str, list[object]] = {
        "manifest": ["manifest", data, out / "listed.csv"],
        "doctor": ["doctor", data, "--quiet", "--out", out / "doctor", "--mend", out / "mended.csv"],
        "preview": ["preview", data, out / "preview.png", "--images", 2],
        "train": ["train", data, *CHANGES, "--out", out / "run"],
        "evaluate": ["evaluate", out / "run", "--data", data, "--out", out / "evaluation"],
        "export": ["export", out / "run", out / "bundle"],
        "predict": ["predict", data / "test", *model, "--out", out / "answers.csv", "--overlay", out / "heat"],
        "parquet": ["predict", data / "test", *model, "--out", out / "answers.parquet"],
        "report": ["predict", data / "test", *model, "--level", "exam", "--report", out / "reports"],
        "show": ["show", one, "--model", out / "bundle", "--out", out / "show.png"],
    }
    said = {}
    for verb, command in commands.items():
        told = mammolens(*command)
        assert told.code in (0, 1), told.err
        said[verb] = told.out + told.err
    return said


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a program reads that has every message logged."""
    said, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(said), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield said
    root.removeHandler(handler)
    root.setLevel(level)


def test_what_headers_and_comments_say_stays_in_them(
    mammolens: Typed, tmp_path: Path, scratch: Path, cache: Path, log: io.StringIO
) -> None:
    """But for the columns patient_id and study_id of answers, by which views are joined."""
    data, out = data_set(tmp_path / "data", write_planted), tmp_path / "out"
    assert leaks_below(data)
    out.mkdir()
    said = run_all(mammolens, data, out)
    assert {verb: leaks(text.encode()) for verb, text in said.items()} == {verb: set() for verb in said}
    assert not leaks(log.getvalue().encode())
    found = leaks_below(out, scratch, cache)
    assert set(found) == {"answers.csv", "answers.parquet"}
    for answers in (pd.read_csv(out / "answers.csv"), pd.read_parquet(out / "answers.parquet")):
        assert answers.patient_id.notna().any()
        assert not leaks(answers.drop(columns=["patient_id", "study_id"]).to_csv().encode())


def test_names_of_files_are_told_where_files_are_listed_alone(
    mammolens: Typed, tmp_path: Path, scratch: Path, cache: Path
) -> None:
    """Tables of files name files, and the doctor's page does; pages that are passed on do not."""
    data, out = data_set(tmp_path / "data", write_named), tmp_path / "out"
    out.mkdir()
    said = run_all(mammolens, data, out)
    assert {verb for verb, text in said.items() if leaks(text.encode())} <= {
        "doctor",
        "predict",
        "parquet",
        "report",
        "show",
    }
    assert STEERING not in "".join(said.values())
    found = {Path(name).parts[0] for name in leaks_below(out, scratch)}
    assert found == {
        *("listed.csv", "mended.csv", "answers.csv", "answers.parquet", "doctor", "heat", "run", "evaluation"),
    }
    told = leaks_below(out / "run", out / "evaluation", out / "reports", out / "bundle", cache)
    lists = {"manifest.csv", "fingerprints.csv", "report.json", "predictions.parquet"}
    assert {Path(name).name for name in told} == lists
    options = ["--model", out / "bundle", "--level", "exam", "--report", out / "told", "--identify", "files", "-q"]
    mammolens("predict", data / "test", *options)
    pages = [page.read_text() for page in (*(out / "told").iterdir(), out / "doctor" / "report.html")]
    assert all(f"{NAME}\\x1b[31m&lt;b&gt;" in page and STEERING not in page for page in pages)


@pytest.mark.parametrize("seed", range(4))
def test_errors_do_not_quote_what_is_in_a_file(
    seed: int, tmp_path: Path, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    """Files cut short, overwritten and pulled apart, most of them where headers are."""
    draw, pixels = random.Random(seed), draw_view(draw_patient(1, 9).left, VIEWS[0], size=64).pixels  # noqa: S311
    files = [write_dicom(tmp_path / "a.dcm", pixels.astype(np.uint16) << 4)]
    files += [write_jpeg_dicom(tmp_path / "b.dcm", pixels.astype(np.uint16) << 4)]
    files += [write_raster(tmp_path / f"c.{suffix}", pixels) for suffix in ("png", "jpg", "tif", "webp")]
    (tmp_path / "d.pgm").write_bytes(f"P5 64 {NAME} 64 255\n".encode() + bytes(4096))
    said = [read_or_reason(tmp_path / "d.pgm")]
    for number in range(60):
        whole = draw.choice(files)
        content = bytearray(whole.read_bytes())
        place = draw.randrange(min(len(content), 60_000))
        kind = number % 4
        if kind == 0:
            content = content[:place]
        elif kind == 1:
            content[place : place + 8] = f"{NAME}12".encode()
        elif kind == 2:
            content[place:place] = bytes(draw.randrange(1, 5))
        else:
            for _ in range(20):
                content[draw.randrange(len(content))] = draw.randrange(256)
        path = tmp_path / f"damaged{whole.suffix}"
        path.write_bytes(content)
        said.append(read_or_reason(path))
    errors = [one for one in said if isinstance(one, str)]
    assert len(errors) > 10
    printed = capfd.readouterr()
    assert not leaks("\n".join([*errors, log.getvalue(), printed.out, printed.err]).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"Modality": NAME},
        {"Modality": "CR", "BodyPartExamined": NAME},
        {"PhotometricInterpretation": NAME},
        {"SOPClassUID": f"{ROOT}.5", "Modality": "CT"},
        {"NumberOfFrames": 3, "SOPClassUID": f"{ROOT}.5"},
    ],
)
def test_a_refusal_does_not_quote_the_header(changes: dict[str, object], tmp_path: Path) -> None:
    refused = read_or_reason(write_dicom(tmp_path / "a.dcm", np.zeros((64, 64), np.uint16), **changes))
    assert isinstance(refused, str)
    assert not leaks(refused.encode())


def test_a_maker_is_told_by_name_alone(tmp_path: Path) -> None:
    image = read_or_reason(write_dicom(tmp_path / "a.dcm", np.eye(64, dtype=np.uint16) * 4000))
    assert not isinstance(image, str)
    assert image.header is not None
    assert (image.header.manufacturer, image.header.laterality) == ("HOLOGIC", Laterality.LEFT)
