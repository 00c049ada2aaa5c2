"""Any file, picture or array → `Image`: the one door to pixels. Content decides, not the name."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from mammolens.errors import ImageError, reason
from mammolens.images.dicom.reader import DICOM_SUFFIXES, holds_dicom, image_of_dataset, is_dicom, read_dicom
from mammolens.images.image import Image, check_file
from mammolens.images.raster import RASTER_SUFFIXES, image_of_array, image_of_picture, read_raster
from mammolens.images.tiff import SIGNATURES
from mammolens.workers.crew import apart

IMAGE_SUFFIXES = RASTER_SUFFIXES | DICOM_SUFFIXES

START = 512
"""Bytes from which `is_picture` and `foreign_kind` tell."""

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", *SIGNATURES)  # PNG, JPEG, TIFF


@dataclass(frozen=True)
class Kind:
    """A kind of file that holds pictures or tables, but not in a form that is read here; see ``kinds.toml``.

    Attributes:
        name: such as ``"a GIF image"``.
        remedy: what to do about it, as a sentence.
        signatures: bytes by which it is told, and where they stand; any of them will do.
        suffixes: names under which it counts as one, whatever is in it.
        pictures: whether there may be a mammogram in it, so that it is not passed over in silence.
    """

    name: str
    remedy: str
    signatures: tuple[tuple[int, bytes], ...]
    suffixes: tuple[str, ...]
    pictures: bool

    def refusal(self) -> str:
        """Say why a file of this kind is not read, as a sentence that follows its name."""
        return f"is {self.name}, which is not read here. {self.remedy}"


_TABLE = tomllib.loads(Path(__file__).with_name("kinds.toml").read_text(encoding="utf-8"))

NAMES = {what: frozenset(names) for what, names in _TABLE["names"].items()}
"""Names that are litter, suffixes of texts, suffixes of documents: files that are not looked into."""

FOREIGN = tuple(
    Kind(
        row["name"],
        _TABLE["remedies"].get(row["remedy"], row["remedy"]),
        tuple((place, bytes_.encode("latin-1")) for place, bytes_ in row.get("signatures", ())),
        tuple(row.get("suffixes", ())),
        row.get("pictures", True),
    )
    for row in _TABLE["kinds"]
)
"""Every kind that is told by name."""

ZIP, PART = (next(kind for kind in FOREIGN if suffix in kind.suffixes) for suffix in (".zip", ".z01"))


def read_image(path: Path, *, windows: bool = False) -> Image:
    """Read `path` as one grey image, decoded by a process that may do little (`workers.crew.apart`).

    Args:
        path: the file.
        windows: whether the picture before any window is wanted too, where the file offers several.

    Raises:
        ImageError: the file is missing, empty, too large, damaged, not one mammogram-like picture,
            its content contradicts its name, or it takes too long or too much memory to decode.
    """
    return apart(_decoded, path, windows=windows)


def _decoded(path: Path, *, windows: bool) -> Image:
    check_file(path)
    try:
        start = first_bytes(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}). Copy it anew.") from error
    if is_dicom(path.name, start):
        return read_dicom(path, windows=windows)
    if kind := foreign_kind(start):
        raise ImageError(f"{path}: {kind.refusal()}")
    return read_raster(path)


def read_or_reason(path: Path) -> Image | str:
    """Read `path`, or say why not: for batches, which one bad file never stops."""
    try:
        return read_image(path)
    except ImageError as error:
        return reason(error)


def image_of(source: object, name: str | Path) -> Image:
    """Take what a program has in memory as one grey image, by the same rules and limits as a file.

    Args:
        source: an array (height, width) or, as RGB, (height, width, 3): uint8, uint16, bool, or
            float in [0, 1], 0 is black; a Pillow picture; or a pydicom dataset, which stays as it is.
        name: what it is called in errors.

    Raises:
        ImageError: it is something else, too large or small, damaged, or not one mammogram-like picture.
    """
    name = Path(name)
    if isinstance(source, np.ma.MaskedArray):
        raise ImageError(f"{name}: a masked array: what lies under its mask is not known; give array.filled(0).")
    if isinstance(source, np.ndarray):
        return image_of_array(np.asarray(source), name)
    if isinstance(source, Pillow.Image):
        return image_of_picture(source, name)
    from pydicom import Dataset  # noqa: PLC0415 - takes 0.2 s

    if isinstance(source, Dataset):
        return image_of_dataset(source, name)
    kind = type(source).__qualname__
    raise ImageError(f"{name}: {kind} is no image; expected a NumPy array, a Pillow picture or a pydicom dataset.")


def first_bytes(path: Path) -> bytes:
    """Return the first `START` bytes of a file, fewer where it is shorter.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(START)


def is_picture(start: bytes) -> bool:
    """Tell from a file's first bytes whether it is a picture of a kind that is read here."""
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # both reserved words are zero
    pnm = start[:1] == b"P" and start[1:2] in b"123456" and start[2:3] in b" \t\r\n"
    pnm = pnm and (start[3:4].isdigit() or start[3:4] == b"#")
    return start.startswith(_PICTURES) or holds_dicom(start) or webp or bmp or pnm


def foreign_kind(start: bytes, suffix: str = "") -> Kind | None:
    """Return which kind of `FOREIGN` a file is by its first bytes, else by its suffix, or None."""
    named = next((kind for kind in FOREIGN if suffix in kind.suffixes), None)
    if named is PART:  # the first part of an archive looks like a whole one
        return named
    shown = (kind for kind in FOREIGN if any(start.startswith(bytes_, place) for place, bytes_ in kind.signatures))
    return next(shown, named)
