import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom import gradient, save
from test_dicom import mammogram as dicom_of

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.data.sources.phantom import write_phantoms
from mammolens.errors import DataError
from mammolens.records import Laterality, Split, View


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_split_and_class_folders_give_split_and_label(tmp_path: Path) -> None:
    touch(tmp_path, "train/0/a.png", "train/1/b.JPG", "val/0/c.tif", "test/1/d.webp")
    touch(tmp_path, "train/0/notes.txt", "train/0/.hidden.png", "__MACOSX/x.png")
    manifest = read_source(str(tmp_path))
    rows = [(m.path.name, m.split, m.label) for m in manifest]
    assert rows == [
        ("d.webp", Split.TEST, 1),
        ("a.png", Split.TRAIN, 0),
        ("b.JPG", Split.TRAIN, 1),
        ("c.tif", Split.VALID, 0),
    ]


def test_class_folders_alone_have_no_split(tmp_path: Path) -> None:
    touch(tmp_path, "benign/a.png", "malignant/b.png")
    manifest = read_source(str(tmp_path), positive="malignant")
    assert [(m.label, m.split) for m in manifest] == [(0, None), (1, None)]


def test_rsna_names_give_ids_and_metadata_is_joined(tmp_path: Path) -> None:
    touch(tmp_path, "train/1/10130_388811999_png.rf.bb9dddf48121.jpg", "train/0/7_8.png")
    touch(tmp_path, "train/0/IMG_0012.png")
    (tmp_path / "metadata.csv").write_text(
        'patient_id,image_id,laterality,view,age,BIRADS,boxes\n10130,388811999,L,MLO,57,,"[[1, 2, 3, 4]]"\n'
    )
    by_id = {m.image_id: m for m in read_source(str(tmp_path))}
    joined = by_id["388811999"]
    assert (joined.patient_id, joined.laterality, joined.view) == (
        "10130",
        Laterality.LEFT,
        View.MLO,
    )
    assert joined.metadata == {"age": "57"}
    assert joined.boxes[0].height == 4
    assert by_id["8"].patient_id == "7"
    assert by_id[None].patient_id is None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no class folders"),
        (["a.png"], "no class folders"),
        (["train/a.png"], "no class folders"),
        (["0/readme.txt", "1/readme.txt"], "hold no images"),
        (["cat/a.png", "dog/a.png"], "which of the classes cat and dog means tumor"),
        (["a/1.png", "b/1.png", "c/1.png"], "expected two classes, found 3"),
    ],
)
def test_folders_that_are_no_data_set_are_refused(tmp_path: Path, files: list[str], said: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=said) as caught:
        read_source(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        read_source(str(tmp_path / "missing"))


def test_a_table_names_its_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    path = tmp_path / "data.csv"
    path.write_text("path,label\na.png,normal\nb.png,cancer\n")
    manifest = read_source(str(path), positive="cancer")
    assert manifest.labels.tolist() == [0, 1]


def test_phantoms_on_disk_are_a_data_set_like_any_other(phantoms: Path) -> None:
    manifest = read_source(str(phantoms))
    assert len(manifest) == 120
    assert len(set(manifest.patients)) == 30
    assert {m.split for m in manifest} == set(Split)
    for mammogram in manifest:
        assert mammogram.laterality is not None
        assert mammogram.view in (View.CC, View.MLO)
        assert bool(mammogram.boxes) == (mammogram.label == 1)
        assert mammogram.metadata["cancer"] == str(mammogram.label)
    assert 0.05 < manifest.labels.mean() < 0.45


def test_phantoms_are_the_same_from_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("first", 5), ("second", 5), ("third", 6)):
        write_phantoms(tmp_path / name, 12, size=64, seed=seed)
    first, second, third = (
        {path.relative_to(tmp_path / name): np.asarray(Image.open(path)) for path in (tmp_path / name).rglob("*.jpg")}
        for name in ("first", "second", "third")
    )
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first.keys() != third.keys() or any(not np.array_equal(first[name], third[name]) for name in first)


def test_phantoms_never_overwrite(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        write_phantoms(tmp_path, 12, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few_phantoms_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 3"):
        write_phantoms(tmp_path / "few", 2, size=64)
    assert list(tmp_path.iterdir()) == []


def test_phantoms_can_be_asked_for_by_name() -> None:
    assert len(read_source("phantom:12")) == 48
    for wrong in ("phantom:0", "phantom:many"):
        with pytest.raises(DataError):
            read_source(wrong)


def test_the_public_set_is_read_whole(rsna_breast: Path) -> None:
    manifest = read_source(str(rsna_breast))
    with (rsna_breast / "metadata.csv").open() as stream:
        rows = {row["image_id"]: row for row in csv.DictReader(stream)}
    assert len(manifest) == len(rows) == 2672
    for mammogram in manifest:
        row = rows[str(mammogram.image_id)]
        assert mammogram.patient_id == row["patient_id"]
        assert mammogram.label == int(row["cancer"])
        assert mammogram.laterality == row["laterality"]
        assert mammogram.view == row["view"]
        assert mammogram.metadata["machine_id"] == row["machine_id"]
        assert mammogram.metadata.get("BIRADS", "") == row["BIRADS"]


def left_out(manifest: Manifest) -> dict[str, str]:
    return {one.path.name: one.why for one in manifest.left_out}


def test_each_image_is_in_a_class_folder_or_named(tmp_path: Path) -> None:
    touch(tmp_path, "0/a.png", "1/b.png", "1/more/c.png", "1/more/still/d.png", "x.png")
    touch(tmp_path, "1/e.heic", "0/f.zip", "0/Thumbs.db", "0/._a.png", "__MACOSX/0/a.png", "g.txt")
    touch(tmp_path, "train/loose.png", "empty/readme.md")
    (tmp_path / "1" / "gone.png").symlink_to(tmp_path / "nothing")
    manifest = read_source(str(tmp_path))
    assert [(m.path.name, m.label) for m in manifest] == [*(("a.png", 0), ("b.png", 1), ("c.png", 1), ("d.png", 1))]
    said = left_out(manifest)
    assert set(said) == {"x.png", "e.heic", "f.zip", "loose.png", "gone.png"}
    assert said["x.png"] == said["loose.png"] == "lies in no class folder."
    assert said["f.zip"].startswith("is a ZIP archive. Unpack it")


def test_each_image_is_in_a_class_folder_of_a_split_or_named(tmp_path: Path) -> None:
    touch(tmp_path, "Training/Benign/a.png", "Training/Malignant/b.png", "TESTING/benign/c.png")
    touch(tmp_path, "val/malignant/d.png", "Training/loose.png", "0/e.png", "f.png", "Training/t.md")
    manifest = read_source(str(tmp_path))
    assert [(m.path.name, m.split, m.label) for m in manifest] == [
        ("c.png", Split.TEST, 0),
        ("a.png", Split.TRAIN, 0),
        ("b.png", Split.TRAIN, 1),
        ("d.png", Split.VALID, 1),
    ]
    assert set(left_out(manifest)) == {"loose.png", "e.png", "f.png"}


def test_dicom_without_a_suffix_is_read_in_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "0/notes", "1/notes")
    for name in ("0/IM1", "1/1.2.840.5"):
        save(tmp_path / name, dicom_of(gradient(12), bits=12))
    assert [(m.path.name, m.label) for m in read_source(str(tmp_path))] == [*(("IM1", 0), ("1.2.840.5", 1))]


def test_names_that_are_no_text_are_named_and_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "0/a.png", "1/b.png")
    (tmp_path / "1" / os.fsdecode(b"\xff.png")).touch()
    manifest = read_source(str(tmp_path))
    assert left_out(manifest) == {"\\udcff.png": "its name is no UTF-8. Rename it."}
    manifest.save(tmp_path / "data.csv")


def test_a_class_folder_that_may_not_be_read_is_named(locked: Path) -> None:
    touch(locked, "0/a.png", "1/b.png", "1/more/c.png")
    (locked / "1" / "more").chmod(0)
    manifest = read_source(str(locked))
    assert len(manifest) == 2
    assert left_out(manifest) == {"more": "this folder cannot be looked into (Permission denied)."}
    locked.chmod(0)
    with pytest.raises(DataError, match="cannot be looked into"):
        read_source(str(locked))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["empty/"], "its class folders hold no images: nothing is in it"),
        ([], "no class folders: nothing is in it. Expected train/, valid/, test/"),
        (["a.png"], r"no class folders with images; .*a\.png: lies in no class folder"),
        (["0/a.heic", "1/b.heic"], "no class folders with images; 2 files were left out, such as"),
        (["set/a.png"], "which of the classes set means tumor"),
        (
            ["set/train/0/a.png", "set/train/1/b.png"],
            "name the folder that holds the class folders",
        ),
        (["benign/a.png", "malignant/b.png", "normal/c.png"], "--positive 'malignant'"),
    ],
)
def test_what_is_there_instead_of_class_folders_is_said(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            touch(tmp_path, name)
    with pytest.raises(DataError, match=said):
        read_source(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "is an image; a data set is a folder of class folders"),
        ("a.zip", b"PK\x03\x04", "is a ZIP archive; a folder or a CSV table was expected"),
        ("a.rar", b"Rar!\x1a\x07", "is a RAR archive; a CSV table was expected"),
    ],
)
def test_a_file_that_is_no_table_is_called_by_its_name(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_source(str(tmp_path / name))


def test_tables_of_other_systems_and_programs_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "set/0/a.png", "set/1/b.png", "set/1/c.png")
    text = "Path;Label;Split;site\nset\\0\\a.png;Normal;Training;x\nset\\1\\b.png;Cancer;val;y\n"
    (tmp_path / "data.csv").write_text(text + "set/1/c.png;nan;;\n;;;\n", encoding="utf-16")
    manifest = read_source(str(tmp_path / "data.csv"))
    assert [(m.path, m.label, m.split) for m in manifest] == [
        (tmp_path / "set" / "0" / "a.png", 0, Split.TRAIN),
        (tmp_path / "set" / "1" / "b.png", 1, Split.VALID),
        (tmp_path / "set" / "1" / "c.png", None, None),
    ]


def test_the_cases_that_were_left_out_in_silence(cases: Path) -> None:
    folder = cases / "left_out_in_silence"
    assert [m.path.name for m in read_source(str(folder / "sub"))] == ["a.png", "b.png", "c.png"]
    assert len(read_source(str(folder / "nosuffix"))) == 2
