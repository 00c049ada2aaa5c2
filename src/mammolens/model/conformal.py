"""Prediction sets: which classes an image, a breast or a patient may be of, at a known error rate.

Mondrian conformal prediction, by class: Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a
Random World; Sadinle, Lei & Wasserman 2019, J. Am. Stat. Assoc. 114:223; Angelopoulos & Bates
2021, arXiv:2107.07511.
"""

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from mammolens.model.calibration import DIGITS, Probability

ALPHA = 0.1
"""Share of either class whose set may lack it."""


class Conformal(BaseModel):
    """Thresholds on how odd a class is for a subject: 1 − its probability.

    Of new subjects of either class, on average over validation sets, at least 1 − alpha have a set
    that holds their class, if they and those it was fitted on are exchangeable. That is marginal
    over subjects, not true of each kind of breast or machine. And it is approximate: breasts and
    images of one patient are alike, so that validation says less than its counts promise; and
    validation also chose epoch and calibration. (A calibration keeps the order of images, and so
    their sets, but for ties; means of views it changes a little.)

    Attributes:
        alpha: the error rate, in (0, 1).
        thresholds: largest oddness in the set of no tumor and of tumor; 1 holds it always.
        subjects: how many without and with a tumor each was chosen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: Annotated[float, Field(gt=0, lt=1)]
    thresholds: tuple[Probability, Probability]
    subjects: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]

    def prediction_set(self, probability: float) -> tuple[int, ...]:
        """Return the labels that are not too odd for a probability of tumor in [0, 1].

        (0,) is no tumor and (1,) tumor. Both, and none, are uncertain: both where the network
        cannot tell, none where it tells so well that what lies between is odd for either.
        """
        odd = np.round((probability, 1 - probability), DIGITS)
        return tuple(label for label in (0, 1) if odd[label] <= self.thresholds[label])


def fit_conformal(labels: ArrayLike, probabilities: ArrayLike, alpha: float = ALPHA) -> Conformal:
    """Choose for each class the ⌈(n + 1)(1 − alpha)⌉-th smallest oddness of its n subjects.

    Where there is no such, as for fewer than 9 subjects at alpha 0.1, the set always holds the
    class: too little is known to rule it out.

    Args:
        labels: 1 for tumor, else 0, (subjects,): images, breasts or patients.
        probabilities: of tumor, (subjects,).
        alpha: the error rate, in (0, 1).
    """
    label = np.asarray(labels)
    probability = np.asarray(probabilities, dtype=np.float64)
    odd = (probability[label == 0], 1 - probability[label == 1])
    return Conformal(
        alpha=alpha,
        thresholds=(_threshold(odd[0], alpha), _threshold(odd[1], alpha)),
        subjects=(len(odd[0]), len(odd[1])),
    )


def _threshold(odd: NDArray[np.float64], alpha: float) -> float:
    ordered = np.sort(np.round(odd, DIGITS))
    rank = int(np.ceil(round((len(ordered) + 1) * (1 - alpha), 9)))  # 9.000000000000002 is 9
    return float(ordered[rank - 1]) if rank <= len(ordered) else 1.0
