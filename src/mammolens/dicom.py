"""DICOM → `Image`: modality LUT, VOI LUT or window, then MONOCHROME1, in this order, once."""

from pathlib import Path

from mammolens.errors import ImageError
from mammolens.images import Image

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})


def is_dicom(path: Path) -> bool:
    """Tell whether a file holds DICOM, by its preamble."""
    return path.suffix.lower() in DICOM_SUFFIXES


def read_dicom(path: Path) -> Image:
    """Read one mammogram."""
    raise ImageError(f"{path}: not yet.")
