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

from mammolens.levels import ServedLevel

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

    @property
    def word(self) -> str:
        """The side in a word: left or right."""
        return self.name.lower()


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


class Reason(StrEnum):
    """Why there is no decision, or why it is not to be relied on; see `model.decisions.decide`."""

    NOT_A_MAMMOGRAM = "does not look like a mammogram"
    BOTH = "both classes are possible"
    NEITHER = "neither class is usual"
    AGAINST = "validation is for the other class"
    BETWEEN = "between ruling a tumor out and ruling it in"


class ImageWarning(StrEnum):
    """What to know before trusting an answer about an image; braces stand for what `about` fills in."""

    NOT_LIKE_TRAINING = "does not look like the mammograms that the model learnt from"
    PICTURES = "the file holds {} pictures: the first was read"
    CHANNELS = "further channels of the file are not looked at"
    EMPTY_ALPHA = "transparent all over: taken as if it were not"
    ALPHA = "transparent parts: taken as black background"
    DEEP = "{} bits a pixel where the header has room for {}"
    NO_END = "the encoded picture has no end: some of its last rows may be missing"
    RAW = "raw pixels ('for processing'), made for software, not for reading: answers are less sure"
    MODALITY = "the file does not say that it is a mammogram"
    VIEW = "not a standard view: {}; models learn CC and MLO views of whole breasts, answers are less sure"
    COLOUR = "colour image: turned to grey"
    TABLE_EMPTY = "a look-up table in the file is empty: ignored"
    TABLE_SHORT = "a look-up table in the file has fewer entries than it says"
    RESCALING = "the rescaling in the file is not a number: ignored"
    WINDOW = "the window in the file is not valid: ignored"
    WINDOWS = "the file names {} window centers and {} widths: those that have both are taken"
    VOI_FUNCTION = "the VOI LUT function in the file is not known: linear is used"
    WHITE = "the file contradicts itself on which end of the scale is white"
    FAINT = "faint: less than a sixteenth of the grey scale is used"
    INVERTED = "grey levels were inverted: corrected"
    POLARITY = "polarity is uncertain"
    NO_BREAST = "no breast was found: the whole picture is used"
    SMALL = "only {} x {} pixels: less than the network looks at"
    CONTRADICTION = "{} and {} differ in the {}: {} is taken"
    AGES = "the pictures differ in age, from {} to {} years: none is taken"
    NO_SIDE = "side of {} is not known: taken for a breast of its own"
    MISSING_VIEW = "standard views not found: {}"
    DOUBLED_VIEW = "more than one picture of {}: all count"
    NO_SAY = "{} does not look like a mammogram and has no say"

    @property
    def kind(self) -> "ImageWarning":
        """Which warning it is: itself."""
        return self

    def about(self, *details: object) -> "DetailedWarning":
        """Return the warning with its braces filled in."""
        sentence = DetailedWarning(self.format(*details))
        sentence.kind = self
        return sentence


class DetailedWarning(str):
    """The sentence of a warning whose words differ from image to image; made by `ImageWarning.about`.

    Attributes:
        kind: which warning it is.
    """

    __slots__ = ("kind",)
    kind: ImageWarning


Warned = ImageWarning | DetailedWarning
"""A warning: as text it is its sentence."""


def warnings_that_hold(conditions: Mapping[Warned, object]) -> tuple[Warned, ...]:
    """Return the warnings whose condition is true, in their order."""
    return tuple(warning for warning, holds in conditions.items() if holds)


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
    """An answer for a picture, a breast or an examination: a probability of tumor and a decision, or why there is none.

    What it decides is `model.decisions.decided`'s business alone; until then nothing is decided.

    Attributes:
        path: the input, as it was named; of several, the first.
        probability: of tumor, calibrated, in [0, 1], at `level`; None where there is an error, and
            where the input is not admitted, but for those who ask for it all the same.
        decision: one of `LABEL_NAMES`, or None.
        threshold: a probability at or above it is called tumor; NaN until something is decided.
        operating_point: the name of that threshold.
        uncertain: whether there is a probability that is not to be relied on, or would be.
        level: what the probability and decision are of.
        laterality: which breast, by a table, the DICOM header or the file's name: see `data.identity`.
        view: the projection, likewise.
        patient_id: likewise, but for the name.
        study_id: likewise: DICOM's Study Instance UID.
        by_name: whether side or view are known from the file's name alone.
        age: in years, 18 to 110, where the DICOM header says so.
        probability_with_age: a second answer, of the picture and age together, at `level`, in [0, 1];
            None unless it is asked for and both are known. Nothing is decided by it.
        warnings: what to know before trusting the answer.
        error: why there is no answer.
        reason: why there is no decision though there is no error, or why it is uncertain.
        admitted: whether the input looks like a mammogram; of one that does not, nothing is
            decided, at whatever operating point.
        score_map: float32 (height, width) in [0, 1] over the whole picture, coarser than it: how
            much each place looks like a tumor; None where the network has no map, and of several pictures.
        views: of a breast or examination, the answer for each of its pictures.
        breasts: of an examination, the answer for each breast that is known by its side, left first.
    """

    path: Path
    probability: float | None
    decision: str | None = None
    threshold: float = math.nan
    operating_point: str = ""
    uncertain: bool = False
    level: ServedLevel = ServedLevel.IMAGE
    laterality: Laterality | None = None
    view: View | None = None
    patient_id: str | None = None
    study_id: str | None = None
    by_name: bool = False
    age: int | None = None
    probability_with_age: float | None = None
    warnings: tuple[Warned, ...] = ()
    error: str | None = None
    reason: Reason | None = None
    admitted: bool = True
    score_map: "NDArray[np.float32] | None" = dataclasses.field(default=None, repr=False)
    views: tuple["Prediction", ...] = ()
    breasts: tuple["Prediction", ...] = ()

    @property
    def pictures(self) -> tuple["Prediction", ...]:
        """The answer for each picture that this one rests on: itself, where it is of one picture."""
        return self.views or (self,)

    def breast(self, side: Laterality) -> "Prediction | None":
        """Return what an examination says of one breast, if anything."""
        return next((one for one in self.breasts if one.laterality is side), None)

    @property
    def difference(self) -> float | None:
        """Of an examination, the left breast's probability less the right one's; None where one lacks."""
        left, right = (one.probability if (one := self.breast(side)) else None for side in Laterality)
        return None if left is None or right is None else round(left - right, 6)

    @classmethod
    def failure(cls, path: Path, error: str, threshold: float = math.nan) -> "Prediction":
        """Return the row of an input that got no answer."""
        return cls(path, None, None, threshold, error=error)
