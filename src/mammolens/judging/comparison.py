"""Two reports on the same images: is one model better than the other, or is it chance?"""

from pathlib import Path
from typing import Literal

import numpy as np

from mammolens.errors import DataError
from mammolens.judging.predictions import read_predictions
from mammolens.measures import metrics
from mammolens.measures.metrics import Array, Estimate, Figures
from mammolens.model.rules import Subjects, by_level
from mammolens.records import Level


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
    weights = metrics.patient_weights(patients)
    delong, p_value = metrics.delong_paired(labels, other, one)
    return Difference(
        subjects=len(labels),
        patients=len(set(patients)),
        first=metrics.estimate(metrics.roc_auc(labels, one), weights),
        second=metrics.estimate(metrics.roc_auc(labels, other), weights),
        difference=metrics.auc_difference(labels, other, one, weights),
        delong=delong,
        p_value=p_value,
    )
