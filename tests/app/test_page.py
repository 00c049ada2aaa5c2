"""The page by its logic: Streamlit's own test client, no browser."""

import csv
import io
import logging
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from driving import (
    FOUR,
    INVERTED,
    MASS,
    NOTHING,
    answer,
    complaints,
    opened,
    phantom,
    read,
    settled,
    shown,
    with_example,
    with_files,
)
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from mammolens.app.verdicts import estimated, verdicts
from mammolens.cli import app as command_line
from mammolens.levels import Level
from mammolens.model.bundle import Bundle, write_bundle
from mammolens.numerals import whole_percent
from mammolens.records import Prediction
from mammolens.reports.case import blocks, interval

SYNTHETIC = "This model learnt from drawn, synthetic mammograms only."


def test_the_page_opens_with_its_limits_and_its_model(page: AppTest, bundle: Bundle) -> None:
    text = read(page)
    assert blocks.disclaimer() in text
    assert SYNTHETIC in text
    record = bundle.record
    auc = record.metrics["roc_auc"]
    assert f"{auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f}), n = " in text
    for fact in (record.name, record.mammolens_version, record.created[:10], record.licence):
        assert fact in text
    assert next(iter(record.files.values()))[:12] in text
    assert re.search("Three steps.*Give pictures.*Read the answer.*Look yourself", text)
    assert not page.selectbox, "nothing to choose where nothing is shown"


def test_only_a_synthetic_model_is_called_so(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bundle.record.training_data
    assert data is not None
    real = bundle.record.model_copy(update={"training_data": data.model_copy(update={"synthetic": False})})
    write_bundle(real, bundle.model, tmp_path / "real")
    assert SYNTHETIC not in read(opened(monkeypatch, str(tmp_path / "real")))
    unknown = bundle.record.model_copy(update={"training_data": None})
    write_bundle(unknown, bundle.model, tmp_path / "unknown")
    page = with_example(opened(monkeypatch, str(tmp_path / "unknown")), MASS)
    assert "Its numbers are raw scores" in read(page)
    assert not page.select_slider


def test_an_example_is_answered_in_words_and_numbers(page: AppTest, bundle: Bundle) -> None:
    text = answer(with_example(page, MASS))
    point = bundle.record.operating_points[Level.PATIENT]["balanced"]
    assert re.search(r"Left breast Above the threshold (> )?\d+ % in screening about \d", text)
    assert re.search(r"Examination Above the threshold (> )?\d+ %", text)
    assert "threshold of the operating point “Balanced”" in text
    assert not re.search(r"\d\.\d+ %(?! of pictures have)", text), "no digits that mean nothing"
    everything = read(page)
    assert f"{point.subjects:,} synthetic validation examinations of {point.patients:,}" in everything
    assert estimated(point.sensitivity) in everything
    assert estimated(point.specificity) in everything
    auc = bundle.record.metrics["roc_auc_by_breast"]
    assert f"AUC by breast {auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f})" in everything
    assert re.search(r"Left breast, \w+ ?\w* \((CC|MLO)\), by the file's name", everything)


def test_no_tumor_has_the_probability_of_a_tumor_too(page: AppTest) -> None:
    text = answer(with_example(page, NOTHING))
    assert re.search(r"Right breast Below the threshold (< )?\d+ %", text)


def test_the_operating_point_decides_and_the_probability_stays(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = bundle.record.operating_points
    strict = points[Level.IMAGE]["balanced"].model_copy(update={"threshold": 1.0})
    named = {level: of_level | {"mine": strict} for level, of_level in points.items()}
    record = bundle.record.model_copy(update={"operating_points": named})
    write_bundle(record, bundle.model, tmp_path / "bundle")
    page = with_example(opened(monkeypatch, str(tmp_path / "bundle")), MASS)
    before = answer(page)
    settled(page.selectbox(key="point").set_value("mine").run())
    after = answer(page)
    number = r"threshold ((?:> )?\d+ %)"
    assert re.findall(number, before) == re.findall(number, after) != []
    assert "Examination Above the threshold" in before
    assert "Examination Above" not in after
    assert "the operating point “mine”" in after


def test_controls_compute_no_answer_anew(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with_example(page, MASS)
    monkeypatch.setattr("mammolens.serving.predictor.Predictor.answers", None)
    settled(page.select_slider(key="prevalence").set_value(0.1).run())
    settled(page.selectbox(key="shown").set_value(1).run())
    assert "Examination Above" in answer(page)


def test_the_viewer_is_told_how_views_hang(page: AppTest) -> None:
    with_example(page, FOUR)
    told = shown(page)
    places = [[told["panes"][at]["caption"][0] for at in row] for row in told["rows"]]
    assert places == [["R CC", "L CC"], ["R MLO", "L MLO"]]
    assert [pane["wall"] for pane in told["panes"]] == ["right", "left"] * 2
    assert told["numbers"] == [0, 1, 2, 3]
    for pane in told["panes"]:
        assert (pane["width"], pane["height"], pane["full"]) == (640, 640, "")
        assert not pane["overview"].startswith("/"), "below the page, wherever that is"
        assert pane["heat"].endswith(".png")
    settled(page.selectbox(key="shown").set_value(1).run())
    assert shown(page)["number"] == 1


def test_nothing_is_decided_about_what_is_no_mammogram(page: AppTest, bundle: Bundle) -> None:
    if bundle.record.gate is None:
        pytest.skip("the bundle that ships has no gate")
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    Image.fromarray(noise).save(file, format="PNG")
    with_files(page, ("noise.png", file.getvalue()))
    text = answer(page)
    assert "No decision" in text
    for unsaid in ("probability of a tumor", "threshold", "called", " %"):
        assert unsaid not in text
    assert not any('class="m-bar"' in block.value for block in page.html)
    assert not page.select_slider, "nothing to translate to another prevalence"
    assert [box.key for box in page.selectbox] == [], "and nothing that another operating point would change"
    with_example(page, MASS)
    assert "No decision" not in answer(page)


def test_inverted_pictures_are_set_right_and_it_is_said(page: AppTest) -> None:
    assert "The grey levels of this file are inverted" in answer(with_example(page, INVERTED))


def test_one_bad_file_stops_no_other_and_is_named(page: AppTest) -> None:
    with_files(page, ("note.png", b"no picture"), ("empty.dcm", b""), ("good.png", phantom()))
    said = complaints(page)
    assert "note.png" in said
    assert "empty.dcm: the file is empty. Copy it anew." in said
    assert "/" not in said, "where it was kept is nobody's business"
    assert "Above the threshold" in answer(page), "the good one is shown"
    assert said.count("the file is empty") == 1
    assert "the file is empty" not in str(page.dataframe[0].value), "said once"


def test_where_nothing_is_read_it_is_said_once_and_the_uploader_stays_open(page: AppTest) -> None:
    with_files(page, *((f"{number}.png", b"no picture") for number in range(7)))
    assert "7 pictures could not be read: the table says why." in complaints(page)
    assert all("not an image" in remark for remark in page.dataframe[0].value["Remarks"])
    assert page.expander[0].proto.expanded
    assert "Three steps" in read(page)
    settled(page.button(key="away").click().run())
    assert not page.error
    with_example(page, MASS)
    assert not page.expander[0].proto.expanded


def test_archives_are_opened_and_their_images_named(page: AppTest) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("exam/L_CC.png", phantom())
        archive.writestr("exam/notes.txt", "nothing")
        archive.writestr("exam/bad.png", "nothing")
    with_files(page, ("visit.zip", file.getvalue()))
    assert "visit.zip/exam/L_CC.png" in read(page)
    assert list(page.dataframe[0].value["Picture"]) == ["visit.zip/exam/L_CC.png", "visit.zip/exam/bad.png"]
    assert "visit.zip/exam/bad.png" in complaints(page)


def test_more_than_the_page_takes_is_said(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mammolens.app.uploads.MAX_TOTAL", len(phantom()) + 10)
    with_files(page, ("first.png", phantom()), ("second.png", phantom()))
    assert "second.png: not looked at, because all files together pass" in complaints(page)
    assert "first.png" in read(page)


def test_files_and_examples_take_turns(page: AppTest) -> None:
    with_example(page, MASS)
    with_files(page, ("mine.png", phantom(NOTHING)))
    assert page.session_state["example"] is None
    assert "mine.png" in read(page)
    with_example(page, MASS)
    assert "mine.png" not in read(page)
    assert "looked at" in page.session_state
    assert len(page.session_state["looked at"].kept) == 2, "what is gone is forgotten"


def test_names_reach_neither_the_screen_nor_a_log(
    page: AppTest, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with_files(page, ("DOE^JANE_L_CC.png", phantom()), ("DOE^JANE.dcm", b"no picture at all"))
    assert "DOE^JANE" in read(page)
    assert "DOE^JANE" in complaints(page)
    seen = capfd.readouterr()
    assert "DOE" not in seen.out + seen.err + caplog.text


def test_markup_in_a_name_stays_text(page: AppTest) -> None:
    with_files(page, ("<img src=x onerror=alert(1)>.png", phantom()), ("*b*<i>.png", b"bad"))
    assert not any("<img src=x" in block.value for block in page.html)
    assert any("&lt;img src=x" in block.value for block in page.html)
    assert not any("<i>" in error.value or " *b*" in error.value for error in page.error)


def test_sessions_share_no_answer(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with_files(page, ("mine.png", phantom()))
    assert "mine.png" not in read(opened(monkeypatch))


def test_page_and_command_line_give_the_same_number(page: AppTest, tmp_path: Path, png: Callable[..., Path]) -> None:
    from mammolens.app.downloads import csv_of  # noqa: PLC0415 - needs Streamlit

    path = png(np.asarray(Image.open(io.BytesIO(phantom(FOUR)))), "case_R_CC.png")
    out = tmp_path / "x.csv"
    typed = ["predict", str(path), "--model", "phantom", "--out", str(out), "--quiet"]
    said = CliRunner().invoke(command_line, typed)
    assert said.exit_code == 0, said.output
    (told,) = csv.DictReader(io.StringIO(out.read_text(encoding="utf-8")))
    with_files(page, (path.name, path.read_bytes()))
    assert f"the threshold {whole_percent(float(told['probability']))}" in answer(page)
    cases = page.session_state["looked at"].shown
    (kept,) = csv.DictReader(io.StringIO(csv_of(cases).decode()))
    assert kept.pop("path") == path.name
    assert told.pop("path") == str(path)
    assert kept == told


def test_a_model_that_cannot_be_opened_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nowhere: not a run, a bundle" in complaints(opened(monkeypatch, "nowhere"))


def test_figures_that_were_never_measured_are_not_made_up(bundle: Bundle) -> None:
    point = bundle.record.operating_points[Level.IMAGE]["balanced"]
    empty = point.sensitivity.__class__(math.nan, math.nan, math.nan)
    assert interval(empty) == "not measured"
    nothing = {"sensitivity": empty, "specificity": empty, "subjects": 0, "patients": 0}
    points = {Level.IMAGE: {"fixed": point.model_copy(update=nothing)}}
    record = bundle.record.model_copy(update={"operating_points": points})
    assert "Never measured" in blocks.figures_of(record, "fixed")
    assert estimated(empty) == "not measured"
    answer = Prediction(Path("x"), 0.2, "no tumor", operating_point="fixed")
    assert "Never measured" in verdicts.worth(answer, record, 0.005, 0.005)
