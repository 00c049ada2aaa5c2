import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def report_of_demo(out: Path, *options: str, answers: int = 6) -> Any:
    """The main job as a new user meets it."""
    answer = subprocess.run(
        [sys.executable, "-m", "mammolens", "demo", str(out), *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert answer.returncode == 0, answer.stderr
    for verb in ("phantom", "train", "evaluate", "predict"):
        assert f"$ mammolens {verb} " in answer.stdout
    assert (out / "predictions.csv").read_text().count("\n") == answers + 1
    assert "drawn, not real" in answer.stdout
    return json.loads((out / "run" / "evaluation" / "test" / "report.json").read_text())


def test_the_demo_goes_through_with_few_patients(tmp_path: Path) -> None:
    report = report_of_demo(tmp_path / "demo", "--patients", "30", answers=3)
    assert report["counts"]["patients_also_in_training"] == 0


@pytest.mark.campaign
def test_the_demo_reaches_what_it_promises(tmp_path: Path) -> None:
    """At full size: AUC >= 0.90 on unseen patients."""
    report = report_of_demo(tmp_path / "demo")
    assert report["levels"]["image"]["discrimination"]["roc_auc"]["value"] >= 0.90
    assert report["counts"]["patients_also_in_training"] == 0
