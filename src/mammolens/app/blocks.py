"""Parts of the page and of the report of a case, as HTML. Every text from outside is escaped."""

from collections.abc import Sequence
from html import escape

from mammolens.app import words
from mammolens.app.cases import Case
from mammolens.app.uploads import MAX_IMAGES
from mammolens.model.bundle import BundleRecord
from mammolens.records import LABEL_NAMES, Level


def banner() -> str:
    """Return the line that is always in sight."""
    return f'<div class="m-banner" role="note">{words.DISCLAIMER}</div>'


def title() -> str:
    """Return what the page is."""
    return (
        '<h1 class="m-title">mammolens<small>the probability of a tumor in a mammogram, and what '
        "it is worth</small></h1>"
    )


def welcome() -> str:
    """Return what someone reads who has never seen the page."""
    return f"""<section class="m-welcome"><h2>Drop a mammogram, or choose an example</h2>
<ol><li>Give one picture or several: JPEG, PNG, TIFF, PGM, DICOM, or a ZIP of them, up to
{MAX_IMAGES} pictures.</li>
<li>See each picture as it was read, with a map of where the network looked.</li>
<li>Read the probability of a tumor, on which side of the threshold it lies, and how often such
answers were right on validation images.</li></ol>
<p>Nothing is stored, and nothing leaves the machine that serves this page. Files are deleted as
soon as they are read.</p></section>"""


def heading(text: str) -> str:
    """Return a heading within the page."""
    return f'<h3 class="m-heading">{escape(text)}</h3>'


def limits(record: BundleRecord) -> str:
    """Return what limits the worth of all answers of a model, if anything does."""
    said = words.limits(record)
    return f'<p class="m-notice">{said}</p>' if said else ""


def verdict(case: Case) -> str:
    """Return the answer: class, probability, and how it stands to the threshold."""
    answer = case.answer
    if words.is_unlike(case):
        return _refusal(case)
    if answer.probability is None:
        return _failure(case)
    tone = "tumor" if answer.decision == LABEL_NAMES[1] else "clear"
    heading, aside = words.class_name(case), ""
    if answer.reason is not None:
        tone, aside = "doubtful", f"<p>{words.UNCERTAIN[answer.reason]}</p>"
        heading = f"Uncertain <small>called {answer.decision}</small>"
    return f"""<section class="m-verdict {tone}">
<p class="m-over">Class</p><h2>{heading}</h2>
<p class="m-number"><b>{words.probability(answer.probability)}</b> probability of a tumor</p>
{_bar(answer.probability, answer.threshold)}
<p>{words.comparison(case)}</p>
{aside}
{_warnings(case)}</section>"""


def subject(case: Case) -> str:
    """Return which picture it is."""
    return (
        f'<p class="m-subject"><b>{escape(words.subject(case))}</b><br>'
        f"{escape(case.name)}{' · ' if case.facts else ''}{escape(case.facts)}</p>"
    )


def figures_of(record: BundleRecord, point: str) -> str:
    """Return what an operating point's sensitivity and specificity were."""
    found = record.operating_points[Level.IMAGE][point]
    rows = [
        ("Sensitivity", "of images with a tumor, found", words.interval(found.sensitivity)),
        ("Specificity", "of the others, let go", words.interval(found.specificity)),
    ]
    body = "".join(f"<tr><th>{name}<small>{what}</small></th><td>{value}</td></tr>" for name, what, value in rows)
    return f"""<table class="m-table">{body}</table>
<p class="m-quiet">{words.measured_on(record, point)}</p>"""


def prevalences(case: Case, record: BundleRecord, expected: float) -> str:
    """Return what the answer means where tumors are as common as in training, and as expected."""
    if case.answer.probability is None:
        return ""
    rows = words.at_prevalences(case.answer.probability, record, expected)
    if not rows:
        return '<p class="m-quiet">Not known: the model is not calibrated.</p>'
    body = "".join(
        f"<tr><th>{where}<small>{share} have a tumor</small></th><td><b>{value}</b></td></tr>"
        for where, share, value in rows
    )
    return f"""<table class="m-table">{body}</table>
<p class="m-quiet">The same picture and the same model: only how common tumors are differs.
{escape(words.called_there(case, record, expected))}</p>"""


def caption(case: Case, *, mirrored: bool, chosen: bool) -> str:
    """Return the lines above a picture that hangs beside others; `chosen` is shown in full."""
    answer, place = case.answer, " ".join(case.place or ())
    class_, turned = words.class_name(case).lower(), "mirrored" if mirrored else ""
    told = [words.probability(answer.probability), class_, words.doubt(case), turned]
    return (
        f'<p class="m-caption{" chosen" if chosen else ""}"><b>{place}</b> '
        f"{' · '.join(filter(None, told))}<br><span>{escape(case.name)}</span></p>"
    )


def shape_of(key: str, shape: tuple[int, ...]) -> str:
    """Return the style that gives a picture's container the picture's own shape at any width.

    Args:
        key: of the container.
        shape: (height, width).
    """
    height, width = shape
    wrapper = f'[data-testid="stLayoutWrapper"]:has(> .st-key-{key})'
    return f"<style>{wrapper} {{ aspect-ratio: {width} / {height}; }}</style>"


def footer(record: BundleRecord) -> str:
    """Return which model it is, and what it is for."""
    facts = "".join(f"<div><dt>{name}</dt><dd>{escape(fact)}</dd></div>" for name, fact in words.identity(record))
    return f"""<footer class="m-footer"><dl>{facts}</dl>
<p>{escape(record.intended_use)}</p></footer>"""


def _failure(case: Case) -> str:
    return f"""<section class="m-verdict failed"><p class="m-over">Class</p><h2>No answer</h2>
<p>{escape(case.answer.error or "")}</p></section>"""


def _refusal(case: Case) -> str:
    return f"""<section class="m-verdict doubtful">
<div class="m-doubt" role="alert"><h2>{words.NO_DECISION}</h2><p>{words.UNLIKE}</p></div>
{_warnings(case)}</section>"""


def _warnings(case: Case) -> str:
    return _list(words.warnings(case))


def _list(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    return f'<ul class="m-warnings">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def _bar(probability: float, threshold: float) -> str:
    """Draw the probability from 0 to 1, the threshold marked on it."""
    side = "left" if threshold > 0.5 else "right"  # noqa: PLR2004 - text stands where room is
    value, mark = words.probability(probability), words.probability(threshold)
    told = f"{value} on a scale from 0 to 1, threshold at {mark}"
    return f"""<div class="m-bar" role="img" aria-label="{told}">
<div class="m-fill" style="width:{100 * probability:.2f}%"></div>
<div class="m-mark {side}" style="left:{100 * threshold:.2f}%"><span>threshold</span></div>
</div><div class="m-scale"><span>0</span><span>1</span></div>"""
