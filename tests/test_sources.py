import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammolens.errors import DataError
from mammolens.records import Laterality, Split, View
from mammolens.sources import read_source
from mammolens.sources.phantom import write_phantoms


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
        "patient_id,image_id,laterality,view,age,BIRADS,boxes\n"
        '10130,388811999,L,MLO,57,,"[[1, 2, 3, 4]]"\n'
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
def test_folders_that_are_no_data_set_are_refused(
    tmp_path: Path, files: list[str], said: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=said) as caught:
        read_source(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        read_source(str(tmp_path / "missing"))
    with pytest.raises(DataError, match="no source is called 'dicom'"):
        read_source(str(tmp_path), source="dicom")


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
        {
            path.relative_to(tmp_path / name): np.asarray(Image.open(path))
            for path in (tmp_path / name).rglob("*.jpg")
        }
        for name in ("first", "second", "third")
    )
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first.keys() != third.keys() or any(
        not np.array_equal(first[name], third[name]) for name in first
    )


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
