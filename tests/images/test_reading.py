"""The one door to pixels: files by their content, and what a program has in memory by the same rules."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, RLELossless
from test_dicom import LOCAL, gradient, mammogram, save, save_compressed

from mammolens.errors import ImageError
from mammolens.images.reading import FOREIGN, foreign_kind, image_of, is_picture, read_image
from mammolens.records import ImageWarning


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.name)
def test_each_kind_is_called_by_its_name_with_a_remedy(tmp_path: Path, kind: object) -> None:
    for place, signature in kind.signatures:  # type: ignore[attr-defined]
        start = bytes(place) + signature + bytes(600)
        assert foreign_kind(start) is kind
        assert not is_picture(start)
        for name in ("a", "a.png", "a.xyz"):
            (tmp_path / name).write_bytes(start)
            with pytest.raises(ImageError, match=f"{name}: is an? .*, which is not read here. "):
                read_image(tmp_path / name)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "PPM", "BMP", "WEBP"])
def test_what_is_read_is_of_no_foreign_kind(tmp_path: Path, form: str) -> None:
    path = tmp_path / "image"
    Image.fromarray(np.full((32, 24), 100, np.uint8)).save(path, form)
    start = path.read_bytes()[:512]
    assert foreign_kind(start) is None
    assert is_picture(start)


@pytest.mark.parametrize("text", [b"", b"P", b"P5", b"BM", b"PATH,label", b"P1 is a name", b"RIFF"])
def test_text_is_neither(text: bytes) -> None:
    assert foreign_kind(text) is None
    assert not is_picture(text)


GREY = np.linspace(0, 255, 24 * 32).reshape(24, 32).astype(np.uint8)
WIDE = (GREY * np.uint16(257)).astype(np.uint16)
RED = np.stack([GREY, GREY // 4, GREY // 8], axis=2)


def assert_same(image: object, other: object) -> None:
    for name in ("bit_depth", "colour", "exif_orientation", "header", "warnings"):
        assert getattr(image, name) == getattr(other, name), name
    np.testing.assert_array_equal(image.pixels, other.pixels)  # type: ignore[attr-defined]


@pytest.mark.parametrize("array", [GREY, WIDE, WIDE // 64, GREY > 100, np.stack([GREY] * 3, axis=2)], ids=range(5))
def test_an_array_is_what_its_file_is(tmp_path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / "image.png")
    assert_same(image_of(array, "array"), read_image(tmp_path / "image.png"))


def test_a_float_array_is_taken_as_it_is() -> None:
    for kind in (np.float16, np.float32, np.float64):
        levels = (GREY / 255).astype(kind)
        image = image_of(levels, "array")
        np.testing.assert_array_equal(image.pixels, levels.astype(np.float32))
        assert (image.bit_depth, image.warnings) == (16, ())


def test_colour_in_an_array_is_turned_to_luma_and_told() -> None:
    for array, rounded in ((RED, 1 / 255), (RED.astype(np.uint16) * 257, 1e-6), (RED / 255, 1e-6)):
        image = image_of(array, "array")
        assert image.colour
        assert image.warnings == (ImageWarning.COLOUR,)
        np.testing.assert_allclose(image.pixels, RED @ [0.299, 0.587, 0.114] / 255, atol=rounded)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (GREY.astype(np.int64), "x: an array of int64 and shape"),
        (GREY.astype(np.uint32), "x: an array of uint32"),
        (GREY.astype(complex), "x: an array of complex128"),
        (np.zeros((24, 32, 4), np.uint8), r"shape \(24, 32, 4\); expected"),
        (np.zeros((2, 24, 32, 3), np.uint8), "x: an array of"),
        (np.zeros(24), "x: an array of"),
        (GREY.astype(np.float32), "x: an array with values outside"),
        (np.full((24, 32), np.nan), "x: an array with values outside"),
        (np.zeros((8, 8)), "x: .* too small"),
        (np.zeros((0, 0)), "x: .* too small"),
        (np.broadcast_to(np.uint8(0), (100_000, 100_000)), "x: .* over the limit"),
        (Image.new("F", (32, 24)), "x: floating-point pixels"),
        (Image.fromarray(np.full((24, 32), -1, np.int32)), "x: pixels outside 0 to 65535"),
        (Image.new("L", (8, 8)), "x: .* too small"),
        (Dataset(), "x: holds no picture"),
        ([[0, 1]], "x: list is no image; expected"),
        (b"", "x: bytes is no image; expected"),
        (None, "x: NoneType is no image; expected"),
    ],
)
def test_what_cannot_be_taken_is_one_clear_error(source: object, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        image_of(source, "x")


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "RGBA", "LA", "P"])
def test_a_picture_is_what_its_file_is(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(WIDE if mode == "I;16" else RED if mode in ("RGB", "RGBA", "P") else GREY)
    picture = picture if picture.mode == mode else picture.convert(mode)
    if mode.endswith("A"):
        picture.putpixel((3, 3), (0,) * len(mode))
    path = tmp_path / "image.png"
    picture.save(path)
    assert_same(image_of(picture, "picture"), read_image(path))
    with Image.open(path) as opened:
        assert_same(image_of(opened, "picture"), read_image(path))


def test_a_picture_is_turned_upright_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "image.png", exif=exif)
    with Image.open(tmp_path / "image.png") as opened:
        assert_same(image_of(opened, "picture"), read_image(tmp_path / "image.png"))
        assert image_of(opened, "picture").pixels.shape == (32, 24)


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "image.gif") as opened, pytest.raises(ImageError, match="x: holds 2 pictures"):
        image_of(opened, "x")


def test_a_dataset_is_what_its_file_is_and_stays_as_it_is(tmp_path: Path) -> None:
    odd: dict[str, object] = {"PatientID": "7", "PatientAge": "045Y", "WindowCenter": "2000", "WindowWidth": "3000"}
    made = mammogram(gradient(12), 12, PhotometricInterpretation="MONOCHROME1", ViewPosition="MLO", **odd)
    paths = [save(tmp_path / "plain.dcm", made)]
    paths += [
        save_compressed(tmp_path / f"{syntax}.dcm", mammogram(gradient(12), 12), syntax)
        for syntax in (RLELossless, JPEG2000Lossless)
    ]
    for path in paths:
        dataset = dcmread(path)
        before = copy.deepcopy(dataset)
        assert_same(image_of(dataset, "dataset"), read_image(path))
        assert dataset == before
        assert dataset.file_meta == before.file_meta
    bare = mammogram(gradient(12), 12)
    assert image_of(bare, "dataset").pixels.max() == 1
    assert not hasattr(bare, "file_meta")


@pytest.mark.parametrize("name", sorted(path.name for path in LOCAL.glob("*.dcm")))
def test_any_dataset_is_taken_or_refused_as_its_file_is(name: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        dataset = dcmread(LOCAL / name, force=True)
    try:
        image = read_image(LOCAL / name)
    except ImageError:
        with pytest.raises(ImageError):
            image_of(dataset, "dataset")
    else:
        assert_same(image_of(dataset, "dataset"), image)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Rows": 20_000, "Columns": 20_000}, "x: .* over the limit"),
        ({"Rows": 41}, "x: holds 4,480 bytes of pixels where the header asks for 4,592"),
        ({"Modality": "CT"}, "x: not a mammogram"),
        ({"NumberOfFrames": "3"}, "x: holds tomosynthesis or the like"),
    ],
)
def test_a_dataset_meets_the_limits_of_a_file(change: dict[str, object], said: str) -> None:
    dataset = mammogram(gradient(12), 12)
    for keyword, value in change.items():
        setattr(dataset, keyword, value)
    with pytest.raises(ImageError, match=said):
        image_of(dataset, "x")
