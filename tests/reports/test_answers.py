import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mammolens.errors import DataError
from mammolens.levels import ServedLevel
from mammolens.records import ImageWarning, Laterality, Prediction, Reason, View
from mammolens.reports.answers import (
    BREASTS,
    COLUMNS,
    VIEWS,
    Predictions,
    columns_of,
    write_answers,
    written,
)

FORMATS = (".csv", ".json", ".parquet")

FULL = Prediction(
    path=Path("bäckerei/乳房.png"),
    probability=0.123456,
    decision="no tumor",
    threshold=0.5,
    operating_point="balanced",
    uncertain=True,
    reason=Reason.BOTH,
    level=ServedLevel.BREAST,
    laterality=Laterality.LEFT,
    view=View.MLO,
    patient_id="0007",
    study_id="1.2.3",
    warnings=(ImageWarning.INVERTED, ImageWarning.POLARITY),
)
BARE = Prediction(Path("b.png"), 0.75, "tumor", 0.5)
FAILED = Prediction.failure(Path("c, d.png"), 'cut short\nat byte "9"', 0.5)
ANSWERS = [FULL, BARE, FAILED]


def read(path: Path) -> pd.DataFrame:
    """The file as someone opens it with pandas; text stays text."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    texts: dict[str, Any] = dict.fromkeys(COLUMNS, str)
    texts |= {"probability": float, "threshold": float, "uncertain": bool}
    if path.suffix == ".json":
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")), columns=list(COLUMNS))
    return pd.read_csv(path, dtype=texts)


@pytest.mark.parametrize("suffix", [*FORMATS, ".CSV"])
def test_every_format_holds_the_same_rows(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"answers{suffix}"
    write_answers(ANSWERS, out)
    assert list(tmp_path.iterdir()) == [out]
    table = read(out)
    assert list(table.columns) == list(COLUMNS)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    assert rows[0] == {
        "path": "bäckerei/乳房.png",
        "level": "breast",
        "probability": 0.123456,
        "decision": "no tumor",
        "operating_point": "balanced",
        "threshold": 0.5,
        "uncertain": True,
        "reason": "both classes are possible",
        "laterality": "L",
        "view": "MLO",
        "patient_id": "0007",
        "study_id": "1.2.3",
        "warnings": "grey levels were inverted: corrected; polarity is uncertain",
        "error": None,
    }
    assert (rows[1]["probability"], rows[1]["decision"]) == (0.75, "tumor")
    assert (rows[1]["warnings"], rows[1]["reason"]) == (None, None)
    assert (rows[2]["probability"], rows[2]["decision"]) == (None, None)
    assert (rows[2]["path"], rows[2]["error"]) == ("c, d.png", 'cut short\nat byte "9"')
    assert len(rows) == 3


@pytest.mark.parametrize("suffix", FORMATS)
def test_age_and_the_second_answer_are_there_where_they_are_asked_for(tmp_path: Path, suffix: str) -> None:
    answers = Predictions([replace(FULL, age=63, probability_with_age=0.25), BARE], with_age=True)
    answers.save(tmp_path / f"answers{suffix}")
    formats: dict[str, Any] = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}
    read = formats[suffix]
    for table in (read(tmp_path / f"answers{suffix}"), answers.to_frame(), answers[:].to_frame()):
        assert list(table.columns) == [*COLUMNS, "age", "probability_with_age"]
        assert table["age"].dropna().tolist() == [63]
        assert table["probability_with_age"].dropna().tolist() == [0.25]
    Predictions(answers).save(tmp_path / f"plain{suffix}")
    assert list(read(tmp_path / f"plain{suffix}").columns) == list(COLUMNS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_answers_are_an_empty_table(tmp_path: Path, suffix: str) -> None:
    write_answers([], tmp_path / f"answers{suffix}")
    table = read(tmp_path / f"answers{suffix}")
    assert (list(table.columns), len(table)) == (list(COLUMNS), 0)


def test_many_answers_are_all_there(tmp_path: Path) -> None:
    """More than fit into one chunk of Parquet, and one that fills it exactly."""
    for count in (1000, 2345):
        many = [Prediction(Path(f"{index}.png"), 0.5) for index in range(count)]
        write_answers(many, tmp_path / "answers.parquet")
        paths = list(read(tmp_path / "answers.parquet")["path"])
        assert paths == [f"{index}.png" for index in range(count)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_answers_pass_through_while_they_are_written(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"answers{suffix}"
    stream = written(iter(ANSWERS), out)
    assert next(stream) is FULL
    assert not out.exists(), "not before it is whole"
    assert list(stream) == [BARE, FAILED]
    assert out.exists()


def failing() -> Iterator[Prediction]:
    yield FULL
    raise RuntimeError("the power went")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_stream_that_breaks_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"answers{suffix}"
    out.write_text("of last week")
    with pytest.raises(RuntimeError, match="the power went"):
        write_answers(failing(), out)
    half_read = written(iter(ANSWERS), out)
    next(half_read)
    half_read.close()  # type: ignore[attr-defined]
    assert out.read_text() == "of last week"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["answers.xlsx", "answers", "answers.csv.gz"])
def test_an_unknown_ending_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"expected a name ending in \.csv, \.json, \.parquet"):
        next(written(failing(), tmp_path / name))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/answers\.csv: cannot be written here"):
        write_answers(ANSWERS, tmp_path / "file" / "answers.csv")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_name_that_is_no_text_is_still_a_row(tmp_path: Path, suffix: str) -> None:
    """Latin-1 names lie about on old disks; Python carries their bytes as lone surrogates."""
    old = Path(os.fsdecode(b"m\xe4dchen.png"))
    out = tmp_path / f"answers{suffix}"
    write_answers([Prediction.failure(old, f"{old}: empty", 0.5)], out)
    assert list(read(out)["path"]) == [r"m\udce4dchen.png"]


def test_csv_has_one_line_a_row_for_whoever_counts(tmp_path: Path) -> None:
    write_answers([FULL, BARE], tmp_path / "answers.csv")
    text = (tmp_path / "answers.csv").read_bytes().decode("utf-8")
    assert text.count("\n") == 3
    assert "\r" not in text
    assert [row[0] for row in csv.reader(text.splitlines())] == ["path", str(FULL.path), "b.png"]


REFUSED = Prediction(
    Path("flower.jpg"),
    None,
    threshold=0.5,
    uncertain=True,
    reason=Reason.NOT_A_MAMMOGRAM,
    admitted=False,
)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_no_mammogram_has_a_reason_and_neither_decision_nor_probability(tmp_path: Path, suffix: str) -> None:
    write_answers([REFUSED, BARE], tmp_path / f"answers{suffix}")
    row = read(tmp_path / f"answers{suffix}").iloc[0]
    assert row["decision"] is None or pd.isna(row["decision"])
    assert pd.isna(row["probability"])
    assert row["reason"] == "does not look like a mammogram"
    assert row["uncertain"]


LEFT = replace(FULL, path=Path("l.png"), laterality=Laterality.LEFT, probability=0.75, decision="tumor", views=(FULL,))
EXAM = replace(
    FULL, level=ServedLevel.EXAM, probability=0.75, views=(FULL, REFUSED), breasts=(LEFT,), laterality=None, view=None
)


@pytest.mark.parametrize("suffix", [*FORMATS, "frame"])
def test_an_examination_has_its_breasts_and_views(tmp_path: Path, suffix: str) -> None:
    answers = Predictions([EXAM, FAILED], level="exam")
    if suffix == "frame":
        table = answers.to_frame()
    else:
        answers.save(tmp_path / f"answers{suffix}")
        formats: dict[str, Any] = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}
        table = formats[suffix](tmp_path / f"answers{suffix}")
    assert tuple(table.columns) == columns_of(ServedLevel.EXAM) == (*COLUMNS, *BREASTS, VIEWS)
    one, failed = table.astype(object).where(table.notna(), None).to_dict("records")
    assert (one["left_probability"], one["left_decision"], one["left_uncertain"]) == (0.75, "tumor", True)
    assert (one["right_probability"], one["right_decision"], one["right_uncertain"]) == (None, None, None)
    assert one["difference"] is None
    views = [one if isinstance(one, list) else json.loads(one) for one in (one["views"], failed["views"])]
    assert views == [
        [
            {
                "path": "bäckerei/乳房.png",
                "laterality": "L",
                "view": "MLO",
                "probability": 0.123456,
                "reason": "both classes are possible",
                "warnings": "grey levels were inverted: corrected; polarity is uncertain",
            },
            {"path": "flower.jpg", "laterality": None, "view": None, "probability": None}
            | {"reason": "does not look like a mammogram", "warnings": None},
        ],
        [],
    ]


def test_a_difference_is_left_less_right() -> None:
    right = replace(LEFT, laterality=Laterality.RIGHT, probability=0.25)
    assert replace(EXAM, breasts=(LEFT, right)).difference == 0.5
    assert replace(EXAM, breasts=(replace(LEFT, probability=None), right)).difference is None
