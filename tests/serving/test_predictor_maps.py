"""A score map lies over its picture: what the network saw goes back to where it is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from brightness import HEIGHT, WIDTH, bundle
from mammolens.images.image import Header
from mammolens.images.preprocess import Geometry, Preprocess
from mammolens.images.reading import read_image
from mammolens.learning.runs import Run
from mammolens.records import Box
from mammolens.serving.predictor import Predictor, Seen, _on_picture, look

ROWS, COLUMNS = 6, 4
CELL = 8  # pixels of the canvas
LONGEST = 256


def hot(row: int, column: int) -> NDArray[np.float32]:
    score_map = np.zeros((ROWS, COLUMNS), np.float32)
    score_map[row, column] = 1
    return score_map


def over_picture(score_map: NDArray[np.float32], geometry: Geometry, height: int, width: int) -> NDArray[np.float32]:
    levels = np.zeros((ROWS * CELL, COLUMNS * CELL), np.uint16)
    seen = Seen(levels, geometry, (height, width), admitted=True, header=Header(), warnings=())
    return _on_picture(score_map, seen)


def centre(score_map: NDArray[np.float32], height: int, width: int) -> tuple[float, float]:
    """Where the heat is, in pixels of the picture: (x, y)."""
    rows, columns = np.indices(score_map.shape) + 0.5
    total = score_map.sum()
    y, x = (rows * score_map).sum() / total, (columns * score_map).sum() / total
    return float(x * width / score_map.shape[1]), float(y * height / score_map.shape[0])


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Geometry, int, int]:
    """A crop of a picture, at least a third of it, somewhere on a canvas of 48 × 32."""
    height, width = draw(st.integers(60, 900)), draw(st.integers(60, 900))
    left = draw(st.integers(0, width // 3))
    top = draw(st.integers(0, height // 3))
    right = draw(st.integers(2 * width // 3, width))
    bottom = draw(st.integers(2 * height // 3, height))
    flipped, stretched = draw(st.booleans()), draw(st.booleans())
    content = (0, 0, COLUMNS * CELL, ROWS * CELL)
    if not stretched:
        scale = min(ROWS * CELL / (bottom - top), COLUMNS * CELL / (right - left))
        tall, wide = max(8, round((bottom - top) * scale)), max(8, round((right - left) * scale))
        start = (ROWS * CELL - tall) // 2
        content = (0, start, wide, start + tall)
    return Geometry((left, top, right, bottom), flipped, content), height, width


@given(geometries(), st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1))
def test_a_hot_cell_comes_back_to_where_it_was_seen(drawn: tuple[Geometry, int, int], row: int, column: int) -> None:
    """Judged by `Geometry.to_canvas`, which goes the other way."""
    geometry, height, width = drawn
    left, top, right, bottom = geometry.content
    x, y = CELL * (column + 0.5), CELL * (row + 0.5)
    whole = over_picture(hot(row, column), geometry, height, width)
    assert max(whole.shape) == min(LONGEST, max(height, width))
    assert 0 <= whole.min() <= whole.max() <= 1
    if not (left + CELL <= x <= right - CELL and top + CELL <= y <= bottom - CELL):
        return  # cut by the edge of the content: its centre is elsewhere
    found_x, found_y = centre(whole, height, width)
    x0, y0, x1, y1 = geometry.to_canvas(Box(found_x - 0.5, found_y - 0.5, 1, 1))
    assert (x0 + x1) / 2 == pytest.approx(x, abs=CELL / 2)
    assert (y0 + y1) / 2 == pytest.approx(y, abs=CELL / 2)


@given(geometries())
def test_outside_the_crop_nothing_is_hot(drawn: tuple[Geometry, int, int]) -> None:
    geometry, height, width = drawn
    whole = over_picture(np.ones((ROWS, COLUMNS), np.float32), geometry, height, width)
    scale = max(whole.shape) / max(height, width)
    left, top, right, bottom = (scale * edge for edge in geometry.crop)
    inside = np.zeros_like(whole, dtype=bool)
    inside[int(top) : int(bottom) + 2, int(left) : int(right) + 2] = True
    assert not whole[~inside].any()
    assert whole[int((top + bottom) / 2), int((left + right) / 2)] == pytest.approx(1)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(480, 320), (400, 400), (1200, 300)])
def test_a_bright_place_is_hot_where_it_is(tmp_path: Path, fit: str, height: int, width: int) -> None:
    settings = Preprocess.model_validate({"height": HEIGHT, "width": WIDTH, "fit": fit})
    predictor = Predictor.load(bundle(tmp_path / "bundle", preprocess=settings).folder)
    x, y = 0.75 * width, 0.25 * height
    picture = np.zeros((height, width), np.uint8)
    half = width // 10
    picture[int(y) - half : int(y) + half, int(x) - half : int(x) + half] = 255
    (answer,) = predictor.predict([picture])
    assert answer.score_map is not None
    cell = max(height / ROWS, width / COLUMNS)  # the map is no finer than this
    assert centre(answer.score_map, height, width) == pytest.approx((x, y), abs=cell / 2)


def test_a_trained_network_looks_at_the_breast(run: Run) -> None:
    predictor = Predictor.load(run.folder)
    paths = run.manifest.paths[:12]
    for path, answer in zip(paths, predictor.predict(paths), strict=True):
        seen = look(path, run.recipe.preprocess, None)
        assert isinstance(seen, Seen)
        assert answer.score_map is not None
        assert answer.score_map.shape == seen.shape == (160, 160)
        y, x = np.unravel_index(answer.score_map.argmax(), seen.shape)
        left, top, right, bottom = seen.geometry.crop
        assert left <= x < right
        assert top <= y < bottom
        assert 0 < answer.score_map.max() <= 1


def test_a_mirrored_picture_has_a_mirrored_map(run: Run) -> None:
    """The chest wall is brought to the left before the network looks, and back after."""
    predictor = Predictor.load(run.folder)
    for path in run.manifest.paths[:6]:
        pixels = read_image(path).pixels
        straight, mirrored = predictor.predict([pixels, pixels[:, ::-1]])
        assert straight.score_map is not None
        assert mirrored.score_map is not None
        assert mirrored.probability == pytest.approx(straight.probability, abs=1e-3)
        np.testing.assert_allclose(mirrored.score_map[:, ::-1], straight.score_map, atol=0.05)
