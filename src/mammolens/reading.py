"""Any file → `Image`: the one door to pixels on disk. Content decides, not the name."""

from pathlib import Path

from mammolens.dicom import DICOM_SUFFIXES, is_dicom, read_dicom
from mammolens.errors import ImageError, reason
from mammolens.images import Image, check_file
from mammolens.raster import RASTER_SUFFIXES, read_raster

IMAGE_SUFFIXES = RASTER_SUFFIXES | DICOM_SUFFIXES


def read_image(path: Path) -> Image:
    """Read `path` as one grey image.

    Raises:
        ImageError: the file is missing, empty, too large, damaged, not one mammogram-like picture,
            or its content contradicts its name.
    """
    check_file(path)
    return read_dicom(path) if is_dicom(path) else read_raster(path)


def read_or_reason(path: Path) -> Image | str:
    """Read `path`, or say why not: for batches, which one bad file never stops."""
    try:
        return read_image(path)
    except ImageError as error:
        return reason(error)


def looks_like_image(path: Path) -> bool:
    """Tell whether a file found in a folder is meant as an image: by its suffix, or as DICOM.

    DICOM files often have no suffix, or a UID that looks like one; their content tells.
    """
    if path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path)
