import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mammolens.measures.intervals import Estimate
from mammolens.reports.figures import (
    Points,
    confusion_figure,
    contact_sheet,
    decision_curve_figure,
    forest_figure,
    learning_curves,
    precision_recall_figure,
    reliability_figure,
    risk_coverage_figure,
    roc_figure,
    save_figure,
)

ROC: Points = ((0.0, 0.0, 0.5, 1.0), (0.0, 0.5, 1.0, 1.0))
PRECISION_RECALL: Points = ((0.0, 0.5, 1.0), (1.0, 1.0, 2 / 3))
NOT_DEFINED = Estimate(math.nan, math.nan, math.nan)


def data(line: Line2D) -> tuple[list[float], list[float]]:
    x, y = (np.asarray(values).tolist() for values in line.get_data())
    return x, y


def lines(figure: Figure) -> list[tuple[list[float], list[float]]]:
    return [data(line) for line in figure.axes[0].lines]


def words(figure: Figure) -> list[str]:
    return [text.get_text().strip() for text in figure.axes[0].texts]


def test_learning_curves_show_both_splits_and_the_kept_epoch() -> None:
    history = {"loss": [0.7, 0.6], "auc": [0.5, 0.6], "val_loss": [0.8, 0.7], "val_auc": [0.4, 0.5]}
    loss, auc = learning_curves(history, best_epoch=2).axes
    assert [data(line)[1][-1] for line in loss.lines[:2]] == [0.6, 0.7]
    assert [data(line)[1][-1] for line in auc.lines[:2]] == [0.6, 0.5]
    assert data(loss.lines[2])[0] == [2, 2]


def test_curves_are_drawn_as_given_and_named() -> None:
    given = [list(ROC[0]), list(ROC[1])], [[0.0, 1.0], [0.0, 1.0]]
    figure = roc_figure({"image": ROC, "breast": ((0.0, 1.0), (0.0, 1.0))}, "two")
    assert [list(line) for line in lines(figure)[1:]] == list(given)
    assert words(figure) == ["image", "breast"]
    risk = risk_coverage_figure({"image": ROC}, "one")
    assert lines(risk) == [(given[0][0], given[0][1])]
    assert words(risk) == ["image"]


def test_precision_stands_beside_each_prevalence() -> None:
    curves = {"image": PRECISION_RECALL, "breast": PRECISION_RECALL}
    figure = precision_recall_figure(curves, {"image": 0.5, "breast": 0.4}, "two")
    guess, curve, other_guess, _ = lines(figure)
    assert (guess[1][0], other_guess[1][0]) == (0.5, 0.4)
    assert curve == (list(PRECISION_RECALL[0]), list(PRECISION_RECALL[1]))


def test_reliability_has_a_bar_for_each_bin_that_is_known() -> None:
    observed = (Estimate(0.1, 0.05, 0.2), NOT_DEFINED, Estimate(0.3, 0.2, 0.4))
    figure = reliability_figure((0.12, 0.2, 0.33), observed, "three")
    _, *bars, dots = lines(figure)
    assert bars == [([0.12, 0.12], [0.05, 0.2]), ([0.33, 0.33], [0.2, 0.4])]
    assert dots == ([0.12, 0.33], [0.1, 0.3])
    assert figure.axes[0].get_xlim()[1] == pytest.approx(0.42)


def test_a_decision_curve_shows_where_it_is_of_use() -> None:
    thresholds = [0.1, 0.2, 0.3, 0.4]
    figure = decision_curve_figure(thresholds, [0.05, 0.02, 0.0, 0.0], [0.05, -0.1, -0.2, -1], "")
    none, everyone, model = lines(figure)
    assert none[1] == [0, 0]
    assert everyone == (thresholds, [0.05, -0.1, -0.2, -1])
    assert model == (thresholds, [0.05, 0.02, 0.0, 0.0])
    assert figure.axes[0].get_xlim()[1] == pytest.approx(0.22)


def test_a_forest_has_a_row_for_each_figure_and_says_what_is_not_defined() -> None:
    rows = [("image", Estimate(0.7, 0.6, 0.8)), ("age", NOT_DEFINED)]
    figure = forest_figure(rows, ("chance", 0.5), "two", "AUC")
    reference, bar, dot = lines(figure)
    assert reference[0] == [0.5, 0.5]
    assert (bar, dot) == (([0.6, 0.8], [0, 0]), ([0.7], [0]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["image", "age"]
    assert words(figure) == ["chance", "not defined"]


def test_figures_of_nothing_are_drawn_too(tmp_path: Path) -> None:
    empty = (
        roc_figure({}, ""),
        precision_recall_figure({}, {}, ""),
        reliability_figure((), (), ""),
        risk_coverage_figure({}, ""),
        decision_curve_figure((), (), (), ""),
        forest_figure((), ("chance", 0.5), "", "AUC"),
    )
    for place, figure in enumerate(empty):
        save_figure(figure, tmp_path / f"{place}.svg")


def test_confusion_shows_every_count() -> None:
    texts = [text.get_text() for text in confusion_figure(((8, 2), (1, 3)), "").axes[0].texts]
    assert texts == ["8\n80.0 %", "2\n20.0 %", "1\n25.0 %", "3\n75.0 %"]


def test_a_contact_sheet_has_a_place_for_each_picture(tmp_path: Path) -> None:
    pictures = [(str(index), np.zeros((8, 6), np.float32)) for index in range(13)]
    figure = contact_sheet(pictures, columns=5)
    assert [axes.get_title() for axes in figure.axes][:13] == [title for title, _ in pictures]
    save_figure(figure, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_an_svg_is_the_same_each_time_and_keeps_its_words(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        save_figure(roc_figure({"image": ROC}, "three points"), tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert ">three points</text>" in text
    assert "<dc:date>" not in text


@pytest.mark.parametrize("name", ["$$", "a$x_$b", "$\\frac$", "日本 🩻", "cr\r"])
def test_names_from_outside_are_drawn_as_they_are(tmp_path: Path, name: str) -> None:
    figure = contact_sheet([(name, np.zeros((4, 4), np.float32))])
    save_figure(figure, tmp_path / "figure.png")
    save_figure(figure, tmp_path / "figure.svg")
    shown = (tmp_path / "figure.svg").read_text("utf-8")
    assert f">{name}<" in shown or "\r" in name
