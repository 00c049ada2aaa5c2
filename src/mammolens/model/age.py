"""A second answer where age is known: the picture's probability and age together, by logistic regression.

The first answer is of the picture alone, and stays as it is: operating points, decisions and
prediction sets are of that one, and know no age.
"""

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from mammolens.data.manifest import Manifest
from mammolens.model.calibration import DIGITS, logit, sigmoid

YOUNGEST, OLDEST = 18, 110
"""Ages in years that are taken for one; those over 89, often masked as 90, are taken as they are."""

_KNOWN = 0.95  # share of validation images
_PATIENTS = 20  # of either class
_PENALTY = 1000.0  # C: next to none, and finite where classes do not overlap
_CENTRE, _DECADE = 60, 10  # years

Array = NDArray[np.float64]


class WithAge(BaseModel):
    """Probability and age to a probability: sigmoid(picture · logit(p) + decade · (age − 60) / 10 + intercept).

    Attributes:
        picture: weight of the log odds that the picture alone gives, calibrated.
        decade: what ten years add to the log odds.
        intercept: what is added at 60 years.
        data: name of the data set whose validation split it was fitted on.
        images: it was fitted on.
        patients: they belong to this many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    picture: Annotated[float, Field(gt=0)]
    decade: float
    intercept: float
    data: str
    images: int
    patients: int

    def __call__(self, probabilities: ArrayLike, ages: ArrayLike) -> Array:
        """Return probabilities for those of the picture, in [0, 1], and usable ages, in years.

        They are rounded as those of the picture are.
        """
        log_odds, decades = _inputs(probabilities, ages)
        return np.round(sigmoid(self.picture * log_odds + self.decade * decades + self.intercept), DIGITS)


def usable_age(said: str | float | None) -> float | None:
    """Return an age in years, 18 to 110; None for what is unknown, no number, or beyond these."""
    try:
        years = float(said or "nan")
    except ValueError:
        return None
    return years if YOUNGEST <= years <= OLDEST else None


def ages_of(manifest: Manifest) -> Array:
    """Return the usable ages of images by their metadata ``age``, (images,); NaN where there is none."""
    return np.array([usable_age(mammogram.metadata.get("age")) for mammogram in manifest], dtype=np.float64)


def fit_with_age(valid: Manifest, probabilities: Array, data: str) -> WithAge | None:
    """Fit on validation, by image; None where that would not hold for those who come later.

    It takes usable ages of 95 % of the images, for an age is rarely missing by chance: where those
    of women called back are on record and others are not, its weight would be that of being called
    back, while one in twenty moves a weight by little. And it takes 20 patients with a tumor and 20
    without, ten of the rarer kind for each of the two weights (Peduzzi et al. 1996, J. Clin.
    Epidemiol. 49:1373). A picture that would count against itself says nothing to be combined.

    Args:
        valid: validation images, labelled, of both classes.
        probabilities: of tumor by the picture alone, calibrated, (images,).
        data: name of the data set.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - serving does without

    ages = ages_of(valid)
    known = np.isfinite(ages)
    labels, patients = valid.labels[known], np.asarray(valid.patients)[known]
    ill = set(patients[labels == 1])
    if known.mean() < _KNOWN or min(len(ill), len(set(patients) - ill)) < _PATIENTS:
        return None
    inputs = np.stack(_inputs(probabilities[known], ages[known]), axis=1)
    fitted = LogisticRegression(C=_PENALTY, solver="newton-cholesky").fit(inputs, labels)
    picture, decade = fitted.coef_[0].tolist()
    if picture <= 0:
        return None
    return WithAge(
        picture=picture,
        decade=decade,
        intercept=float(fitted.intercept_[0]),
        data=data,
        images=len(labels),
        patients=len(set(patients)),
    )


def _inputs(probabilities: ArrayLike, ages: ArrayLike) -> tuple[Array, Array]:
    """Return log odds, and decades from 60 years."""
    return logit(probabilities), (np.asarray(ages, dtype=np.float64) - _CENTRE) / _DECADE
