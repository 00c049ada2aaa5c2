"""The words of the house: a mammogram, a box in it, a prediction of it. Reads no files."""

import dataclasses
import math
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABEL_NAMES = ("no tumor", "tumor")
"""What labels 0 and 1 mean, everywhere."""

_FROZEN = ConfigDict(extra="forbid")
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Laterality(StrEnum):
    """Which breast."""

    LEFT = "L"
    RIGHT = "R"


class View(StrEnum):
    """The projection, in DICOM's view codes (PS3.16 CID 4014 short names)."""

    CC = "CC"
    MLO = "MLO"
    ML = "ML"
    LM = "LM"
    LMO = "LMO"
    AT = "AT"


class Special(StrEnum):
    """What makes a picture other than a standard view of a whole breast, in plain words.

    By DICOM's view modifiers (PS3.16 CID 4015), views (CID 4014) and attributes of its own.
    """

    MAGNIFICATION = "magnification"
    SPOT_COMPRESSION = "spot compression"
    IMPLANT = "breast implant"
    IMPLANT_DISPLACED = "implant displaced"
    PARTIAL = "part of a breast"
    SPECIMEN = "specimen"
    BIOPSY = "biopsy or localisation"
    ROLLED = "rolled"
    TANGENTIAL = "tangential"
    CLEAVAGE = "cleavage"
    EXAGGERATED = "exaggerated craniocaudal"
    ANTERIOR_COMPRESSION = "anterior compression"
    NIPPLE_IN_PROFILE = "nipple in profile"
    INFRAMAMMARY_FOLD = "inframammary fold"
    AXILLARY_TISSUE = "axillary tissue"
    OTHER_PROJECTION = "another projection"
    SUBTRACTION = "contrast-enhanced subtraction"
    UNKNOWN = "a view of an unknown name"


class Level(StrEnum):
    """What an answer is about: one picture, all views of a breast, or both breasts."""

    IMAGE = "image"
    BREAST = "breast"
    PATIENT = "patient"


class Reason(StrEnum):
    """Why there is no decision, or why it is not to be relied on; see `triage.decide`."""

    NOT_A_MAMMOGRAM = "does not look like a mammogram"
    BOTH = "both classes are possible"
    NEITHER = "neither class is usual"
    AGAINST = "validation is for the other class"
    BETWEEN = "between ruling a tumor out and ruling it in"


class Split(StrEnum):
    """What an image may be used for: to learn, to choose, to judge."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


@dataclass(frozen=True, config=_FROZEN)
class Box:
    """A lesion's bounding box in pixels of the stored image; (x, y) is its upper left corner."""

    x: _NonNegative
    y: _NonNegative
    width: _Positive
    height: _Positive


@dataclass(frozen=True, config=_FROZEN)
class Mammogram:
    """One image of a data set and what is known of it. Unknown is None or empty, never a guess."""

    path: Path
    label: Literal[0, 1] | None = None
    split: Split | None = None
    patient_id: str | None = None
    image_id: str | None = None
    laterality: Laterality | None = None
    view: View | None = None
    boxes: tuple[Box, ...] = ()
    metadata: Mapping[str, str] = Field(default_factory=dict)

    @property
    def breast_key(self) -> str:
        """The breast, or the image itself where patient or side is not known."""
        if self.patient_id is None or self.laterality is None:
            return f"image {os.fspath(self.path)}"
        return f"{self.patient_id} {self.laterality}"

    @property
    def patient_key(self) -> str:
        """The patient, or the image itself where no patient is known: what splits may not cut."""
        return self.patient_id if self.patient_id is not None else f"image {os.fspath(self.path)}"


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one input: a probability of tumor and a decision, or why there is none.

    What it decides is `triage.decided`'s business alone; until then nothing is decided.

    Attributes:
        path: the input, as it was named.
        probability: of tumor, calibrated, in [0, 1], at `level`; None where there is an error, and
            where the input is not admitted, but for those who ask for it all the same.
        decision: one of `LABEL_NAMES`, or None.
        threshold: a probability at or above it is called tumor; NaN until something is decided.
        operating_point: the name of that threshold.
        uncertain: whether there is a probability that is not to be relied on, or would be.
        level: what the probability and decision are of.
        laterality: which breast, where the file says so.
        view: the projection, where the file says so.
        patient_id: where the file says so.
        warnings: what to know before trusting the answer.
        error: why there is no answer.
        reason: why there is no decision though there is no error, or why it is uncertain.
        admitted: whether the input looks like a mammogram; of one that does not, nothing is
            decided, at whatever operating point.
        score_map: float32 (height, width) in [0, 1] over the whole picture, coarser than it: how
            much each place looks like a tumor; None where the network has no map.
    """

    path: Path
    probability: float | None
    decision: str | None = None
    threshold: float = math.nan
    operating_point: str = ""
    uncertain: bool = False
    level: Level = Level.IMAGE
    laterality: Laterality | None = None
    view: View | None = None
    patient_id: str | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    reason: Reason | None = None
    admitted: bool = True
    score_map: "NDArray[np.float32] | None" = None

    @classmethod
    def failure(cls, path: Path, error: str, threshold: float = math.nan) -> "Prediction":
        """Return the row of an input that got no answer."""
        return cls(path, None, None, threshold, error=error)
