"""Is one better than the other, or is it chance: two models on the same images, one model on groups of them?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from mammolens.errors import DataError
from mammolens.judging.predictions import ScoredImages, read_predictions
from mammolens.judging.schema import AgeFigures, Subgroup
from mammolens.levels import Level
from mammolens.measures import metrics
from mammolens.measures.intervals import RESAMPLES, Estimate, Figures, PatientWeights, estimate, patient_weights
from mammolens.measures.metrics import Array
from mammolens.measures.shortcuts import can_be_judged, metadata_auc
from mammolens.model.age import WithAge, ages_of, usable_age
from mammolens.model.decisions import Subjects, by_level


class Difference(Figures):
    """Two AUCs on the same subjects.

    Attributes:
        subjects: images, breasts or patients.
        patients: they belong to.
        first: AUC of the first model.
        second: AUC of the second model.
        difference: second less first, paired, by bootstrap over patients.
        delong: the same with DeLong's interval, which takes subjects as independent.
        p_value: of no difference, two-sided, by DeLong.
    """

    subjects: int
    patients: int
    first: Estimate
    second: Estimate
    difference: Estimate
    delong: Estimate
    p_value: float


class Comparison(Figures):
    """Two reports on the same images, by level.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        reports: the two folders.
        levels: by image, breast and patient.
    """

    schema_version: Literal[1] = 1
    reports: tuple[str, str]
    levels: dict[Level, Difference]


def compare(first: Path, second: Path) -> Comparison:
    """Compare the answers of two report folders.

    Raises:
        DataError: a folder is not a report, they judge different images or know different labels,
            or a class is missing.
    """
    ours, theirs = read_predictions(first), read_predictions(second)
    images = ours.manifest
    place = {path: index for index, path in enumerate(theirs.manifest.paths)}
    if set(place) != set(images.paths):
        only = len(set(images.paths) - set(place)), len(set(place) - set(images.paths))
        raise DataError(
            f"{first} and {second} judge different images: {only[0]} are only in the first, "
            f"{only[1]} only in the second. Evaluate both on the same data and split."
        )
    order = [place[path] for path in images.paths]
    if not np.array_equal(images.labels, theirs.manifest.labels[order]):
        raise DataError(f"{first} and {second} know different labels of the same images.")
    if not 0 < images.labels.sum() < len(images):
        raise DataError(f"{first}: images of one class only: there is no AUC to compare.")
    others = by_level(images, theirs.probabilities[order], theirs.admitted[order])
    levels = {
        level: _difference(subjects, others[level].probabilities)
        for level, subjects in by_level(*ours).items()
        if 0 < subjects.labels.sum() < len(subjects.labels)
    }
    return Comparison(reports=(str(first), str(second)), levels=levels)


def _difference(subjects: Subjects, other: Array) -> Difference:
    labels, one, patients, _ = subjects
    weights = patient_weights(patients)
    delong, p_value = metrics.delong_paired(labels, other, one)
    return Difference(
        subjects=len(labels),
        patients=len(set(patients)),
        first=estimate(metrics.roc_auc(labels, one), weights),
        second=estimate(metrics.roc_auc(labels, other), weights),
        difference=metrics.auc_difference(labels, other, one, weights),
        delong=delong,
        p_value=p_value,
    )


def age_figures(scored: ScoredImages, both: WithAge) -> dict[Level, AgeFigures]:
    """Judge the picture, age and both on the images whose age is known, at each level that has both classes."""
    images, probabilities, admitted = scored
    aged, ages = images.where(lambda m: usable_age(m.metadata.get("age")) is not None), ages_of(images)
    if not len(aged):
        return {}
    known = np.isfinite(ages)
    years = by_level(aged, ages[known], admitted[known])
    return {
        level: _with_age(subjects, years[level].probabilities, both)
        for level, subjects in by_level(aged, probabilities[known], admitted[known]).items()
        if 0 < subjects.labels.sum() < len(subjects.labels)
    }


def _with_age(subjects: Subjects, ages: Array, both: WithAge) -> AgeFigures:
    labels, picture, patients, _ = subjects
    weights, together = patient_weights(patients), both(picture, ages)
    return AgeFigures(
        subjects=len(labels),
        patients=len(set(patients)),
        tumors=int(labels.sum()),
        picture=estimate(metrics.roc_auc(labels, picture), weights),
        age=estimate(metrics.roc_auc(labels, ages), weights),
        both=estimate(metrics.roc_auc(labels, together), weights),
        difference=metrics.auc_difference(labels, together, picture, weights),
    )


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

KNOWN_OF = {"invasive": 1, "difficult_negative_case": 0}
"""Known of one class only: a subgroup is then held against all images of the other class."""

_FEWEST = 20  # tumors and non-tumors below which a subgroup is not judged on its own
_AGES = (0, 50, 60, 70, 200)
_AGE_NAMES = ("under 50", "50 to 59", "60 to 69", "70 and over")
_CHANCE = 0.05
_LEAST_P = 1 / (RESAMPLES + 1)  # so many resamples can tell no less

Mask = NDArray[np.bool_]
Group = tuple[str, Mask, Mask]


def references(table: pd.DataFrame) -> dict[str, Estimate]:
    """Return the AUC of age alone, and of all metadata alone, of an `image_table` of labelled images."""
    estimates = {}
    aged = table.assign(age=_ages(table)).dropna(subset="age")
    if 0 < aged["label"].sum() < len(aged):
        weights = patient_weights(aged["patient"].tolist())
        estimates["age"] = estimate(metrics.roc_auc(aged["label"], aged["age"]), weights)
    if can_be_judged(table) and (by_metadata := metadata_auc(table)) is not None:
        estimates["metadata"] = by_metadata
    return estimates


def subgroups(table: pd.DataFrame, probabilities: Array) -> tuple[Subgroup, ...]:
    """Judge each subgroup that has enough images, against all others.

    Args:
        table: an `image_table` of labelled images.
        probabilities: of tumor, (images,).
    """
    labels = table["label"].to_numpy()
    weights = patient_weights(table["patient"].tolist())
    judged = [
        _subgroup(variable, group, table, probabilities, weights)
        for variable in VARIABLES
        for group in _groups(table, variable)
        if all(_enough(labels[members]) for members in group[1:])
    ]
    adjusted = metrics.holm([group.p_value for group in judged])
    return tuple(
        group.model_copy(update={"adjusted": float(p), "stands_out": bool(p < _CHANCE)})
        for group, p in zip(judged, adjusted, strict=True)
    )


def _ages(table: pd.DataFrame) -> "pd.Series[float]":
    """Return ages in years; NaN where they are not known, or no numbers."""
    ages = table.get("age", pd.Series(np.nan, table.index))
    return pd.to_numeric(ages, errors="coerce").replace([np.inf, -np.inf], np.nan)


def _groups(table: pd.DataFrame, variable: str) -> Iterator[Group]:
    """Yield each value with who has it and who has another; unknown is neither."""
    values = table.get(variable, pd.Series("", table.index))
    if variable == "age":
        values = pd.cut(_ages(table), _AGES, right=False, labels=_AGE_NAMES)
    is_known = (values.notna() & (values != "")).to_numpy()
    labels = table["label"].to_numpy()
    other_class = labels == 1 - KNOWN_OF[variable] if variable in KNOWN_OF else np.zeros(len(table), dtype=bool)
    for value in sorted(set(values[is_known])):
        inside = (values == value).to_numpy()
        yield str(value), inside | other_class, (is_known & ~inside) | other_class


def _enough(labels: Array) -> bool:
    return bool(min((labels == 1).sum(), (labels == 0).sum()) >= _FEWEST)


def _subgroup(
    variable: str, group: Group, table: pd.DataFrame, probabilities: Array, weights: PatientWeights
) -> Subgroup:
    labels, (value, inside, rest) = table["label"].to_numpy(), group
    here = metrics.roc_auc(labels[inside], probabilities[inside])
    there = metrics.roc_auc(labels[rest], probabilities[rest])

    def difference(drawn: Array) -> Array:
        return np.asarray(here(drawn[:, inside]) - there(drawn[:, rest]))

    less = estimate(difference, weights)
    spread = float(np.nanstd(weights.resampled(difference)))
    return Subgroup(
        variable=variable,
        value=value,
        images=int(inside.sum()),
        patients=table["patient"][inside].nunique(),
        tumors=int(labels[inside].sum()),
        roc_auc=estimate(here, weights.of(inside)),
        difference=less,
        p_value=max(_LEAST_P, float(2 * norm.sf(abs(less.value) / spread))) if spread > 0 else 1.0,
        adjusted=1.0,
        stands_out=False,
    )
