import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from mammolens.data.sources import read_source
from mammolens.errors import DataError
from mammolens.records import Box, Laterality, View

PREPARED = "path,patient_id,laterality,view,malignant,birads,density,age,findings,boxes_xywh_512\n"
PUBLISHED = (
    "Image_name,Patient_ID,Side,Type,Age,Breast density (ACR),BIRADS,Findings,View,Tags,Machine,"
    "Pathology Classification/ Follow up\n"
)


def images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16)).save(root / name)


def write_prepared(root: Path) -> None:
    boxes = [[0, 0, 512, 41], [0, 0, 512, 40], [10, 20, 12, 13], [10, 20, 12, 14]]
    (root / "labels.csv").write_text(
        PREPARED + f'P1_R_DM_CC.jpg,CESM_P1,R,CC,1,5$2,B,67,High density mass$Vascular calcifications,"{boxes}"\n'
        'P1_R_DM_MLO.jpg,CESM_P1,R,MLO,1,4,,67,Distortion,"[[0, 0, 500, 500]]"\n'
        "P2_L_DM_CC.jpg,CESM_P2,L,CC,0,,C,,,\n"
        "P3_L_DM_CC.jpg,CESM_P3,L,CC,1,4,C,50,Mass,[]\n"
    )
    images(root, "P1_R_DM_CC.jpg", "P1_R_DM_MLO.jpg", "P2_L_DM_CC.jpg")


def test_the_prepared_table(tmp_path: Path) -> None:
    write_prepared(tmp_path)
    manifest = read_source(str(tmp_path))
    first, second, third = manifest
    assert (first.label, first.patient_id, first.laterality, first.view) == (1, "CESM_P1", Laterality.RIGHT, View.CC)
    assert first.metadata == {
        "BIRADS": "5|2",
        "density": "B",
        "age": "67",
        "findings": "High density mass|Vascular calcifications",
    }
    assert first.boxes == (Box(x=0, y=0, width=512, height=40), Box(x=10, y=20, width=12, height=14))
    assert (second.label, second.boxes) == (1, ()), "what is left of its box does not change the label"
    assert (third.label, third.boxes, third.metadata) == (0, (), {"density": "C"})
    assert {mammogram.split for mammogram in manifest} == {None}
    assert [one.path.name for one in manifest.left_out] == ["P3_L_DM_CC"]
    assert len(read_source(str(tmp_path / "labels.csv"), files=False)) == 4


@pytest.mark.parametrize("column", PREPARED.strip().split(","))
def test_a_column_that_is_missing_is_missed_in_the_right_data_set(tmp_path: Path, column: str) -> None:
    write_prepared(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace(column, "else", 1))
    with pytest.raises(DataError, match=rf"column {column} missing; .* Use the table of CDD-CESM as it was published"):
        read_source(str(tmp_path))


def test_tables_of_films_stay_those_of_films(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,malignant\na.jpg,1\n")
    with pytest.raises(DataError, match="Use the table of CBIS-DDSM"):
        read_source(str(tmp_path))


def test_as_published(tmp_path: Path) -> None:
    (tmp_path / "Radiology-manual-annotations.csv").write_text(
        PUBLISHED
        + "P1_L_DM_MLO,1,L,DM,55.0,C,4$2,Mass$IMLN,MLO,,2,Malignant\n"
        + "P1_L_CM_MLO,1,L,CESM,55,_,4,Mass enhancement,MLO,,2,Malignant\n"
        + "P1_R_DM_CC ,1,R,DM,55,_,1,Normal,CC,,2,Normal\n"
        + "P2_L_DM_CC,2,L,DM,,B,2,Cyst,CC,,,Benign\n"
        + "P3_L_DM_CC,3,L,DM,40,B,2,Cyst,CC,,1,\n"
        + "P4_L_DM_CC,4,L,DM,40,B,2,Cyst,CC,,1,Benign\n"
    )
    images(
        tmp_path,
        *(f"Low energy images of CDD-CESM/{name}.jpg" for name in ("P1_L_DM_MLO", "P1_R_DM_CC ", "P2_L_DM_CC")),
        *("P3_L_DM_CC.png", "Subtracted images of CDD-CESM/P1_L_CM_MLO.jpg", "P2_L_DM_CC_mask.png"),
    )
    manifest = read_source(str(tmp_path))
    found = {mammogram.image_id: mammogram for mammogram in manifest}
    assert [(name, one.label, one.patient_id) for name, one in found.items()] == [
        ("P1_L_DM_MLO", 1, "1"),
        ("P1_R_DM_CC", 0, "1"),
        ("P2_L_DM_CC", 0, "2"),
        ("P3_L_DM_CC", None, "3"),
    ]
    assert (found["P1_L_DM_MLO"].laterality, found["P1_L_DM_MLO"].view) == (Laterality.LEFT, View.MLO)
    assert found["P1_L_DM_MLO"].metadata == {
        "BIRADS": "4|2",
        "density": "C",
        "age": "55",
        "findings": "Mass|IMLN",
        "pathology": "Malignant",
        "machine_id": "2",
    }
    assert found["P1_R_DM_CC"].metadata["pathology"] == "Normal"
    assert "density" not in found["P1_R_DM_CC"].metadata
    left_out = {one.path.name for one in manifest.left_out}
    assert left_out == {"P4_L_DM_CC", "P2_L_DM_CC_mask.png"}, "subtracted pictures are none of the set's mammograms"


def test_the_workbook_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    images(tmp_path, "P1_L_DM_MLO.jpg")
    with zipfile.ZipFile(tmp_path / "Radiology-manual-annotations.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(DataError, match=r"annotations.xlsx: is an Excel workbook; .* save it as CSV"):
        read_source(str(tmp_path))
    (tmp_path / "Radiology-manual-annotations.csv").write_text(PUBLISHED)
    with pytest.raises(DataError, match=r"annotations.csv: the table has no rows"):
        read_source(str(tmp_path))
    (tmp_path / "Radiology-manual-annotations.csv").write_text("Image_name\nP1_L_DM_MLO\n")
    with pytest.raises(DataError, match=r"column Patient_ID and .* Use the table of CDD-CESM"):
        read_source(str(tmp_path))


def test_boxes_that_are_none_name_the_image(tmp_path: Path) -> None:
    write_prepared(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace("[[0, 0, 500, 500]]", json.dumps([[1, 2]])))
    with pytest.raises(DataError, match=r"P1_R_DM_MLO.jpg: .*boxes as \[\[x, y, width, height"):
        read_source(str(tmp_path))


def test_the_real_pictures(cesm_lesions: Path) -> None:
    manifest = read_source(str(cesm_lesions))
    assert (len(manifest), len(set(manifest.patients)), manifest.left_out) == (227, 127, ())
    assert {(mammogram.label, mammogram.split) for mammogram in manifest} == {(1, None)}
    with_box = manifest.where(lambda mammogram: bool(mammogram.boxes))
    assert (len(with_box), len(set(with_box.patients))) == (138, 83)
    boxes = [box for mammogram in manifest for box in mammogram.boxes]
    assert len(boxes) == 292
    assert all(box.x + box.width <= 512 and box.y + box.height <= 512 for box in boxes)
    for mammogram in manifest:
        assert mammogram.laterality is not None
        name = f"{str(mammogram.patient_id).removeprefix('CESM_')}_{mammogram.laterality}_DM_{mammogram.view}"
        assert mammogram.path.stem == mammogram.image_id == name
        assert {"BIRADS", "age", "findings"} <= mammogram.metadata.keys()
        assert "$" not in "".join(mammogram.metadata.values())
