"""What a file is by its first bytes, where it is no picture that is read here, and what to do.

Signatures are those of the formats' own specifications, as ``file`` knows them.
"""

from dataclasses import dataclass
from pathlib import Path

from mammolens.images.dicom.reader import PREAMBLE, holds_dicom

START = 512
"""Bytes from which `is_picture` and `foreign_kind` tell."""

_AS_PNG = "Save it as PNG, or export the DICOM file."
_UNPACK = "Unpack it first, or pack its files as a plain ZIP."
_AS_CSV = "Open it and save the sheet as CSV (UTF-8)."


@dataclass(frozen=True)
class Kind:
    """A kind of file that holds pictures or tables, but not in a form that is read here.

    Attributes:
        name: such as ``"a GIF image"``.
        remedy: what to do about it, as a sentence.
        signatures: bytes by which it is told, and where they stand; any of them will do.
        suffixes: names under which it counts as one, whatever is in it.
        pictures: whether there may be a mammogram in it, so that it is not passed over in silence.
    """

    name: str
    remedy: str
    signatures: tuple[tuple[int, bytes], ...] = ()
    suffixes: tuple[str, ...] = ()
    pictures: bool = True


ZIP = Kind(
    "a ZIP archive",
    "Unpack it; only `mammolens predict` and the page look into archives, if named .zip.",
    ((0, b"PK\x03\x04"), (0, b"PK\x05\x06"), (0, b"PK\x07\x08")),
    (".zip",),
)

PART = Kind(
    "a part of an archive",
    "Put its parts together and unpack them first.",
    suffixes=(".z01", ".001", ".r00"),
)

FOREIGN = (
    Kind("a GIF image", _AS_PNG, ((0, b"GIF8"),), (".gif",)),
    Kind(
        "an HEIC or AVIF picture, as phones make them",
        _AS_PNG,
        tuple((4, b"ftyp" + brand) for brand in (b"hei", b"hev", b"mif1", b"msf1", b"avi")),
        (".heic", ".heif", ".avif"),
    ),
    Kind(
        "a bare JPEG 2000 image",
        _AS_PNG,
        ((4, b"jP  \r\n\x87\n"), (0, b"\xff\x4f\xff\x51")),
        (".jp2", ".j2k", ".j2c", ".jpf", ".jpx"),
    ),
    Kind("a JPEG XL image", _AS_PNG, ((4, b"JXL \r\n\x87\n"), (0, b"\xff\x0a")), (".jxl",)),
    Kind("a bare JPEG-LS or lossless JPEG image", _AS_PNG, (), (".jls", ".ljpeg")),
    Kind("a JPEG XR image", _AS_PNG, ((0, b"II\xbc\x01"),), (".jxr", ".wdp", ".hdp")),
    Kind("an OpenEXR image", _AS_PNG, ((0, b"v/1\x01"),), (".exr",)),
    Kind("a PAM image", _AS_PNG, ((0, b"P7\n"),), (".pam",)),
    Kind("a Photoshop file", _AS_PNG, ((0, b"8BPS"),), (".psd",)),
    Kind("a NIfTI file", _AS_PNG, ((344, b"n+1\0"), (344, b"ni1\0")), (".nii",)),
    Kind("a NRRD or MetaImage file", _AS_PNG, ((0, b"NRRD"),), (".nrrd", ".mha", ".mhd")),
    Kind("an archive packed by gzip", _UNPACK, ((0, b"\x1f\x8b"),), (".gz", ".tgz")),
    Kind("an archive packed by bzip2", _UNPACK, ((0, b"BZh"),), (".bz2", ".tbz2")),
    Kind("an archive packed by xz", _UNPACK, ((0, b"\xfd7zXZ\0"),), (".xz", ".txz")),
    Kind("an archive packed by Zstandard", _UNPACK, ((0, b"\x28\xb5\x2f\xfd"),), (".zst",)),
    Kind("a tar archive", _UNPACK, ((257, b"ustar"),), (".tar",)),
    Kind("a 7z archive", _UNPACK, ((0, b"7z\xbc\xaf\x27\x1c"),), (".7z",)),
    Kind("a RAR archive", _UNPACK, ((0, b"Rar!\x1a\x07"),), (".rar",)),
    PART,
    Kind(
        "a video",
        "Save one picture of it as PNG, or export the DICOM file.",
        tuple((4, b"ftyp" + brand) for brand in (b"iso", b"mp4", b"qt", b"M4V", b"3gp", b"avc1")),
        pictures=False,
    ),
    Kind(
        "a page of the web or a drawing (HTML, XML or SVG)",
        _AS_PNG,
        tuple((0, start) for start in (b"<?xml", b"<svg", b"<!DOCTYPE", b"<!doctype", b"<html")),
        pictures=False,
    ),
    Kind("a PDF document", _AS_PNG, ((0, b"%PDF-"),), (), pictures=False),
    Kind("an old Excel workbook", _AS_CSV, ((0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),), (), False),
    Kind("a Parquet table", "Save it as CSV.", ((0, b"PAR1"),), (), pictures=False),
    Kind("an HDF5 file", _AS_PNG, ((0, b"\x89HDF\r\n\x1a\n"),), (), pictures=False),
    Kind("a NumPy file", _AS_PNG, ((0, b"\x93NUMPY"),), (), pictures=False),
    ZIP,
)
"""Every kind that is told by name. Their order does not matter."""

_PICTURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"),  # PNG, JPEG
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF, BigTIFF
)


def first_bytes(path: Path) -> bytes:
    """Return the first `START` bytes of a file, fewer where it is shorter.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(START)


def is_picture(start: bytes) -> bool:
    """Tell from a file's first bytes whether it is a picture of a kind that is read here."""
    if start.startswith(_PICTURES) or holds_dicom(start[: PREAMBLE + 4]):
        return True
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # both reserved words are zero
    pnm = start[:1] == b"P" and start[1:2] in b"123456" and start[2:3] in b" \t\r\n"
    return webp or bmp or (pnm and start[3:4].isdigit()) or (pnm and start[3:4] == b"#")


def foreign_kind(start: bytes) -> Kind | None:
    """Return which kind of `FOREIGN` a file's first bytes show, or None."""
    for kind in FOREIGN:
        for place, signature in kind.signatures:
            if start[place : place + len(signature)] == signature:
                return kind
    return None
