"""Any file → `Image`: the one door to pixels on disk. Content decides, not the name."""

from pathlib import Path

from mammolens.errors import ImageError, reason
from mammolens.images.dicom.reader import DICOM_SUFFIXES, is_dicom, read_dicom
from mammolens.images.image import Image, check_file
from mammolens.images.kinds import first_bytes, foreign_kind
from mammolens.images.raster import RASTER_SUFFIXES, read_raster

IMAGE_SUFFIXES = RASTER_SUFFIXES | DICOM_SUFFIXES


def read_image(path: Path) -> Image:
    """Read `path` as one grey image.

    Raises:
        ImageError: the file is missing, empty, too large, damaged, not one mammogram-like picture,
            or its content contradicts its name.
    """
    check_file(path)
    if is_dicom(path):
        return read_dicom(path)
    try:
        kind = foreign_kind(first_bytes(path))
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}). Copy it anew.") from error
    if kind is not None:
        raise ImageError(f"{path}: is {kind.name}, which is not read here. {kind.remedy}")
    return read_raster(path)


def read_or_reason(path: Path) -> Image | str:
    """Read `path`, or say why not: for batches, which one bad file never stops."""
    try:
        return read_image(path)
    except ImageError as error:
        return reason(error)
