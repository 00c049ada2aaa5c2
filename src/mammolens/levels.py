"""What is judged, what is answered for, what identifies: words that the command line offers, and that load nothing."""

from enum import StrEnum
from typing import TypeVar

from mammolens.errors import DataError

Word = TypeVar("Word", bound=StrEnum)


class Level(StrEnum):
    """What is judged, and what thresholds are chosen for: pictures, breasts, or patients."""

    IMAGE = "image"
    BREAST = "breast"
    PATIENT = "patient"


class ServedLevel(StrEnum):
    """What an answer is about: one picture, all views of a breast, or one examination of a patient."""

    IMAGE = "image"
    BREAST = "breast"
    EXAM = "exam"

    @classmethod
    def named(cls, name: str) -> "ServedLevel":
        """Return the level of that name.

        Raises:
            DataError: there is none.
        """
        remedy = " Say exam: a row an examination, each of one patient." if name == Level.PATIENT else ""
        return _named(cls, "level", name, remedy)

    @property
    def judged(self) -> Level:
        """The level whose thresholds and prediction sets decide: an examination is judged as a patient."""
        return Level.PATIENT if self is ServedLevel.EXAM else Level(self.value)


class Identifier(StrEnum):
    """What tells whose an examination is; reports leave each out unless it is asked for."""

    PATIENT = "patient"
    STUDY = "study"
    FILES = "files"

    @classmethod
    def named(cls, name: str) -> "Identifier":
        """Return the identifier of that name.

        Raises:
            DataError: there is none.
        """
        return _named(cls, "identifier", name)


def _named(words: type[Word], what: str, name: str, remedy: str = "") -> Word:
    if name in tuple(words):
        return words(name)
    raise DataError(f"no {what} '{name}': expected {', '.join(words)}.{remedy}")
