"""What the viewer gives the browser: pixels packed without loss, and no more of them than memory should hold."""

import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from mammolens.app.viewer import LONGEST, WHOLE, Shelf, levels_of, overview, packed


def unpacked(content: bytes) -> NDArray[np.uint16]:
    """Undo `packed`, as its docstring says."""
    data = zlib.decompress(content)
    width, height, count = np.frombuffer(data, "<u4", 3)
    values = np.frombuffer(data, "<u2", count, 12)
    low, *high = np.frombuffer(data, np.uint8, offset=12 + 2 * count).reshape(-1, height, width)
    steps = low.astype(np.uint16) + (high[0].astype(np.uint16) << 8 if high else 0)
    ranks = np.cumsum(steps, axis=1, dtype=np.uint16)
    return np.asarray(values[ranks if high else ranks % 256], dtype=np.uint16)


@pytest.mark.parametrize("count", [1, 2, 256, 257, 4096, 65536])
def test_pixels_are_packed_without_loss(count: int) -> None:
    generator = np.random.default_rng(count)
    values = np.sort(generator.choice(65536, count, replace=False)).astype(np.uint16)
    pixels = generator.choice(values, (301, 407))
    pixels.flat[:count] = values[: pixels.size]
    np.testing.assert_array_equal(unpacked(packed(pixels)), pixels)


def test_eight_bits_travel_as_eight() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 100), dtype=np.uint16) * 257
    assert len(packed(noise)) < 1.2 * noise.size
    assert len(packed(np.zeros((2000, 1000), np.uint16))) < 10_000


def test_levels_tell_the_steps_of_any_depth_apart() -> None:
    for bits in (8, 12, 14):
        steps = np.arange(2**bits, dtype=np.float32)[np.newaxis] / np.float32(2**bits - 1)
        assert len(np.unique(levels_of(steps))) == 2**bits
    np.testing.assert_array_equal(levels_of(np.array([[-1, 0, 1, 2]], np.float32)), [[0, 0, 65535, 65535]])


def test_an_overview_is_the_mean_of_what_it_covers() -> None:
    pixels = np.random.default_rng(0).random((2 * LONGEST, LONGEST), dtype=np.float32)
    small = overview(pixels)
    assert small.shape == (LONGEST, LONGEST // 2)
    np.testing.assert_allclose(small[:5, :5], pixels[:10, :10].reshape(5, 2, 5, 2).mean(axis=(1, 3)), atol=1e-6)
    assert overview(small) is small


def test_a_session_keeps_the_last_wholes_alone() -> None:
    shelf = Shelf()
    for number in range(WHOLE + 2):
        shelf.put_whole(str(number), b"x")
    assert list(shelf.wholes) == [str(number) for number in range(2, WHOLE + 2)]
    shelf.overviews = {"2": (b"", None), "gone": (b"", None)}
    shelf.keep_only(["2", "3"])
    assert list(shelf.wholes) == ["2", "3"]
    assert list(shelf.overviews) == ["2"]
