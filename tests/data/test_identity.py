"""Whose breast a picture shows and in which view; which pictures are of one examination, and which never are."""

from collections.abc import Hashable
from pathlib import Path

import pytest

from mammolens.data.identity import exam_keys, known_of, side_and_view
from mammolens.data.matching import rows_by_name
from mammolens.errors import DataError
from mammolens.images.image import Header
from mammolens.records import ImageWarning, Laterality, Mammogram, Prediction, View

LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT
STUDY = ("L_CC", "L_MLO", "R_CC", "R_MLO")


@pytest.mark.parametrize(
    ("name", "side", "view"),
    [
        ("L_CC.png", LEFT, View.CC),
        ("P102_R_DM_CC.jpg", RIGHT, View.CC),
        ("P102_L_CM_MLO.jpg", LEFT, View.MLO),
        ("R-MLO", RIGHT, View.MLO),
        ("ann_LEFT_MLO.dcm", LEFT, View.MLO),
        ("LeftMLO.png", LEFT, View.MLO),
        ("case 12 right mlo.jpg", RIGHT, View.MLO),
        ("20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", RIGHT, View.CC),
        ("Mass-Training_P_00001_LEFT_CC/1-1.dcm", LEFT, View.CC),
        ("exam-RMLO-2.tif", RIGHT, View.MLO),
        ("LLM.png", LEFT, View.LM),
        ("RCC", RIGHT, View.CC),
        ("lmlo", LEFT, View.MLO),
        ("CC_L.png", LEFT, View.CC),
        ("l cc.dcm", LEFT, View.CC),
        ("1.2.3.RCC", RIGHT, View.CC),
        ("L.png", None, None),
        ("vitamin-r.png", None, None),
        ("L_Smith_CC.png", None, View.CC),
        ("R_Smith_L_CC.png", LEFT, View.CC),
        ("left.png", LEFT, None),
        ("cc.png", None, View.CC),
        ("left right cc.png", None, View.CC),
        ("L CC MLO.png", LEFT, None),
        ("look at this.png", None, None),
        ("ML/1.png", None, None),
        ("left/CC.png", None, View.CC),
        ("1.2.840.10008.1", None, None),
        ("", None, None),
    ],
)
def test_side_and_view_by_name(name: str, side: Laterality | None, view: View | None) -> None:
    assert side_and_view(name) == (side, view)


def together(*pictures: Prediction) -> list[list[str]]:
    """The names of each examination's pictures."""
    groups: dict[Hashable, list[str]] = {}
    for key, one in zip(exam_keys(pictures), pictures, strict=True):
        groups.setdefault(key, []).append(str(one.path))
    return list(groups.values())


def named(*names: str) -> list[Prediction]:
    return [Prediction(Path(name), 0.5) for name in names]


def headed(name: str, patient: str | None = None, study: str | None = None) -> Prediction:
    return Prediction(Path(name), 0.5, patient_id=patient, study_id=study)


def test_names_that_differ_in_side_and_view_alone_are_one_examination() -> None:
    names = [f"ward/ann_{place}.png" for place in STUDY]
    assert together(*named(*names)) == [names]
    plain = [f"{place}.jpg" for place in ("lcc", "rcc", "rmlo")]
    assert together(*named(*plain)) == [plain]


@pytest.mark.parametrize(
    "names",
    [
        ("ann/L_CC.png", "bea/R_CC.png"),
        ("a.zip/L_CC.png", "b.zip/R_CC.png"),
        ("ann_L_CC.png", "bea_L_MLO.png"),
        ("mädel_L_CC.png", "mödel_R_CC.png"),
        ("a-b_L_CC.png", "a_b_R_CC.png"),
        ("ann_L_CC.png", "Ann_R_CC.png"),
        ("L_Smith_CC.png", "R_Smith_CC.png"),
        ("L_Smith_LCC.png", "R_Smith_RCC.png"),
        ("LEFT_Smith_LCC.png", "RIGHT_Smith_RCC.png"),
        ("1.png", "2.png"),
        ("L.png", "R.png"),
        ("left_right_cc.png", "left_right_mlo.png"),
        ("CC/1.png", "MLO/1.png"),
        ("P_1_LEFT_CC/1-1.dcm", "P_2_LEFT_CC/1-1.dcm"),
        ("P_1_LEFT_CC/1-1.dcm", "P_1_LEFT_MLO/1-1.dcm"),
    ],
)
def test_names_that_may_be_of_two_patients_are_never_joined(names: tuple[str, str]) -> None:
    assert together(*named(*names)) == [[names[0]], [names[1]]]


def test_two_pictures_of_one_name_may_be_of_two_patients() -> None:
    """As where two folders are dropped on a page, which is not told of folders."""
    assert len(together(*named("L_CC.png", "R_CC.png", "L_CC.png", "R_CC.png"))) == 4
    assert together(*named("L_CC.png", "ann_R_CC.png", "L_CC.png", "ann_L_CC.png"))[1] == [
        "ann_R_CC.png",
        "ann_L_CC.png",
    ]


def test_a_study_is_an_examination_wherever_its_files_lie() -> None:
    assert together(headed("a/1", "ann", "1.2"), headed("b/2", "ann", "1.2")) == [["a/1", "b/2"]]
    assert len(together(headed("L_CC", "ann", "1.2"), headed("R_CC", "ann", "1.3"))) == 2
    assert together(headed("a/1", "ann"), headed("b/2", "ann")) == [["a/1", "b/2"]]
    assert len(together(headed("L_CC", "ann"), headed("R_CC", "bea"))) == 2
    assert len(together(headed("L_CC", "ann"), *named("R_CC"))) == 2


def test_an_empty_patient_id_joins_nothing_but_by_the_study() -> None:
    assert together(headed("1", None, "1.2"), headed("2", "ann", "1.2")) == [["1", "2"]]
    assert together(headed("1", None, "1.2"), headed("2", None, "1.2")) == [["1", "2"]]
    assert len(together(headed("1"), headed("2"))) == 2
    shared = [headed("1", "ann", "1.2"), headed("2", "bea", "1.2"), headed("3", None, "1.2"), headed("4", None, "1.2")]
    assert len(together(*shared)) == 4, "a study of two patients is none"
    for nobody in ("ANONYMOUS", "anon001", "0000", "XXX", "n/a"):
        assert known_of(Path("a"), Header(patient_id=nobody)).identity.patient_id is None
    assert known_of(Path("a"), Header(patient_id="0012")).identity.patient_id == "0012"


def test_the_stronger_source_wins_and_contradictions_are_told() -> None:
    header = Header(laterality=RIGHT, view=View.CC, patient_id="ann", study_id="1.2")
    row = Mammogram(path=Path("x"), laterality=LEFT, patient_id="bea", metadata={"study_id": "7"})
    plain = known_of(Path("R_CC.dcm"), header)
    assert (plain.warnings, plain.by_name) == ((), False)
    by_name = known_of(Path("R_CC.dcm"), Header())
    assert (by_name.identity.laterality, by_name.identity.view, by_name.by_name) == (RIGHT, View.CC, True)
    against = known_of(Path("L_MLO.dcm"), header)
    assert (against.identity.laterality, against.identity.view) == (RIGHT, View.CC)
    assert against.warnings == (
        "the DICOM header and the file's name differ in the side: the DICOM header is taken",
        "the DICOM header and the file's name differ in the view: the DICOM header is taken",
    )
    listed = known_of(Path("R_CC.dcm"), header, row)
    assert vars(listed.identity) == {"laterality": LEFT, "view": View.CC, "patient_id": "bea", "study_id": "7"}
    assert [str(one).split(" in ")[1] for one in listed.warnings] == [
        f"the {what}: the table is taken" for what in ("side", "patient", "study")
    ]
    assert {one.kind for one in listed.warnings} == {ImageWarning.CONTRADICTION}


def table(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_a_table_needs_no_labels_and_is_matched_by_path_name_or_id(tmp_path: Path) -> None:
    names = [tmp_path / "in" / f"{one}.png" for one in "abc"]
    data = table(tmp_path / "t.csv", "Path,Study_ID,laterality,view", "in/a.png,7,LEFT,mlo", "b.png,7,R,CC")
    rows = rows_by_name(data, names)
    assert list(rows) == names[:2]
    assert (rows[names[0]].laterality, rows[names[0]].view) == (LEFT, View.MLO)
    assert rows[names[0]].metadata == {"study_id": "7"}
    by_id = table(tmp_path / "ids.csv", "image_id,patient_id", "c,ann")
    assert rows_by_name(by_id, names)[names[2]].patient_id == "ann"
    elsewhere = table(tmp_path / "far.csv", "path,patient_id", r"D:\films\in\c.png,ann")
    assert list(rows_by_name(elsewhere, names)) == names[2:]
    with pytest.raises(DataError, match="none of its 1 rows is of an image of those to answer for"):
        rows_by_name(table(tmp_path / "none.csv", "path,view", "x.png,CC"), names)
    with pytest.raises(DataError, match=r"column path missing; found view\. A table needs at least path"):
        rows_by_name(table(tmp_path / "bare.csv", "view", "CC"), names)


def test_one_folder_of_a_table_never_stands_for_two(tmp_path: Path) -> None:
    """Or the pictures of two patients would be of one."""
    names = [tmp_path / "ann" / "L_CC.png", tmp_path / "bea" / "R_CC.png"]
    data = table(tmp_path / "t.csv", "path,patient_id", "/films/1/L_CC.png,1", "/films/1/R_CC.png,1")
    with pytest.raises(DataError, match=r"its folder films/1 may be any of 2: .*ann, .*bea. Name images"):
        rows_by_name(data, names)
    assert len(rows_by_name(data, [names[0], tmp_path / "ann" / "R_CC.png"])) == 2


@pytest.mark.parametrize("far", ["", "/films/", "D:\\films\\"])
def test_rows_of_others_with_equal_names_are_theirs(tmp_path: Path, far: str) -> None:
    """A table of a hospital, and pictures of a few of its patients, one of whom it does not know."""
    lines = (f"{far}{patient}/{place}.png,{patient}" for patient in ("bea", "cat", "dot") for place in STUDY)
    data = table(tmp_path / "t.csv", "path,patient_id", *lines)
    names = [tmp_path / "in" / patient / f"{place}.png" for patient in ("ann", "bea", "cat") for place in STUDY]
    rows = rows_by_name(data, [one for one in names if one != tmp_path / "in" / "bea" / "L_CC.png"])
    assert [rows[one].patient_id if one in rows else None for one in names] == [
        *[None] * 5,
        *["bea"] * 3,
        *["cat"] * 4,
    ]
