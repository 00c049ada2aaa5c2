"""From a network's score to a probability. Fitted and chosen on validation; applied by NumPy alone.

none         the score as it is
temperature  one number: how far to trust the network (Guo et al. 2017, ICML)
platt        two: that, and how common tumors are (Platt 1999, Advances in Large Margin Classifiers)
isotonic     any rising curve, as knots (Zadrozny & Elkan 2002, KDD)
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

DIGITS = 6
"""Of a probability, after the point."""

ENOUGH_FOR_ISOTONIC = 200
"""Fewest validation patients that a free curve is fitted on."""

MAX_KNOTS = 50

_FLATTEST = 0.01  # smallest slope: a calibration may doubt a network, but never turn it round
_EDGE = 1e-7  # scores are kept this far from 0 and 1
_STEPS = 100  # of Newton's method
_FOLDS = 5
_TILT = np.log(2)  # of the logit, from the outer blocks of an isotonic curve to its ends

Array = NDArray[np.float64]
Method = Literal["none", "temperature", "platt", "isotonic"]
Probability = Annotated[float, Field(ge=0, le=1)]
Knot = tuple[Probability, Probability]
"""A score and the probability of tumor that it means."""


def _method(fields: dict[str, Any]) -> Method:
    """Tell which method parameters are of: a bundle that names none, as old ones do, has one."""
    if fields["knots"]:
        return "isotonic"
    if fields["intercept"]:
        return "platt"
    return "none" if fields["slope"] == 1 else "temperature"


class Calibration(BaseModel):
    """Scores to probabilities of tumor: sigmoid(slope · logit(score) + intercept), or a curve.

    The curve is straight between its knots, in logits of both, so that it keeps nearly every
    order: what isotonic regression alone makes equal still differs.

    Attributes:
        slope: the inverse of the temperature; 1 leaves the score as it is.
        intercept: 0 for temperature scaling.
        knots: of isotonic regression, by rising score; they replace slope and intercept.
        method: which of the methods the parameters are of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: Annotated[float, Field(gt=0)] = 1.0
    intercept: float = 0.0
    knots: Annotated[tuple[Knot, ...], Field(max_length=MAX_KNOTS)] = ()
    method: Method = Field(default_factory=_method)

    @model_validator(mode="after")
    def _is_what_it_says_and_never_falls(self) -> Self:
        found = _method({"knots": self.knots, "intercept": self.intercept, "slope": self.slope})
        if self.method != found:
            raise ValueError(f"the parameters are those of {found}, not of {self.method}")
        if found == "isotonic":
            steps = np.diff(logit(np.transpose(self.knots)))
            if (steps[0] <= 0).any() or (steps[1] < 0).any():
                raise ValueError("knots must rise")
        return self

    def __call__(self, scores: ArrayLike) -> Array:
        """Return probabilities for scores in [0, 1], of their shape.

        They are rounded to six digits: what two machines agree on.
        """
        logits = logit(scores)
        if self.knots:
            logits = np.interp(logits, *logit(np.transpose(self.knots)))
        else:
            logits = self.slope * logits + self.intercept
        return np.round(sigmoid(logits), DIGITS)


def fit_calibration(labels: ArrayLike, scores: ArrayLike, patients: Sequence[str]) -> Calibration:
    """Choose a method by validation, and fit it there.

    Methods are compared by log loss in five-fold cross-validation over patients. Of none,
    temperature and Platt scaling the best is taken, of equals the simplest; isotonic regression
    only if there are `ENOUGH_FOR_ISOTONIC` patients and it is better than that by more than one
    standard error of the difference, by patient. Where either class has fewer patients than there
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
    # Some fifty knots cost more, and a few ties: they must prove themselves.
    label, score = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    if min(len(np.unique(patient[label == kind])) for kind in (0, 1)) < _FOLDS:
        return fit_platt(label, score)
    fold = _dealt(label, patient)
    losses = {method: _held_out_losses(fit, label, score, fold) for method, fit in _SMOOTH.items()}
    best = min(losses, key=lambda method: float(losses[method].mean()))
    if len(names) >= ENOUGH_FOR_ISOTONIC:
        gain = losses[best] - _held_out_losses(fit_isotonic, label, score, fold)
        if gain.mean() > _standard_error(gain, patient):
            return fit_isotonic(label, score)
    return _SMOOTH[best](label, score)


def fit_none(labels: ArrayLike, scores: ArrayLike) -> Calibration:  # noqa: ARG001 - like the others
    """Return what leaves scores as they are."""
    return Calibration()


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


def fit_isotonic(labels: ArrayLike, scores: ArrayLike) -> Calibration:
    """Fit a rising curve: Platt's targets, averaged in bins of score, pooled where they fall.

    A pooled block (Ayer et al. 1955, Ann. Math. Stat. 26:641) becomes a knot at its mean logit.
    Beyond the outer knots the curve goes on rising, to half the odds at score 0 and twice the odds
    at 1, so that extreme scores keep their order too.
    """
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 - serving does without

    label, logits = np.asarray(labels, dtype=np.float64), logit(scores)
    edges = np.quantile(logits, np.linspace(0, 1, MAX_KNOTS - 1)[1:-1])
    # Equal scores share a bin, so that some bins may be empty.
    _, members = np.unique(np.searchsorted(edges, logits, side="right"), return_inverse=True)
    counts = np.bincount(members)
    shares = np.bincount(members, weights=label) / counts  # exact: in any order of the images
    low, high = _targets(label)
    pooled = isotonic_regression(low + (high - low) * shares, weights=counts)
    block = np.searchsorted(pooled.blocks, members, side="right") - 1
    centres = np.bincount(block, weights=logits) / np.bincount(block)
    x, first = np.unique(_snapped(sigmoid(np.maximum.accumulate(centres))), return_index=True)
    y = logit(pooled.x[pooled.blocks[:-1]])[first]
    if x[0] > 0:
        x, y = np.append(0, x), np.append(y[0] - _TILT, y)
    if x[-1] < 1:
        x, y = np.append(x, 1), np.append(y, y[-1] + _TILT)
    return Calibration(knots=tuple(zip(x.tolist(), sigmoid(y).tolist(), strict=True)))


_SMOOTH: dict[Method, Callable[[ArrayLike, ArrayLike], Calibration]] = {
    "none": fit_none,
    "temperature": fit_temperature,
    "platt": fit_platt,
}
"""From simple to less simple."""


def sigmoid(logits: ArrayLike) -> Array:
    """Return 1 / (1 + exp(−x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -np.asarray(logits, dtype=np.float64))))


def logit(probabilities: ArrayLike) -> Array:
    """Return log(p / (1 − p)), finite: p is kept a ten-millionth away from 0 and 1."""
    probability = np.clip(np.asarray(probabilities, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(probability / (1 - probability)))


def _snapped(scores: Array) -> Array:
    """Return scores where those that `logit` can hardly tell from 0 or 1 are 0 or 1."""
    return np.where(scores < 2 * _EDGE, 0, np.where(scores > 1 - 2 * _EDGE, 1, scores))


def _dealt(label: Array, patient: NDArray[np.intp]) -> NDArray[np.intp]:
    """Deal patients into folds, with and without tumors in turn; return the fold of each image."""
    tumor = np.zeros(patient.max() + 1)
    np.maximum.at(tumor, patient, label)
    shuffled = np.random.default_rng(0).permutation(len(tumor))
    fold = np.zeros(len(tumor), dtype=np.intp)
    fold[shuffled[np.argsort(tumor[shuffled], kind="stable")]] = np.arange(len(tumor)) % _FOLDS
    return fold[patient]


def _held_out_losses(
    fit: Callable[[ArrayLike, ArrayLike], Calibration],
    label: Array,
    score: Array,
    fold: NDArray[np.intp],
) -> Array:
    """Return the log loss of each image under what was fitted on the other folds, in nats."""
    probability = np.zeros(len(label))
    for held_out in (fold == number for number in range(_FOLDS)):
        probability[held_out] = fit(label[~held_out], score[~held_out])(score[held_out])
    return np.asarray(np.logaddexp(0, (1 - 2 * label) * logit(probability)))


def _standard_error(values: Array, patient: NDArray[np.intp]) -> float:
    """Return that of the mean over images, drawn by patient (Taylor's linearisation)."""
    sums = np.bincount(patient, weights=values - values.mean())
    return float(np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1)) / len(values))


def _targets(label: Array) -> tuple[float, float]:
    """Return what Platt has images without and with a tumor aim at instead of 0 and 1."""
    positives, negatives = float(label.sum()), float((1 - label).sum())
    return 1 / (negatives + 2), (positives + 1) / (positives + 2)


def _smoothed(labels: ArrayLike) -> Array:
    label = np.asarray(labels, dtype=np.float64)
    low, high = _targets(label)
    return np.where(label == 1, high, low)


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
