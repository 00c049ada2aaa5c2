from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import ValidationError

from brightness import centre
from mammolens.data.manifest import Manifest
from mammolens.images.preprocess import Geometry, Preprocess, as_float, full_size
from mammolens.images.reading import read_image
from mammolens.records import Box

ROWS, COLUMNS = 6, 4
CELL = 8  # pixels of the canvas
LONGEST = 256


def breast_picture(size: int = 320) -> np.ndarray:
    """A textured half disc in the middle of the left edge, on black."""
    y, x = np.mgrid[:size, :size] / size
    inside = np.hypot(x / 0.5, (y - 0.5) / 0.3) < 1
    texture = 0.4 + 0.2 * np.sin(40 * x) * np.cos(30 * y)
    return np.where(inside, texture, 0).astype(np.float32)


def test_plain_is_the_whole_picture_at_64_pixels() -> None:
    pixels = np.full((100, 200), 0.5, np.float32)
    pixels[:, 100:] = 1
    prepared = Preprocess.plain()(pixels)
    assert prepared.pixels.shape == (64, 64)
    assert prepared.geometry.crop == (0, 0, 200, 100)
    np.testing.assert_allclose(as_float(prepared.pixels)[:, :30], 0.5, atol=1e-4)
    np.testing.assert_allclose(as_float(prepared.pixels)[:, 34:], 1, atol=1e-4)


def test_plain_shrinks_by_averaging() -> None:
    """A checkerboard of single pixels turns grey; picking pixels would leave it black or white."""
    board = (np.indices((640, 640)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(as_float(Preprocess.plain()(board).pixels), 0.5, atol=0.05)


def test_breast_gives_the_same_pixels_for_a_picture_its_negative_and_its_mirror() -> None:
    picture = breast_picture()
    preprocess = Preprocess.breast(96, 64)
    upright = as_float(preprocess(picture).pixels)
    negative, mirrored = preprocess(1 - picture), preprocess(picture[:, ::-1])
    np.testing.assert_allclose(as_float(negative.pixels), upright, atol=0.01)
    np.testing.assert_allclose(as_float(mirrored.pixels), upright, atol=0.02)
    assert negative.warnings == ("grey levels were inverted: corrected",)
    assert mirrored.geometry.flipped


def test_breast_crops_to_the_breast_and_spans_the_range() -> None:
    prepared = Preprocess.breast(96, 64)(breast_picture())
    left, top, right, bottom = prepared.geometry.crop
    assert (left, top, right, bottom) == pytest.approx((0, 64, 160, 256), abs=12)
    pixels = as_float(prepared.pixels)
    assert pixels[pixels > 0].max() == pytest.approx(1, abs=0.01)
    assert pixels[0, -1] == 0


def test_contrast_does_not_depend_on_the_range_a_machine_uses() -> None:
    preprocess, picture = Preprocess.breast(96, 64), breast_picture()
    dim = preprocess(picture * np.float32(0.0625))
    np.testing.assert_allclose(as_float(dim.pixels), as_float(preprocess(picture).pixels), atol=0.01)


def test_a_marker_outside_the_breast_leaves_no_trace() -> None:
    preprocess, picture = Preprocess.breast(96, 64), breast_picture()
    marked = picture.copy()
    marked[70:80, 140:158] = 1
    np.testing.assert_array_equal(preprocess(marked).pixels[:12, 50:], 0)


def test_letterbox_keeps_the_aspect_ratio() -> None:
    square = np.ones((100, 100), np.float32)
    prepared = Preprocess(height=96, width=64, fit="letterbox")(square)
    assert prepared.geometry.content == (0, 16, 64, 80)
    pixels = as_float(prepared.pixels)
    assert pixels[16:80].min() == 1
    assert pixels[:16].max() == pixels[80:].max() == 0


def test_boxes_follow_the_pixels(phantom_manifest: Manifest) -> None:
    """The brightest change that a lesion-sized white square makes lies in its mapped box."""
    preprocess = Preprocess.breast(192, 128)
    mammogram = next(m for m in phantom_manifest if m.boxes and m.metadata["inverted"] == "0")
    pixels = read_image(mammogram.path).pixels
    box = mammogram.boxes[0]
    rows = slice(round(box.y), round(box.y + box.height))
    columns = slice(round(box.x), round(box.x + box.width))
    marked = pixels.copy()
    marked[rows, columns] = 0.02
    geometry = preprocess(pixels).geometry
    assert preprocess(marked).geometry == geometry
    change = np.abs(as_float(preprocess(marked).pixels) - as_float(preprocess(pixels).pixels)) > 0.3
    found_rows, found_columns = np.nonzero(change)
    left, top, right, bottom = geometry.to_canvas(box)
    assert found_columns.min() == pytest.approx(left, abs=3)
    assert found_columns.max() + 1 == pytest.approx(right, abs=3)
    assert found_rows.min() == pytest.approx(top, abs=3)
    assert found_rows.max() + 1 == pytest.approx(bottom, abs=3)


def test_a_box_maps_through_crop_and_flip() -> None:
    preprocess = Preprocess.breast(100, 100)
    geometry = preprocess(breast_picture()[:, ::-1]).geometry
    left, top, right, bottom = geometry.crop
    whole = Box(x=left, y=top, width=right - left, height=bottom - top)
    assert geometry.to_canvas(whole) == pytest.approx((0, 0, 100, 100))
    chest_wall = Box(x=right - 1, y=top, width=1, height=1)
    assert geometry.to_canvas(chest_wall)[0] == pytest.approx(0)


def test_an_empty_picture_is_used_whole_and_said_so() -> None:
    prepared = Preprocess.breast(96, 64)(np.zeros((200, 100), np.float32))
    assert "no breast was found: the whole picture is used" in prepared.warnings
    assert prepared.geometry.crop == (0, 0, 100, 200)


@pytest.mark.parametrize("shape", [(16, 16), (17, 400), (400, 17), (333, 111)])
def test_any_shape_fits_any_canvas(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    for fit in ("stretch", "letterbox"):
        preprocess = Preprocess.breast(40, 56).model_copy(update={"fit": fit})
        assert preprocess(noise).pixels.shape == (40, 56)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"height": 2}, {"percentiles": (90, 10)}, {"colour": True}):
        with pytest.raises(ValidationError):
            Preprocess.model_validate(wrong)


def test_settings_survive_json() -> None:
    preprocess = Preprocess.breast(320, 192)
    assert Preprocess.model_validate_json(preprocess.model_dump_json()) == preprocess


def test_real_breasts_fill_the_canvas_with_the_chest_wall_left(rsna_breast: Path) -> None:
    preprocess = Preprocess.breast(96, 64)
    for path in sorted((rsna_breast / "test" / "0").iterdir())[:40]:
        pixels = as_float(preprocess(read_image(path).pixels).pixels)
        assert 0.1 < pixels.mean() < 0.75, path.name
        assert (pixels[:, :6] > 0.02).mean() > (pixels[:, -6:] > 0.02).mean(), path.name


def hot(row: int, column: int) -> NDArray[np.float32]:
    score_map = np.zeros((ROWS, COLUMNS), np.float32)
    score_map[row, column] = 1
    return score_map


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
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
    return Geometry((height, width), (ROWS * CELL, COLUMNS * CELL), (left, top, right, bottom), flipped, content)


@given(geometries(), st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1))
def test_a_hot_cell_comes_back_to_where_it_was_seen(geometry: Geometry, row: int, column: int) -> None:
    """Judged by `Geometry.to_canvas`, which goes the other way."""
    height, width = geometry.image
    left, top, right, bottom = geometry.content
    x, y = CELL * (column + 0.5), CELL * (row + 0.5)
    whole = geometry.to_image(hot(row, column))
    assert max(whole.shape) == min(LONGEST, max(height, width))
    assert 0 <= whole.min() <= whole.max() <= 1
    if not (left + CELL <= x <= right - CELL and top + CELL <= y <= bottom - CELL):
        return  # cut by the edge of the content: its centre is elsewhere
    found_x, found_y = centre(whole, height, width)
    x0, y0, x1, y1 = geometry.to_canvas(Box(found_x - 0.5, found_y - 0.5, 1, 1))
    assert (x0 + x1) / 2 == pytest.approx(x, abs=CELL / 2)
    assert (y0 + y1) / 2 == pytest.approx(y, abs=CELL / 2)


@given(geometries())
def test_outside_the_crop_nothing_is_hot(geometry: Geometry) -> None:
    height, width = geometry.image
    whole = geometry.to_image(np.ones((ROWS, COLUMNS), np.float32))
    scale = max(whole.shape) / max(height, width)
    left, top, right, bottom = (scale * edge for edge in geometry.crop)
    inside = np.zeros_like(whole, dtype=bool)
    inside[int(top) : int(bottom) + 2, int(left) : int(right) + 2] = True
    assert not whole[~inside].any()
    assert whole[int((top + bottom) / 2), int((left + right) / 2)] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (640, 640), (1001, 777), (3328, 2560)])
def test_a_mask_at_full_size_is_that_of_the_nearest_pixels(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random((256, 197)) < 0.5
    nearest = Pillow.fromarray(mask).resize(shape[::-1], Pillow.Resampling.NEAREST)
    np.testing.assert_array_equal(full_size(mask, shape), np.asarray(nearest))
