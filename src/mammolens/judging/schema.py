"""What `report.json` holds: every figure with its n and its 95 % interval by patient."""

from typing import Literal

from pydantic import Field

from mammolens import __version__
from mammolens.levels import Level
from mammolens.measures.curves import CalibrationReport, Curve, DecisionCurve
from mammolens.measures.intervals import RESAMPLES, Estimate, Figures
from mammolens.measures.localisation import Localisation
from mammolens.model.bundle import Learnt
from mammolens.model.provenance import Provenance
from mammolens.records import Split

SCREENING_PREVALENCE = 0.005
"""About 5 cancers in 1,000 screening mammograms (Lehman et al. 2017, Radiology 283:49)."""


class Counts(Figures):
    """What was judged.

    Attributes:
        images: with a label and an answer.
        patients: theirs.
        tumors: images with the label tumor.
        without_label: left out.
        without_answer: left out, for they could not be read, or were not admitted and came
            without a probability.
        not_like_training: judged by their probability, though they do not look like mammograms: in use
            they get no decision.
        patients_also_in_training: which makes figures too good.
        without_patient: judged, though no patient is named: each counts as a patient of its own.
    """

    images: int
    patients: int
    tumors: int
    without_label: int
    without_answer: int
    not_like_training: int
    patients_also_in_training: int
    without_patient: int = 0


class Model(Figures):
    """What answered, as far as its bundle tells; other systems' predictions have a name only.

    Attributes:
        is_bundle: whether it is a bundle, with its files, and not a table of scores.
        calibration_only: whether the training data are what it was calibrated on, and what it
            learnt from is not recorded.
        learnt: how each network that answers was learnt; None where it is not recorded.
        gate: whether it tells what is no mammogram, and what is unlike those that it learnt from.
        training_fingerprint: SHA-256 of the table of its training and validation images.
        made_with: the code and the libraries that its bundle was made with; None where it is not recorded.
    """

    name: str
    is_bundle: bool = False
    licence: str | None = None
    intended_use: str | None = None
    training_data: str | None = None
    training_images: int | None = None
    training_patients: int | None = None
    training_prevalence: float | None = None
    synthetic: bool | None = None
    calibration_only: bool = False
    calibration: str | None = None
    learnt: tuple[Learnt, ...] | None = None
    gate: bool = False
    training_fingerprint: str | None = None
    made_with: Provenance | None = None


class PredictiveValues(Figures):
    """What an answer means at a prevalence, by Bayes from sensitivity and specificity.

    Intervals follow from those of sensitivity and specificity.
    """

    prevalence: float
    positive: Estimate
    negative: Estimate


class Decision(Figures):
    """One operating point.

    Attributes:
        threshold: probability from which a subject is called tumor; chosen elsewhere.
        confusion: [[true negatives, false positives], [false negatives, true positives]].
        measures: of the decision, by name. Where the gate does not admit some subjects, which in
            use get no decision, two end in ``_missing_as_wrong``: there each of these counts as
            decided wrongly.
        at_own_prevalence: predictive values in this set.
        at_screening_prevalence: re-scaled to 0.5 %.
    """

    threshold: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    measures: dict[str, Estimate]
    at_own_prevalence: PredictiveValues
    at_screening_prevalence: PredictiveValues


class ConformalReport(Figures):
    """What class-conditional conformal prediction promised and kept.

    Attributes:
        promised: coverage in each class.
        coverage: share of each class whose set of possible classes holds the truth.
        uncertain: share of subjects whose set is not just the class decided on, or that the gate
            does not admit.
        error: share of wrong answers among the others.
    """

    promised: float
    coverage: dict[str, Estimate]
    uncertain: Estimate
    error: Estimate


class LevelReport(Figures):
    """Figures of one level: images, breasts (mean of views) or patients (larger of breasts).

    Attributes:
        subjects: how many images, breasts or patients.
        patients: they belong to.
        tumors: subjects with the label tumor.
        not_admitted: how many without and with a tumor get no decision in use, for the gate admits
            none of their images; they are judged by their probability.
        majority_accuracy: what always answering the commoner class would reach.
        discrimination: without a threshold, or at a fixed specificity or sensitivity.
        delong: the AUC with DeLong's interval, which takes subjects as independent.
        decisions: by operating point.
        calibration: None where a class is missing.
        conformal: None where the model has no conformal thresholds.
        roc: sensitivity over 1 - specificity.
        precision_recall: precision over sensitivity.
        risk_coverage: error over the share of subjects that get an answer, surest first.
        decision_curve: net benefit.
    """

    level: Level
    subjects: int
    patients: int
    tumors: int
    not_admitted: tuple[int, int] = (0, 0)
    majority_accuracy: float
    discrimination: dict[str, Estimate]
    delong: Estimate
    decisions: dict[str, Decision]
    calibration: CalibrationReport | None
    conformal: ConformalReport | None
    roc: Curve
    precision_recall: Curve
    risk_coverage: Curve
    decision_curve: DecisionCurve


class Subgroup(Figures):
    """Images that share a value of metadata, against all others.

    Attributes:
        variable: such as ``view``.
        value: such as ``MLO``.
        roc_auc: within the subgroup.
        difference: of AUC, subgroup less others.
        p_value: of no difference, two-sided, by the bootstrap's standard error.
        adjusted: the same after Holm's correction for all subgroups.
        stands_out: whether `adjusted` is below 0.05.
    """

    variable: str
    value: str
    images: int
    patients: int
    tumors: int
    roc_auc: Estimate
    difference: Estimate
    p_value: float
    adjusted: float
    stands_out: bool


class AgeFigures(Figures):
    """AUC of the picture, of age, and of both together, where age is known: the same subjects.

    Attributes:
        picture: of the probability that the picture alone gives.
        age: of age alone.
        both: of the bundle's second answer, fitted on validation.
        difference: both less picture, paired: the same patients are drawn for both.
    """

    subjects: int
    patients: int
    tumors: int
    picture: Estimate
    age: Estimate
    both: Estimate
    difference: Estimate


class Robustness(Figures):
    """What one mild change of the picture as read does to the answers, by image.

    Attributes:
        change: what was done, or ``unchanged``.
        images: labelled and readable, of whole patients.
        patients: they belong to this many.
        roc_auc: of the changed pictures.
        drop: of the AUC by the change; the interval is paired: the same patients are drawn for
            both.
        decisions_changed: share of images whose decision at the operating point is another.
    """

    change: str
    images: int
    patients: int
    roc_auc: Estimate
    drop: Estimate
    decisions_changed: Estimate


class Mistake(Figures):
    """One of the most confident mistakes; `path` is told from the folder that all images share."""

    path: str
    truth: str
    probability: float


class Report(Figures):
    """What `report.json` holds. Intervals are 95 %, by patient (`estimate`) unless named.

    Attributes:
        schema_version: raised when a field changes its name or meaning.
        model: what answered.
        data: name of the data set.
        split: what was judged of it, or None for all images.
        command: what to type to get this report again.
        default_point: the operating point that decides where none is named.
        counts: of images.
        levels: by image, breast and patient.
        references: AUC by image of what sees no pixel: ``age``, and all ``metadata`` (out of fold).
        benchmark: sensitivity and specificity of US screening radiologists (BCSC, Lehman et al.
            2017, Radiology 283:49): another population, to know the order of magnitude.
        subgroups: by image.
        with_age: the picture, age, and both, by level; empty where the bundle has no answer with age,
            or no ages are known.
        localisation: where the network looked, against boxes, where the data set has them.
        map_correlation: rank correlation, inside the breast, of maps before and after all weights
            were drawn at random (Adebayo et al. 2018): near 1, maps show the picture and not what
            the network learnt. None where it was not asked for.
        robustness: the AUC under mild changes of the picture, where it was asked for.
        mistakes: the most confident ones, false calls and misses by turns.
        notes: what else to know of how it was judged, a sentence each.
    """

    schema_version: Literal[3] = 3
    mammolens_version: str = __version__
    model: Model
    data: str
    split: Split | None
    command: str
    default_point: str
    counts: Counts
    levels: dict[Level, LevelReport]
    references: dict[str, Estimate]
    benchmark: dict[str, float] = Field(default_factory=lambda: {"sensitivity": 0.869, "specificity": 0.889})
    subgroups: tuple[Subgroup, ...]
    with_age: dict[Level, AgeFigures] = Field(default_factory=dict)
    localisation: Localisation | None = None
    map_correlation: float | None = None
    robustness: tuple[Robustness, ...] = ()
    mistakes: tuple[Mistake, ...]
    notes: tuple[str, ...] = ()
    bootstrap_resamples: int = RESAMPLES
    bootstrap_unit: Literal["patient"] = "patient"

    @property
    def images(self) -> LevelReport:
        """The figures by image."""
        return self.levels[Level.IMAGE]
