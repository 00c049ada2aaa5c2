"""Answers as DICOM, in the study of the pictures that they are of: written with highdicom, which lives here alone.

Raises:
    MissingExtra: highdicom is not installed.
"""

from mammolens.errors import require

require("highdicom", extra="dicom")
