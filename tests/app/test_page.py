"""The page by its logic: Streamlit's own test client, no browser."""

import csv
import io
import json
import logging
import math
import re
import sys
import zipfile
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from mammolens.app.server import PAGE
from mammolens.app.uploads import EXAMPLES, Example, drawn
from mammolens.cli import app as command_line
from mammolens.model.bundle import Bundle, open_bundle, packaged_bundles, write_bundle
from mammolens.model.decisions import at_prevalence
from mammolens.records import Level
from mammolens.reports.case import blocks, interval, share
from mammolens.reports.pages import TERMS

MASS, CALCIFICATIONS, NOTHING, INVERTED, FOUR = EXAMPLES
SYNTHETIC = "This model learnt from drawn, synthetic mammograms only."


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    shipped = packaged_bundles()
    if "phantom" not in shipped:
        pytest.skip("no bundle ships with the package")
    return open_bundle(shipped["phantom"])


@pytest.fixture
def page(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> AppTest:  # noqa: ARG001 - must exist
    """The page with the model that learnt from drawings such as its examples, just opened."""
    return opened(monkeypatch, "phantom")


def opened(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> AppTest:
    monkeypatch.setattr(sys, "argv", [str(PAGE), *arguments])
    return settled(AppTest.from_file(str(PAGE), default_timeout=60).run())


def settled(page: AppTest) -> AppTest:
    assert not page.exception, page.exception[0].stack_trace
    return page


def with_example(page: AppTest, example: Example) -> AppTest:
    return settled(page.selectbox(key="example").set_value(example).run())


def with_files(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    for name, content in files:
        page.file_uploader[0].upload(name, content)
    return settled(page.run())


def read(page: AppTest) -> str:
    """All that is on the page as HTML, markup left out."""
    return _text("\n".join(block.value for block in page.html))


def answer(page: AppTest) -> str:
    """The answer as the page words it."""
    return _text(next(block.value for block in page.html if "m-verdict" in block.value))


def _text(markup: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", markup)))


def complaints(page: AppTest) -> str:
    return " ".join(error.value.replace("\\", "") for error in page.error)


def phantom(example: Example = MASS, number: int = 0) -> bytes:
    return drawn(example)[number].content


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
    assert "Drop a mammogram" in text


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
    probability = float(re.findall(r"(\d\.\d{4}) +probability of a tumor", text)[0])
    point = bundle.record.operating_points[Level.IMAGE]["balanced"]
    assert ("Above the threshold" in text) == (probability >= point.threshold)
    assert f"threshold {point.threshold:.4f} of the operating point “Balanced”" in text
    everything = read(page)
    assert f"{point.subjects:,} synthetic validation images of {point.patients:,}" in everything
    assert interval(point.sensitivity) in everything
    assert interval(point.specificity) in everything
    assert "Left breast, craniocaudal (CC), by the file's name" in everything


def test_no_tumor_has_the_probability_of_a_tumor_too(page: AppTest) -> None:
    text = answer(with_example(page, NOTHING))
    assert "Below the threshold called no tumor" in text
    assert re.search(r"0\.\d{4} +probability of a tumor", text)
    assert "Below the threshold" in text


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
    number = r"\d\.\d{4} +probability of a tumor"
    assert re.findall(number, before) == re.findall(number, after)
    assert "called tumor" in before
    assert "Below the threshold 1.0000 of the operating point “mine”: called no tumor" in after


def test_prevalence_moves_what_the_answer_means(page: AppTest, bundle: Bundle) -> None:
    with_example(page, MASS)
    data = bundle.record.training_data
    assert data is not None
    probability = float(page.session_state["looked at"][first_key()][0][0].answer.probability)
    text = read(page)
    assert f"{share(data.prevalence)} have a tumor {probability:.4f}" in text
    at_screening = at_prevalence(probability, data.prevalence, 0.005)
    assert f"Screening 0.5 % have a tumor {at_screening:.4f}" in text
    settled(page.select_slider(key="prevalence").set_value(0.1).run())
    chosen = at_prevalence(probability, data.prevalence, 0.1)
    assert f"Your choice 10 % have a tumor {chosen:.4f}" in read(page)


def first_key() -> str:
    return drawn(MASS)[0].key


def test_controls_compute_no_answer_anew(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with_example(page, MASS)
    monkeypatch.setattr("mammolens.serving.predictor.Predictor.answers", None)
    settled(page.select_slider(key="prevalence").set_value(0.1).run())
    settled(page.selectbox(key="shown").set_value(1).run())
    assert "probability of a tumor" in answer(page)


def shown(page: AppTest) -> dict[str, Any]:
    """All that the viewer is told."""
    (element,) = page.get("bidi_component")
    return dict(json.loads(element.proto.json))


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


def test_an_uncertain_answer_is_called_uncertain(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = bundle.record.operating_points
    wide = points[Level.IMAGE] | {
        "sensitivity-90": points[Level.IMAGE]["balanced"].model_copy(update={"threshold": 0.0}),
        "specificity-90": points[Level.IMAGE]["balanced"].model_copy(update={"threshold": 1.0}),
    }
    record = bundle.record.model_copy(update={"operating_points": points | {Level.IMAGE: wide}})
    write_bundle(record, bundle.model, tmp_path / "bundle")
    text = answer(with_example(opened(monkeypatch, str(tmp_path / "bundle")), MASS))
    assert "Uncertain, above the threshold called tumor" in text
    assert TERMS["uncertain"]["BETWEEN"] in text


def test_nothing_is_decided_about_what_is_no_mammogram(page: AppTest, bundle: Bundle) -> None:
    if bundle.record.gate is None:
        pytest.skip("the bundle that ships has no gate")
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    Image.fromarray(noise).save(file, format="PNG")
    with_files(page, ("noise.png", file.getvalue()))
    text = answer(page)
    assert "No decision" in text
    for unsaid in ("probability of a tumor", "threshold", "called"):
        assert unsaid not in text
    assert not any('class="m-bar"' in block.value for block in page.html)
    assert not page.select_slider, "nothing to translate to another prevalence"
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
    assert "probability of a tumor" in answer(page), "the good one is shown"
    settled(page.selectbox(key="shown").set_value(0).run())
    assert "No answer" in answer(page)


def test_archives_are_opened_and_their_images_named(page: AppTest) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("exam/L_CC.png", phantom())
        archive.writestr("exam/notes.txt", "nothing")
        archive.writestr("exam/bad.png", "nothing")
    with_files(page, ("visit.zip", file.getvalue()))
    assert page.selectbox(key="shown").options == [
        "1 · L CC · visit.zip/exam/L_CC.png",
        "2 · visit.zip/exam/bad.png",
    ]
    assert "visit.zip/exam/bad.png" in complaints(page)


def test_more_than_the_page_takes_is_said(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mammolens.app.uploads.MAX_TOTAL", len(phantom()) + 10)
    with_files(page, ("first.png", phantom()), ("second.png", phantom()))
    assert "second.png: not looked at, because all files together pass" in complaints(page)
    assert "first.png" in read(page)


def test_files_and_examples_take_turns(page: AppTest) -> None:
    with_example(page, MASS)
    with_files(page, ("mine.png", phantom(NOTHING)))
    assert page.selectbox(key="example").value is None
    assert "mine.png" in read(page)
    with_example(page, MASS)
    assert "mine.png" not in read(page)
    assert "looked at" in page.session_state
    assert len(page.session_state["looked at"]) == 2, "what is gone is forgotten"


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
    from mammolens.app.page import _csv  # noqa: PLC0415 - needs Streamlit

    path = png(np.asarray(Image.open(io.BytesIO(phantom(FOUR)))), "case_R_CC.png")
    out = tmp_path / "x.csv"
    typed = ["predict", str(path), "--model", "phantom", "--out", str(out), "--quiet"]
    said = CliRunner().invoke(command_line, typed)
    assert said.exit_code == 0, said.output
    (told,) = csv.DictReader(io.StringIO(out.read_text(encoding="utf-8")))
    with_files(page, (path.name, path.read_bytes()))
    assert f"{float(told['probability']):.4f} probability of a tumor" in answer(page)
    cases = next(iter(page.session_state["looked at"].values()))[0]
    (kept,) = csv.DictReader(io.StringIO(_csv(cases).decode()))
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
