"""One picture, one answer: every door says the same, at every level and operating point."""

import csv
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import brightness
from mammolens.cli import app
from mammolens.cli.options import screen
from mammolens.data.manifest import Manifest
from mammolens.images.archives import find_inputs
from mammolens.judging.judge import EvaluationSet, judge
from mammolens.judging.schema import Model
from mammolens.levels import Level, ServedLevel
from mammolens.model.decisions import Conformal
from mammolens.records import LABEL_NAMES, Mammogram, Reason
from mammolens.reports.case import blocks, percent, point_name, table_row
from mammolens.reports.pages import TERMS
from mammolens.serving.predictor import Predictor

GREYS = {f"{level}.png": level for level in (25, 77, 100, 120, 128, 140, 150, 155, 204)}
FLOWER = "flower.png"
POINTS = ("balanced", "sensitivity-90", "specificity-90")
SETS = {Level.IMAGE: (0.5, 0.7), Level.BREAST: (0.3, 0.4), Level.PATIENT: (0.56, 0.42)}
"""Of the classes: they overlap, leave a gap, and overlap a little."""

Said = tuple[str | None, bool, str | None]
"""Decision, whether it is uncertain, and why."""

NOTHING = (None, True, Reason.NOT_A_MAMMOGRAM)


@pytest.fixture(scope="module", params=["prediction sets", "two thresholds"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, with prediction sets or from before there were any."""
    fitted = {
        level: Conformal(alpha=0.1, thresholds=thresholds, subjects=(50, 50)) for level, thresholds in SETS.items()
    }
    conformal = fitted if request.param == "prediction sets" else {}
    place = tmp_path_factory.mktemp("bundle") / "brightness"
    return brightness.bundle(place, conformal=conformal).folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Flat greys on either side of every threshold, and a picture in colour."""
    place = tmp_path_factory.mktemp("pictures")
    for name, level in GREYS.items():
        Image.fromarray(brightness.flat(level)).save(place / name)
    petals = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    petals[..., 0] = 255
    Image.fromarray(petals).resize((480, 640)).save(place / FLOWER)
    return sorted(place.iterdir())


def by_hand(level: Level, point: str, grey: int | None, *, sets: bool) -> Said:
    """The answer worked out from the bundle's numbers alone."""
    if grey is None:
        return NOTHING
    probability = round(grey / 255, 6)
    balanced = {Level.IMAGE: 0.5, Level.BREAST: 0.4, Level.PATIENT: 0.45}[level]
    threshold = {"balanced": balanced, "sensitivity-90": 0.3, "specificity-90": 0.6}[point]
    decision = LABEL_NAMES[probability >= threshold]
    if not sets:
        between = 0.3 <= probability < 0.6
        return decision, between, Reason.BETWEEN if between else None
    odd = dict(zip(LABEL_NAMES, (probability, 1 - probability), strict=True))
    possible = {name for name, most in zip(LABEL_NAMES, SETS[level], strict=True) if odd[name] <= most}
    if possible == {decision}:
        return decision, False, None
    reason = {0: Reason.NEITHER, 1: Reason.AGAINST, 2: Reason.BOTH}[len(possible)]
    return decision, True, reason


def known(value: Any) -> Any:
    """Missing values of all formats as None."""
    return None if value is None or value == "" or value != value else value  # noqa: PLR0124


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(json.loads(pd.read_parquet(path).to_json(orient="records")))
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()) if path.suffix == ".csv" else json.loads(text))


def on_file(path: Path) -> list[Said]:
    return [(known(row["decision"]), str(row["uncertain"]) == "True", known(row["reason"])) for row in rows_of(path)]


def on_screen(text: str) -> list[Said]:
    """The first line of each answer in the table's last column."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    cells = [line[-1] for line in lines if line[0]]
    found = [re.fullmatch(r"(.*?)( \(uncertain\))?(?:: (.*))?", cell) for cell in cells]
    return [(m[1] if m[1] != "none" else None, m[2] is not None or m[1] == "none", m[3]) for m in found if m]


@pytest.mark.parametrize("level", list(ServedLevel))
@pytest.mark.parametrize("point", POINTS)
def test_every_door_says_the_same(
    folder: Path,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    level: ServedLevel,
    point: str,
) -> None:
    monkeypatch.setattr(screen, "width", 600)
    predictor = Predictor.load(folder, point)
    sets = bool(predictor.bundle.record.conformal)
    expected = [by_hand(level.judged, point, GREYS.get(path.name), sets=sets) for path in pictures]
    answers = list(predictor.predict(pictures, level=level))
    assert [(a.decision, a.uncertain, a.reason) for a in answers] == expected, "library"
    typed = ["predict", *map(str, pictures), "--model", str(folder), "--level", level, "--quiet"]
    for suffix in ("csv", "json", "parquet"):
        out = tmp_path / f"answers.{suffix}"
        said = CliRunner().invoke(app, [*typed, "--point", point, "--out", str(out)])
        assert said.exit_code == 0, said.output
        assert on_file(out) == expected, suffix
        assert on_screen(said.output) == expected, "table"
        assert "1 of 10 inputs do not look like a mammogram: no decision" in said.stderr
        refused = next(row for row in rows_of(out) if row["path"].endswith(FLOWER))
        assert known(refused["probability"]) is None


@pytest.mark.parametrize("point", POINTS)
def test_what_is_judged_is_what_is_served(folder: Path, pictures: list[Path], point: str) -> None:
    """Of a report's figures, those that count decisions count the ones that every door gives."""
    predictor = Predictor.load(folder, point)
    record = predictor.bundle.record
    healthy = Manifest(tuple(Mammogram(path=path, label=0) for path in pictures))
    raw = list(predictor.predict(pictures, ungated=True))
    report = judge(raw, EvaluationSet(healthy), record.rules(point), Model(name=""))
    for level in ServedLevel:
        found = report.levels[level.judged]
        served = list(predictor.predict(pictures, level=level))
        assert sum(found.not_admitted) == sum(one.decision is None for one in served) == 1
        let_go = found.decisions[point].measures["specificity_missing_as_wrong"].value
        assert let_go == pytest.approx(np.mean([a.decision == "no tumor" for a in served]))
        if record.conformal:
            assert found.conformal is not None
            doubtful = np.mean([one.uncertain for one in served])
            assert found.conformal.uncertain.value == pytest.approx(doubtful)
            wrong = [one.decision == "tumor" for one in served if not one.uncertain]
            assert found.conformal.error.value == pytest.approx(np.mean(wrong))


@pytest.mark.parametrize("point", POINTS)
def test_page_and_case_report_say_the_same(folder: Path, pictures: list[Path], point: str) -> None:
    """Looked at once, at the default point, and decided anew, as the page does."""
    pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")
    from mammolens.app.cases import answered, case_report, decided, examinations  # noqa: PLC0415
    from mammolens.app.verdicts import lines_of, verdicts  # noqa: PLC0415
    from mammolens.app.viewer import caption  # noqa: PLC0415

    predictor = Predictor.load(folder)
    record = predictor.bundle.record
    for path, source in zip(pictures, find_inputs(pictures), strict=True):
        other = decided(answered(predictor, source), "sensitivity-90", record.rules())
        case = decided(other, point, record.rules())
        said = by_hand(Level.IMAGE, point, GREYS.get(path.name), sets=bool(record.conformal))
        assert (case.answer.decision, case.answer.uncertain, case.answer.reason) == said
        decision, uncertain, reason = said
        row, above = table_row(case), " ".join(caption(case, mirrored=False))
        assert row["Class"] == (decision or "no decision")
        assert row["Uncertainty"] == ": ".join(filter(None, ["uncertain" * bool(decision), reason])) * (uncertain)
        for text in (unescape(blocks.verdict(case)), unescape(case_report(case, record))):
            if decision is None:
                assert "No decision" in text
                assert "does not look like a mammogram" in text
                assert "probability of a tumor</p>" not in text
                assert point_name(point) not in blocks.verdict(case)
                assert text.count("<img ") <= 1, "no heatmap"
            else:
                assert f": called {decision}." in text
                reasons = [r for r in Reason if TERMS["uncertain"].get(r.name, "?" * 9) in text]
                assert reasons == ([reason] if reason else [])
        assert (decision or "no decision") in above
        assert row["Uncertainty"] in above
        assert row["Probability of a tumor"] == percent(case.answer.probability)
        (examined,) = examinations([case], point, record.rules())
        verdict = re.sub(r"<[^>]+>", " ", unescape(verdicts.verdict(lines_of(examined, [case]), record, 0.005, 0.005)))
        standing = {"tumor": "above the threshold", "no tumor": "below the threshold", None: "No decision"}[decision]
        assert ("Uncertain, " * bool(decision and uncertain) + standing).lower() in verdict.lower()
        assert {r for r in Reason if TERMS["uncertain"].get(r.name, "?" * 9) in verdict} == {reason} - {None, *NOTHING}
        assert (row["Probability of a tumor"] or "nothing to say") in verdict or decision is None
        assert (case.answer.probability is None) == (case.answer.score_map is None)


def test_no_heatmap_of_what_is_no_mammogram_unless_asked_for(
    folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    typed = ["predict", *map(str, pictures), "--model", str(folder), "--quiet", "--overlay"]
    assert CliRunner().invoke(app, [*typed, str(tmp_path / "heat")]).exit_code == 0
    drawn = {path.name[6:] for path in (tmp_path / "heat").iterdir()}
    assert drawn == set(GREYS)
    out = tmp_path / "all.csv"
    said = CliRunner().invoke(app, [*typed, str(tmp_path / "all"), "--ungated", "--out", str(out)])
    assert said.exit_code == 0
    assert "no decision, their probability means nothing" in said.stderr
    assert len(list((tmp_path / "all").iterdir())) == len(pictures)
    assert on_file(out)[-1] == NOTHING
    (row,) = [row for row in rows_of(out) if row["path"].endswith(FLOWER)]
    assert 0 <= float(row["probability"]) <= 1
    assert "that the model learnt from" not in row["warnings"]
    assert "colour image" in row["warnings"]
