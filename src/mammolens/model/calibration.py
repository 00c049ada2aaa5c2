"""From a network's score to a probability. Fitted and chosen on validation; applied by NumPy alone.

none         the score as it is
temperature  one number: how far to trust the network (Guo et al. 2017, ICML)
platt        two: that, and how common tumors are (Platt 1999, Advances in Large Margin Classifiers)
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

DIGITS = 6
"""Of a probability, after the point."""

_FLATTEST = 0.01  # smallest slope: a calibration may distrust a network, but never turn it round
_EDGE = 1e-7  # scores are kept this far from 0 and 1
_STEPS = 100  # of Newton's method
_FOLDS = 5

Array = NDArray[np.float64]
Method = Literal["none", "temperature", "platt"]
Probability = Annotated[float, Field(ge=0, le=1)]


def _method(fields: dict[str, Any]) -> Method:
    """Tell which method parameters are of."""
    if fields["intercept"]:
        return "platt"
    return "none" if fields["slope"] == 1 else "temperature"


class Calibration(BaseModel):
    """Scores to probabilities of tumor: sigmoid(slope · logit(score) + intercept).

    Attributes:
        slope: the inverse of the temperature; 1 leaves the score as it is.
        intercept: 0 for temperature scaling.
        method: which of the methods the parameters are of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: Annotated[float, Field(gt=0)] = 1.0
    intercept: float = 0.0
    method: Method = Field(default_factory=_method)

    @model_validator(mode="before")
    @classmethod
    def _is_no_curve(cls, fields: object) -> object:
        """Drop the empty list of a curve's knots, which the bundles that ship hold."""
        if not isinstance(fields, dict):
            return fields
        if fields.get("knots") or fields.get("method") == "isotonic":
            raise ValueError("isotonic regression is a method no longer")
        return {name: value for name, value in fields.items() if name != "knots"}

    @model_validator(mode="after")
    def _is_what_it_says(self) -> Self:
        if self.method != (method := _method(vars(self))):
            raise ValueError(f"the parameters are those of {method}, not of {self.method}")
        return self

    def __call__(self, scores: ArrayLike) -> Array:
        """Return probabilities for scores in [0, 1], of their shape.

        They are rounded to six digits: what two machines agree on.
        """
        return np.round(sigmoid(self.slope * logit(scores) + self.intercept), DIGITS)


def fit_calibration(labels: ArrayLike, scores: ArrayLike, patients: Sequence[str]) -> Calibration:
    """Choose a method by validation, and fit it there.

    Of none, temperature and Platt scaling the one of least log loss in five-fold cross-validation
    over patients is taken, of equals the simplest. Where either class has fewer patients than there
    are folds, nothing can be compared, and it is Platt scaling.

    Args:
        labels: 1 for tumor, else 0, (images,).
        scores: the network's, in [0, 1], (images,).
        patients: whose images they are, (images,).
    """
    # Not the simplest within one standard error: "none" is the simplest, but not the safe choice.
    # Class weights put scores far from the prevalence, which few patients cannot prove. Simulated
    # with 30 patients whose odds are e times too high, that rule loses 0.065 nats to the truth,
    # the best 0.041; where scores are right, 0.004 and 0.018; with 400 patients, both next to none.
    label, score = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    if min(len(np.unique(patient[label == kind])) for kind in (0, 1)) < _FOLDS:
        return fit_platt(label, score)
    fold = _dealt(label, patient)
    best = min(_METHODS, key=lambda fit: _held_out_loss(fit, label, score, fold))
    return best(label, score)


def fit_temperature(labels: ArrayLike, scores: ArrayLike) -> Calibration:
    """Fit the slope alone, as `fit_platt` does both."""
    target, logits = _smoothed(labels), logit(scores)
    spread = max(float(np.sqrt(np.mean(logits**2))), _EDGE)
    slope = _logistic_fit(logits[:, np.newaxis] / spread, target)[0] / spread
    return Calibration(slope=max(float(slope), _FLATTEST))


def fit_platt(labels: ArrayLike, scores: ArrayLike) -> Calibration:
    """Fit slope and intercept by Newton's method, with Platt's smoothed targets.

    Targets (positives + 1) / (positives + 2) and 1 / (negatives + 2) keep it finite where classes
    do not overlap. Where scores fall with suspicion, the slope is held at a small positive value.
    """
    target, logits = _smoothed(labels), logit(scores)
    # A young network's scores hardly differ: steps must not depend on the unit of the logits.
    centre, spread = logits.mean(), max(float(logits.std()), _EDGE)
    inputs = np.stack([(logits - centre) / spread, np.ones_like(logits)], axis=1)
    slope, intercept = _logistic_fit(inputs, target)
    slope /= spread
    intercept -= slope * centre
    if slope < _FLATTEST:
        slope = _FLATTEST
        intercept = _logistic_fit(inputs[:, 1:], target, offset=slope * logits)[0]
    return Calibration(slope=float(slope), intercept=float(intercept))


_METHODS: tuple[Callable[[ArrayLike, ArrayLike], Calibration], ...] = (
    lambda _labels, _scores: Calibration(),
    fit_temperature,
    fit_platt,
)
"""From simple to less simple."""


def sigmoid(logits: ArrayLike) -> Array:
    """Return 1 / (1 + exp(−x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -np.asarray(logits, dtype=np.float64))))


def logit(probabilities: ArrayLike) -> Array:
    """Return log(p / (1 − p)), finite: p is kept a ten-millionth away from 0 and 1."""
    probability = np.clip(np.asarray(probabilities, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(probability / (1 - probability)))


def _dealt(label: Array, patient: NDArray[np.intp]) -> NDArray[np.intp]:
    """Deal patients into folds, with and without tumors in turn; return the fold of each image."""
    tumor = np.zeros(patient.max() + 1)
    np.maximum.at(tumor, patient, label)
    shuffled = np.random.default_rng(0).permutation(len(tumor))
    fold = np.zeros(len(tumor), dtype=np.intp)
    fold[shuffled[np.argsort(tumor[shuffled], kind="stable")]] = np.arange(len(tumor)) % _FOLDS
    return fold[patient]


def _held_out_loss(
    fit: Callable[[ArrayLike, ArrayLike], Calibration], label: Array, score: Array, fold: NDArray[np.intp]
) -> float:
    """Return the mean log loss, in nats, of images under what was fitted on the other folds."""
    probability = np.zeros(len(label))
    for held_out in (fold == number for number in range(_FOLDS)):
        probability[held_out] = fit(label[~held_out], score[~held_out])(score[held_out])
    return float(np.logaddexp(0, (1 - 2 * label) * logit(probability)).mean())


def _smoothed(labels: ArrayLike) -> Array:
    label = np.asarray(labels, dtype=np.float64)
    positives, negatives = float(label.sum()), float((1 - label).sum())
    return np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _logistic_fit(inputs: Array, target: Array, offset: Array | float = 0.0) -> Array:
    """Minimise the cross-entropy of sigmoid(inputs · w + offset) against soft targets."""
    weights = np.zeros(inputs.shape[1])
    ridge = 1e-9 * np.eye(len(weights))
    for _ in range(_STEPS):
        probability = sigmoid(inputs @ weights + offset)
        gradient = inputs.T @ (probability - target)
        curvature = (inputs.T * (probability * (1 - probability))) @ inputs + ridge
        step = np.linalg.solve(curvature, gradient)
        weights -= np.clip(step, -1, 1)  # a full Newton step can overshoot far from the optimum
        if np.abs(step).max() < 1e-10:  # noqa: PLR2004 - converged
            break
    return weights
