import json
from pathlib import Path

import numpy as np
import pytest

from mammolens.errors import DataError
from mammolens.evaluation import Report, judge, show, write_report
from mammolens.manifest import Manifest
from mammolens.metrics import Estimate
from mammolens.records import Mammogram, Prediction, Split

# Two test patients with two images each; patient "a" was trained on too.
LABELS = {"a1": 1, "a2": 1, "b1": 0, "b2": 0, "c1": None, "d1": 1, "t1": 1, "t2": 0}
PROBABILITIES = {"a1": 0.9, "a2": 0.4, "b1": 0.6, "b2": 0.1, "c1": 0.5, "d1": None}


def manifest() -> Manifest:
    return Manifest(
        tuple(
            Mammogram(
                path=Path(name),
                label=label,  # type: ignore[arg-type]
                patient_id="a" if name == "t1" else name[0],
                split=Split.TRAIN if name[0] == "t" else Split.TEST,
            )
            for name, label in LABELS.items()
        )
    )


def answers() -> list[Prediction]:
    return [
        Prediction.failure(Path(name), "cut short", 0.5)
        if probability is None
        else Prediction.answer(Path(name), probability, 0.5)
        for name, probability in PROBABILITIES.items()
    ]


def report() -> Report:
    return judge(answers(), manifest(), Split.TEST, model="run", command="mammolens evaluate run")


def test_every_image_is_judged_or_accounted_for() -> None:
    counts = report().counts
    assert (counts.images, counts.patients, counts.tumors) == (4, 2, 2)
    assert (counts.without_label, counts.without_answer) == (1, 1)
    assert counts.patients_also_in_training == 1


def test_figures_are_what_hand_and_paper_give() -> None:
    judged = report()
    assert judged.confusion == ((1, 1), (1, 1))
    assert judged.majority_accuracy == 0.5
    expected = {
        "roc_auc": 0.75,
        "average_precision": (1 + 2 / 3) / 2,
        "accuracy": 0.5,
        "sensitivity": 0.5,
        "specificity": 0.5,
        "precision": 0.5,
        "f1": 0.5,
        "log_loss": -np.log([0.9, 0.4, 0.4, 0.9]).mean(),
    }
    measured = {name: figure.value for name, figure in judged.metrics.items()}
    assert measured == pytest.approx(expected)
    tumor = judged.classes[1]
    assert (tumor.name, tumor.precision, tumor.recall, tumor.images) == ("tumor", 0.5, 0.5, 2)


def test_a_class_that_is_never_called_has_no_precision() -> None:
    quiet = [Prediction.answer(Path(name), 0.1, 0.5) for name in LABELS]
    judged = judge(quiet, manifest(), Split.TEST, model="run", command="")
    assert judged.classes[1].precision is None
    assert judged.classes[1].recall == 0
    assert np.isnan(judged.metrics["precision"].value)


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(DataError, match="split valid has no labelled image"):
        judge(answers(), manifest(), Split.VALID, model="run", command="")
    with pytest.raises(DataError, match=r"a1: no prediction for it \(6 are missing\)"):
        judge([], manifest(), Split.TEST, model="run", command="")


def test_what_is_written_is_what_was_judged(tmp_path: Path) -> None:
    write_report(report(), answers(), manifest(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.json",
        "roc.png",
        "precision_recall.png",
        "confusion.png",
    }
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["schema_version"] == 1
    assert written["command"] == "mammolens evaluate run"
    assert written["bootstrap_unit"] == "patient"
    assert written["metrics"]["roc_auc"]["value"] == 0.75
    assert Report.model_validate_json((tmp_path / "report.json").read_text()) == report()


def test_an_undefined_figure_is_null_and_reads_back(tmp_path: Path) -> None:
    quiet = [Prediction.answer(Path(name), 0.1, 0.5) for name in LABELS]
    judged = judge(quiet, manifest(), Split.TEST, model="run", command="")
    write_report(judged, quiet, manifest(), tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text)["metrics"]["precision"]["value"] is None
    assert np.isnan(Report.model_validate_json(text).metrics["precision"].value)


def test_a_figure_is_shown_with_its_interval() -> None:
    assert show(Estimate(0.6524, 0.6113, 0.6903)) == "0.652 (0.611 to 0.690)"
    assert show(Estimate(float("nan"), 0, 0)) == "not defined"
