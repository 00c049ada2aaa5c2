from pathlib import Path

import pytest
from PIL import Image

from mammolens.data.sources import read_source
from mammolens.errors import DataError
from mammolens.records import Box, Laterality, View

HEADER = "study_id,series_id,laterality,view_position,height,width,image_id,breast_birads,breast_density,split\n"


def write_set(root: Path, *, corner: str = "2355.1") -> None:
    row = "{0},s,{1},{2},3518,2800,{3},BI-RADS {4},DENSITY C,{5}\n".format
    (root / "breast-level_annotations.csv").write_text(
        HEADER
        + row("study1", "L", "CC", "aa", 4, "training")
        + row("study1", "R", "MLO", "bb", 3, "training")
        + row("study2", "R", "CC", "cc", 2, "test")
    )
    finding = "study1,s,L,CC,3518,2800,aa,BI-RADS 4,DENSITY C,training"
    (root / "finding_annotations.csv").write_text(
        HEADER.strip() + ",finding_categories,finding_birads,xmin,ymin,xmax,ymax\n"
        f"{finding},\"['Mass', 'Skin Retraction']\",BI-RADS 4,2000.5,1000,{corner},1200.5\n"
        f"{finding},['Mass'],BI-RADS 3,2700,3500,2900.0,3600\n"
        f"{finding},['Mass'],BI-RADS 3,2800,10,2900,20\n"
        "study2,s,R,CC,3518,2800,cc,BI-RADS 2,DENSITY C,test,['No Finding'],,,,,\n"
    )
    (root / "metadata.csv").write_text(
        "SOP Instance UID,Patient's Age,Manufacturer's Model Name,KVP\naa,053Y,Mammomat Inspiration,28\nbb,000Y,,28\n"
    )
    for study in ("study1", "study2"):
        (root / "images" / study).mkdir(parents=True)
    (root / "images/study1/aa.dicom").touch()
    (root / "images/study1/bb.dicom").touch()
    (root / "images/study2/._cc.jpg").touch()
    for name in ("study1/bb.png", "study2/cc.jpg"):
        Image.new("L", (16, 16)).save(root / "images" / name)


def test_vindr_mammo(tmp_path: Path) -> None:
    write_set(tmp_path)
    found = {m.image_id: m for m in read_source(str(tmp_path))}
    described = [(m.label, m.patient_id, m.laterality, m.view) for m in found.values()]
    assert described == [
        (1, "study1", Laterality.LEFT, View.CC),
        (None, "study1", Laterality.RIGHT, View.MLO),
        (0, "study2", Laterality.RIGHT, View.CC),
    ]
    assert found["bb"].path.name == "bb.png", "what can be looked at goes before DICOM"
    assert [found[name].split for name in ("aa", "bb", "cc")] == ["train", "train", "test"]
    first, clipped = found["aa"].boxes  # the third lies outside the image
    assert (first.x, first.y, first.height) == (2000.5, 1000, 200.5)
    assert clipped == Box(x=2700, y=3500, width=100, height=18)
    assert found["aa"].metadata == {
        "BIRADS": "4",
        "density": "C",
        "findings": "Mass|Skin Retraction",
        "finding_birads": "4|3",
        "age": "53",
        "machine_id": "Mammomat Inspiration",
    }
    assert found["bb"].metadata == {"BIRADS": "3", "density": "C"}
    assert found["cc"].boxes == ()


def test_vindr_mammo_without_boxes_and_tags(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "finding_annotations.csv").unlink()
    (tmp_path / "metadata.csv").unlink()
    assert all(not m.boxes and "age" not in m.metadata for m in read_source(str(tmp_path)))


def test_a_wrong_number_in_a_box_names_the_image(tmp_path: Path) -> None:
    write_set(tmp_path, corner="wide")
    with pytest.raises(DataError, match=r"finding_annotations.csv, image aa: .*'wide'.*in pixels"):
        read_source(str(tmp_path))


def test_a_split_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    table = tmp_path / "breast-level_annotations.csv"
    table.write_text(table.read_text().replace(",training", ",holdout"))
    with pytest.raises(DataError, match=r"aa.dicom: 'holdout' is not a valid Split"):
        read_source(str(tmp_path))
