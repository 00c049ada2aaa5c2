import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from mammolens.images.archives import find_inputs
from mammolens.records import Prediction
from mammolens.serving.overlay import (
    FAINTEST,
    LOOKED,
    RESEARCH,
    caption,
    captioned,
    heat,
    heat_of_size,
    overlay,
    write_overlays,
)

Floats = NDArray[np.float32]


def grey(height: int, width: int) -> Floats:
    return np.random.default_rng(0).random((height, width), dtype=np.float32)


def full(value: float, *shape: int) -> Floats:
    return np.full(shape, value, np.float32)


def colourfulness(picture: Image.Image) -> NDArray[np.int64]:
    """How far each pixel is from grey."""
    channels = np.asarray(picture, np.int64)
    return np.asarray(channels.max(axis=-1) - channels.min(axis=-1))


def test_heat_is_clear_where_nothing_is_suspect_and_rises_to_red() -> None:
    strip = heat(np.linspace(0, 1, 101, dtype=np.float32)[np.newaxis])[0]
    assert strip.shape == (101, 4)
    assert strip.dtype == np.uint8
    opacity, green = strip[:, 3].astype(int), strip[:, 1].astype(int)
    assert (opacity[:20] == 0).all()
    assert (np.diff(opacity) >= 0).all()
    assert (np.diff(green) <= 0).all()
    assert tuple(strip[100]) == (255, 0, 0, 255)


def test_the_scale_is_fixed_not_that_of_the_picture() -> None:
    alone, beside = full(0.4, 4, 4), full(0.4, 4, 4)
    beside[0, 0] = 1
    np.testing.assert_array_equal(heat(alone)[1:], heat(beside)[1:])


def test_a_picture_without_anything_suspect_stays_as_it_is() -> None:
    pixels = grey(60, 40)
    mixed = overlay(pixels, full(0.1, 6, 4))
    assert mixed.mode == "RGB"
    expected = np.rint(pixels * 255).astype(np.uint8)
    for channel in np.moveaxis(np.asarray(mixed), -1, 0):
        np.testing.assert_array_equal(channel, expected)


@given(
    arrays(np.float32, (6, 4), elements=st.floats(0, 1, width=32)),
    st.tuples(st.integers(16, 90), st.integers(16, 90)),
)
def test_no_place_stands_out_exactly_where_no_heat_is_drawn(score_map: Floats, shape: tuple[int, int]) -> None:
    """Wherever a picture gets any colour, its words do not say that nothing is drawn."""
    quiet = "nothing is drawn" in caption([score_map])
    assert quiet == bool((heat(score_map)[..., 3] == 0).all())
    if quiet:
        assert colourfulness(overlay(full(0.5, *shape), score_map, opacity=1)).max() == 0
        (drawn,) = heat_of_size(score_map, shape)[..., 3:].reshape(1, -1)
        assert drawn.max() == 0


@pytest.mark.parametrize(
    ("hottest", "quiet"),
    [(0, True), (FAINTEST, True), (0.25, False), (0.4, False), (0.5, False), (1, False)],
)
def test_the_words_follow_the_heat(hottest: float, *, quiet: bool) -> None:
    score_map = full(0, 6, 4)
    score_map[2, 1] = hottest
    assert ("No place stands out" in caption([full(0, 6, 4), score_map])) == quiet
    assert (colourfulness(overlay(grey(600, 400), score_map)).max() == 0) == quiet


def test_a_map_next_to_black_does_not_overshoot() -> None:
    """A sharp filter would raise a map of 0.2 beside 0 above it."""
    score_map = full(0.2, 8, 8)
    score_map[:4] = 0
    assert heat_of_size(score_map, (300, 300))[..., 3].max() == 0


def test_heat_lies_where_the_map_is_hot_whatever_its_size() -> None:
    score_map = full(0, 6, 4)
    score_map[4, 1] = 1
    found = colourfulness(overlay(grey(600, 400), score_map))
    assert found[400:500, 100:200].mean() > 50
    assert found[:300].max() == found[:, 300:].max() == 0


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (3000, 2000, (683, 1024)),
        (500, 2048, (1024, 250)),
        (40, 20, (20, 40)),
        (5000, 16, (3, 1024)),
    ],
)
def test_the_longer_side_is_limited_and_small_pictures_are_not_blown_up(
    height: int, width: int, size: tuple[int, int]
) -> None:
    assert overlay(full(0.5, height, width), full(0.9, 8, 8)).size == size


@pytest.mark.parametrize("width", [20, 500])
def test_a_heatmap_says_what_it_is_not(width: int) -> None:
    letters = np.asarray(captioned(full(0.5, 300, width), full(0.9, 3, 5)).convert("L"))[300:] > 128
    assert "Not a lesion outline" in LOOKED
    assert "Research use only" in RESEARCH
    assert 0.01 < letters.mean() < 0.3
    assert not letters[:, -5:].any(), "the caption is cut off"
    assert letters[:, 300:460].any(), "the caption ends too early"


def test_a_long_name_is_cut(tmp_path: Path, png: Callable[..., Path]) -> None:
    (source,) = find_inputs([png(np.full((64, 48), 99, np.uint8), f"{'x' * 245}.png")])
    answer = Prediction(source.name, 0.9, "tumor", 0.5, score_map=full(0.9, 8, 6))
    assert list(write_overlays([answer], [source], tmp_path / "heat")) == [answer]
    assert len(list((tmp_path / "heat").iterdir())) == 1


def test_heatmaps_are_named_after_their_inputs_in_order(tmp_path: Path, png: Callable[..., Path]) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.write(png(np.full((64, 48), 99, np.uint8), "a.png"), "deep/a.png")
    inputs = find_inputs([tmp_path / "a.png", tmp_path / "gone.png", archive])
    answers = [Prediction(source.name, 0.9, "tumor", 0.5, score_map=full(0.9, 8, 6)) for source in inputs]
    answers[1] = Prediction.failure(inputs[1].name, "no such file", 0.5)
    stream = write_overlays(iter(answers), inputs, tmp_path / "heat")
    assert next(stream) is answers[0]
    assert list(stream) == answers[1:]
    assert {path.name for path in (tmp_path / "heat").iterdir()} == {"00001-a.png", "00003-a.png"}


def test_a_picture_that_is_gone_at_second_sight_is_a_failure_and_stops_nothing(
    tmp_path: Path, png: Callable[..., Path]
) -> None:
    sources = find_inputs([png(np.full((64, 48), 99, np.uint8), name) for name in ("a.png", "b.png")])
    answers = [Prediction(one.name, 0.9, "tumor", 0.5, "balanced", score_map=full(0.9, 8, 6)) for one in sources]
    (tmp_path / "a.png").unlink()
    first, second = write_overlays(answers, sources, tmp_path / "heat")
    assert (first.error, first.probability) == (f"{tmp_path}/a.png: no such file.", None)
    assert (first.threshold, first.operating_point) == (0.5, "balanced")
    assert second is answers[1]
