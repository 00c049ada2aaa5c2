from pathlib import Path

import pytest

from mammolens.data.meanings import label_named, labels_by_name, plain, split_named
from mammolens.errors import DataError
from mammolens.records import Split

HERE = Path("set")


@pytest.mark.parametrize(
    ("none", "tumor"),
    [
        *(("0", "1"), ("benign", "malignant"), ("Normal", "Cancer"), ("negative", "positive")),
        *(("no tumor", "tumor"), ("No_Tumour", "Tumour"), ("non-cancer", "cancer")),
        *(("NonCancer", "CANCER"), ("normal", "abnormal"), ("healthy", "malignant")),
        *(("Benign Masses", "Malignant Masses"), ("benign cases", "malignant_cases")),
        *(("0.0", "1.0"), ("no", "yes"), ("FALSE", "TRUE"), ("neg", "pos")),
        *(("benign tumor", "malignant tumor"), ("control", "Carcinoma"), ("benign", "cancer")),
        *(("without-cancer", "cancer"), ("Not cancerous", "cancerous"), ("0", "malignant")),
    ],
)
def test_which_class_means_tumor_is_plain(none: str, tumor: str) -> None:
    assert labels_by_name({none, tumor}, None, HERE) == {none: 0, tumor: 1}
    assert labels_by_name({tumor}, None, HERE) == {tumor: 1}
    assert labels_by_name({none}, None, HERE) == {none: 0}


@pytest.mark.parametrize(
    "names",
    [
        {"cat", "dog"},
        {"benign", "normal"},
        {"cancer", "malignant"},
        {"2"},
        {"masks", "cancer"},
        {"not normal", "normal"},
    ],
)
def test_what_is_not_plain_is_asked(names: set[str]) -> None:
    with pytest.raises(DataError, match=r"which of the classes .* means tumor.*--positive NAME"):
        labels_by_name(names, None, HERE)


def test_the_same_class_in_two_spellings_is_one() -> None:
    names = {"Benign", "benign", "malignant", "Malignant "}
    assert labels_by_name(names, None, HERE) == {name: int(name.strip().lower() == "malignant") for name in names}


def test_three_classes_are_two_where_all_others_plainly_mean_no_tumor() -> None:
    three = {"benign", "malignant", "normal"}
    with pytest.raises(DataError, match=r"found 3: .*To take all but malignant .*--positive 'mal"):
        labels_by_name(three, None, HERE)
    merged = {"benign": 0, "malignant": 1, "normal": 0}
    assert labels_by_name(three, "malignant", HERE) == merged
    assert labels_by_name(three, "Malignant", HERE) == merged
    with pytest.raises(DataError, match="of 'masks' that is not plain"):
        labels_by_name({"benign", "malignant", "masks"}, "malignant", HERE)
    with pytest.raises(DataError, match="of 'malignant' that is not plain"):
        labels_by_name(three, "benign", HERE)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train", Split.TRAIN), ("Training", Split.TRAIN), ("train_set", Split.TRAIN)),
        *(("val", Split.VALID), ("VALIDATION", Split.VALID), ("valid", Split.VALID)),
        *(("testing", Split.TEST), ("Test-Data", Split.TEST), ("test images", Split.TEST)),
        *(("holdout", None), ("trains", None), ("data", None), ("0", None)),
    ],
)
def test_splits_have_many_names(name: str, split: Split | None) -> None:
    assert split_named(name) is split


@pytest.mark.parametrize("name", ["", "?", "images", "unknown", "-", "ü", "1e400", "0_1"])
def test_any_name_has_a_plain_form_and_few_have_a_meaning(name: str) -> None:
    assert isinstance(plain(name), str)
    assert label_named(name) is None
