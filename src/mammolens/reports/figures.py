"""Every figure, drawn with matplotlib, written as PNG or SVG. Computes nothing a report states."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from warnings import catch_warnings, filterwarnings

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from mammolens import numerals
from mammolens.files import check_new_file, written_whole
from mammolens.judging.schema import LevelReport, Report
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.records import LABEL_NAMES

Points = tuple[Sequence[float], Sequence[float]]
"""x and y of a curve."""

INK, ACCENT, SECOND, QUIET, MUTED = "#1f2933", "#b4235a", "#1d4f91", "#9aa5b1", "#5b6875"
"""The colours of the house. Curves also differ in their dashes, for those who see no colour."""

_DRAWN = (Level.IMAGE, Level.BREAST)  # levels that have curves
_PAINTS = {
    INK: "var(--ink)",
    ACCENT: "var(--accent)",
    SECOND: "var(--note)",
    QUIET: "var(--quiet)",
    MUTED: "var(--quiet)",
    "#ffffff": "none",
    "#000000": "var(--ink)",
}
_CURVES = ((ACCENT, "-"), (SECOND, (0, (5, 1.5))), (INK, (0, (1, 1))))
_SIZE = (4.6, 4.2)
_SMALL = 9  # size of letters in points


SUFFIXES = (".png", ".svg")
"""Endings of files that figures are written to."""


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG or SVG, as the suffix says, whole or not at all.

    In an SVG, text stays text, and the same figure is the same file. Names from outside stay what
    they are: dollars make no formula, and a letter that the font lacks is a box, without a warning.

    Raises:
        DataError: the name has another ending, or cannot be written.
    """
    check_new_file(path, SUFFIXES)
    drawn = {"metadata": {"Date": None}} if path.suffix.lower() == ".svg" else {"dpi": 150}
    steady = mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mammolens", "text.parse_math": False})
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with written_whole(path) as temporary, steady, catch_warnings():
        filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(temporary, bbox_inches="tight", **drawn)


def draw(report: Report) -> dict[str, Figure]:
    """Draw what can be drawn of a report, by name. The points are the report's own."""
    levels = {level: report.levels[level] for level in _DRAWN if level in report.levels}
    found = {"auc": _auc_figure(report)}
    if curves := {_named(one, "roc_auc", "AUC"): one for one in levels.values() if one.roc.x}:
        points = {name: (one.roc.x, one.roc.y) for name, one in curves.items()}
        found["roc"] = roc_figure(points, "Receiver operating characteristic")
    if curves := {_named(one, "average_precision", "AP"): one for one in levels.values() if one.precision_recall.x}:
        found["precision-recall"] = precision_recall_figure(
            {n: (one.precision_recall.x, one.precision_recall.y) for n, one in curves.items()},
            {name: one.tumors / one.subjects for name, one in curves.items()},
            "Precision and recall; dotted: prevalence",
        )
    for level, one in levels.items():
        found |= _level_figures(level, one, report.default_point)
    risks = {f"by {level}": one.risk_coverage for level, one in levels.items()}
    if points := {name: (curve.x, curve.y) for name, curve in risks.items() if curve.x}:
        found["risk-coverage"] = risk_coverage_figure(points, "Risk and coverage")
    if report.subgroups:
        rows = [(f"{one.variable} {one.value}", one.roc_auc) for one in report.subgroups]
        whole = report.images.discrimination["roc_auc"].value
        found["subgroups"] = forest_figure(rows, ("all", whole), "AUC by subgroup", "AUC")
    return found


def _level_figures(level: Level, one: LevelReport, point: str) -> dict[str, Figure]:
    curve = one.decision_curve
    found = {f"confusion-{level}": confusion_figure(one.decisions[point].confusion, f"by {level}, {point}")}
    if curve.thresholds:
        found[f"decision-curve-{level}"] = decision_curve_figure(
            curve.thresholds, curve.model, curve.treat_all, f"Net benefit, by {level}"
        )
    if one.calibration:
        bins = one.calibration.bins
        found[f"reliability-{level}"] = reliability_figure(
            [each.mean_probability for each in bins],
            [each.observed for each in bins],
            f"Reliability, by {level}",
        )
    return found


def _auc_figure(report: Report) -> Figure:
    rows: list[tuple[str, Estimate]] = [
        (f"model, by {level}", report.levels[level].discrimination["roc_auc"])
        for level in Level
        if level in report.levels
    ]
    rows += [(f"{name} alone", value) for name, value in report.references.items()]
    return forest_figure(rows, ("chance", 0.5), "With and without pixels", "AUC")


def _named(one: LevelReport, key: str, short: str) -> str:
    return f"by {one.level}, {short} {numerals.figure(one.discrimination[key].value)}"


def inline(name: str, svg: str) -> str:
    """Return an SVG file as part of a page: its own ids, the page's colours, no addresses."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for colour, paint in _PAINTS.items():
        svg = svg.replace(colour, paint)
    return svg.strip().replace("<svg", '<svg role="img"', 1)


def learning_curves(history: Mapping[str, Sequence[float]], best_epoch: int) -> Figure:
    """Draw loss and AUC over epochs, training and validation, with the epoch that was kept."""
    figure = Figure(figsize=(9.2, 3.8))
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "auc"), ("Binary cross-entropy", "AUC"), strict=True):
        epochs = np.arange(1, len(history[key]) + 1)
        axes.plot(epochs, history[key], color=QUIET, label="training")
        axes.plot(epochs, history[f"val_{key}"], color=ACCENT, label="validation")
        axes.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=":", label="kept")
        axes.set(xlabel="epoch", title=title)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def roc_figure(curves: Mapping[str, Points], caption: str) -> Figure:
    """Draw receiver operating characteristics beside the line of chance.

    Args:
        curves: at most three: 1 - specificity and sensitivity, by what to call each.
        caption: what stands above.
    """
    figure, axes = _square(caption, "1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    for place, (name, (x, y)) in enumerate(curves.items()):
        colour, dashes = _CURVES[place]
        axes.plot(x, y, color=colour, linestyle=dashes)
        touched = _crossing(y, x, (0.5, 0.75, 0.9)[place])[::-1]
        _label(axes, name, colour, touched, (0.46, 0.07 + 0.09 * place))
    return figure


def precision_recall_figure(curves: Mapping[str, Points], prevalence: Mapping[str, float], caption: str) -> Figure:
    """Draw precision over recall beside each prevalence, which is what guessing reaches.

    Args:
        curves: at most three: recall, rising, and precision, by what to call each.
        prevalence: of each.
        caption: what stands above.
    """
    figure, axes = _square(caption, "recall (sensitivity)", "precision")
    for place, (name, (x, y)) in enumerate(curves.items()):
        colour, dashes = _CURVES[place]
        axes.axhline(prevalence[name], color=colour, linestyle=":", linewidth=1)
        axes.step(x, y, where="pre", color=colour, linestyle=dashes)
        touched = _crossing(x, y, (0.25, 0.5, 0.75)[place])
        _label(axes, name, colour, touched, (0.46, 0.97 - 0.09 * place))
    return figure


def reliability_figure(expected: Sequence[float], observed: Sequence[Estimate], caption: str) -> Figure:
    """Draw how often a tumor was there over how often the mean probability of a bin says so."""
    figure, axes = _square(caption, "mean probability", "observed frequency of tumors")
    bins = [(x, one) for x, one in zip(expected, observed, strict=True) if _is_known(one)]
    reach = 1.05 * max((edge for x, one in bins for edge in (x, one.high)), default=1.0)
    axes.set(xlim=(-0.02 * reach, reach), ylim=(-0.02 * reach, reach))
    axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    axes.text(0.93 * reach, 0.87 * reach, "ideal", color=MUTED, fontsize=_SMALL, va="top")
    for x, one in bins:
        axes.plot([x, x], [one.low, one.high], color=ACCENT, linewidth=1.4)
    axes.plot([x for x, _ in bins], [one.value for _, one in bins], "o", color=ACCENT, markersize=5)
    return figure


def risk_coverage_figure(curves: Mapping[str, Points], caption: str) -> Figure:
    """Draw the share of wrong answers over the share of subjects that get one, surest first.

    Args:
        curves: at most three: coverage, rising, and error, by what to call each.
        caption: what stands above.
    """
    figure, axes = _plain(caption, "coverage (fraction answered)", "risk (fraction wrong)")
    top = max((value for _, y in curves.values() for value in y), default=0.0) or 1.0
    axes.set(xlim=(0, 1), ylim=(-0.01 * top, 1.4 * top))
    for place, (name, (x, y)) in enumerate(curves.items()):
        colour, dashes = _CURVES[place]
        axes.plot(x, y, color=colour, linestyle=dashes)
        touched = _crossing(x, y, (0.85, 0.65, 0.45)[place])
        _label(axes, name, colour, touched, (0.03, 0.97 - 0.09 * place), "right")
    return figure


def decision_curve_figure(
    thresholds: Sequence[float], model: Sequence[float], treat_all: Sequence[float], caption: str
) -> Figure:
    """Draw net benefit over threshold probabilities, beside calling everyone and no one."""
    figure, axes = _plain(caption, "threshold probability", "net benefit")
    top = max(*model, *treat_all, 1e-6) if model else 1.0
    useful = [x for x, y in zip(thresholds, model, strict=True) if abs(y) > top / 100]
    axes.set(xlim=(0, min(1, 1.1 * max(useful, default=1))), ylim=(-0.4 * top, 1.2 * top))
    axes.axhline(0, color=INK, linestyle=":", linewidth=1, label="call no one")
    axes.plot(thresholds, treat_all, color=SECOND, linestyle="--", label="call everyone")
    axes.plot(thresholds, model, color=ACCENT, label="as the model says")
    axes.legend(frameon=False, labelcolor="linecolor", fontsize=_SMALL, reverse=True)
    return figure


def forest_figure(
    rows: Sequence[tuple[str, Estimate]], reference: tuple[str, float], caption: str, measure: str
) -> Figure:
    """Draw each figure with its interval on a row of its own, beside a line of reference.

    Args:
        rows: from above: what to call each, and its figure; NaN is written as not defined.
        reference: what to call the line, and where it stands.
        caption: what stands above.
        measure: what the figures are.
    """
    figure, axes = _plain(caption, measure, "", height=1.1 + 0.3 * max(len(rows), 1))
    name, at = reference
    axes.axvline(at, color=MUTED, linestyle=":", linewidth=1)
    _beside(axes, name, (at, -0.75))
    for height, (_, one) in enumerate(rows):
        if _is_known(one):
            axes.plot([one.low, one.high], [height, height], color=ACCENT, linewidth=1.6)
            axes.plot([one.value], [height], "o", color=ACCENT, markersize=5.5)
        else:
            _beside(axes, "not defined", (at, height))
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def importance_figure(shares: Mapping[str, float], caption: str) -> Figure:
    """Draw a bar for each share, from above."""
    figure, axes = _plain(caption, "share of the spread", "", height=1.1 + 0.3 * len(shares))
    axes.barh(list(shares), list(shares.values()), height=0.5, color=ACCENT)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    return figure


def parallel_coordinates(
    axes_of: Mapping[str, Mapping[str, float]], lines: Sequence[Sequence[float]], strength: Sequence[float]
) -> Figure:
    """Draw a line for each row across upright axes, one a column; the stronger, the darker and further in front.

    Args:
        axes_of: by what to call each axis: its marks, and where in [0, 1] each is.
        lines: rows of places in [0, 1], one an axis; NaN leaves a gap.
        strength: of each row, in [0, 1].
    """
    figure = Figure(figsize=(max(_SIZE[0], 1.5 * len(axes_of)), 3.4))
    axes = figure.subplots()
    for line, strong in sorted(zip(lines, strength, strict=True), key=lambda both: both[1]):
        axes.plot(line, color=ACCENT, alpha=0.15 + 0.85 * strong, linewidth=0.8 + 1.4 * strong)
    for column, marks in enumerate(axes_of.values()):
        axes.axvline(column, color=QUIET, linewidth=0.8)
        for mark, height in marks.items():
            _beside(axes, mark, (column, height))
    names = [name.replace(".", ".\n") for name in axes_of]
    axes.set_xticks(range(len(axes_of)), names, color=INK, fontsize=_SMALL)
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.05)
    axes.spines[:].set_visible(False)
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
            f"{count}\n{numerals.percent(share)}",
            ha="center",
            va="center",
            color="white" if share > 0.6 else INK,  # noqa: PLR2004 - legible on the dark end
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
        axes.set_title(title, fontsize=5, color=INK)
    return figure


def _plain(caption: str, x_label: str, y_label: str, height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIZE[0], height))
    axes = figure.subplots()
    axes.set_title(caption, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(color=QUIET, labelcolor=INK, labelsize=_SMALL)
    axes.locator_params(axis="x", nbins=6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    return figure, axes


def _square(caption: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = _plain(caption, x_label, y_label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    return figure, axes


def _label(
    axes: Axes,
    words: str,
    colour: str,
    touched: tuple[float, float],
    spot: tuple[float, float],
    edge: Literal["left", "right"] = "left",
) -> None:
    """Write what a curve is at `spot`, in shares of the axes; a thin line leads to the curve."""
    line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate(
        words,
        touched,
        spot,
        textcoords="axes fraction",
        color=colour,
        fontsize=_SMALL,
        verticalalignment="center",
        arrowprops=line | {"relpos": (0 if edge == "left" else 1, 0.5)},
    )


def _beside(axes: Axes, words: str, point: tuple[float, float]) -> None:
    axes.annotate(
        words,
        point,
        (4, 0),
        textcoords="offset points",
        color=MUTED,
        fontsize=_SMALL,
        verticalalignment="center",
    )


def _crossing(along: Sequence[float], across: Sequence[float], at: float) -> tuple[float, float]:
    """Return the first point of a curve whose value along reaches `at`, or its last."""
    place = next((i for i, value in enumerate(along) if value >= at), len(along) - 1)
    return along[place], across[place]


def _is_known(figure: Estimate) -> bool:
    return bool(np.isfinite([figure.value, figure.low, figure.high]).all())
