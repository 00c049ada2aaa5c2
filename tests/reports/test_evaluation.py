import io
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from matplotlib.figure import Figure
from PIL import Image as Pillow
from test_model_card import HOSTILE, as_written, bare, decision, full, in_json

from mammolens.data.manifest import Manifest
from mammolens.judging.judge import EvaluationSet, judge
from mammolens.judging.schema import Model, Report
from mammolens.levels import Level
from mammolens.model.decisions import FIXED, Rules, unmeasured
from mammolens.records import Mammogram, Prediction, Split
from mammolens.reports import evaluation
from mammolens.reports.evaluation import evaluation_page, write_report
from mammolens.reports.figures import draw

ALLOWED = ("95 %", "0.5 is", "Lehman et al. 2017, Radiology 283:49")


def judged(odd: str = "") -> Report:
    """What `judge` makes of drawn probabilities; the picture `odd` is not admitted."""
    generator = np.random.default_rng(1)
    manifest, answers = [], []
    for patient in range(30):
        for side in "LR":
            label = int(patient % 3 == 0 and side == "L")
            path = Path(f"{patient}_{side}.png")
            manifest.append(
                Mammogram(path, label, Split.TEST, str(patient), laterality=side)  # type: ignore[arg-type]
            )
            probability = float(np.clip(0.3 + 0.2 * label + generator.normal(0, 0.15), 0, 1))
            admitted = path.name != odd
            answers.append(Prediction(path, round(probability, 6), admitted=admitted))
    rules = Rules(FIXED, {level: {FIXED: unmeasured(0.5)} for level in Level})
    return judge(answers, EvaluationSet(Manifest(tuple(manifest)), Split.TEST, "drawn"), rules, Model(name="x"))


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Pillow.new("L", (4, 6), shade).save(stream, "PNG")
    return stream.getvalue()


PICTURES = (png(10), png(200))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each report, written once."""
    root = tmp_path_factory.mktemp("reports")
    write_report(full(), root / "full", PICTURES)
    write_report(bare(), root / "bare")
    write_report(judged(), root / "judged")
    return root


def read(folder: Path, name: str) -> tuple[str, Page, dict[str, Any]]:
    text = (folder / name / "report.html").read_text(encoding="utf-8")
    stored = json.loads((folder / name / "report.json").read_text(encoding="utf-8"))
    return text, Page(text), stored


EACH = pytest.mark.parametrize("name", ["full", "bare", "judged"])


def test_what_gets_no_decision_in_use_is_said_and_counted_as_wrong_once() -> None:
    report = judged("0_L.png")
    assert report.images.not_admitted == (0, 1)
    text = Page(evaluation_page(report, {}, ())).all_words
    said = (
        "Sensitivity, images without a decision counted as wrong",
        "all the same, but without a decision in use",
    )
    assert all(part in text for part in said)
    other = Page(evaluation_page(judged(), {}, ())).all_words
    assert not any(part in other for part in said)


@EACH
def test_every_number_cites_its_place_in_the_json(folder: Path, name: str) -> None:
    _, page, stored = read(folder, name)
    assert len(page.cited) > 40
    for attributes, text in page.cited:
        value = in_json(stored, attributes["data-of"])
        told = value if isinstance(value, str) else json.dumps(value)
        assert attributes["value"] == told, attributes
        assert text == as_written(value, attributes["data-as"]), attributes


HEADINGS = {
    "By image": "levels.image.",
    "By patient": "levels.patient.",
    "sensitivity-90": ".sensitivity-90.",
    "Age alone": "references.age.",
    "US screening radiologists (BCSC)": "benchmark.",
    "AUC with DeLong's interval": ".delong.",
    "Sensitivity (95 % interval)": "sensitivity",
    "Specificity": ".measures.specificity.",
    "Positive predictive value": ".measures.precision.",
    "Negative predictive value, re-scaled to 0.5 %": ".at_screening_prevalence.negative",
    "Prevalence here": ".at_own_prevalence.prevalence",
    "is tumor": ".confusion.1.",
    "Intercept (ideal: 0)": ".calibration.in_the_large.",
    "Brier score: resolution": ".calibration.resolution",
    "Mean probability": ".mean_probability",
    "Coverage promised": ".promised",
    "Observed, tumor": ".coverage.tumor.",
    "Errors among the certain": ".error.",
    "density C <dense> stands out: worse": "subgroups.1.",
    "Difference from others": ".difference.",
    "Adjusted p": ".adjusted",
    "Peak of the map in a box": ".hit_rate.",
    "By chance": ".chance_rate",
    "Drop in AUC": ".drop.",
    "AUC of age": "with_age.",
    "Both minus the picture, paired": ".difference.",
    "Probability of a tumor": ".probability",
}
"""What stands above or beside a number, and what its place in the JSON must hold."""


def test_numbers_stand_under_their_headings(folder: Path) -> None:
    text, seen = read(folder, "full")[0], set()

    def headings(part: str) -> list[str]:
        found = re.findall(r"<th[^>]*>(.*?)</th>", part, flags=re.DOTALL)
        return [unescape(re.sub(r"<[^>]+>", "", one)) for one in found]

    for table in re.findall(r"<table>.*?</table>", text, flags=re.DOTALL):
        head, body = table.split("</thead>")
        for row in body.split("<tr>")[1:]:
            for column, cell in zip(headings(head)[1:], row.split("<td>")[1:], strict=True):
                for name in {column, headings(row)[0]} & set(HEADINGS):
                    places = re.findall(r'data-of="([^"]*)"', cell)
                    assert all(HEADINGS[name] in place for place in places), (name, places)
                    seen |= {name} if places else set()
    assert seen == set(HEADINGS)


@EACH
def test_no_number_stands_on_the_page_without_its_place(folder: Path, name: str) -> None:
    words = read(folder, name)[1].words
    for phrase in ALLOWED:
        words = words.replace(phrase, "")
    assert not re.findall(r".{0,40}\d.{0,20}", words)


@EACH
def test_the_page_needs_nothing_from_elsewhere(folder: Path, name: str) -> None:
    text, page, _ = read(folder, name)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(names)
    for _, attributes in page.tags:
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#")
        assert not any(each.startswith("on") for each in attributes)
    assert not re.search(r"@import|url\((?!#)|https?:", text)
    assert "default-src 'none'" in text


@EACH
def test_places_are_known_and_none_is_there_twice(folder: Path, name: str) -> None:
    text, page, _ = read(folder, name)
    places = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(places) == len(set(places))
    links = [a.get("href", a.get("xlink:href", "")) for _, a in page.tags]
    asked = {link[1:] for link in links if link} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert asked <= set(places)


@EACH
def test_json_reads_back_as_the_same_report(folder: Path, name: str) -> None:
    made = {"full": full, "bare": bare, "judged": judged}[name]()
    text = (folder / name / "report.json").read_text(encoding="utf-8")
    assert text == made.model_dump_json(indent=2) + "\n"
    assert Report.model_validate_json(text).model_dump_json() == made.model_dump_json()


def test_what_is_wrong_comes_first(folder: Path) -> None:
    words = read(folder, "full")[1].all_words
    found = [
        words.index(part)
        for part in (
            "2 patients evaluated here are in the training split",
            "synthetic mammograms",
            "1 image without an answer",
            "17 images not like a mammogram",
            "1,234 images without a label",
            "AUC is the chance",
        )
    ]
    assert found == sorted(found)
    assert "Before you read on" not in read(folder, "judged")[1].all_words


def test_age_has_a_section_where_there_is_an_answer_with_it(folder: Path) -> None:
    text, page, _ = read(folder, "full")
    assert 'href="#age"' in text
    assert "the model has a second answer, of picture and age together" in page.all_words
    shown = [attributes["data-of"] for attributes, _ in page.cited if attributes["data-of"].startswith("with_age.")]
    assert len(shown) == 3 * (3 + 4 * 3)
    for name in ("bare", "judged"):
        text, page, _ = read(folder, name)
        assert "#age" not in text
        assert "With age" not in page.all_words


def test_what_stands_out_is_said_in_words(folder: Path) -> None:
    words = read(folder, "full")[1].all_words
    assert "density B stands out: better" in words
    assert "density C <dense> stands out: worse" in words
    assert words.count("stands out:") == 2


def test_what_is_missing_is_said_in_a_line(folder: Path) -> None:
    _, page, _ = read(folder, "bare")
    for words in (
        "Only one class is present",
        "No age and no other metadata",
        "No curves: only one class",
        "Not assessed: only one class",
        "No conformal thresholds",
        "No metadata in this data set",
        "No boxes in this data set",
        "Not tried in this evaluation",
        "None: every answer",
        "not defined",
    ):
        assert words in page.all_words, words
    assert not re.search(r"\bnan\b|None\b(?!:)|null", page.all_words)


def test_every_word_is_shown_and_none_is_markup(folder: Path) -> None:
    text, page, _ = read(folder, "full")
    made = full()
    for words in (made.model.name, made.data, made.command, "C <dense>"):
        assert words in page.all_words
    assert HOSTILE not in page.all_words, "names of files may be those of patients"
    assert "<dense>" not in text
    assert page.all_words.count("Research use only") == 2


def test_mistakes_have_their_pictures_or_none(folder: Path) -> None:
    _, page, _ = read(folder, "full")
    assert sum(tag == "img" for tag, _ in page.tags) == len(PICTURES)
    assert not any(tag == "img" for tag, _ in read(folder, "judged")[1].tags)
    with pytest.raises(ValueError, match="1 pictures of 2 mistakes"):
        write_report(full(), folder / "none", PICTURES[:1])
    assert not (folder / "none").exists()


def lines(drawn: Figure) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    return [
        (tuple(np.asarray(line.get_xdata()).tolist()), tuple(np.asarray(line.get_ydata()).tolist()))
        for line in drawn.axes[0].lines
    ]


def test_figures_draw_the_points_of_the_report() -> None:
    made = full()
    drawn = draw(made)
    for level in (made.levels[Level.IMAGE], made.levels[Level.BREAST]):
        assert (level.roc.x, level.roc.y) in lines(drawn["roc"])
        assert (level.precision_recall.x, level.precision_recall.y) in lines(drawn["precision-recall"])
        assert (level.risk_coverage.x, level.risk_coverage.y) in lines(drawn["risk-coverage"])
        curve = level.decision_curve
        benefit = lines(drawn[f"decision-curve-{level.level}"])
        assert (curve.thresholds, curve.model) in benefit
        assert (curve.thresholds, curve.treat_all) in benefit
        assert level.calibration
        bins = level.calibration.bins
        dots = tuple(b.mean_probability for b in bins), tuple(b.observed.value for b in bins)
        assert dots in lines(drawn[f"reliability-{level.level}"])
    known = [level.discrimination["roc_auc"] for level in made.levels.values()]
    for name, rows in (
        ("auc", [*known, *made.references.values()]),
        ("subgroups", [group.roc_auc for group in made.subgroups]),
    ):
        _, *rest = lines(drawn[name])
        assert rest == [
            points
            for height, one in enumerate(rows)
            for points in (((one.low, one.high), (height, height)), ((one.value,), (height,)))
        ]


def test_every_figure_is_there_as_png_and_svg(folder: Path) -> None:
    for name in ("full", "bare"):
        expected = set(draw({"full": full, "bare": bare}[name]()))
        for suffix in ("png", "svg"):
            found = (folder / name / "figures").glob(f"*.{suffix}")
            assert {path.stem for path in found} == expected


def test_the_page_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    write_report(full(), tmp_path, PICTURES)
    for name in ("report.html", "model-card.md", "report.json"):
        assert (tmp_path / name).read_bytes() == (folder / "full" / name).read_bytes()


def test_the_json_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "model_card", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(bare(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"figures", "report.html"}


def test_a_validation_split_is_never_called_independent(tmp_path: Path) -> None:
    made = full()
    write_report(made.model_copy(update={"split": Split.VALID}), tmp_path)
    words = Page((tmp_path / "report.html").read_text("utf-8")).all_words
    assert "The validation split is evaluated" in words
    assert "chosen on this very split" in words
    assert "never on these images" not in words


def test_a_name_may_have_any_sign(tmp_path: Path) -> None:
    made = full()
    one = made.images.model_copy(update={"decisions": {"at 0.5 / a": decision(0.5)}})
    levels = {Level.IMAGE: one}
    write_report(made.model_copy(update={"levels": levels, "default_point": "at 0.5 / a"}), tmp_path)
    assert "at 0.5 / a" in Page((tmp_path / "report.html").read_text("utf-8")).all_words
