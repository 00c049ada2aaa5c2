"""How page and card write a report's numbers: looked up in its JSON, never typed or computed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, Literal

from mammolens import numerals
from mammolens.judging.schema import Report

Form = Literal["three", "probability", "percent", "hundredths", "count", "plain", "p", "text"]
"""How a value is written: 0.732, 0.7321, 73.2 %, 73.2, 1,234, 0.031245, < 0.001, and words as
they are."""

MEASURES: dict[str, tuple[str, Form]] = {
    "roc_auc": ("AUC", "three"),
    "average_precision": ("Average precision", "three"),
    "partial_auc": ("Partial AUC above 80 % specificity, standardised", "three"),
    "log_loss": ("Log loss", "three"),
    "accuracy": ("Accuracy", "percent"),
    "balanced_accuracy": ("Balanced accuracy", "percent"),
    "sensitivity": ("Sensitivity", "percent"),
    "specificity": ("Specificity", "percent"),
    "precision": ("Positive predictive value", "percent"),
    "negative_predictive_value": ("Negative predictive value", "percent"),
    "f1": ("F1", "three"),
    **{
        f"{rate}_missing_as_wrong": (
            f"{rate.capitalize()}, counting as wrong what gets no decision in use",
            "percent",
        )
        for rate in ("sensitivity", "specificity")
    },
    "mcc": ("Matthews correlation", "three"),
    "positive_likelihood_ratio": ("Positive likelihood ratio", "three"),
    "negative_likelihood_ratio": ("Negative likelihood ratio", "three"),
    "slope": ("Slope (ideal: 1)", "three"),
    "in_the_large": ("Intercept (ideal: 0)", "three"),
    "brier": ("Brier score", "three"),
    "expected_calibration_error": ("Expected calibration error", "three"),
}
"""What to call a measure, and how to write it."""


def measure(name: str) -> tuple[str, Form]:
    """Return what to call a measure and how to write it, also of one not known here."""
    if name in MEASURES:
        return MEASURES[name]
    fixed, _, rest = name.partition("_at_")
    target, _, other = rest.partition("_")
    if fixed in ("sensitivity", "specificity") and target.isdigit() and other:
        return f"{fixed.capitalize()} at {target} % {other}", "percent"
    return name.replace("_", " ").capitalize(), "three"


def written(value: object, form: Form) -> str:
    """Return a value of `report.json` as page and card show it; null is not defined."""
    if value is None:
        return "not told" if form == "text" else numerals.NOT_DEFINED
    if form == "text" or not isinstance(value, int | float):
        return str(value)
    return _WRITTEN[form](value)


_WRITTEN: dict[str, Callable[[float], str]] = {
    "three": numerals.figure,
    "probability": numerals.probability,
    "percent": numerals.percent,
    "hundredths": partial(numerals.percent, unit=""),
    "count": "{:,.0f}".format,
    "plain": lambda value: f"{value:.6f}".rstrip("0").rstrip("."),
    "p": numerals.p_value,
}


@dataclass(frozen=True)
class Cited:
    """What `report.json` holds, below `place`; calling it writes one value that it holds.

    Attributes:
        values: the whole JSON.
        markup: whether a value is written as an HTML element that cites its place.
        place: keys from the root.
    """

    values: Mapping[str, Any]
    markup: bool
    place: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: Report, *, markup: bool) -> "Cited":
        """Return the root of a report's JSON."""
        return cls(json.loads(report.model_dump_json()), markup)

    def at(self, *keys: str) -> "Cited":
        """Return the same, further down."""
        return Cited(self.values, self.markup, self.place + keys)

    def value(self, path: str = "") -> object:
        """Return the value at a dotted path from here."""
        found: Any = self.values
        for key in (*self.place, *path.split(".")) if path else self.place:
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found

    def keys(self, path: str = "") -> tuple[str, ...]:
        """Return the keys, or places, of what lies at a dotted path from here."""
        found = self.value(path)
        if isinstance(found, list):
            return tuple(map(str, range(len(found))))
        return tuple(found) if isinstance(found, dict) else ()

    def __call__(self, path: str = "", form: Form = "three") -> str:
        """Write the value at a dotted path from here."""
        value = self.value(path)
        text = written(value, form)
        if not self.markup:
            return text
        keys = (*self.place, path) if path else self.place
        raw = value if isinstance(value, str) else json.dumps(value)
        return f'<data value="{escape(raw)}" data-of="{escape(".".join(keys))}" data-as="{form}">{escape(text)}</data>'

    def interval(self, path: str = "", form: Form = "three") -> str:
        """Write an estimate: 0.732 (0.701 to 0.760), or 73.2 % (70.1 to 76.0)."""
        here = self.at(*path.split(".")) if path else self
        value = here("value", form)
        if here.value("value") is None:
            return value
        bare: Form = "hundredths" if form == "percent" else form
        known = None not in (here.value("low"), here.value("high"))
        ends = (here("low", bare), here("high", bare)) if known else (numerals.NOT_DEFINED,) * 2
        bounds = numerals.interval(*ends)
        return f'{value} <span class="interval">{bounds}</span>' if self.markup else (f"{value} {bounds}")


def counted(cite: Cited, path: str, noun: str) -> str:
    """Return a count with its noun: 1 image, 2 images."""
    return f"{cite(path, 'count')} {noun}{'' if cite.value(path) == 1 else 's'}"
