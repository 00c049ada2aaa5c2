"""A `Report` written: figures, ``report.html`` (no network, no script), card, ``report.json``."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mammolens.evaluation.card import BY, NOT_A_LESION, model_card, warnings
from mammolens.evaluation.numbers import Cited, Form, counted, measure
from mammolens.evaluation.plots import draw, inline
from mammolens.evaluation.schema import Report
from mammolens.figures import save_figure
from mammolens.files import write_text
from mammolens.records import LABEL_NAMES, Level, Split

_COUNTED = ("images", "patients", "tumors")
_RATES = ("sensitivity", "specificity")
_ECE = "expected_calibration_error"


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
    drawn = {}
    for name, figure in draw(report).items():
        for suffix in ("png", "svg"):
            save_figure(figure, folder / "figures" / f"{name}.{suffix}")
        drawn[name] = inline(name, (folder / "figures" / f"{name}.svg").read_text("utf-8"))
    write_text(folder / "report.html", _page(report, drawn, pictures))
    write_text(folder / "model-card.md", model_card(report))
    write_text(folder / "report.json", report.model_dump_json(indent=2) + "\n")


class _Field(NamedTuple):
    """What a row or a column of a table shows: its name, where it lies, how it is written."""

    name: str
    path: str
    form: Form = "three"
    spread: bool = False  # whether it is an estimate with an interval

    def of(self, thing: Cited) -> str:
        return (thing.interval if self.spread else thing)(self.path, self.form)


_Things = Sequence[tuple[str, Cited]]

_SIZES = (
    _Field("Subjects", "subjects", "count"),
    _Field("Patients", "patients", "count"),
    _Field("Tumors", "tumors", "count"),
)


def _page(report: Report, drawn: Mapping[str, str], pictures: Sequence[bytes]) -> str:
    cite = Cited.of(report, markup=True)
    sections = (
        ("warnings", "Before you read on", _warnings(report, cite)),
        ("glance", "At a glance", _glance(report, cite, drawn)),
        ("discrimination", "Discrimination", _discrimination(report, cite, drawn)),
        ("decisions", "Decisions", _decisions(report, cite)),
        ("calibration", "Calibration", _calibration(report, cite, drawn)),
        ("uncertain", "Knowing when not to answer", _uncertain(report, cite, drawn)),
        ("benefit", "Net benefit", _benefit(drawn)),
        ("subgroups", "Subgroups", _subgroups(report, cite, drawn)),
        ("looked", "Where it looked", _looked(report, cite)),
        ("robustness", "Robustness", _robustness(report, cite)),
        ("mistakes", "Most confident mistakes", _mistakes(report, cite, pictures)),
        ("methods", "How it was computed", _methods(report, cite)),
    )
    shown = [one for one in sections if one[2]]
    links = "\n".join(f'<a href="#{place}">{title}</a>' for place, title, _ in shown)
    body = "\n".join(
        f'<section id="{place}" class="table">\n<h2>{title}</h2>\n{text}</section>'
        for place, title, text in shown
    )
    rooms = ("mammolens.doctor", "mammolens.evaluation")
    styles = (resources.files(room).joinpath("report.css").read_text("utf-8") for room in rooms)
    data = cite("data", "text") if report.data else "a data set without a name"
    split = f"split {cite('split', 'text')}" if report.split else "all images"
    counts = (counted(cite, f"counts.{nouns}", nouns[:-1]) for nouns in _COUNTED)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.model.name)}: mammolens report</title>
<style>
{"".join(styles)}</style></head><body><header><p class="by">mammolens report</p>
<h1>{cite("model.name", "text")}</h1>
<p class="counts">Judged on {data}, {split}: {" · ".join(counts)}</p>
<p><span class="chip warning">Research use only</span> Not a medical device.</p>
<nav>{links}</nav></header>
<main>
{body}
</main>
<footer><p>Made by <code>{escape(report.command or "a call from Python")}</code> with mammolens
{cite("mammolens_version", "text")}. report.json has
every figure with all its digits; model-card.md says what the model learnt from.</p>
<p>This page may hold pictures and file names of patients: share it only with those who may see
the data. <strong>Research use only</strong>: not a medical device.</p></footer></body></html>
"""


def _warnings(report: Report, cite: Cited) -> str:
    items = [
        f'<li><span class="chip {kind}">{kind}</span> {text}</li>\n'
        for kind, text in warnings(report, cite)
    ]
    return f'<ul class="warnings">\n{"".join(items)}</ul>\n' if items else ""


def _glance(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    levels = _levels(report, cite)
    fields = (_Field("AUC (95 % interval)", "discrimination.roc_auc", spread=True), *_SIZES)
    rows = [[name, *(one.of(at) for one in fields)] for name, at in levels]
    rows += [
        [f"{name.capitalize()} alone", cite.interval(f"references.{name}"), "", "", ""]
        for name in report.references
    ]
    points = [(name, at.at("decisions", report.default_point, "measures")) for name, at in levels]
    beside = [[name, *(at.interval(rate, "percent") for rate in _RATES)] for name, at in points]
    benchmark = [cite(f"benchmark.{rate}", "percent") for rate in _RATES]
    beside.append(["US screening radiologists (BCSC)", *benchmark])
    unseen = "" if report.references else _quiet("No age and no other metadata to compare with.")
    return f"""<p>AUC is the chance that a tumor gets a higher probability than a non-tumor; 0.5 is
chance. A model that is not clearly above what age or metadata alone reach has not shown that it
sees tumors.</p>
<div class="beside">{_side_by_side(drawn, "auc")}
{_table([one.name for one in fields], rows)}</div>
{unseen}<p>Decisions at the operating point <b>{cite("default_point", "text")}</b>, beside
radiologists in practice (Lehman et al. 2017, Radiology 283:49). They read another population, by
examination and with earlier images at hand: only the order of magnitude compares.</p>
{_table(("Sensitivity (95 % interval)", "Specificity (95 % interval)"), beside)}
"""


def _discrimination(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    fields = (
        *_SIZES,
        *(_measured("discrimination", key) for key in report.images.discrimination),
        _Field("AUC with DeLong's interval", "delong", spread=True),
        _Field("Accuracy of the commoner class", "majority_accuracy", "percent"),
    )
    curves = _side_by_side(drawn, "roc", "precision-recall")
    return f"""{curves or _quiet("No curves: only one class is present.")}
{_down(_levels(report, cite), fields)}
{
        _quiet(
            "Sensitivity at a fixed specificity, and the reverse, take the best threshold on the "
            "images judged here: they describe the curve, and promise nothing for one chosen "
            "beforehand. DeLong's interval takes subjects as independent."
        )
    }"""


def _decisions(report: Report, cite: Cited) -> str:
    text = _quiet(
        "Predictive values stand at the prevalence here, which is rarely that of screening. "
        "Re-scaled ones are what Bayes' rule makes of sensitivity and specificity at screening "
        "prevalence: nobody has observed them."
    )
    screening = "at_screening_prevalence"
    for name, level in _levels(report, cite):
        points = [(escape(key), level.at("decisions", key)) for key in level.keys("decisions")]
        if not points:
            continue
        first = points[0][1]
        rescaled = f"re-scaled to {first(f'{screening}.prevalence', 'percent')}"
        fields = (
            _Field("Threshold", "threshold", "plain"),
            *(_measured("measures", key) for key in first.keys("measures")),
            _Field("Prevalence here", "at_own_prevalence.prevalence", "percent"),
            *(
                _Field(
                    f"{sign} predictive value, {rescaled}", f"{screening}.{sign.lower()}", "percent"
                )
                for sign in ("Positive", "Negative")
            ),
        )
        matrices = "\n".join(_matrix(*point) for point in points)
        text += f'\n<h3>{name}</h3>\n<div class="matrices">{matrices}</div>\n'
        text += _down(points, fields)
    return text


def _matrix(name: str, at: Cited) -> str:
    rows = [
        [f"is {label}", *(at(f"confusion.{row}.{column}", "count") for column in (0, 1))]
        for row, label in enumerate(LABEL_NAMES)
    ]
    return f"<div>{_table([f'called {one}' for one in LABEL_NAMES], rows, corner=name)}</div>"


def _calibration(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    levels = [(name, at.at("calibration")) for name, at in _levels(report, cite)]
    levels = [(name, at) for name, at in levels if at.value() is not None]
    if not levels:
        return _quiet("Not judged: only one class is present.")
    fields = (
        *(_measured("", key) for key in ("slope", "in_the_large", "brier", _ECE)),
        *(
            _Field(f"Brier score: {key}", key, "three")
            for key in ("reliability", "resolution", "uncertainty")
        ),
    )
    columns = (
        _Field("Mean probability", "mean_probability", "percent"),
        _Field("Share with a tumor", "observed", "percent", spread=True),
    )
    bins = "".join(
        f"<h3>{name}</h3>\n{_across(_items(at, 'bins', 'subjects', 'count'), columns, 'Subjects')}"
        for name, at in levels
    )
    return f"""<p>Whether a probability means what it says: of subjects that get a tenth, a tenth
should have a tumor.</p>
{_side_by_side(drawn, "reliability-image", "reliability-breast")}
{_down(levels, fields)}
<details><summary>Bins of the reliability curves</summary>
{bins}</details>
"""


def _uncertain(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    levels = [(name, at.at("conformal")) for name, at in _levels(report, cite)]
    levels = [(name, at) for name, at in levels if at.value() is not None]
    fields = (
        _Field("Promised", "promised", "percent"),
        *(_Field(f"Kept, {one}", f"coverage.{one}", "percent", spread=True) for one in LABEL_NAMES),
        _Field("Uncertain", "uncertain", "percent", spread=True),
        _Field("Wrong among the certain", "error", "percent", spread=True),
    )
    kept = _across(levels, fields) if levels else _quiet("No conformal thresholds in this model.")
    return f"""<p>Conformal prediction promises how often, in either class, what it leaves possible
holds the truth. What was kept should not lie clearly below it.</p>
{kept}
{_side_by_side(drawn, "risk-coverage")}
"""


def _benefit(drawn: Mapping[str, str]) -> str:
    curves = _side_by_side(drawn, "decision-curve-image", "decision-curve-breast")
    return f"""<p>Tumors found less false alarms, weighed by the threshold at which one would act
(Vickers and Elkin). A model is of use where it lies above both calling everyone and calling no one.
It is drawn at the prevalence here.</p>
{curves or _quiet("No points to draw.")}
"""


def _subgroups(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    if not report.subgroups:
        return _quiet("No metadata in this data set, or too few images of each kind.")
    things = []
    for place, group in enumerate(report.subgroups):
        at = cite.at("subgroups", str(place))
        side = "better" if group.difference.value > 0 else "worse"
        mark = f'<span class="chip warning">stands out: {side}</span>' if group.stands_out else ""
        things.append((f"{at('variable', 'text')} {at('value', 'text')} {mark}", at))
    fields = (
        _Field("Images", "images", "count"),
        _Field("Tumors", "tumors", "count"),
        _Field("AUC", "roc_auc", spread=True),
        _Field("Difference from others", "difference", spread=True),
        _Field("Adjusted p", "adjusted", "p"),
    )
    return f"""<p>Images that share a value of metadata, against all others; p-values are adjusted
for their number (Holm). One that does not stand out has not been shown to be equal.</p>
{_side_by_side(drawn, "subgroups")}
{_across(things, fields)}
"""


def _looked(report: Report, cite: Cited) -> str:
    sanity = (
        f"""<p>With all weights drawn at random, maps inside the breast correlate with those of the
model by {cite("map_correlation")} (ranks; near one, maps would show the picture alone).</p>\n"""
        if report.map_correlation is not None
        else ""
    )
    if report.localisation is None:
        nothing = f"No boxes in this data set, or no maps from this model. {NOT_A_LESION}"
        return _quiet(nothing) + sanity
    whole = cite.at("localisation")
    parts = [(name, whole.at("by_label", name)) for name in report.localisation.by_label]
    fields = (
        _Field("Images with boxes", "images", "count"),
        _Field("Hottest place in a box", "hit_rate", "percent", spread=True),
        _Field("By chance", "chance_rate", "percent"),
        _Field("Intersection over union", "iou", spread=True),
    )
    return f"""{_across([("All", whole), *parts], fields)}
<p>Chance is a place drawn evenly from the breast. {NOT_A_LESION}</p>
{sanity}"""


def _robustness(report: Report, cite: Cited) -> str:
    if not report.robustness:
        return _quiet("Not tried in this evaluation.")
    fields = (
        _Field("Images", "images", "count"),
        _Field("Patients", "patients", "count"),
        _Field("AUC", "roc_auc", spread=True),
        _Field("Drop of AUC", "drop", spread=True),
        _Field("Decisions changed", "decisions_changed", "percent"),
    )
    return f"""<p>The same images with one mild change each, such as another machine might make.</p>
{_across(_items(cite, "robustness", "change", "text"), fields)}
"""


def _mistakes(report: Report, cite: Cited, pictures: Sequence[bytes]) -> str:
    if not report.mistakes:
        return _quiet("None: every answer at this operating point is right.")
    things = _items(cite, "mistakes", "path", "text")
    fields = (_Field("Truth", "truth", "text"), _Field("Probability of a tumor", "probability"))
    shown = "\n".join(
        f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        f"<figcaption>{at('truth', 'text')}, {at('probability')}<br>{name}</figcaption></figure>"
        for (name, at), picture in zip(things, pictures, strict=bool(pictures))
    )
    gallery = f'<div class="thumbnails">\n{shown}\n</div>\n' if pictures else ""
    return f"""<p>False alarms with the highest probability and misses with the lowest. Look at them
with a radiologist: labels are wrong at times, too.</p>
{gallery}{_across(things, fields)}
"""


def _methods(report: Report, cite: Cited) -> str:
    chosen = (
        "were chosen on this very split"
        if report.split is Split.VALID
        else "were fixed beforehand, on a validation split or by hand, and never on these images"
    )
    return f"""<p>A breast has the mean of its views, a patient the larger of the breasts. Intervals
are 95 % percentile intervals of {cite("bootstrap_resamples", "count")} bootstrap resamples over
patients, whose images are drawn together; those in reliability bins are Wilson's. DeLong's interval
is a cross-check. Thresholds, calibration and conformal cut-offs {chosen}. Average precision is the
sum of precision times the step in recall. The expected calibration error is the mean distance
between probability and share of tumors over ten bins of equally many subjects. Differences between
subgroups are tested by the bootstrap's standard error. What metadata alone reach is predicted out
of fold, patients apart.</p>
"""


def _levels(report: Report, cite: Cited) -> list[tuple[str, Cited]]:
    return [(BY[level], cite.at("levels", level)) for level in Level if level in report.levels]


def _items(cite: Cited, path: str, named: str, form: Form) -> list[tuple[str, Cited]]:
    places = [cite.at(path, key) for key in cite.keys(path)]
    return [(at(named, form), at) for at in places]


def _measured(path: str, key: str) -> _Field:
    name, form = measure(key)
    return _Field(name, f"{path}.{key}".lstrip("."), form, spread=True)


def _down(things: _Things, fields: Sequence[_Field]) -> str:
    """Return a table with a column for each thing."""
    rows = [[field.name, *(field.of(at) for _, at in things)] for field in fields]
    return _table([name for name, _ in things], rows)


def _across(things: _Things, fields: Sequence[_Field], corner: str = "") -> str:
    """Return a table with a row for each thing."""
    cells = [[name, *(field.of(at) for field in fields)] for name, at in things]
    return _table([field.name for field in fields], cells, corner)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], corner: str = "") -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in (corner, *columns))
    body = "\n".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{table}</div>'


def _side_by_side(drawn: Mapping[str, str], *names: str) -> str:
    found = "\n".join(f"<figure>{drawn[name]}</figure>" for name in names if name in drawn)
    return f'<div class="plots">\n{found}\n</div>' if found else ""


def _quiet(words: str) -> str:
    return f'<p class="quiet">{words}</p>\n'
