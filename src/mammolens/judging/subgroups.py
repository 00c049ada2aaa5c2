"""Where a model is better or worse than elsewhere, and what tells the label without pixels."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mammolens.data.manifest import Manifest
from mammolens.judging.schema import Subgroup
from mammolens.measures import metrics
from mammolens.measures.metrics import Array, Estimate, PatientWeights
from mammolens.measures.shortcuts import can_be_judged, metadata_auc
from mammolens.records import Mammogram

VARIABLES = (
    "view",
    "laterality",
    "age",
    "density",
    "machine_id",
    "manufacturer",
    "site_id",
    "implant",
    "invasive",
    "difficult_negative_case",
    "polarity",
)
"""Metadata that images are grouped by, where a data set has it."""

FEWEST = 20
"""Tumors and non-tumors below which a subgroup is not judged on its own."""

AMONG_TUMORS = ("invasive",)
AMONG_HEALTHY = ("difficult_negative_case",)
"""Known of one class only: a subgroup is then held against all images of the other class."""

_AGES = {"under 50": (0, 50), "50 to 59": (50, 60), "60 to 69": (60, 70), "70 and over": (70, 200)}
_CHANCE = 0.05
_LEAST_P = 1 / (metrics.RESAMPLES + 1)  # so many resamples can tell no less


def references(judged: Manifest) -> dict[str, Estimate]:
    """Return the AUC by image of age alone, and of all metadata alone (patients apart)."""
    found = {}
    ages = np.array([_number(m.metadata.get("age")) for m in judged])
    known = np.isfinite(ages)
    labels = judged.labels[known]
    if known.sum() and 0 < labels.sum() < len(labels):
        patients = [p for p, is_known in zip(judged.patients, known, strict=True) if is_known]
        weights = metrics.patient_weights(patients)
        found["age"] = metrics.estimate(metrics.roc_auc(labels, ages[known]), weights)
    if can_be_judged(judged) and (by_metadata := metadata_auc(judged)) is not None:
        found["metadata"] = by_metadata
    return found


def subgroups(judged: Manifest, probabilities: Array) -> tuple[Subgroup, ...]:
    """Judge each subgroup that has enough images, against all others.

    Args:
        judged: labelled images.
        probabilities: of tumor, (images,).
    """
    weights = metrics.patient_weights(judged.patients)
    found = [
        _subgroup(variable, value, inside, rest, judged, probabilities, weights)
        for variable in VARIABLES
        for value, inside, rest in _groups(judged, variable)
        if _enough(judged.labels[inside]) and _enough(judged.labels[rest])
    ]
    adjusted = metrics.holm(np.array([group.p_value for group in found]))
    return tuple(
        group.model_copy(update={"adjusted": float(p), "stands_out": bool(p < _CHANCE)})
        for group, p in zip(found, adjusted, strict=True)
    )


def _groups(judged: Manifest, variable: str) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield each value with who has it and who has another; unknown is neither."""
    values = np.array([_value(m, variable) for m in judged])
    known = values != ""
    tumors = judged.labels == 1
    for value in sorted(set(values[known])):
        inside, rest = values == value, known & (values != value)
        if variable in AMONG_TUMORS:
            inside, rest = (inside & tumors) | ~tumors, (rest & tumors) | ~tumors
        elif variable in AMONG_HEALTHY:
            inside, rest = (inside & ~tumors) | tumors, (rest & ~tumors) | tumors
        yield str(value), inside, rest


def _value(mammogram: Mammogram, variable: str) -> str:
    if variable in ("view", "laterality"):
        return str(getattr(mammogram, variable) or "")
    value = mammogram.metadata.get(variable, "")
    if variable == "age":
        age = _number(value)
        return next((name for name, (low, high) in _AGES.items() if low <= age < high), "")
    return value


def _number(value: str | None) -> float:
    try:
        return float(value or math.nan)
    except ValueError:
        return math.nan


def _enough(labels: NDArray[np.float32]) -> bool:
    return bool(min((labels == 1).sum(), (labels == 0).sum()) >= FEWEST)


def _subgroup(
    variable: str,
    value: str,
    inside: NDArray[np.bool_],
    rest: NDArray[np.bool_],
    judged: Manifest,
    probabilities: Array,
    weights: PatientWeights,
) -> Subgroup:
    labels = judged.labels
    here = metrics.roc_auc(labels[inside], probabilities[inside])
    there = metrics.roc_auc(labels[rest], probabilities[rest])

    def difference(drawn: Array) -> Array:
        return np.asarray(here(drawn[:, inside]) - there(drawn[:, rest]))

    found = metrics.estimate(difference, weights)
    spread = float(np.nanstd(difference(weights.drawn)))
    patients = {p for p, is_in in zip(judged.patients, inside, strict=True) if is_in}
    return Subgroup(
        variable=variable,
        value=value,
        images=int(inside.sum()),
        patients=len(patients),
        tumors=int(labels[inside].sum()),
        roc_auc=metrics.estimate(here, weights.of(inside)),
        difference=found,
        p_value=max(_LEAST_P, float(2 * norm.sf(abs(found.value) / spread))) if spread > 0 else 1.0,
        adjusted=1.0,
        stands_out=False,
    )
