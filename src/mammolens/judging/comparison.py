"""Two reports on the same images: is one model better than the other, or is it chance?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from mammolens.errors import DataError
from mammolens.judging.predictions import read_predictions
from mammolens.measures import metrics
from mammolens.measures.metrics import Array, Estimate
from mammolens.model.rules import Subjects, by_level
from mammolens.records import Level


class Difference(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    subjects: int
    patients: int
    first: Estimate
    second: Estimate
    difference: Estimate
    delong: Estimate
    p_value: float


class Comparison(BaseModel):
    """What `compare` finds, by level.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        reports: the two folders.
        levels: by image, breast and patient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    schema_version: Literal[1] = 1
    reports: tuple[str, str]
    levels: dict[Level, Difference]


def compare(first: Path, second: Path) -> Comparison:
    """Compare the answers of two report folders.

    Raises:
        DataError: a folder is not a report, they judge different images or know different labels,
            or a class is missing.
    """
    ours, scores, admitted = read_predictions(first)
    theirs, others, also = read_predictions(second)
    place = {path: index for index, path in enumerate(theirs.paths)}
    if set(place) != set(ours.paths):
        only = len(set(ours.paths) - set(place)), len(set(place) - set(ours.paths))
        raise DataError(
            f"{first} and {second} judge different images: {only[0]} are only in the first, "
            f"{only[1]} only in the second. Evaluate both on the same data and split."
        )
    order = [place[path] for path in ours.paths]
    if not np.array_equal(ours.labels, theirs.labels[order]):
        raise DataError(f"{first} and {second} know different labels of the same images.")
    if not 0 < ours.labels.sum() < len(ours):
        raise DataError(f"{first}: images of one class only: there is no AUC to compare.")
    subjects = by_level(ours, scores, admitted), by_level(ours, others[order], also[order])
    return Comparison(reports=(str(first), str(second)), levels=_by_level(*subjects))


def _by_level(first: Mapping[Level, Subjects], second: Mapping[Level, Subjects]) -> dict[Level, Difference]:
    found = {}
    for level, (labels, probabilities, patients, _) in first.items():
        if 0 < labels.sum() < len(labels):
            other = second[level].probabilities
            found[level] = _difference(labels, probabilities, other, patients)
    return found


def _difference(labels: Array, a: Array, b: Array, patients: list[str]) -> Difference:
    weights = metrics.patient_weights(patients)
    first, second = metrics.roc_auc(labels, a), metrics.roc_auc(labels, b)
    paired = metrics.delong_paired(labels, b, a)
    return Difference(
        subjects=len(labels),
        patients=len(set(patients)),
        first=metrics.estimate(first, weights),
        second=metrics.estimate(second, weights),
        difference=metrics.auc_difference(labels, b, a, weights),
        delong=paired.difference,
        p_value=paired.p_value,
    )
