import io

import pytest
from rich.console import Console, RenderableType
from test_evaluation import judged

from mammolens.doctor.findings import Diagnosis, Severity, finding
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.reports.terminal import decisions_tables, findings_table, folds_table, measures_table


def lines(*shown: RenderableType, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, soft_wrap=True).print(*shown)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_tables_are_whole_at_any_width(width: int) -> None:
    report, mean = judged(), Estimate(0.7, 0.65, 0.75)
    levels = dict.fromkeys(Level, mean)
    folds = folds_table(levels, dict.fromkeys(Level, [mean] * 5), width)
    said = lines(measures_table(report, width), *decisions_tables(report, width), folds, width=width)
    assert max(map(len, said)) <= width
    assert "…" not in "".join(said)
    text = " ".join(" ".join(said).split())
    for heading in ("by patient", "operating point", "threshold", "sensitivity", "specificity", "accuracy", "AUC by"):
        assert heading in text
    auc = report.images.discrimination["roc_auc"]
    assert any(f"{auc.value:.3f}" in line for line in said)
    interval = f"({auc.low:.3f} to {auc.high:.3f})"
    assert any(interval in line for line in said), "an interval is never folded"
    assert any(f"{auc.value:.3f} {interval}" in line for line in said) == (width >= 100)


def test_the_doctor_prints_what_the_first_screen_of_its_report_says() -> None:
    blank = finding("blank", [])
    made = Diagnosis(data="data/[set]", command="", images=1300, patients=0, tumors=1, findings=(blank,), tables=())
    text = " ".join(" ".join(lines(findings_table(made), width=100)).split())
    for words in ("data/[set]: 1,300 images · patients unknown · 1 tumor", "1 error", blank.title, blank.mend):
        assert words in text
    assert "Error: figures computed on these data are wrong. Warning: they may be wrong. Note: good to know" in text
    assert made.of(Severity.ERROR) == (blank,)
    nothing = made.model_copy(update={"findings": ()})
    assert "No findings" in "".join(lines(findings_table(nothing), width=100))
