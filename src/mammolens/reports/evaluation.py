"""A `Report` written: figures, ``report.html`` (no network, no script), card, ``report.json``."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from mammolens.files import write_text
from mammolens.judging.schema import Report
from mammolens.records import LABEL_NAMES, Split
from mammolens.reports.blocks import (
    Field,
    across,
    by_level,
    down,
    listed,
    measured,
    quiet,
    side_by_side,
    table,
)
from mammolens.reports.card import NOT_A_LESION, POINTS, model_card, warnings
from mammolens.reports.citations import Cited, Form, counted
from mammolens.reports.figures import save_figure
from mammolens.reports.plots import draw, inline

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


_SIZES = (
    Field("Subjects", "subjects", "count"),
    Field("Patients", "patients", "count"),
    Field("Tumors", "tumors", "count"),
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
        f'<section id="{place}" class="table">\n<h2>{title}</h2>\n{text}</section>' for place, title, text in shown
    )
    names = ("report.css", "evaluation.css")
    styles = (resources.files("mammolens.reports").joinpath(name).read_text("utf-8") for name in names)
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
    items = [f'<li><span class="chip {kind}">{kind}</span> {text}</li>\n' for kind, text in warnings(report, cite)]
    return f'<ul class="warnings">\n{"".join(items)}</ul>\n' if items else ""


def _glance(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    levels = by_level(report, cite)
    fields = (Field("AUC (95 % interval)", "discrimination.roc_auc", spread=True), *_SIZES)
    rows = [[name, *(one.of(at) for one in fields)] for name, at in levels]
    rows += [
        [f"{name.capitalize()} alone", cite.interval(f"references.{name}"), "", "", ""] for name in report.references
    ]
    points = [(name, at.at("decisions", report.default_point, "measures")) for name, at in levels]
    beside = [[name, *(at.interval(rate, "percent") for rate in _RATES)] for name, at in points]
    benchmark = [cite(f"benchmark.{rate}", "percent") for rate in _RATES]
    beside.append(["US screening radiologists (BCSC)", *benchmark])
    meaning = POINTS.get(report.default_point, "")
    unseen = "" if report.references else quiet("No age and no other metadata to compare with.")
    return f"""<p>AUC is the chance that a tumor gets a higher probability than a non-tumor; 0.5 is
chance. A model that is not clearly above what age or metadata alone reach has not shown that it
sees tumors.</p>
<div class="beside">{side_by_side(drawn, "auc")}
{table([one.name for one in fields], rows)}</div>
{unseen}<p>Decisions at the operating point <b>{cite("default_point", "text")}</b>{meaning}, beside
radiologists in practice (Lehman et al. 2017, Radiology 283:49). They read another population, by
examination and with earlier images at hand: only the order of magnitude compares.</p>
{table(("Sensitivity (95 % interval)", "Specificity (95 % interval)"), beside)}
"""


def _discrimination(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    fields = (
        *_SIZES,
        *(measured("discrimination", key) for key in report.images.discrimination),
        Field("AUC with DeLong's interval", "delong", spread=True),
        Field("Accuracy of the commoner class", "majority_accuracy", "percent"),
    )
    curves = side_by_side(drawn, "roc", "precision-recall")
    return f"""{curves or quiet("No curves: only one class is present.")}
{down(by_level(report, cite), fields)}
{
        quiet(
            "Sensitivity at a fixed specificity, and the reverse, take the best threshold on the "
            "images judged here: they describe the curve, and promise nothing for one chosen "
            "beforehand. DeLong's interval takes subjects as independent."
        )
    }"""


def _decisions(report: Report, cite: Cited) -> str:
    text = quiet(
        "Predictive values stand at the prevalence here, which is rarely that of screening. "
        "Re-scaled ones are what Bayes' rule makes of sensitivity and specificity at screening "
        "prevalence: nobody has observed them."
    )
    screening = "at_screening_prevalence"
    for name, level in by_level(report, cite):
        points = [(escape(key), level.at("decisions", key)) for key in level.keys("decisions")]
        if not points:
            continue
        first = points[0][1]
        rescaled = f"re-scaled to {first(f'{screening}.prevalence', 'percent')}"
        fields = (
            Field("Threshold", "threshold", "plain"),
            *(measured("measures", key) for key in first.keys("measures")),
            Field("Prevalence here", "at_own_prevalence.prevalence", "percent"),
            *(
                Field(
                    f"{sign} predictive value, {rescaled}",
                    f"{screening}.{sign.lower()}",
                    "percent",
                    spread=True,
                )
                for sign in ("Positive", "Negative")
            ),
        )
        matrices = "\n".join(_matrix(*point) for point in points)
        text += f'\n<h3>{name}</h3>\n<div class="matrices">{matrices}</div>\n'
        text += down(points, fields)
    return text


def _matrix(name: str, at: Cited) -> str:
    rows = [
        [f"is {label}", *(at(f"confusion.{row}.{column}", "count") for column in (0, 1))]
        for row, label in enumerate(LABEL_NAMES)
    ]
    return f"<div>{table([f'called {one}' for one in LABEL_NAMES], rows, corner=name)}</div>"


def _calibration(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    levels = [(name, at.at("calibration")) for name, at in by_level(report, cite)]
    levels = [(name, at) for name, at in levels if at.value() is not None]
    if not levels:
        return quiet("Not judged: only one class is present.")
    fields = (
        *(measured("", key) for key in ("slope", "in_the_large", "brier", _ECE)),
        *(Field(f"Brier score: {key}", key, "three") for key in ("reliability", "resolution", "uncertainty")),
    )
    columns = (
        Field("Mean probability", "mean_probability", "percent"),
        Field("Share with a tumor", "observed", "percent", spread=True),
    )
    bins = "".join(
        f"<h3>{name}</h3>\n{across(listed(at, 'bins', 'subjects', 'count'), columns, 'Subjects')}"
        for name, at in levels
    )
    return f"""<p>Whether a probability means what it says: of subjects that get a tenth, a tenth
should have a tumor.</p>
{side_by_side(drawn, "reliability-image", "reliability-breast")}
{down(levels, fields)}
<details><summary>Bins of the reliability curves</summary>
{bins}</details>
"""


def _uncertain(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    levels = [(name, at.at("conformal")) for name, at in by_level(report, cite)]
    levels = [(name, at) for name, at in levels if at.value() is not None]
    fields = (
        Field("Promised", "promised", "percent"),
        *(Field(f"Kept, {one}", f"coverage.{one}", "percent", spread=True) for one in LABEL_NAMES),
        Field("Uncertain", "uncertain", "percent", spread=True),
        Field("Wrong among the certain", "error", "percent", spread=True),
    )
    kept = across(levels, fields) if levels else quiet("No conformal thresholds in this model.")
    return f"""<p>Conformal prediction promises how often, in either class, what it leaves possible
holds the truth. What was kept should not lie clearly below it.</p>
{kept}
{side_by_side(drawn, "risk-coverage")}
"""


def _benefit(drawn: Mapping[str, str]) -> str:
    curves = side_by_side(drawn, "decision-curve-image", "decision-curve-breast")
    return f"""<p>Tumors found less false alarms, weighed by the threshold at which one would act
(Vickers and Elkin). A model is of use where it lies above both calling everyone and calling no one.
It is drawn at the prevalence here.</p>
{curves or quiet("No points to draw.")}
"""


def _subgroups(report: Report, cite: Cited, drawn: Mapping[str, str]) -> str:
    if not report.subgroups:
        return quiet("No metadata in this data set, or too few images of each kind.")
    things = []
    for place, group in enumerate(report.subgroups):
        at = cite.at("subgroups", str(place))
        side = "better" if group.difference.value > 0 else "worse"
        mark = f'<span class="chip warning">stands out: {side}</span>' if group.stands_out else ""
        things.append((f"{at('variable', 'text')} {at('value', 'text')} {mark}", at))
    fields = (
        Field("Images", "images", "count"),
        Field("Tumors", "tumors", "count"),
        Field("AUC", "roc_auc", spread=True),
        Field("Difference from others", "difference", spread=True),
        Field("Adjusted p", "adjusted", "p"),
    )
    return f"""<p>Images that share a value of metadata, against all others; p-values are adjusted
for their number (Holm). One that does not stand out has not been shown to be equal.</p>
{side_by_side(drawn, "subgroups")}
{across(things, fields)}
"""


def _looked(report: Report, cite: Cited) -> str:
    sanity = (
        f"""<p>A check of the maps: the network answered once more with random numbers in place of
all that it had learnt. How alike its places then rank, from cold to hot, to those of the model:
{cite("map_correlation")}, where zero is not at all and one is just the same. Near one, maps would
show what is in the picture, and nothing that was learnt.</p>\n"""
        if report.map_correlation is not None
        else ""
    )
    if report.localisation is None:
        nothing = f"No boxes in this data set, or no maps from this model. {NOT_A_LESION}"
        return quiet(nothing) + sanity
    whole = cite.at("localisation")
    parts = [(name, whole.at("by_label", name)) for name in report.localisation.by_label]
    fields = (
        Field("Images with boxes", "images", "count"),
        Field("Hottest place in a box", "hit_rate", "percent", spread=True),
        Field("By chance", "chance_rate", "percent"),
        Field("Intersection over union", "iou", spread=True),
    )
    return f"""{across([("All", whole), *parts], fields)}
<p>Chance is a place drawn evenly from the breast. {NOT_A_LESION}</p>
{sanity}"""


def _robustness(report: Report, cite: Cited) -> str:
    if not report.robustness:
        return quiet("Not tried in this evaluation.")
    fields = (
        Field("Images", "images", "count"),
        Field("Patients", "patients", "count"),
        Field("AUC", "roc_auc", spread=True),
        Field("Drop of AUC", "drop", spread=True),
        Field("Decisions changed", "decisions_changed", "percent", spread=True),
    )
    return f"""<p>The same images with one mild change each, such as another machine might make.</p>
{across(listed(cite, "robustness", "change", "text"), fields)}
"""


def _mistakes(report: Report, cite: Cited, pictures: Sequence[bytes]) -> str:
    if not report.mistakes:
        return quiet("None: every answer at this operating point is right.")
    things = listed(cite, "mistakes", "path", "text")
    likely: Form = "probability"
    fields = (
        Field("Truth", "truth", "text"),
        Field("Probability of a tumor", "probability", likely),
    )
    shown = "\n".join(
        f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        f"<figcaption>{at('truth', 'text')}, {at('probability', likely)}<br>{name}</figcaption>"
        "</figure>"
        for (name, at), picture in zip(things, pictures, strict=bool(pictures))
    )
    gallery = f'<div class="thumbnails">\n{shown}\n</div>\n' if pictures else ""
    return f"""<p>False alarms with the highest probability and misses with the lowest. Look at them
with a radiologist: labels are wrong at times, too.</p>
{gallery}{across(things, fields)}
"""


def _methods(report: Report, cite: Cited) -> str:
    chosen = {
        Split.VALID: "What was chosen of thresholds, calibration and prediction sets was chosen on this very split.",
        None: "Thresholds, calibration and prediction sets were fixed beforehand, on a validation "
        "split, which may be among these images, or by hand.",
    }.get(
        report.split,
        "Thresholds, calibration and prediction sets were fixed beforehand, on a validation split "
        "or by hand, and never on these images.",
    )
    return f"""<p>A breast has the mean of its views, a patient the larger of the breasts.</p>
<p>Intervals are 95 %, and take the images of a patient together. Those of shares, such as
sensitivity, are Clopper and Pearson's, of as many independent subjects as these images are worth
(Korn and Graubard): none seen to be wrong does not mean that none is. What follows from sensitivity
and specificity, such as predictive values at another prevalence, has the interval that follows from
theirs (Fay, Proschan and Brittain). All others are percentile intervals of
{cite("bootstrap_resamples", "count")} bootstrap resamples over patients; where these reach the
largest AUC there is, the interval is Newcombe's if it is wider. Those in reliability bins are
Wilson's, and DeLong's is a cross-check: both take subjects as independent.</p>
<p>{chosen}</p>
<p>Average precision is the sum of precision times the step in recall. The expected calibration
error is the mean distance between probability and share of tumors over ten bins of equally many
subjects. Differences between subgroups are tested by the bootstrap's standard error; a p-value is
not below what so many resamples can tell. What metadata alone reach is predicted out of fold,
patients apart.</p>
"""
