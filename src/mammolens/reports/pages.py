"""The environment of all pages: templates, terms, and the one way to cite a number of `report.json`."""

import base64
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup

from mammolens import numerals
from mammolens.errors import visible

FORMS: dict[str, Callable[[float], str]] = {
    "three": numerals.figure,
    "probability": numerals.probability,
    "percent": numerals.percent,
    "hundredths": partial(numerals.percent, unit=""),
    "count": "{:,.0f}".format,
    "plain": lambda value: f"{value:.6f}".rstrip("0").rstrip("."),
    "p": numerals.p_value,
}
"""How a number is written: 0.732, 0.7321, 73.2 %, 73.2, 1,234, 0.031245, < 0.001; "text" is written as it is."""


@dataclass(frozen=True)
class Cited:
    """What `report.json` holds at a place; in a template, a dot or a key leads further down.

    Attributes:
        content: decoded JSON.
        place: keys from the root.
    """

    content: Any
    place: tuple[str, ...] = ()

    def __getitem__(self, key: str | int) -> "Cited":
        return Cited(self.content[key], (*self.place, str(key)))

    def __iter__(self) -> Iterator["Cited"]:
        return (self[key] for key in range(len(self.content)))

    def items(self) -> list[tuple[str, "Cited"]]:
        """Return what lies here, by its key."""
        return [(key, self[key]) for key in self.content]

    def below(self, path: str) -> "Cited":
        """Return what lies at a dotted path from here."""
        found = self
        for key in path.split("."):
            found = found[key]
        return found


@pass_eval_context
def cite(context: EvalContext, cited: Cited, form: str = "three") -> str:
    """Write a value, or an estimate as 0.732 (0.701 to 0.760) or 73.2 % (70.1 to 76.0).

    On a page of HTML, each number is a ``<data>`` that names its place and form; null is not defined.
    """
    if not isinstance(cited.content, dict):
        return _marked(cited, form) if context.autoescape else _written(cited.content, form)
    value = cite(context, cited["value"], form)
    if cited["value"].content is None:
        return value
    ends = [cited["low"], cited["high"]]
    low = high = numerals.NOT_DEFINED
    if None not in [end.content for end in ends]:
        low, high = (cite(context, end, "hundredths" if form == "percent" else form) for end in ends)
    bounds = numerals.interval(low, high)
    if context.autoescape:
        return Markup('{} <span class="interval">{}</span>').format(value, Markup(bounds))  # noqa: S704 - of marked ends
    return f"{value} {bounds}"


def _marked(cited: Cited, form: str) -> Markup:
    raw = cited.content if isinstance(cited.content, str) else json.dumps(cited.content)
    place, text = ".".join(cited.place), _written(cited.content, form)
    return Markup('<data value="{}" data-of="{}" data-as="{}">{}</data>').format(raw, place, form, text)


def _written(value: object, form: str) -> str:
    if value is None:
        return "not told" if form == "text" else numerals.NOT_DEFINED
    return FORMS[form](value) if form in FORMS and isinstance(value, int | float) else str(value)


def counted(number: int, noun: str) -> str:
    """Return a count with its noun: 1 image, 2,000 images."""
    return f"{number:,} {plural(number, noun)}"


def plural(number: int, noun: str) -> str:
    """Return a noun as it stands behind a number."""
    return noun if number == 1 else f"{noun}s"


def source(picture: bytes, kind: str) -> str:
    """Return the address of a picture that a page holds itself; `kind` is ``png`` or ``jpeg``."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def setting(value: object) -> str:
    """Return a value of a recipe's field as text."""
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def measure(key: str) -> tuple[str, str]:
    """Return what to call a measure and the form of its number, also of one without a term."""
    if key in TERMS["measures"]:
        name, form = TERMS["measures"][key]
        return name, form
    fixed, _, rest = key.partition("_at_")
    target, _, other = rest.partition("_")
    if fixed in ("sensitivity", "specificity") and target.isdigit() and other:
        return f"{fixed.capitalize()} at {target} % {other}", "percent"
    return key.replace("_", " ").capitalize(), "three"


def data(name: str) -> dict[str, Any]:
    """Return what a TOML file beside this module holds."""
    return tomllib.loads(resources.files("mammolens.reports").joinpath(name).read_text("utf-8"))


def template(name: str, **known: object) -> Template:
    """Return a template that knows some functions; what it shows is escaped, unless it is Markdown."""
    return (_MARKDOWN if name.endswith(".md.j2") else _HTML).get_template(name, globals=known)


TERMS = data("terms.toml")
"""What things are called: measures, operating points, views, reasons."""

GLOSSARY: dict[str, str] = data("glossary.toml")
"""Terms that every page explains at its end."""


def _finalized(value: object) -> object:
    return type(value)(visible(value)) if isinstance(value, str) else value


_HTML = Environment(
    loader=PackageLoader("mammolens.reports"),
    autoescape=True,
    finalize=_finalized,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_HTML.filters |= {"cite": cite, "counted": counted, "plural": plural, "source": source, "setting": setting}
_HTML.filters |= {"figure": numerals.figure, "bounds": numerals.interval}
_HTML.globals |= {"terms": TERMS, "glossary": GLOSSARY}
_MARKDOWN = _HTML.overlay(autoescape=False)
