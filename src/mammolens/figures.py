"""Every figure, drawn with matplotlib and written as PNG. Computes nothing that a report states."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from mammolens.files import written_whole
from mammolens.records import LABEL_NAMES

_INK, _ACCENT, _QUIET = "#1f2933", "#b4235a", "#9aa5b1"
_SIZE = (4.6, 4.2)


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG, whole or not at all."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")


def learning_curves(history: Mapping[str, Sequence[float]], best_epoch: int) -> Figure:
    """Draw loss and AUC over epochs, training and validation, with the epoch that was kept."""
    figure = Figure(figsize=(9.2, 3.8))
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", "auc"), ("Binary cross-entropy", "AUC"), strict=True
    ):
        epochs = np.arange(1, len(history[key]) + 1)
        axes.plot(epochs, history[key], color=_QUIET, label="training")
        axes.plot(epochs, history[f"val_{key}"], color=_ACCENT, label="validation")
        axes.axvline(best_epoch, color=_INK, linewidth=0.8, linestyle=":", label="kept")
        axes.set(xlabel="epoch", title=title)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def roc_figure(labels: NDArray[np.float32], scores: NDArray[np.float64], caption: str) -> Figure:
    """Draw the receiver operating characteristic beside the line of chance."""
    false_positive_rate, sensitivity, _ = roc_curve(labels, scores)
    figure, axes = _square(caption, "1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_QUIET, linestyle=":", linewidth=1)
    axes.plot(false_positive_rate, sensitivity, color=_ACCENT)
    return figure


def precision_recall_figure(
    labels: NDArray[np.float32], scores: NDArray[np.float64], caption: str
) -> Figure:
    """Draw precision over recall beside the prevalence, which is what guessing reaches."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    figure, axes = _square(caption, "recall (sensitivity)", "precision")
    axes.axhline(float(labels.mean()), color=_QUIET, linestyle=":", linewidth=1)
    axes.step(recall, precision, where="post", color=_ACCENT)
    return figure


def confusion_figure(counts: Sequence[Sequence[int]], caption: str) -> Figure:
    """Draw the counts [[true negatives, false positives], [false negatives, true positives]]."""
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    matrix = np.asarray(counts)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="PuRd", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{count}\n{share:.0%}",
            ha="center",
            va="center",
            color="white" if share > 0.6 else _INK,  # noqa: PLR2004 - legible on the dark end
        )
    axes.set(xlabel="called", ylabel="is", title=caption)
    axes.set_xticks([0, 1], LABEL_NAMES)
    axes.set_yticks([0, 1], LABEL_NAMES, rotation=90, va="center")
    return figure


def contact_sheet(pictures: Sequence[tuple[str, NDArray[np.float32]]], columns: int = 10) -> Figure:
    """Draw pictures, each (height, width) in [0, 1], with their titles, on a grid."""
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(columns * 1.3, rows * 1.6))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (title, pixels) in zip(grid.flat, pictures, strict=False):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=5, color=_INK)
    return figure


def _square(caption: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x_label, ylabel=y_label, title=caption)
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
