"""A `Report` written: figures, ``report.html`` (no network, no script), ``model-card.md``, ``report.json``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mammolens.files import write_text
from mammolens.judging.schema import Report
from mammolens.levels import Level
from mammolens.model.bundle import Learnt
from mammolens.model.decisions import FIXED
from mammolens.reports.figures import draw, inline, save_figure
from mammolens.reports.pages import TERMS, Cited, data, measure, template

CHECKLISTS = data("checklists.toml")
"""TRIPOD+AI and CLAIM, item by item: where a report answers, and what a person must write."""

Field = tuple[str, str, str]
"""What a row or a column of a table shows: its name, the dotted path where it lies, its form."""

_MACHINES = {"machine_id", "manufacturer", "site_id"}


def write_report(report: Report, folder: Path, pictures: Sequence[bytes] = ()) -> None:
    """Write figures, ``report.html``, ``model-card.md`` and, last, ``report.json``.

    Args:
        report: what to write.
        folder: for the files; each is written whole or not at all.
        pictures: PNG of each mistake, in the report's order, or none.

    Raises:
        DataError: `folder` cannot be written to.
        ValueError: there are pictures, but not one for each mistake.
    """
    if pictures and len(pictures) != len(report.mistakes):
        raise ValueError(f"{len(pictures)} pictures of {len(report.mistakes)} mistakes")
    figures = {}
    for name, figure in draw(report).items():
        for suffix in ("png", "svg"):
            save_figure(figure, folder / "figures" / f"{name}.{suffix}")
        figures[name] = inline(name, (folder / "figures" / f"{name}.svg").read_text("utf-8"))
    write_text(folder / "report.html", evaluation_page(report, figures, pictures))
    write_text(folder / "model-card.md", model_card(report))
    write_text(folder / "report.json", report.model_dump_json(indent=2) + "\n")


def evaluation_page(report: Report, figures: Mapping[str, str], pictures: Sequence[bytes]) -> str:
    """Return ``report.html``, with figures as SVG by name, and a PNG of each mistake or none."""
    shown = _shown(report)
    for key, part in (("calibrated", "calibration"), ("conformal", "conformal")):
        shown[key] = [(name, level[part]) for name, level in shown["levels"] if level[part].content is not None]
    if report.localisation:
        where = shown["json"]["localisation"]
        shown["localised"] = [("All", where), *where["by_label"].items()]
    return template("evaluation.html.j2").render(shown, figures=figures, pictures=pictures)


def model_card(report: Report) -> str:
    """Return ``model-card.md``: after Mitchell et al. 2019 (FAccT), from the report alone."""
    rows = {name: checklist(name, report) for name in CHECKLISTS["source"]}
    return template("model-card.md.j2").render(
        _shown(report),
        told=_told(report.model.learnt or ()),
        checklists=rows,
        sources=CHECKLISTS["source"],
        makers=CHECKLISTS["left"]["makers"],
    )


def measured(path: str, keys: Iterable[str]) -> list[Field]:
    """Return the fields of measures below a path."""
    return [(name, f"{path}.{key}".lstrip("."), form) for key in keys for name, form in [measure(key)]]


def checklist(name: str, report: Report) -> list[tuple[str, str, str]]:
    """Return number, topic and where it is answered, or by whom to be, of each item of a checklist."""
    learnt = report.model.learnt or ()
    held = {
        "": True,
        "bundle": report.model.is_bundle,
        "learnt": bool(learnt),
        "leakage": report.counts.patients_also_in_training > 0,
        "localisation": report.localisation is not None,
        "machines": any(group.variable in _MACHINES for group in report.subgroups),
        "robustness": bool(report.robustness),
    }
    left, told = CHECKLISTS["left"], _told(learnt)
    rows = []
    for item in CHECKLISTS[name]:
        needs = item.get("needs", "")
        if "answered" in item and held[needs]:
            words = f"answered: {item['answered'].format_map(told)}"
        elif needs in left:
            words = f"{left['makers']}: {left[needs]}"
        else:
            words = f"{left['authors']}: {item['authors']}"
        rows.append((item["item"], item["topic"], words))
    return rows


def _shown(report: Report) -> dict[str, Any]:
    """Return what both templates show of a report."""
    cited = Cited(json.loads(report.model_dump_json()))
    return {
        "report": report,
        "json": cited,
        "levels": [(f"By {level}", cited["levels"][level]) for level in Level if level in report.levels],
        "with_age": [(level.capitalize(), cited["with_age"][level]) for level in report.with_age],
        "chosen": _chosen_on_validation(report),
        "meaning": TERMS["points"].get(report.default_point, {}).get("meaning", ""),
        "measured": measured,
    }


def _chosen_on_validation(report: Report) -> str:
    """Say what was chosen on validation, as far as that is recorded."""
    chosen = {
        "the epoch": any(one.monitor != "nothing" for one in report.model.learnt or ()),
        "calibration": report.model.calibration,
        "thresholds": report.default_point != FIXED,
    }
    *others, last = [name for name, holds in chosen.items() if holds] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _told(learnt: Sequence[Learnt]) -> dict[str, str]:
    """Return what is recorded of how networks were learnt; nothing where nothing is."""
    if not learnt:
        return {}
    choices = TERMS["choices"]
    names = _each(one.network for one in learnt)
    return {
        "networks": f"one, {names}; no ensemble"
        if len(learnt) == 1
        else f"the mean of the logits of {len(learnt)} networks ({names})",
        "first_weights": _each(one.started_from for one in learnt),
        "choice": _each(choices[one.monitor] for one in learnt),
        "data": ", ".join(dict.fromkeys(one.data for one in learnt)),
        "runs": f"the training run{'s' if len(learnt) > 1 else ''}",
    }


def _each(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(names))
