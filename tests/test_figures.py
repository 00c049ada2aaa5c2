from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from mammolens.figures import (
    confusion_figure,
    contact_sheet,
    learning_curves,
    roc_figure,
    save_figure,
)
from mammolens.figures import precision_recall_figure as precision_recall

LABELS = np.array([0, 0, 1, 1], np.float32)
SCORES = np.array([0.1, 0.6, 0.4, 0.9])


def data(line: Line2D) -> tuple[list[float], list[float]]:
    x, y = (np.asarray(values).tolist() for values in line.get_data())
    return x, y


def test_learning_curves_show_both_splits_and_the_kept_epoch() -> None:
    history = {"loss": [0.7, 0.6], "auc": [0.5, 0.6], "val_loss": [0.8, 0.7], "val_auc": [0.4, 0.5]}
    loss, auc = learning_curves(history, best_epoch=2).axes
    assert [data(line)[1][-1] for line in loss.lines[:2]] == [0.6, 0.7]
    assert [data(line)[1][-1] for line in auc.lines[:2]] == [0.6, 0.5]
    assert data(loss.lines[2])[0] == [2, 2]


def test_curves_end_where_they_must() -> None:
    x, y = data(roc_figure(LABELS, SCORES, "four").axes[0].lines[1])
    assert (x[0], y[0]) == (0, 0)
    assert (x[-1], y[-1]) == (1, 1)
    guess = precision_recall(LABELS, SCORES, "four").axes[0].lines[0]
    assert data(guess)[1][0] == 0.5


def test_confusion_shows_every_count() -> None:
    texts = [text.get_text() for text in confusion_figure(((8, 2), (1, 3)), "").axes[0].texts]
    assert texts == ["8\n80%", "2\n20%", "1\n25%", "3\n75%"]


def test_a_contact_sheet_has_a_place_for_each_picture(tmp_path: Path) -> None:
    pictures = [(str(index), np.zeros((8, 6), np.float32)) for index in range(13)]
    figure = contact_sheet(pictures, columns=5)
    assert [axes.get_title() for axes in figure.axes][:13] == [title for title, _ in pictures]
    save_figure(figure, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
