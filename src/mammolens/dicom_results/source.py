"""The picture that a result is of: whose it is, in which study, and how it is referred to.

Its header is read by a worker, and comes from there without its pixels, in UTF-8.
"""

import os
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.valuerep import DA, TM

from mammolens.errors import ImageError
from mammolens.images.archives import Input, Picture, on_disk
from mammolens.images.dicom.reader import is_dicom, read_header
from mammolens.images.image import check_file
from mammolens.images.reading import first_bytes
from mammolens.records import Prediction
from mammolens.workers.crew import apart

_GROUPS = {0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0040}
"""Groups of patient, clinical trial, study, series, equipment and picture: nothing else is taken over."""

_MOST = 2**16  # bytes of an element
_IDENTIFIER = re.compile(r"[0-9.]{1,64}")  # some have zeros where PS3.5 9.1 allows none
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_USUAL = ("PatientName", "PatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName", "PatientOrientation")
"""Elements that every object has, if only empty (type 2)."""

_MOMENTS = {"PatientBirthDate": (DA, "."), "StudyDate": (DA, "."), "StudyTime": (TM, ":")}
_SEXES = ("M", "F", "O")
_NOWHERE = ("FrameOfReferenceUID", "PositionReferenceIndicator", "NumberOfFrames")
"""A mammogram has no place in space: results lie on its pixels, not in a frame of reference."""


@dataclass(frozen=True, eq=False)
class Source:
    """A DICOM picture and the answer for it.

    Attributes:
        answer: without its map.
        peak: (column, row) where the map is largest, in pixels of the picture, see `heat.peak_of`; None without a map.
        content: its header, as DICOM.
    """

    answer: Prediction
    peak: tuple[float, float] | None
    content: bytes

    @property
    def header(self) -> Dataset:
        """The header, read anew: thousands would fill the memory."""
        return parsed(self.content)


def header_of(picture: Picture, name: Path) -> bytes | None:
    """Return what results take over of a picture, as DICOM; None where it is no DICOM.

    Raises:
        ImageError: the header cannot be read, or lacks what a result must refer to.
    """
    if isinstance(picture, str | os.PathLike | Input):
        with on_disk(picture) as path:
            content = apart(taken_over, path)
    elif isinstance(picture, Dataset):
        content = _kept(picture)
    else:
        return None
    if not content:
        return None
    header = parsed(content)
    if missing := [keyword for keyword in _NEEDED if not _IDENTIFIER.fullmatch(str(header.get(keyword, "")))]:
        raise ImageError(f"{name}: its header has no {', '.join(missing)}: no DICOM result can refer to it.")
    return content


def taken_over(path: Path) -> bytes:
    """Return what results take over of a file's header; nothing where it is no DICOM.

    Raises:
        ImageError: the file cannot be read.
    """
    check_file(path)
    return _kept(read_header(path)) if is_dicom(path.name, first_bytes(path)) else b""


def _kept(dataset: Dataset) -> bytes:
    kept = Dataset()
    kept.SpecificCharacterSet = "ISO_IR 192"
    with warnings.catch_warnings(action="ignore"):
        for tag in list(dataset.keys()):  # as they are: to go through the elements may raise
            if tag.group in _GROUPS and tag not in kept:
                with suppress(Exception):  # malformed elements have errors of every kind
                    one = Dataset()
                    one.SpecificCharacterSet = kept.SpecificCharacterSet
                    one.add(dataset[tag])
                    if len(_written(one)) <= _MOST:
                        kept.add(one[tag])
        return _written(_completed(kept))


def _completed(kept: Dataset) -> Dataset:
    """Fill in what every object has, empty, and leave out what is not valid."""
    for keyword in (*_USUAL, *_MOMENTS, "PatientSex"):
        kept.setdefault(keyword, "")
    for keyword, (kind, mark) in _MOMENTS.items():
        plain = str(kept[keyword].value or "").replace(mark, "")  # as it was written before DICOM 3.0
        try:
            kind(plain)
        except ValueError:
            plain = ""
        setattr(kept, keyword, plain)
    kept.PatientSex = kept.PatientSex if kept.PatientSex in _SEXES else ""
    for keyword in _NOWHERE:
        if keyword in kept:
            del kept[keyword]
    return kept


def _written(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dcmwrite(stream, dataset, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def parsed(content: bytes) -> Dataset:
    """Return a header that was taken over."""
    with warnings.catch_warnings(action="ignore"):
        header = dcmread(BytesIO(content), force=True)
        for _ in header.iterall():  # what is odd is remarked on, and quoted, when it is first asked for
            pass
    return header
