"""One mammogram → a copy that names nobody: read, written anew, read back, and held against what was read first."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from mammolens.data.identity import patient_of
from mammolens.deidentification.annotations import beside_breast, darkest, has_text
from mammolens.deidentification.header import OLDEST, bare_dataset
from mammolens.deidentification.pseudonyms import Pseudonyms
from mammolens.errors import ImageError
from mammolens.files import written_whole
from mammolens.images.breast import Mask, Pixels
from mammolens.images.dicom.lut import Integers
from mammolens.images.dicom.reader import is_dicom, read_stored
from mammolens.images.image import Header, Image, check_file, damage_told
from mammolens.images.reading import first_bytes, image_of, read_image
from mammolens.images.tiff import SIGNATURES, read_tiff
from mammolens.workers.crew import apart

_DAMAGED = "the picture cannot be written anew ({})."
_MODES = ("1", "L", "LA", "I", "I;16", "RGB", "RGBA")  # of PNG


@dataclass(frozen=True)
class Copied:
    """A copy that was made.

    Attributes:
        path: where it is.
        patient: who its patient was and who it is now, where the header says.
        has_text: whether there seemed to be text in the picture, beside the breast, or its header said so.
        blackened: whether all that is beside the breast is black in the copy; what touches the breast is not.
    """

    path: Path
    patient: tuple[str, str] | None
    has_text: bool
    blackened: bool


def copy_bare(source: Path, target: Path, names: Pseudonyms, *, blacken: bool = False) -> Copied:
    """Write a copy of a picture that has its pixels and nothing of its patient.

    DICOM becomes DICOM in Explicit VR Little Endian: what is encoded may hold comments. All else becomes PNG.

    Args:
        source: the file.
        target: of the copy, without a suffix.
        names: of patients and identifiers.
        blacken: whether all beside the breast becomes black where there seems to be text.

    Raises:
        ImageError: it cannot be read, or a copy would not look the same.
        DataError: the copy cannot be written.
    """
    made = apart(_made, source, names=names, stem=target.name, blacken=blacken)
    path = target.with_name(f"{target.name}{made.suffix}")
    with written_whole(path) as temporary:
        temporary.write_bytes(made.content)
    return Copied(path, made.patient, made.has_text, made.blackened)


@dataclass(frozen=True)
class _Made:
    """A copy as it will be written: its bytes, the suffix of its name, and as `Copied`."""

    content: bytes
    suffix: Literal[".dcm", ".png"]
    patient: tuple[str, str] | None
    has_text: bool
    blackened: bool


def _made(source: Path, *, names: Pseudonyms, stem: str, blacken: bool) -> _Made:
    check_file(source)
    if is_dicom(source.name, first_bytes(source)):
        return _dicom(source, names, stem, blacken=blacken)
    return _raster(source, blacken=blacken)


def _dicom(source: Path, names: Pseudonyms, stem: str, *, blacken: bool) -> _Made:
    from pydicom import dcmread  # noqa: PLC0415 - takes 0.2 s

    image, dataset, stored = read_stored(source)
    gone, found = _gone(image, _before_windows(stored), blacken=blacken)
    with damage_told(source, _DAMAGED):
        if gone.any():
            stored = stored.copy()
            stored[gone] = stored[darkest(image.pixels)]
        bare, file = bare_dataset(dataset, stored, names, stem), BytesIO()
        found = found or bare.get("BurnedInAnnotation") == "YES"
        if found:  # what touches the breast, or was not seen, may be there still
            bare.BurnedInAnnotation = "YES"
        bare.save_as(file, enforce_file_format=True)
        _check_same(source, image, image_of(dcmread(BytesIO(file.getbuffer())), source), gone)
    patient = patient_of(image.header or Header())
    who = (patient, names.patient(patient)) if patient else None
    return _Made(file.getvalue(), ".dcm", who, found, bool(gone.any()))


def _raster(source: Path, *, blacken: bool) -> _Made:
    image, file = read_image(source), BytesIO()
    gone, found = _gone(image, blacken=blacken)
    with damage_told(source, _DAMAGED):
        picture = _bare_picture(source)
        if gone.any():
            black: Any = picture.getpixel(darkest(image.pixels)[::-1])
            picture.paste(black, mask=Pillow.fromarray(gone))
        picture.save(file, format="PNG")
        _check_same(source, image, image_of(Pillow.open(BytesIO(file.getbuffer())), source), gone)
    return _Made(file.getvalue(), ".png", None, found, bool(gone.any()))


def _before_windows(stored: Integers) -> Pixels:
    """Return the whole range of values as shades, for a window may hide text that another shows."""
    grey = stored if stored.ndim == len(("rows", "columns")) else stored.max(axis=2)
    low, high = int(grey.min()), int(grey.max())
    return ((grey - float(low)) / max(high - low, 1)).astype(np.float32)


def _gone(image: Image, *others: Pixels, blacken: bool) -> tuple[Mask, bool]:
    """Return what is to be black, and whether there seems to be text: in the picture, or as others show it."""
    beside = beside_breast(image.pixels)
    where = beside if beside.any() else np.ones_like(beside)
    found = any(has_text(pixels, where) for pixels in (image.pixels, *others))
    return beside & (blacken and found), found


def _bare_picture(source: Path) -> Pillow.Image:
    """Return a picture upright, without anything that is not its pixels."""
    if first_bytes(source)[:4] in SIGNATURES and (tiff := read_tiff(source)) and tiff.alpha is None:
        white = 2**tiff.bits - 1
        samples = tiff.samples if white > 255 else (tiff.samples * (255 // white)).astype(np.uint8)  # noqa: PLR2004
        picture = Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        picture.getexif()[0x0112] = tiff.orientation
        return _without_info(ImageOps.exif_transpose(picture))
    with Pillow.open(source) as opened:
        opened.load()
        upright = opened.copy() if opened.format == "TIFF" else ImageOps.exif_transpose(opened)
    return _without_info(upright)


def _without_info(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode == "P":  # whose colours that nobody sees may be told apart, or be text themselves
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("LA", "RGBA") and (alpha := picture.getchannel("A")).getbbox():
        # What is transparent may hide anything.
        picture.paste(tuple([0] * len(picture.getbands())), mask=alpha.point(lambda opaque: 0 if opaque else 255))
    transparent = picture.info.get("transparency")
    picture = picture if picture.mode in _MODES else picture.convert("RGB")
    picture.info = {} if transparent is None else {"transparency": transparent}
    return picture


def _check_same(source: Path, old: Image, new: Image, gone: Mask) -> None:
    """Refuse a copy that shows, or says of what it shows, anything else; what was blackened is black."""
    same = old.pixels.shape == new.pixels.shape and np.array_equal(old.pixels[~gone], new.pixels[~gone])
    same = same and old.colour == new.colour and _called(old) == _called(new)
    if not same:
        raise ImageError(
            f"{source}: a copy without its header would not look the same, or not be called the same view; "
            "none was made. Export it anew, as plain DICOM or PNG of at most 16 bits in grey or 8 in colour."
        )


def _called(image: Image) -> tuple[object, ...]:
    """Return what stays of a header."""
    one = image.header or Header()
    return one.laterality, one.view, one.special, one.spacing, one.for_processing, min(one.age or 0, OLDEST)
