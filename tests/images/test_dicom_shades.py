"""Tables and windows as files write them: empty, malformed, in the wrong representation."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from test_dicom import mammogram, save
from test_dicom_golden import ALLOWED, WINDOWS, assert_shown, linear, stored_in, table

from mammolens.images.dicom.reader import read_dicom
from mammolens.images.image import Window


def item_with(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        item.add_new(keyword, "OW" if keyword == "LUTData" and value else "US", value)
    return item


def insert(path: Path, elements: Iterable[tuple[int, bytes]]) -> None:
    """Write decimal strings of group 0028 before the pixels, as bytes that nobody checks."""
    whole = path.read_bytes()
    place = whole.index(b"\xe0\x7f\x10\x00")
    for element, written in elements:
        value = written + b" " * (len(written) % 2)
        head = b"\x28\x00" + element.to_bytes(2, "little") + b"DS"
        whole = whole[:place] + head + len(value).to_bytes(2, "little") + value + whole[place:]
        place += 8 + len(value)
    path.write_bytes(whole)


EMPTY = [
    [Dataset()],
    [item_with(LUTDescriptor=None, LUTData=None)],
    [item_with(LUTDescriptor=[256, 0, 8])],
    [item_with(LUTDescriptor=[256, 0, 8], LUTData=None)],
    [item_with(LUTData=bytes(512))],
    [item_with(LUTDescriptor=[256, 0], LUTData=bytes(512))],
    [Dataset(), Dataset()],
]


@pytest.mark.parametrize("number", range(len(EMPTY)))
@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_table_without_entries_counts_as_absent(tmp_path: Path, keyword: str, number: int) -> None:
    stored, said = stored_in(8, 8), ("a look-up table in the file is empty: ignored",)
    dataset = mammogram(stored)
    setattr(dataset, keyword, EMPTY[number])
    assert_shown(tmp_path, dataset, stored / 255)
    assert read_dicom(tmp_path / "image.dcm").warnings == said
    dataset.WindowCenter, dataset.WindowWidth = 100, 120
    assert_shown(tmp_path, dataset, linear(stored.astype(float), 100, 120))
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, 9
    assert_shown(tmp_path, dataset, linear(2.0 * stored + 9, 100, 120))
    assert read_dicom(tmp_path / "image.dcm").warnings == said


def test_the_first_table_with_entries_counts(tmp_path: Path) -> None:
    stored = stored_in(8, 8)
    items = [Dataset(), *table(range(255, -1, -1), 0, 8), *table(range(256), 0, 8)]
    assert_shown(tmp_path, mammogram(stored, VOILUTSequence=items), 1 - stored / 255)
    none = mammogram(stored, VOILUTSequence=[], ModalityLUTSequence=[])
    assert_shown(tmp_path, none, stored / 255)
    assert read_dicom(tmp_path / "image.dcm").warnings == ()


FIRST_VALUES = {
    "signed, as unsigned": (True, 0, 2**16 - 2048, "US"),
    "signed, as signed": (True, 0, -2048, "SS"),
    "signed by rescaling": (False, -1000, 2**16 - 900, "US"),
    "signed by rescaling, as signed": (False, -1000, -900, "SS"),
    "unsigned, as signed": (False, 40000, 40100 - 2**16, "SS"),
    "unsigned, as unsigned": (False, 40000, 40100, "US"),
    "within": (False, 0, 100, "US"),
    "below all": (False, 0, -100, "SS"),
    "below all, as unsigned": (False, 0, 2**16 - 100, "US"),
}


@pytest.mark.parametrize("name", FIRST_VALUES)
def test_the_first_mapped_value_however_written(tmp_path: Path, name: str) -> None:
    signed, intercept, written, kind = FIRST_VALUES[name]
    stored, entries = stored_in(16, 12, signed=signed), np.arange(3000) * 4095 // 2999
    items = table(entries, 0, 12)
    items[0].pop("LUTDescriptor")
    items[0].add_new("LUTDescriptor", kind, [3000, written, 12])
    dataset = mammogram(stored, 12, VOILUTSequence=items, RescaleIntercept=intercept)
    values = stored.astype(int) + intercept
    first = written % 2**16 if intercept > 0 else (written + 2**15) % 2**16 - 2**15
    assert_shown(tmp_path, dataset, entries[np.clip(values - first, 0, 2999)] / 4095)
    if not intercept:
        dataset.ModalityLUTSequence = items
        del dataset.VOILUTSequence, dataset.RescaleIntercept
        assert_shown(tmp_path, dataset, entries[np.clip(values - first, 0, 2999)] / 4095)


@pytest.mark.parametrize("bits", [0, 17, 255])
def test_a_table_of_impossible_depth_goes_by_its_entries(tmp_path: Path, bits: int) -> None:
    stored, entries = stored_in(8, 8), np.arange(256) * 4
    dataset = mammogram(stored, VOILUTSequence=table(entries, 0, bits))
    assert_shown(tmp_path, dataset, stored / 255)


@pytest.mark.parametrize(
    ("center", "width", "meant"),
    [
        (b"127,5", b"200", (127.5, 200)),
        (b"127,5\\90 ", b"200,25\\7", (127.5, 200.25)),
        (b" 127,5 ", b"2,0E+02 ", (127.5, 200)),
        (b"1275e-1", b"+200", (127.5, 200)),
        (b"9\\127,5", b"0\\200", (127.5, 200)),
        (b"9\\127.5", b"-3\\200", (127.5, 200)),
        (b"\\127.5", b"\\200", (127.5, 200)),
        (b"none\\127.5", b"7\\200 ", (127.5, 200)),
    ],
)
def test_windows_as_they_are_written(tmp_path: Path, center: bytes, width: bytes, meant: tuple[float, float]) -> None:
    stored, path = stored_in(8, 8), tmp_path / "image.dcm"
    save(path, mammogram(stored))
    insert(path, ((0x1050, center), (0x1051, width)))
    image = read_dicom(path)
    expected = linear(stored.astype(float), *meant)
    np.testing.assert_allclose(image.pixels, expected, atol=ALLOWED)
    second = b"\\127" in center
    assert ("the window in the file is not valid: ignored" in image.warnings) == second


@pytest.mark.parametrize(
    ("center", "width"),
    [(b"abc ", b"200 "), (b"127 ", b""), (b"", b"200 "), (b"127 ", b"-20 "), (b"127 ", b"0 ")],
)
def test_windows_that_cannot_be_meant(tmp_path: Path, center: bytes, width: bytes) -> None:
    stored, path = stored_in(8, 8), tmp_path / "image.dcm"
    save(path, mammogram(stored))
    insert(path, ((0x1050, center), (0x1051, width)))
    image = read_dicom(path)
    np.testing.assert_allclose(image.pixels, stored / 255, atol=ALLOWED)
    assert image.warnings == ("the window in the file is not valid: ignored",)


@pytest.mark.parametrize(("center", "width"), [(b"127\\60 ", b"200 "), (b"127 ", b"200\\90\\30 ")])
def test_centers_and_widths_that_do_not_pair(tmp_path: Path, center: bytes, width: bytes) -> None:
    stored, path = stored_in(8, 8), tmp_path / "image.dcm"
    save(path, mammogram(stored))
    insert(path, ((0x1050, center), (0x1051, width)))
    image = read_dicom(path)
    np.testing.assert_allclose(image.pixels, linear(stored.astype(float), 127, 200), atol=ALLOWED)
    counts = [said.count(b"\\") + 1 for said in (center, width)]
    said = "the file names {} window centers and {} widths: those that have both are taken"
    assert image.warnings == (said.format(*counts),)


def test_rescaling_as_it_is_written(tmp_path: Path) -> None:
    stored, path = stored_in(8, 8), tmp_path / "image.dcm"
    expected = linear(stored * 2.5 - 7.5, 127, 200)
    save(path, mammogram(stored))
    window = ((0x1050, b"127 "), (0x1051, b"200 "))
    insert(path, (*window, (0x1052, b"-7,5"), (0x1053, b"2,5 ")))
    np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=ALLOWED)
    save(path, mammogram(stored))
    insert(path, (*window, (0x1052, b"zero"), (0x1053, b"one ")))
    expected = linear(stored.astype(float), 127, 200)
    np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=ALLOWED)
    assert "rescaling in the file is not a number" in read_dicom(path).warnings[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sigmoid", "SIGMOID"),
        ("Sigmoid ", "SIGMOID"),
        ("linear_exact", "LINEAR_EXACT"),
        ("Linear Exact", "LINEAR_EXACT"),
        ("  LINEAR_EXACT  ", "LINEAR_EXACT"),
        ("Linear", "LINEAR"),
        ("LINEAR-EXACT", "LINEAR_EXACT"),
        ("SIGMOID\\LINEAR", "SIGMOID"),
        ("LOG", "LINEAR"),
        ("", "LINEAR"),
    ],
)
def test_functions_as_they_are_written(tmp_path: Path, written: str, meant: str) -> None:
    stored = stored_in(8, 8)
    dataset = mammogram(stored, VOILUTFunction=written, WindowCenter=100, WindowWidth=90)
    assert_shown(tmp_path, dataset, WINDOWS[meant](stored.astype(float), 100, 90))


def test_a_function_that_is_not_known_is_said(tmp_path: Path) -> None:
    stored, said = stored_in(8, 8), "the VOI LUT function in the file is not known: linear is used"
    kinds: dict[str, Any] = {"VOILUTFunction": "LOG", "WindowCenter": 100, "WindowWidth": 90}
    for left_out, doubts in (("", (said,)), ("WindowCenter", ()), ("VOILUTFunction", ())):
        kept = {each: value for each, value in kinds.items() if each != left_out}
        warned = read_dicom(save(tmp_path / "a.dcm", mammogram(stored, **kept))).warnings
        assert tuple(each for each in warned if "function" in each) == doubts
    kinds["VOILUTSequence"] = table(range(256), 0, 8)
    assert read_dicom(save(tmp_path / "a.dcm", mammogram(stored, **kinds))).warnings == ()


@pytest.mark.parametrize("count", [4096, 4095, 3000, 2049, 700])
@pytest.mark.parametrize("bits", [8, 16])
def test_entries_that_are_fewer_than_said(tmp_path: Path, bits: int, count: int) -> None:
    stored, entries = stored_in(16, 12), np.arange(4096) ** 2 * (2**bits - 1) // 4095**2
    expected = entries[np.minimum(stored, count - 1)] / (2**bits - 1)
    for said in (4096, 65536):
        items = table(entries[:count], 0, bits)
        items[0].LUTDescriptor[0] = said % 2**16
        assert_shown(tmp_path, mammogram(stored, 12, VOILUTSequence=items), expected)
        warned = read_dicom(tmp_path / "image.dcm").warnings
        assert any("fewer entries than it says" in each for each in warned) == (count < said)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("count", [4096, 4095])
def test_two_entries_in_a_word_whatever_the_bits(tmp_path: Path, count: int, bits: int) -> None:
    entries = (np.arange(count) ** 2 * 255 // 4095**2).astype("u1")
    items = table(range(count), 0, bits)
    items[0].LUTData = entries.tobytes() + b"\0" * (count % 2)
    stored = stored_in(16, 12)
    expected = entries[np.minimum(stored, count - 1)] / 255
    assert_shown(tmp_path, mammogram(stored, 12, VOILUTSequence=items), expected)
    assert read_dicom(tmp_path / "image.dcm").warnings == ()


def test_names_in_small_letters_and_what_is_left_out(tmp_path: Path) -> None:
    stored = stored_in(16, 12)
    inverse = mammogram(stored, 12, PresentationLUTShape="inverse")
    for dataset in (inverse, mammogram(stored, 12, PhotometricInterpretation="Monochrome1 ")):
        assert_shown(tmp_path, dataset, 1 - stored / 4095)
    dataset = mammogram(stored, 12, Modality="mg", PresentationIntentType="For processing")
    assert "for processing" in read_dicom(save(tmp_path / "a.dcm", dataset)).warnings[0]
    del dataset.SamplesPerPixel, dataset.PixelRepresentation
    assert_shown(tmp_path, dataset, stored / 4095)
    colour = mammogram(np.stack([stored] * 3, -1), 12)
    del colour.PlanarConfiguration
    assert_shown(tmp_path, colour, stored / 4095)


def through(pixels: np.ndarray, window: Window) -> np.ndarray:
    """What a viewer shows of a picture through a window."""
    share = (pixels.astype(float) - window.low) / (window.high - window.low)
    if window.shape == "linear":
        return np.clip(share, 0, 1)
    if window.shape == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-4 * (share - 0.5))))
    assert not isinstance(window.shape, str)
    return np.interp(share, np.linspace(0, 1, len(window.shape)), window.shape)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", WINDOWS)
def test_every_window_of_a_file_can_be_looked_through(tmp_path: Path, function: str, photometric: str) -> None:
    stored, centers, widths = stored_in(16, 12), [900, 2000, 1500], [300, 4000, 800]
    dataset = mammogram(stored, 12, PhotometricInterpretation=photometric, VOILUTFunction=function)
    dataset.WindowCenter, dataset.WindowWidth = centers, widths
    dataset.WindowCenterWidthExplanation = ["NORMAL", "SOFTER"]
    path = save(tmp_path / "image.dcm", dataset)
    assert read_dicom(path).unwindowed is None, "only where it is asked for"
    image = read_dicom(path, windows=True)
    before = image.unwindowed
    assert before is not None
    assert list(before.windows) == ["NORMAL", "SOFTER", "center 1500, width 800"]
    np.testing.assert_allclose(through(before.pixels, before.heeded), image.pixels, atol=1e-4)
    for window, center, width in zip(before.windows.values(), centers, widths, strict=True):
        shown = WINDOWS[function](stored.astype(float), center, width)
        expected = 1 - shown if photometric == "MONOCHROME1" else shown
        np.testing.assert_allclose(through(before.pixels, window), expected, atol=1e-4)
        inverse = through(1 - before.pixels, window.inverted())
        np.testing.assert_allclose(inverse, 1 - expected, atol=1e-4)


def test_a_table_and_a_window_are_a_choice_and_one_window_is_none(tmp_path: Path) -> None:
    stored = stored_in(16, 12)
    dataset = mammogram(stored, 12, WindowCenter=900, WindowWidth=1000)
    assert read_dicom(save(tmp_path / "one.dcm", dataset), windows=True).unwindowed is None
    dataset.VOILUTSequence = table(np.arange(4096) ** 2 // 4095, 0, 12)
    image = read_dicom(save(tmp_path / "both.dcm", dataset), windows=True)
    assert image.unwindowed is not None
    np.testing.assert_allclose(through(image.unwindowed.pixels, image.unwindowed.heeded), image.pixels, atol=1e-3)
    assert list(image.unwindowed.windows) == ["center 900, width 1000"]


def test_windows_of_one_explanation_are_told_apart(tmp_path: Path) -> None:
    dataset = mammogram(stored_in(16, 12), 12, WindowCenterWidthExplanation="SAME")
    dataset.WindowCenter, dataset.WindowWidth = [900, 800, 900, 700], [100, 0, 100, 50]
    dataset.WindowCenterWidthExplanation = ["SAME", "no window", "SAME", "SAME"]
    before = read_dicom(save(tmp_path / "image.dcm", dataset), windows=True).unwindowed
    assert before is not None
    assert list(before.windows) == ["SAME", "SAME (center 900, width 100)", "SAME (center 700, width 50)"]


def test_windows_beyond_all_numbers_are_no_choice(tmp_path: Path) -> None:
    dataset = mammogram(stored_in(16, 12), 12, WindowCenter=[900, -1e308], WindowWidth=[1000, 1.7e308])
    assert read_dicom(save(tmp_path / "image.dcm", dataset), windows=True).unwindowed is None
