"""Copies name nobody, look the same, and are answered for alike. Other tools say so, too."""

import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword

from canaries import NAME, PATIENT, full_dataset, leaks_below, write_dicom, write_jpeg_dicom, write_raster
from conftest import Typed
from mammolens import predict
from mammolens.data.csv_table import read_rows
from mammolens.deidentification import header
from mammolens.deidentification.annotations import beside_breast
from mammolens.images.reading import read_image
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view


@pytest.fixture(scope="module")
def breast() -> np.ndarray:
    """A synthetic mammogram of 12 bits, without its marker."""
    pixels = draw_view(draw_patient(3, 9).left, VIEWS[1], size=512).pixels.astype(np.uint16) << 4
    pixels[beside_breast((pixels / 4095).astype(np.float32))] = 0
    return pixels


@pytest.fixture
def originals(tmp_path: Path, breast: np.ndarray) -> Path:
    folder = tmp_path / "in"
    for name in ("train/1", f"{NAME}FOLDER"):
        (folder / name).mkdir(parents=True)
    write_dicom(folder / "train/1" / f"{NAME}.L.MLO.dcm", breast)
    write_dicom(folder / f"{NAME}FOLDER" / "without suffix", breast, PhotometricInterpretation="MONOCHROME1")
    write_jpeg_dicom(folder / "jpeg.dcm", breast)
    small = (breast >> 4).astype(np.uint8)
    for suffix in ("png", "jpg", "tif", "webp"):
        write_raster(folder / f"{NAME}_{suffix}_R_CC.{suffix}", small)
    write_raster(folder / "colour.png", np.stack([small, small[::-1], small.T], axis=-1))
    return folder


def test_no_name_is_left_and_answers_are_the_same(
    mammolens: Typed,
    originals: Path,
    tmp_path: Path,
    bundle: object,  # noqa: ARG001 - must exist
) -> None:
    out, table = tmp_path / "out", tmp_path / "table.csv"
    said = mammolens("deidentify", originals, out, "--key", tmp_path / "key", "--table", table, "-q")
    assert said.code == 0
    assert NAME not in said.out + said.err
    assert "8 of 8 pictures" in said.out
    assert leaks_below(originals)
    assert leaks_below(out) == {}
    for private in (table, tmp_path / "key"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    assert {row[2] for row in rows if row[0].endswith(("dcm", "suffix"))} == {PATIENT}
    assert len({row[3] for row in rows if row[3]}) == 1
    for old, new, *_ in rows:
        first, second = read_image(Path(old)), read_image(Path(new))
        assert np.array_equal(first.pixels, second.pixels), old
        assert first.colour == second.colour
    answers = [predict([row[place] for row in rows], model="phantom") for place in (0, 1)]
    for column in ("probability", "decision", "laterality", "view"):
        before, after = ([getattr(one, column) for one in each] for each in answers)
        assert before == after


def test_the_header_keeps_what_is_needed(tmp_path: Path, mammolens: Typed, breast: np.ndarray) -> None:
    write_dicom(tmp_path / "a.dcm", breast, PatientAge="093Y")
    mammolens("deidentify", tmp_path / "a.dcm", tmp_path / "out", "-q")
    (made,) = (tmp_path / "out").rglob("*.dcm")
    said = read_image(made).header
    assert said is not None
    assert (said.age, said.laterality, said.view, said.spacing) == (90, "L", "MLO", (0.1, 0.1))
    assert said.manufacturer == "HOLOGIC"
    assert re.fullmatch(r"P[0-9a-f]{16}", said.patient_id or "")
    dataset = dcmread(made)
    assert dataset.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence] == ["113100", "113108"]
    assert not [each for each in dataset if each.tag.is_private or each.tag.group in range(0x5000, 0x6100)]


def test_nothing_stays_that_the_profile_removes() -> None:
    """Held against the table of PS3.15 E.1-1 as another tool has it."""
    tables = pytest.importorskip(
        "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c", reason="pip install dicom-anonymizer"
    )
    kept = header._KEPT
    keywords = [*kept["terms"], *kept["words"], *kept["numbers"]["decimal"]]
    keywords += kept["patterns"]
    listed = {(tag[0] << 16) + tag[1] for tag in tables.ALL_TAGS if len(tag) == 2}
    assert len(listed) > 300
    tags = {tag_for_keyword(each) for each in keywords}
    assert tags & listed <= {tag_for_keyword("PatientSex")}, "which the Retain Patient Characteristics Option keeps"


def test_one_key_gives_one_name_and_none_gives_another(mammolens: Typed, tmp_path: Path, breast: np.ndarray) -> None:
    write_dicom(tmp_path / "a.dcm", breast)
    named = []
    for number, options in enumerate((["--key", tmp_path / "k"], ["--key", tmp_path / "k"], [], [])):
        mammolens("deidentify", tmp_path / "a.dcm", tmp_path / str(number), "-q", *options)
        (made,) = (tmp_path / str(number)).rglob("*.dcm")
        dataset = dcmread(made)
        named.append((made.name, dataset.PatientID, dataset.StudyInstanceUID))
    assert named[0] == named[1]
    assert len({one[1] for one in named}) == len({one[2] for one in named}) == 3


def test_views_of_one_examination_stay_together(mammolens: Typed, tmp_path: Path, breast: np.ndarray) -> None:
    (tmp_path / "in").mkdir()
    for name in ("smith_L_CC", "smith_L_MLO", "jones_L_CC"):
        write_raster(tmp_path / "in" / f"{name}.png", (breast >> 4).astype(np.uint8))
    mammolens("deidentify", tmp_path / "in", tmp_path / "out", "-q")
    stems = [path.stem.split("_") for path in (tmp_path / "out").iterdir()]
    assert sorted(stem[2] for stem in stems) == ["CC", "CC", "MLO"]
    assert len({stem[0] for stem in stems}) == 2


def test_one_bad_file_stops_nothing_and_says_nothing_of_its_header(
    mammolens: Typed, tmp_path: Path, breast: np.ndarray
) -> None:
    write_dicom(tmp_path / "good.dcm", breast)
    whole = (tmp_path / "good.dcm").read_bytes()
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "good.dcm", "a/good.dcm")
        archive.writestr("a/cut.dcm", whole[:-1000])
        archive.writestr("a/none.dcm", whole[:5000])
    said = mammolens("deidentify", tmp_path / "all.zip", tmp_path / "out", "-q")
    assert said.code == 1
    assert "1 of 3 pictures" in said.out
    assert said.err.count("warning:") == 2
    assert NAME not in said.err + said.out
    assert len([*(tmp_path / "out").rglob("*.*")]) == 1


def test_what_is_not_there_is_said(mammolens: Typed, tmp_path: Path) -> None:
    said = mammolens("deidentify", tmp_path / "none.dcm", tmp_path / "out", "-q")
    assert said.code == 1
    assert "none.dcm: no such file" in said.err


def test_text_beside_the_breast_is_told_and_blackened(mammolens: Typed, tmp_path: Path, breast: np.ndarray) -> None:
    marked = Pillow.fromarray((breast >> 4).astype(np.uint8))
    ImageDraw.Draw(marked).text((360, 20), "SMITH J", fill=255, font=ImageFont.load_default(28))
    marked.save(tmp_path / "a.png")
    write_dicom(tmp_path / "a.dcm", np.asarray(marked).astype(np.uint16) << 4)
    for name in ("a.png", "a.dcm"):
        told = mammolens("deidentify", tmp_path / name, tmp_path / f"{name}-told", "-q")
        assert "there seems to be text in it" in told.err
        said = mammolens("deidentify", tmp_path / name, tmp_path / f"{name}-black", "--blacken", "-q")
        assert "it is black beside the breast now; look at what touches it" in said.err
        assert "text seems to be in 1 of them" in " ".join(said.out.split())
        (made,) = (tmp_path / f"{name}-black").iterdir()
        before, after = read_image(tmp_path / name).pixels, read_image(made).pixels
        assert before[:80, 300:].max() > 0.9
        assert after[:80, 300:].max() == 0
        assert made.suffix == ".png" or dcmread(made).BurnedInAnnotation == "YES"
        assert np.array_equal(before[200:, :120], after[200:, :120]), "the breast is as it was"


def test_what_a_window_or_transparency_hides_is_found(mammolens: Typed, tmp_path: Path, breast: np.ndarray) -> None:
    marked = Pillow.fromarray(np.zeros(breast.shape, np.uint8))
    ImageDraw.Draw(marked).text((360, 20), "SMITH J", fill=255, font=ImageFont.load_default(28))
    text = np.asarray(marked) > 128
    hidden = np.where(text, 1500, np.where(breast > 0, breast // 2 + 2000, 0)).astype(np.uint16)
    write_dicom(tmp_path / "a.dcm", hidden, WindowCenter=3000, WindowWidth=2000)
    assert read_image(tmp_path / "a.dcm").pixels[text].max() == 0
    assert "there seems to be text" in mammolens("deidentify", tmp_path / "a.dcm", tmp_path / "told", "-q").err
    small = (breast >> 4).astype(np.uint8)
    clear = np.stack([small, small, small, np.full_like(small, 255)], axis=-1)
    clear[text] = 255, 255, 255, 0
    Pillow.fromarray(clear).save(tmp_path / "a.png")
    mammolens("deidentify", tmp_path / "a.png", tmp_path / "clear", "-q")
    (made,) = (tmp_path / "clear").iterdir()
    assert np.asarray(Pillow.open(made))[text].max() == 0


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_a_copy_stands_upright(suffix: str, mammolens: Typed, tmp_path: Path, breast: np.ndarray) -> None:
    picture = Pillow.fromarray((breast[:, :300] >> 4).astype(np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / f"a.{suffix}", exif=exif)
    mammolens("deidentify", tmp_path / f"a.{suffix}", tmp_path / "out", "-q")
    (made,) = (tmp_path / "out").iterdir()
    assert np.array_equal(read_image(made).pixels, read_image(tmp_path / f"a.{suffix}").pixels)
    assert not Pillow.open(made).getexif()


def test_the_table_has_no_formulas_and_takes_any_name(
    mammolens: Typed, tmp_path: Path, breast: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1", "no text \udcff"):
        write_dicom(Path(f"{name}.dcm"), breast, PatientID="@SUM(A1)")
        assert not mammolens("deidentify", f"{name}.dcm", "out " + name[:1], "-q", "--table", "t.csv").code
        (row,) = Path("t.csv").read_text(encoding="utf-8").splitlines()[1:]
        assert all(cell[0] not in "=@" for cell in row.split(","))
        (read,) = read_rows(Path("t.csv"))
        assert read["patient_id"] == "@SUM(A1)"


def test_nothing_stays_in_colours_that_are_not_seen(mammolens: Typed, tmp_path: Path, breast: np.ndarray) -> None:
    levels = (breast >> 5).astype(np.uint8) & 127
    hidden = np.zeros(levels.shape, bool)
    hidden[:4, ::2] = True
    levels[:4] = 128 + hidden[:4]
    picture = Pillow.fromarray(levels)
    picture.putpalette([value for level in range(256) for value in [level] * 3])
    picture.save(tmp_path / "a.png", transparency=bytes([255] * 128 + [0] * 128))
    assert not mammolens("deidentify", tmp_path / "a.png", tmp_path / "out", "-q").code
    (made,) = (tmp_path / "out").iterdir()
    assert len(np.unique(np.asarray(Pillow.open(made))[:4])) == 1


def test_what_would_tell_whose_they_are_does_not_lie_among_them(mammolens: Typed, tmp_path: Path) -> None:
    for option in ("--key", "--table"):
        said = mammolens("deidentify", tmp_path, tmp_path / "out", option, tmp_path / "out" / "it.csv")
        assert said.code == 1
        assert "lies among the copies" in said.err
    both = tmp_path / "both.csv"
    said = mammolens("deidentify", tmp_path, tmp_path / "out", "--key", both, "--table", both)
    assert "name one place" in said.err
    assert not both.exists()
    (tmp_path / "key").write_text("0" * 64)
    (tmp_path / "key").chmod(0o644)
    assert (
        "others may read this key" in mammolens("deidentify", tmp_path, tmp_path / "o", "--key", tmp_path / "key").err
    )


@pytest.mark.parametrize(("tool", "package"), [("dciodvfy", "dicom3tools"), ("dcmdump", "dcmtk")])
def test_other_tools_read_them(tool: str, package: str, mammolens: Typed, tmp_path: Path, breast: np.ndarray) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}: apt-get install {package}")
    full_dataset(breast)
    write_dicom(tmp_path / "a.dcm", breast)
    mammolens("deidentify", tmp_path / "a.dcm", tmp_path / "out", "-q")
    (made,) = (tmp_path / "out").iterdir()
    done = subprocess.run([tool, made], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert NAME not in said
    assert not re.findall(r"^(?:Error|E:).*$", said, flags=re.MULTILINE)
