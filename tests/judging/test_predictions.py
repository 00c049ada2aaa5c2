from pathlib import Path

import pandas as pd
import pytest

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.errors import DataError
from mammolens.judging.judge import EvaluationSet
from mammolens.judging.predictions import NO_PROBABILITY, NO_ROW, read_predictions, scores_from, write_predictions
from mammolens.records import Mammogram, Prediction, Split
from mammolens.serving.assessment import NOT_CHOSEN, assess_scores

LISTED = Manifest(tuple(Mammogram(path=Path(name), label=1) for name in ("a1", "a2", "b1")))


def test_predictions_are_read_back_as_they_were_judged(tmp_path: Path) -> None:
    images = Manifest(
        tuple(
            Mammogram(
                path=Path(name),
                label=label,  # type: ignore[arg-type]
                patient_id=name[0],
                laterality="L",  # type: ignore[arg-type]  # pydantic turns it
                split=Split.TEST,
            )
            for name, label in {"a1": 1, "a2": 1, "b1": 0, "b2": 0, "c1": None, "d1": 1}.items()
        )
    )
    values = {"a1": 0.9, "a2": 0.4, "b1": 0.6, "b2": 0.1, "c1": 0.5}
    answers = [Prediction(Path(name), value, admitted=name != "b1") for name, value in values.items()]
    write_predictions([*answers, Prediction.failure(Path("d1"), "cut short")], images, tmp_path)
    assert len(pd.read_parquet(tmp_path / "predictions.parquet")) == 6
    read, probabilities, admitted = read_predictions(tmp_path)
    assert read.mammograms == images.mammograms[:4]
    assert probabilities.tolist() == [0.9, 0.4, 0.6, 0.1]
    assert admitted.tolist() == [True, True, False, True]
    with pytest.raises(DataError, match=r"holds no predictions\.parquet"):
        read_predictions(tmp_path / "elsewhere")
    (tmp_path / "predictions.parquet").write_text("path,probability\n")
    with pytest.raises(DataError, match="not a table that mammolens wrote"):
        read_predictions(tmp_path)


def test_scores_of_another_system_are_found_by_path_or_by_name(tmp_path: Path) -> None:
    listed = Manifest(tuple(Mammogram(path=tmp_path / "data" / n, label=1) for n in ("a.png", "b.png", "c.png")))
    table = tmp_path / "scores.csv"
    table.write_text(f"path,probability\n{tmp_path}/data/a.png,0.25\nb.png,1\nother.png,0.5\n")
    found = scores_from(table, listed)
    assert [one.probability for one in found.predictions] == [0.25, 1.0, None]
    assert found.predictions[2].error == NO_ROW
    assert found.surplus == ("other.png",)
    first, second = found.notes(listed)
    assert first == f"1 image with no row in the table of scores: {tmp_path}/data/c.png."
    assert second == "1 row of scores of no image of the data set: other.png."


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("path", "/elsewhere/set/train/0/x.png"),
        ("path", "train/0/x.png"),
        ("path", "..\\set\\train\\0\\x.png"),
        ("path", "C:\\set\\train\\0\\x.png"),
        ("image_id", "7"),
        ("path", "7"),
        ("path", "7.dcm"),
        ("Path", " train/0/x.png "),
    ],
)
def test_an_image_is_found_by_any_of_its_names(tmp_path: Path, header: str, named: str) -> None:
    listed = Manifest(
        (
            Mammogram(path=tmp_path / "set/train/0/x.png", image_id="7"),
            Mammogram(path=tmp_path / "set/test/0/x.png", image_id="8"),
        )
    )
    table = tmp_path / "scores.csv"
    table.write_text(f"{header};probability\n{named};0,25\n")
    found = scores_from(table, listed).predictions
    assert [one.probability for one in found] == [0.25, None]


def test_a_name_of_several_images_is_refused_and_the_better_match_wins(tmp_path: Path) -> None:
    listed = Manifest(tuple(Mammogram(path=tmp_path / f"{n}/x.png") for n in ("0", "1")))
    table = tmp_path / "scores.csv"
    table.write_text("path,probability\nx.png,0.5\n")
    with pytest.raises(DataError, match=r"row 2: x\.png may be any of 2 images: .*Write more"):
        scores_from(table, listed)
    listed = Manifest((Mammogram(path=tmp_path / "test/0/x.png"),))
    table.write_text("path,probability\ntrain/0/x.png,0.1\ntest/0/x.png,0.9\n")
    found = scores_from(table, listed)
    assert (found.predictions[0].probability, found.surplus) == (0.9, ("train/0/x.png",))
    table.write_text("path,probability\nother/x.png,0.1\n")
    assert "1 image found by file name alone" in scores_from(table, listed).notes(listed)[0]


@pytest.mark.parametrize("text", ["", "nan", "NaN", " "])
def test_an_empty_score_is_an_image_without_answer(tmp_path: Path, text: str) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(f"path,probability\na1,{text}\na2,0.5\n")
    found = scores_from(table, LISTED)
    assert found.predictions[0].error == NO_PROBABILITY
    assert found.notes(LISTED)[1] == f"1 image with {NO_PROBABILITY}: a1."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,score\na,1\n", "column probability missing"),
        ("file,score\na,1\n", "column path and probability missing; found file, score"),
        ("path,probability\na1,87.5\na2,3\n", r"87.5 is not .* \(2 rows are alike\).*by 100"),
        ("path,probability\na1,-2.5\n", r"-2.5 is not .*1 / \(1 \+ exp\(-x\)\)"),
        ("path,probability\na1,inf\n", "row 2: probability inf"),
        ("path,probability\na1,1.2\n", "row 2: probability 1.2 is not a number from 0 to 1"),
        ("path,probability\na1,yes\n", "row 2: probability yes"),
        ("path,probability\na1,1\na1,0\n", "row 3: a1 has two rows"),
        ("path,probability\nx,1\n", "none of its 1 rows is of an image"),
    ],
)
def test_a_wrong_table_of_scores_is_refused(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=said):
        scores_from(table, LISTED)


def tables(tmp_path: Path, data: str) -> tuple[Path, Path]:
    """A data table without images, and scores of its eight."""
    listed, scores = tmp_path / "data.csv", tmp_path / "theirs.csv"
    listed.write_text(data)
    scores.write_text("path,probability\n" + "".join(f"{n}.png,{0.1 + 0.1 * n:.1f}\n" for n in range(8)))
    return listed, scores


def test_scores_are_judged_without_any_image(tmp_path: Path) -> None:
    rows = "".join(f"set/{n}.png,{int(n > 3)},p{n // 2},test,{40 + n}\n" for n in range(8))
    data, scores = tables(tmp_path, "path,label,patient_id,split,age\n" + rows)
    with pytest.raises(DataError, match="none of its 8 files exist"):
        read_source(str(data))
    listed = read_source(str(data), files=False)
    report = assess_scores(scores, EvaluationSet(listed, Split.TEST), tmp_path / "report")
    assert (report.counts.images, report.counts.patients) == (8, 4)
    assert report.images.discrimination["roc_auc"].value == 1
    assert report.default_point == NOT_CHOSEN
    assert report.images.decisions[NOT_CHOSEN].threshold == 0.5
    assert "no image was looked at" in report.notes[0]
    assert "0.5, and not chosen" in report.notes[1]
    page = (tmp_path / "report" / "report.html").read_text()
    assert report.notes[0] in page
    assert "<img" not in page


def test_absolute_and_relative_paths_are_judged_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{'/far/' * (n % 2)}{n}.png,{int(n in (0, 4, 5))}\n" for n in range(8))
    _, scores = tables(tmp_path, "path,label\n" + rows)
    monkeypatch.chdir(tmp_path)
    report = assess_scores(scores, EvaluationSet(read_source("data.csv", files=False)), Path("report"))
    assert report.mistakes


@pytest.mark.parametrize("named", ["", "train.csv"])
def test_the_table_of_a_published_set_will_do_without_its_images(tmp_path: Path, named: str) -> None:
    header = "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy\n"
    rows = "".join(f"1,p{n},{n},L,CC,50,{int(n > 3)},0\n" for n in range(8))
    (tmp_path / "train.csv").write_text(header + rows)
    listed = read_source(str(tmp_path / named), files=False)
    scores = tmp_path / "theirs.csv"
    scores.write_text("image_id,probability\n0,0.5\n7,0.6\n")
    found = scores_from(scores, listed).predictions
    assert [one.probability for one in found] == [0.5, *[None] * 6, 0.6]
    with pytest.raises(DataError, match="none of the 8 images it describes is there"):
        read_source(str(tmp_path))


def test_a_data_table_may_name_its_images_by_id_alone(tmp_path: Path) -> None:
    data, scores = tables(tmp_path, "image_id,label\n" + "".join(f"{n},1\n" for n in range(8)))
    listed = read_source(str(data), files=False)
    assert scores_from(scores, listed).predictions[7].probability == 0.8
    with pytest.raises(DataError, match="column path missing"):
        read_source(str(data))


@pytest.mark.parametrize("unknown", ["", "nan", "NA", "n/a", "None", "null"])
def test_a_score_that_is_not_known_is_no_answer(tmp_path: Path, unknown: str) -> None:
    (tmp_path / "s.csv").write_text(f"path,probability\na1,{unknown}\na2,0.5\n")
    first, second, third = scores_from(tmp_path / "s.csv", LISTED).predictions
    assert (first.error, second.probability, third.error) == (NO_PROBABILITY, 0.5, NO_ROW)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,probability\na1,0_1\n", "probability 0_1 is not a number"),
        ("path,probability\na1,12%\n", "probability 12% is not a number.*Divide percentages"),
        ("path,probability,Probability\na1,1,0\n", "probability and Probability differ in case"),
        ("path,probability,probability\na1,1,0\n", "has two columns 'probability'"),
    ],
)
def test_scores_that_may_mean_two_things_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        scores_from(tmp_path / "s.csv", LISTED)


def test_images_of_no_known_patient_are_counted_and_warned_of(tmp_path: Path) -> None:
    header = "path,label,patient_id\n"
    rows = "".join(f"{n}.png,{int(n > 3)},{'p' * (n % 2)}\n" for n in range(8))
    data, scores = tables(tmp_path, header + rows)
    listed = read_source(str(data), files=False)
    report = assess_scores(scores, EvaluationSet(listed), tmp_path / "report")
    assert report.counts.without_patient == 4
    assert "4 images without a known patient" in (tmp_path / "report" / "model-card.md").read_text()
