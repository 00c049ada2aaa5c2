from pathlib import Path

import numpy as np
import pytest

from mammolens.data.manifest import Manifest
from mammolens.data.meanings import labels_by_name
from mammolens.errors import DataError
from mammolens.records import Box, Laterality, Mammogram, Split, View


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "a.png").touch()
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set" / "a.png", tmp_path / "b.png"
    inside.parent.mkdir()
    inside.touch()
    outside.touch()
    manifest = Manifest(
        (
            Mammogram(
                path=inside,
                label=1,
                split=Split.TRAIN,
                patient_id="12",
                image_id="7",
                laterality=Laterality.LEFT,
                view=View.MLO,
                boxes=(Box(x=1.5, y=2, width=3, height=4), Box(x=0, y=0, width=9, height=9)),
                metadata={"age": "61", "site": "Örebro, 1"},
            ),
            Mammogram(path=outside, metadata={"machine": "49"}),
        )
    )
    manifest.save(tmp_path / "set" / "data.csv")
    assert Manifest.load(tmp_path / "set" / "data.csv") == manifest


def test_paths_inside_the_folder_are_written_relative_so_that_the_set_can_move(
    tmp_path: Path,
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.png").touch()
    Manifest((Mammogram(path=tmp_path / "old" / "a.png", label=0),)).save(tmp_path / "old" / "data.csv")
    (tmp_path / "old").rename(tmp_path / "new")
    assert Manifest.load(tmp_path / "new" / "data.csv").paths == [tmp_path / "new" / "a.png"]


def test_unknown_stays_unknown(tmp_path: Path) -> None:
    manifest = Manifest.load(table(tmp_path, "path,label,view,laterality\na.png,,XCCL,\n"))
    mammogram = manifest.mammograms[0]
    assert mammogram.label is None
    assert mammogram.view is None
    assert mammogram.laterality is None
    assert mammogram.metadata == {"view": "XCCL"}
    assert np.isnan(manifest.labels[0])
    assert len(manifest.labelled()) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,class\na.png,1\n", "column label missing; found path, class"),
        ("path,label\n", "no rows"),
        ("", "no rows"),
        ("path,label\na.png,2\n", "which of the classes 2 means tumor"),
        ("path,label\na.png,0\na.png,1\n", "stands twice"),
        ("path,label\na.png,0\nx/../a.png,1\n", "stands twice"),
        ("path,Path,label\na.png,b.png,0\n", "columns path and Path differ in case alone"),
        ("path,label\nmissing.png,0\n", "none of its 1 files exist"),
        ("path,label,split\na.png,0,holdout\n", "row 2: 'holdout' is not a valid Split"),
        ('path,label,boxes\na.png,1,"[[1,2,3]]"\n', r"row 2.*boxes as \[\[x, y, width, height\]"),
        ('path,label,boxes\na.png,1,"[[1,2,0,4]]"\n', "row 2: boxes.0.width is wrong"),
        ("path,label\na.png,1,extra\n", "row 2: has more cells"),
    ],
)
def test_a_bad_table_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError, match=said) as caught:
        Manifest.load(path)
    assert str(tmp_path) in str(caught.value)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataError, match="UTF-8 CSV"):
        Manifest.load(tmp_path / "data.csv")


def test_a_patient_key_is_the_patient_or_the_image() -> None:
    known, unknown = Mammogram(path=Path("a"), patient_id="7"), Mammogram(path=Path("b"))
    assert (known.patient_key, unknown.patient_key) == ("7", "image b")


def test_classes_are_mapped_by_name() -> None:
    here = Path("set")
    assert labels_by_name({"0", "1"}, None, here) == {"0": 0, "1": 1}
    assert labels_by_name({"benign", "malignant"}, "malignant", here) == {
        "benign": 0,
        "malignant": 1,
    }
    assert labels_by_name({"0", "1"}, "0", here) == {"0": 1, "1": 0}
    with pytest.raises(DataError, match="--positive NAME"):
        labels_by_name({"cat", "dog"}, None, here)
    with pytest.raises(DataError, match="no class is named 'cancer'; found benign, malignant"):
        labels_by_name({"benign", "malignant"}, "cancer", here)
    with pytest.raises(DataError, match="expected two classes, found 3: a, b, c"):
        labels_by_name({"a", "b", "c"}, None, here)


@pytest.mark.parametrize("unknown", ["nan", "NA", "?", "Unknown"])
def test_what_people_write_where_nothing_is_known_is_unknown(tmp_path: Path, unknown: str) -> None:
    header = ",path,label,split,patient_id,image_id,laterality,view,boxes,density"
    rows = f"0,a.png{7 * (',' + unknown)},{unknown}\n"
    (mammogram,) = Manifest.load(table(tmp_path, f"{header}\n{rows}"))
    assert mammogram == Mammogram(path=mammogram.path, metadata={"density": unknown})
