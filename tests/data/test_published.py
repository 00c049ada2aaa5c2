import csv
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.errors import DataError
from mammolens.records import Box, Laterality, Mammogram, Split, View

L, R = Laterality.LEFT, Laterality.RIGHT
OFFICIAL_HEADER = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,"
    "mass shape,mass margins,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path\r\n"
)
LABELS = "path,split,patient_id,laterality,view,malignant,pathologies,assessments,density,boxes_xywh_800\n"
RSNA_HEADER = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,"
    "density,machine_id,difficult_negative_case\n"
)
INBREAST_HEADER = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads\n"


def images(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".dcm", ".dicom"):
            path.touch()
        else:
            Image.new("L", (16, 16)).save(path)


def by_id(manifest: Manifest) -> dict[str | None, Mammogram]:
    return {mammogram.image_id: mammogram for mammogram in manifest}


def where_and_what(mammogram: Mammogram) -> tuple[object, ...]:
    return mammogram.label, mammogram.patient_id, mammogram.laterality, mammogram.view


def official_row(case: str, pathology: str, *, lesion: int = 1, assessment: int = 4) -> str:
    kind, _, rest = case.partition("_")
    *patient, side, view = rest.split("_")
    what = "mass" if kind.startswith("Mass") else "calcification"
    return (
        f"{'_'.join(patient)},3,{side},{view},{lesion},{what},OVAL,NA,{assessment},{pathology},5,"
        f"{case}/1.3.6.{case}/1.3.7.{case}/000000.dcm,"
        f'{case}_{lesion}/1.4/1.5/000000.dcm,"{case}_{lesion}/1.4/1.5/000001.dcm\n"\r\n'
    )


def test_cbis_ddsm_as_published(tmp_path: Path) -> None:
    two, benign, twice, absent = (
        "Mass-Training_P_00001_LEFT_CC",
        "Mass-Training_P_00002_RIGHT_MLO",
        "Mass-Training_P_00003_LEFT_MLO",
        "Mass-Training_P_00004_LEFT_CC",
    )
    (tmp_path / "mass_case_description_train_set.csv").write_text(
        OFFICIAL_HEADER
        + official_row(two, "BENIGN", assessment=3)
        + official_row(two, "MALIGNANT", lesion=2, assessment=5)
        + official_row(benign, "BENIGN_WITHOUT_CALLBACK")
        + official_row(twice, "BENIGN")
        + official_row(absent, "MALIGNANT"),
        newline="",
    )
    (tmp_path / "calc_case_description_test_set.csv").write_text(
        OFFICIAL_HEADER.replace("breast_density", "breast density")
        + official_row("Calc-Test_P_00003_LEFT_MLO", "MALIGNANT")
        + official_row("Calc-Test_P_00005_RIGHT_CC", ""),
        newline="",
    )
    images(
        tmp_path,
        *(f"png/{two}{rest}.png" for rest in ("_FULL", "_1", "_2_mask")),
        f"crops/{two}.png",
        f"{benign}/1.3.6.{benign}/1.3.7.{benign}/000000.dcm",
        f"{benign}_1/1.4/1.5/000000.dcm",
        f"jpeg/1.3.7.{twice}/1-249.jpg",
        "Calc-Test_P_00003_LEFT_MLO.jpg",
        "Calc-Test_P_00005_RIGHT_CC.jpg",
    )
    found = by_id(manifest := read_source(str(tmp_path)))
    assert len(manifest) == 5
    assert where_and_what(found[two]) == (1, "P_00001", L, View.CC)
    assert found[two].path.name == f"{two}_FULL.png"
    assert found[two].metadata == {
        "pathology": "BENIGN|MALIGNANT",
        "BIRADS": "3|5",
        "density": "3",
        "abnormality": "mass",
    }
    assert where_and_what(found[benign]) == (0, "P_00002", R, View.MLO)
    assert found[benign].path.suffix == ".dcm"
    assert found[twice].label == 1, "the other table calls the same film malignant"
    assert found[twice].metadata["abnormality"] == "calcification|mass"
    assert found["Calc-Test_P_00005_RIGHT_CC"].label is None
    assert {m.split for m in manifest if "Test" in str(m.image_id)} == {Split.TEST}
    assert {m.split for m in manifest if "Training" in str(m.image_id)} == {Split.TRAIN}


def test_the_prepared_cbis_ddsm_agrees_with_the_official_tables(cbis_ddsm_mass: Path) -> None:
    malignant: defaultdict[str, bool] = defaultdict(bool)
    for table in cbis_ddsm_mass.glob("mass_case_description_*.csv"):
        with table.open(newline="") as stream:
            for row in csv.DictReader(stream):
                side, view = row["left or right breast"], row["image view"]
                malignant[f"{row['patient_id']}_{side}_{view}"] |= row["pathology"] == "MALIGNANT"
    manifest = read_source(str(cbis_ddsm_mass))
    assert len(manifest) == len(malignant) == 1592
    for mammogram in manifest:
        assert mammogram.label == malignant[f"P_{mammogram.path.stem}"]
        assert mammogram.path.parent.name == mammogram.split
        assert mammogram.laterality is not None
        named = f"{mammogram.patient_id}_{mammogram.laterality.name}_{mammogram.view}"
        assert f"P_{mammogram.path.stem}" == named
        assert mammogram.metadata["density"] in "1234"
        assert mammogram.boxes
        for box in mammogram.boxes:
            assert box.x + box.width <= 800
            assert box.y + box.height <= 800
    train, test = manifest.of_split(Split.TRAIN), manifest.of_split(Split.TEST)
    assert (len(train), len(test)) == (1231, 361)
    assert not set(train.patients) & set(test.patients)


def test_mini_mias(tmp_path: Path) -> None:
    (tmp_path / "Info.txt").write_text(
        "INFORMATION: this file lists the films\n\nREFNUM BG CLASS SEVERITY X Y RADIUS\n"
        "mdb001 G CIRC B 535 425 197\nmdb003 D NORM \n"
        "mdb005 F CIRC B 477 133 30\nmdb005 F CIRC B 500 168 26\n"
        "mdb059 F CIRC B *NOTE 3*\nmdb110 D ASYM M 1000 20 51\n"
        "mdb144 F MISC B 233 994 29\nmdb144 F MISC M 313 540 27\n"
        "mdb200 D SPIC\nmdb322 D NORM\n"
    )
    images(tmp_path, *(f"all-mias/mdb{n:03}.pgm" for n in (1, 3, 5, 59, 110, 144, 200)))
    found = by_id(read_source(str(tmp_path)))
    assert "mdb322" not in found
    assert where_and_what(found["mdb001"]) == (0, "mdb001-002", L, View.MLO)
    assert where_and_what(found["mdb110"]) == (1, "mdb109-110", R, View.MLO)
    assert found["mdb001"].boxes == (Box(x=338, y=402, width=394, height=394),)
    assert found["mdb110"].boxes == (Box(x=949, y=953, width=75, height=71),)
    assert [box.y for box in found["mdb005"].boxes] == [1024 - 133 - 30, 1024 - 168 - 26]
    assert found["mdb003"].metadata == {"tissue": "D", "abnormality": "NORM"}
    assert found["mdb144"].label == 1
    assert found["mdb144"].metadata["severity"] == "B|M"
    assert (found["mdb003"].label, found["mdb059"].label, found["mdb200"].label) == (0, 0, None)
    assert found["mdb059"].boxes == ()


def test_inbreast(tmp_path: Path) -> None:
    rows = (
        *("R;CC;201001;22678622;4;1", "L;CC;201001;22678646;4;3", "R;MLO;201001;50997461;3;4a"),
        *("R;MLO;201001;53581406;1;6", f"R;MLO;201001;53582540;{' ' * 200};1"),
        *("R;FB;200901;50994300;3;2", ";;200901;20586986;2;", "R;CC;200901;11111111;2;5"),
    )
    table = INBREAST_HEADER + "".join(f"removed;removed;{row}\n" for row in rows)
    (tmp_path / "INbreast.csv").write_text(table)
    images(
        tmp_path,
        "AllDICOMs/22678622_61b13c59bcba149e_MG_R_CC_ANON.dcm",
        "AllDICOMs/22678646_61b13c59bcba149e_MG_L_CC_ANON.dcm",
        "AllDICOMs/50997461_c3606c66ae3fdbf7_MG_R_ML_ANON.png",
        *("png/53581406.png", "png/53582540_0b2c_MG_R_ML_ANON.jpg"),
        *("png/50994300_a1_MG_R_FB_ANON.tif", "png/20586986_6c613a14b80a8591_MG_L_ML_ANON.png"),
        "masks/53581406_0b2c_MG_R_ML_ANON.mask.png",
    )
    found = by_id(read_source(str(tmp_path)))
    assert "11111111" not in found
    assert where_and_what(found["22678622"]) == (0, "61b13c59bcba149e", R, View.CC)
    assert where_and_what(found["50997461"]) == (1, "c3606c66ae3fdbf7", R, View.MLO)
    assert where_and_what(found["20586986"]) == (None, "6c613a14b80a8591", L, View.MLO)
    assert found["22678646"].label is None
    assert where_and_what(found["53581406"]) == (1, None, R, View.MLO)
    assert found["53582540"].metadata == {"BIRADS": "1", "acquisition_date": "201001"}
    assert found["50994300"].view is None
    assert found["50994300"].metadata["view"] == "FB"
    assert found["50997461"].metadata["density"] == "3"


@pytest.mark.parametrize(
    "names",
    [
        ("train_images/10006/462822612.dcm", "train_images/99/1459541791.png"),
        ("train_images/10006_462822612.png", "train_images/99_1459541791.png"),
        ("10006_462822612.jpg", "99_1459541791.png"),
    ],
)
def test_rsna(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "train.csv").write_text(
        RSNA_HEADER + "2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False\n"
        "1,99,1459541791,R,LMO,55,1,1,1,0.0,1,B,49,True\n1,99,7,R,CC,55,1,1,1,,,,49,False\n"
    )
    images(tmp_path, *names)
    first, second = read_source(str(tmp_path))
    assert [first.path, second.path] == [tmp_path / name for name in names]
    assert where_and_what(first) == (0, "10006", L, View.CC)
    assert where_and_what(second) == (1, "99", R, View.LMO)
    known = {"site_id": "2", "age": "61", "biopsy": "0", "invasive": "0", "implant": "0"}
    assert first.metadata == known | {"machine_id": "29", "difficult_negative_case": "False"}
    assert (second.metadata["BIRADS"], second.metadata["density"]) == ("0", "B")
    assert first.split is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("labels.csv", "path,malignant\na.jpg,1\n", "column split and patient_id and laterality"),
        ("labels.csv", LABELS + 'a.jpg,train,P_1,LEFT,CC,1,,4,3,"[[1, 2]]"\n', "width, height"),
        ("labels.csv", LABELS + "a.jpg,train,P_1,LEFT,CC,2,,4,3,\n", "a.jpg: label is wrong"),
        ("labels.csv", LABELS + "b.jpg,train,P_1,LEFT,CC,1,,4,3,\n", "none of the 1 images"),
        ("mass_case_description_test_set.csv", "image file path\nx/y.dcm\n", "column patient id"),
        ("Info.txt", "mdb001 Q CIRC\n", "line 1: 'mdb001 Q CIRC' is not of the form"),
        ("Info.txt", "nothing here\n", "lists no films"),
        ("Info.txt", "mdb002 G NORM\n", "none of the 1 images it describes is there"),
        ("INbreast.csv", "File Name,View\n1,CC\n", "column Laterality and ACR and Bi-Rads"),
        ("INbreast.csv", INBREAST_HEADER + ";;R;CC;;5;1;1\n", "none of the 1 .*MG_R_CC_ANON"),
        ("train.csv", "image_id,cancer\n1,1\n", "column patient_id and laterality and view"),
        ("train.csv", RSNA_HEADER + "2,1,2,L,CC,,0,,,,,,,\n", "train_images/<patient_id>"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    images(tmp_path, "a.jpg", "mdb001.pgm", "notes.gif")
    with pytest.raises(DataError, match=said) as caught:
        read_source(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("mass_case_description_test_set.csv", ""),
        ("INbreast.csv", ""),
        ("train.csv", "patient_id,cancer"),
        ("breast-level_annotations.csv", ""),
    ],
)
def test_data_sets_that_define_their_classes(tmp_path: Path, name: str, header: str) -> None:
    (tmp_path / name).write_text(header)
    with pytest.raises(DataError, match="leave out --positive 1"):
        read_source(str(tmp_path), positive="1")
    with pytest.raises(DataError, match=str(tmp_path)):
        read_source(str(tmp_path))


def test_phantoms_define_their_classes() -> None:
    with pytest.raises(DataError, match="leave out --positive 0"):
        read_source("phantom:9", positive="0")


def test_tables_of_other_data_sets_are_no_tell_tales(tmp_path: Path) -> None:
    images(tmp_path, "train/0/a.png", "train/1/b.png")
    for name in ("labels.csv", "train.csv", "Info.txt"):
        (tmp_path / name).write_text("file,class\na.png,0\n")
    assert [m.label for m in read_source(str(tmp_path))] == [0, 1]
