"""Which figures a `Report` has: drawn from its own points, and put into a page."""

import re

from matplotlib.figure import Figure

from mammolens.judging.schema import LevelReport, Report
from mammolens.measures.metrics import Estimate
from mammolens.records import Level
from mammolens.reports import figures
from mammolens.reports.citations import written

_DRAWN = (Level.IMAGE, Level.BREAST)  # levels that have curves
_PAINTS = {
    figures.INK: "var(--ink)",
    figures.ACCENT: "var(--accent)",
    figures.SECOND: "var(--note)",
    figures.QUIET: "var(--quiet)",
    figures.MUTED: "var(--quiet)",
    "#ffffff": "none",
    "#000000": "var(--ink)",
}


def draw(report: Report) -> dict[str, Figure]:
    """Draw what can be drawn of a report, by name. The points are the report's own."""
    levels = {level: report.levels[level] for level in _DRAWN if level in report.levels}
    found = {"auc": _auc_figure(report)}
    if curves := {_named(one, "roc_auc", "AUC"): one for one in levels.values() if one.roc.x}:
        points = {name: (one.roc.x, one.roc.y) for name, one in curves.items()}
        found["roc"] = figures.roc_figure(points, "Receiver operating characteristic")
    if curves := {_named(one, "average_precision", "AP"): one for one in levels.values() if one.precision_recall.x}:
        found["precision-recall"] = figures.precision_recall_figure(
            {n: (one.precision_recall.x, one.precision_recall.y) for n, one in curves.items()},
            {name: one.tumors / one.subjects for name, one in curves.items()},
            "Precision and recall; dotted: prevalence",
        )
    for level, one in levels.items():
        found |= _level_figures(level, one, report.default_point)
    risks = {f"by {level}": one.risk_coverage for level, one in levels.items()}
    if points := {name: (curve.x, curve.y) for name, curve in risks.items() if curve.x}:
        found["risk-coverage"] = figures.risk_coverage_figure(points, "Risk and coverage")
    if report.subgroups:
        rows = [(f"{one.variable} {one.value}", one.roc_auc) for one in report.subgroups]
        whole = report.images.discrimination["roc_auc"].value
        found["subgroups"] = figures.forest_figure(rows, ("all", whole), "AUC by subgroup", "AUC")
    return found


def _level_figures(level: Level, one: LevelReport, point: str) -> dict[str, Figure]:
    curve = one.decision_curve
    found = {f"confusion-{level}": figures.confusion_figure(one.decisions[point].confusion, f"by {level}, {point}")}
    if curve.thresholds:
        found[f"decision-curve-{level}"] = figures.decision_curve_figure(
            curve.thresholds, curve.model, curve.treat_all, f"Net benefit, by {level}"
        )
    if one.calibration:
        bins = one.calibration.bins
        found[f"reliability-{level}"] = figures.reliability_figure(
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
    return figures.forest_figure(rows, ("chance", 0.5), "With and without pixels", "AUC")


def _named(one: LevelReport, key: str, short: str) -> str:
    return f"by {one.level}, {short} {written(one.discrimination[key].value, 'three')}"


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
