import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_reaches_what_it_promises(tmp_path: Path) -> None:
    """The main job as a new user meets it, at full size: AUC >= 0.90 on unseen patients."""
    out = tmp_path / "demo"
    answer = subprocess.run(
        [sys.executable, "-m", "mammolens", "demo", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert answer.returncode == 0, answer.stderr
    report = json.loads((out / "run" / "evaluation" / "test" / "report.json").read_text())
    assert report["levels"]["image"]["discrimination"]["roc_auc"]["value"] >= 0.90
    assert report["counts"]["patients_also_in_training"] == 0
    for verb in ("phantom", "train", "evaluate", "predict"):
        assert f"$ mammolens {verb} " in answer.stdout
    assert (out / "predictions.csv").read_text().count("\n") == 7
    assert "drawn, not real" in answer.stdout
