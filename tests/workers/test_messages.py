"""Values go through as they are; what could have the reader run code does not."""

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from typing_extensions import TypeAliasType

from mammolens.images.image import Header, Image, Unwindowed, Window
from mammolens.images.preprocess import Preprocess
from mammolens.records import ImageWarning, Laterality, View
from mammolens.workers.messages import fits, pack, receive

SOURCE = Path(__file__).parents[2] / "src"


def through(value: object) -> Any:
    return receive(io.BytesIO(b"".join(map(bytes, pack(value)))))


def message(content: object, raw: bytes = b"") -> io.BytesIO:
    text = json.dumps([[len(raw)] if raw else [], content]).encode()
    return io.BytesIO(len(text).to_bytes(8) + text + raw)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, -2.5, float("inf"), "ü", "\udc80", True],
        (1, (2, [3])),
        {"a": 1, View.CC: (Laterality.LEFT,)},
        b"\x00\xff",
        Path("a/b.png"),
        ImageWarning.FAINT,
        Header("P1", view=View.MLO, spacing=(0.07, 0.07)),
        Window(0.1, 0.9, (0.0, 0.5)),
        Preprocess.plain(),
    ],
)
def test_values_go_through_as_they_are(value: object) -> None:
    came = through(value)
    assert came == value
    assert type(came) is type(value)


def test_a_warning_keeps_its_kind() -> None:
    came = through(ImageWarning.DEEP.about(16, 8))
    assert (came, came.kind) == (ImageWarning.DEEP.about(16, 8), ImageWarning.DEEP)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=">u2").reshape(2, 3).T,
        np.arange(24)[::-2].reshape(3, 4)[:, ::-1],
        np.zeros((0, 3), bool),
        np.float64(0.1),
    ],
)
def test_arrays_keep_type_shape_and_order(array: Any) -> None:
    came = through(array)
    np.testing.assert_array_equal(came, array)
    assert (came.dtype, came.shape) == (array.dtype, array.shape)
    assert came.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc


def test_an_image_goes_through_whole() -> None:
    pixels = np.ones((4, 3), np.float32)
    image = Image(
        pixels, "DICOM", 12, header=Header(), unwindowed=Unwindowed(pixels, Window(0, 1), {"a": Window(0, 1)})
    )
    came = through(image)
    np.testing.assert_array_equal(came.pixels, pixels)
    assert came.unwindowed.windows == {"a": Window(0, 1)}


@pytest.mark.parametrize(
    ("content", "raw"),
    [
        ({"record": ["os:system", ["command", "true"]]}, b""),
        ({"record": ["subprocess:Popen", ["args", "true"]]}, b""),
        ({"record": ["mammolens.files:write_text", ["path", "x"], ["text", "y"]]}, b""),
        ({"record": ["mammolens.workers.worker:Worker", ["function", "mammolens.files:content_hash"]]}, b""),
        ({"record": ["mammolens.files:os.system", ["command", "true"]]}, b""),
        ({"record": ["mammolens.app.page:st", ["a", 1]]}, b""),
        ({"enum": ["mammolens.records:Mammogram", "path"]}, b""),
        ({"array": [0, "O", [1], False, False]}, b"12345678"),
        ({"array": [0, "<f4", [2**40], False, False]}, b"1234"),
        ({"pickle": 0}, pickle.dumps(1)),
        ({}, b""),
    ],
)
def test_what_could_run_code_is_refused(content: object, raw: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        receive(message(content, raw))


@pytest.mark.parametrize("start", [b"", b"\xff" * 64, (2**40).to_bytes(8), b"\x80\x04\x95" + bytes(40)])
def test_what_is_no_message_is_refused(start: bytes) -> None:
    with pytest.raises((ValueError, EOFError)):
        receive(io.BytesIO(start))


def test_nothing_is_pickled_anywhere() -> None:
    """Nor is anything loaded by what unpickles in silence."""
    unsafe = re.compile(
        r"import (pickle|joblib|dill|cloudpickle|shelve|marshal)|read_pickle|to_pickle|allow_pickle=True"
        r"|torch\.load\((?![^)]*weights_only=True)|multiprocessing|ProcessPoolExecutor|yaml\.load|\beval\(|\bexec\("
    )
    found = {
        str(path.relative_to(SOURCE)): unsafe.findall(text)
        for path in SOURCE.rglob("*.py")
        if unsafe.search(text := path.read_text(encoding="utf-8"))
    }
    assert not found


def test_a_named_type_is_what_it_stands_for() -> None:
    """As NumPy has it from 2.5 on: ``type NDArray[Scalar] = ndarray[..., dtype[Scalar]]``."""
    scalar = TypeVar("scalar", bound=np.generic)
    named = TypeAliasType("named", np.ndarray[Any, np.dtype[scalar]], type_params=(scalar,))
    array = np.zeros((2, 3), np.uint16)
    assert fits(array, named[np.uint16])
    assert fits((array, None), tuple[named[np.uint16], named[np.bool_] | None])
    assert not fits(array, named[np.float32])
    assert not fits([[0]], named[np.uint16])
