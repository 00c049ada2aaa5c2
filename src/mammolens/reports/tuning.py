"""A `Tuning` written: ``trials.csv``, figures, ``tuning.html`` (no network, no script) and, last, ``tuning.json``."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mammolens.data.csv_table import write_row
from mammolens.files import write_text, written_whole
from mammolens.judging.tuning import Trial, Tuning
from mammolens.reports.figures import importance_figure, inline, parallel_coordinates, save_figure
from mammolens.reports.pages import Cited, setting, template

_WIDE = 30  # times the smallest: more than equal steps on an axis can show


def write_report(tuning: Tuning, folder: Path) -> None:
    """Write all that people read of a search, each file whole or not at all.

    Raises:
        DataError: `folder` cannot be written to.
    """
    figures = {}
    for name, figure in _drawn(tuning):
        for suffix in ("png", "svg"):
            save_figure(figure, folder / "figures" / f"{name}.{suffix}")
        figures[name] = inline(name, (folder / "figures" / f"{name}.svg").read_text("utf-8"))
    _write_table(tuning, folder / "trials.csv")
    page = template("tuning.html.j2").render(
        tuning=tuning,
        json=Cited(json.loads(tuning.model_dump_json())),
        names=_names(tuning.trials),
        figures=figures,
    )
    write_text(folder / "tuning.html", page)
    write_text(folder / "tuning.json", tuning.model_dump_json(indent=2) + "\n")


def _names(trials: Sequence[Trial]) -> list[str]:
    """Return the fields that any trial changes."""
    return list(dict.fromkeys(name for trial in trials for name in trial.settings))


def _write_table(tuning: Tuning, path: Path) -> None:
    names = _names(tuning.trials)
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        write_row(stream, ("trial", "state", "roc_auc", "low", "high", "folds", "seconds", "why", *names))
        for one in tuning.trials:
            auc = one.roc_auc
            told = (auc.value, auc.low, auc.high) if auc else ("", "", "")
            values = (one.settings.get(name, "") for name in names)
            seconds = "" if one.seconds is None else round(one.seconds, 1)
            write_row(stream, (one.number, one.state, *told, one.folds, seconds, one.why, *values))


def _drawn(tuning: Tuning) -> Iterator[tuple[str, Figure]]:
    tried = [one for one in tuning.trials if one.settings and one.roc_auc and math.isfinite(one.roc_auc.value)]
    if tried:
        yield "trials", _coordinates(tried, tuning.folds)
    if tuning.importance:
        yield "importance", importance_figure(tuning.importance, "What explains the scores of first folds")


def _coordinates(trials: Sequence[Trial], folds: int) -> Figure:
    """Draw each trial across its settings to its AUC; those that were stopped are pale."""
    scores = [one.roc_auc.value for one in trials if one.roc_auc]
    columns: dict[str, Sequence[Any]] = {name: [one.settings.get(name) for one in trials] for name in _names(trials)}
    placed = {name: _placed(values) for name, values in (columns | {"AUC": scores}).items()}
    lines = list(zip(*(places for _, places in placed.values()), strict=True))
    heights = placed["AUC"][1]
    strength = [height if one.folds == folds else 0.0 for height, one in zip(heights, trials, strict=True)]
    return parallel_coordinates({name: marks for name, (marks, _) in placed.items()}, lines, strength)


def _placed(values: Sequence[Any]) -> tuple[dict[str, float], list[float]]:
    """Return the marks of an axis and where values lie on it: numbers by size, or by powers of ten; else by name."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in known):
        names = sorted({setting(value) for value in known})
        marks = {name: place / max(1, len(names) - 1) for place, name in enumerate(names)}
        return marks, [math.nan if value is None else marks[setting(value)] for value in values]
    low, high = min(known), max(known)
    scale = math.log if low > 0 and high > _WIDE * low else float
    width = scale(high) - scale(low) or 1.0
    places = [math.nan if value is None else (scale(value) - scale(low)) / width for value in values]
    return {setting(low): 0.0, setting(high): (scale(high) - scale(low)) / width}, places
