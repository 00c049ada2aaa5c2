"""Hits, chance and overlap on maps and boxes whose answers are known beforehand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mammolens.errors import DataError
from mammolens.measures.localisation import (
    Localisation,
    breast_mask,
    chance_rate,
    iou,
    localised,
    pointing_hit,
    rank_correlation,
)
from mammolens.records import Box

SHAPE = (800, 400)  # of the picture, (height, width)
ROWS, COLUMNS = 40, 20  # of the map: 20 × 20 pixels a cell

Pixels = NDArray[np.float32]


def hot(row: int, column: int) -> Pixels:
    score_map = np.zeros((ROWS, COLUMNS), np.float32)
    score_map[row, column] = 0.7
    return score_map


def mirrored(box: Box, width: int) -> Box:
    return Box(width - box.x - box.width, box.y, box.width, box.height)


def picture(height: int = 320, width: int = 240) -> Pixels:
    """A rectangular breast at the left: 60 % of the width, textured, on black."""
    pixels = np.zeros((height, width), np.float32)
    tissue = np.random.default_rng(0).uniform(0.4, 0.9, (height, round(0.6 * width)))
    pixels[:, : tissue.shape[1]] = tissue
    return pixels


def test_the_maximum_hits_a_box_it_lies_in() -> None:
    box = Box(100, 600, 40, 60)  # columns 5 and 6, rows 30 to 32
    assert pointing_hit(hot(30, 5), [box], SHAPE)
    assert pointing_hit(hot(32, 6), [box], SHAPE)
    for row, column in [(29, 5), (33, 6), (31, 4), (31, 7), (5, 15)]:
        assert not pointing_hit(hot(row, column), [box], SHAPE)
    assert pointing_hit(hot(3, 3), [box, Box(60, 60, 20, 20)], SHAPE), "any box counts"


@given(
    st.integers(0, ROWS - 1),
    st.integers(0, COLUMNS - 1),
    st.builds(Box, st.integers(0, 200), st.integers(0, 600), st.integers(1, 200), st.integers(1, 300)),
)
def test_a_mirrored_picture_gives_the_same(row: int, column: int, box: Box) -> None:
    score_map = hot(row, column)
    turned, other = score_map[:, ::-1], mirrored(box, SHAPE[1])
    there = pointing_hit(score_map, [box], SHAPE)
    assert there == pointing_hit(turned, [other], SHAPE)
    assert iou(score_map, [box], SHAPE) == pytest.approx(iou(turned, [other], SHAPE))


def test_of_equal_maxima_the_centre_of_the_largest_piece_counts() -> None:
    score_map = hot(0, 0)
    score_map[10:13, 0:5] = 0.7
    assert pointing_hit(score_map, [Box(40, 220, 20, 20)], SHAPE)
    assert not pointing_hit(score_map, [Box(0, 0, 20, 20)], SHAPE)
    assert not pointing_hit(score_map, [Box(0, 200, 20, 20)], SHAPE), "the edge of the piece"


@pytest.mark.parametrize("level", [0, 0.5, 1])
def test_a_map_of_one_value_points_nowhere(level: float) -> None:
    flat = np.full((ROWS, COLUMNS), level, np.float32)
    assert not pointing_hit(flat, [Box(0, 0, 400, 800)], SHAPE)


def test_an_image_without_a_box_is_refused() -> None:
    with pytest.raises(ValueError, match="no box"):
        pointing_hit(hot(0, 0), [], SHAPE)
    with pytest.raises(ValueError, match="no box"):
        iou(hot(0, 0), [], SHAPE)
    with pytest.raises(ValueError, match="no box"):
        chance_rate(picture(), [])


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
def test_chance_is_the_share_of_the_breast_in_boxes(*, inverted: bool, flipped: bool) -> None:
    """The breast is 144 × 320 pixels; what a box covers beside it does not count."""
    pixels = 1 - picture() if inverted else picture()
    pixels = pixels[:, ::-1] if flipped else pixels

    def chance(box: Box) -> float:
        there = mirrored(box, 240) if flipped else box
        return chance_rate(np.ascontiguousarray(pixels), [there])

    assert chance(Box(0, 0, 72, 160)) == pytest.approx(0.25, abs=0.02)
    assert chance(Box(72, 0, 168, 320)) == pytest.approx(0.5, abs=0.02)
    assert chance(Box(170, 0, 70, 320)) == 0


def test_chance_counts_overlapping_boxes_once() -> None:
    boxes = [Box(0, 0, 72, 160), Box(0, 0, 72, 80), Box(30, 60, 42, 100)]
    assert chance_rate(picture(), boxes) == pytest.approx(0.25, abs=0.02)


def test_without_a_breast_chance_is_of_the_whole_picture() -> None:
    black = np.zeros((200, 100), np.float32)
    assert breast_mask(black).all()
    assert chance_rate(black, [Box(0, 0, 50, 100)]) == pytest.approx(0.25, abs=0.01)


def test_iou_of_squares() -> None:
    score_map = np.zeros((ROWS, COLUMNS), np.float32)
    score_map[10:14, 4:8] = 0.9  # 80 × 80 pixels at (80, 200)
    score_map[10:14, 8:12] = 0.4
    assert iou(score_map, [Box(80, 200, 80, 80)], SHAPE) == 1
    assert iou(score_map, [Box(120, 200, 80, 80)], SHAPE) == pytest.approx(8 / 24)
    brighter = score_map * np.where(score_map < 0.5, np.float32(1.2), np.float32(1))
    assert iou(brighter, [Box(80, 200, 80, 80)], SHAPE) == pytest.approx(16 / 32), "hot from half on"
    assert iou(score_map, [Box(80, 200, 80, 40), Box(80, 240, 80, 40)], SHAPE) == 1
    assert iou(score_map, [Box(200, 600, 80, 80)], SHAPE) == 0
    assert iou(score_map / np.float32(9), [Box(80, 200, 80, 80)], SHAPE) == 1, "of its own maximum"
    assert iou(np.zeros_like(score_map), [Box(80, 200, 80, 80)], SHAPE) == 0


def places(images: int, *, perfect: bool, seed: int = 0) -> tuple[Localisation, float]:
    """Judge maps that look at the box, or anywhere in the breast; and return their mean chance."""
    generator = np.random.default_rng(seed)
    pixels = picture()
    inside = breast_mask(pixels)
    hits, chances, ious = [], [], []
    for _ in range(images):
        x, y = generator.uniform(0, 60), generator.uniform(0, 200)
        boxes = [Box(x, y, *generator.uniform(30, 80, 2))]
        rows, columns = (np.indices(inside.shape) + 0.5) * 320 / inside.shape[0]
        score_map = np.where(inside, generator.random(inside.shape, np.float32), np.float32(0))
        if perfect:
            box = boxes[0]
            score_map *= (columns > box.x) & (columns < box.x + box.width)
            score_map *= (rows > box.y) & (rows < box.y + box.height)
        hits.append(pointing_hit(score_map, boxes, pixels.shape))
        chances.append(chance_rate(pixels, boxes))
        ious.append(iou(score_map, boxes, pixels.shape))
    patients = [f"{number // 2}" for number in range(images)]
    labels = [number // 4 % 2 for number in range(images)]
    return localised(hits, chances, ious, labels, patients), float(np.mean(chances))


def test_a_perfect_map_always_hits_and_a_random_one_as_often_as_chance() -> None:
    perfect, _ = places(40, perfect=True)
    assert (perfect.hit_rate.value, perfect.hit_rate.high) == (1, 1)
    assert 0.8 < perfect.hit_rate.low < 1
    random, chance = places(400, perfect=False)
    assert random.images == 400
    assert random.patients == 200
    assert random.chance_rate == pytest.approx(chance)
    assert random.hit_rate.low < chance < random.hit_rate.high
    assert random.hit_rate.high - random.hit_rate.low < 0.1
    assert random.iou.value < 0.2
    assert perfect.iou.value > 0.4


def test_tumors_and_benign_lesions_are_told_apart() -> None:
    hits, chances = [True, False, True, True, False], [0.1, 0.2, 0.3, 0.4, 0.5]
    ious, patients = [0.5, 0.0, 0.4, 0.3, 0.1], ["a", "a", "b", "c", "d"]
    found = localised(hits, chances, ious, [1, 0, 1, 1, 0], patients)
    assert found.hit_rate.value == pytest.approx(0.6)
    assert found.chance_rate == pytest.approx(0.3)
    assert found.iou.value == pytest.approx(0.26)
    tumor, benign = found.by_label["tumor"], found.by_label["no tumor"]
    assert (tumor.images, tumor.patients, tumor.hit_rate.value) == (3, 3, 1)
    assert (benign.images, benign.patients, benign.hit_rate.value) == (2, 2, 0)
    assert tumor.chance_rate == pytest.approx(0.8 / 3)
    assert benign.iou.value == pytest.approx(0.05)
    assert Localisation.model_validate_json(found.model_dump_json()) == found
    assert not localised(hits, chances, ious, [1] * 5, patients).by_label
    with pytest.raises(DataError, match="nothing to localise"):
        localised([], [], [], [], [])


def test_intervals_are_by_patient() -> None:
    """Two images of a patient that always agree tell no more than one."""
    hits = [number % 2 == 0 for number in range(40)]
    zeros = [0.0] * 80
    doubled = [hit for hit in hits for _ in range(2)]
    labels, patients = [1] * 80, [str(number) for number in range(80)]
    once = localised(hits, zeros[:40], zeros[:40], labels[:40], patients[:40]).hit_rate
    pairs = [str(number // 2) for number in range(80)]
    twice = localised(doubled, zeros, zeros, labels, pairs).hit_rate
    alone = localised(doubled, zeros, zeros, labels, patients).hit_rate
    assert twice.high - twice.low == pytest.approx(once.high - once.low, abs=0.05)
    assert alone.high - alone.low < 0.85 * (twice.high - twice.low)


def test_rank_correlation() -> None:
    generator = np.random.default_rng(0)
    maps = [generator.random((30, 20), np.float32) for _ in range(8)]
    others = [generator.random((30, 20), np.float32) for _ in range(8)]
    all_of = [np.ones((30, 20), dtype=bool)] * 8
    assert rank_correlation(maps, [m**3 for m in maps], all_of) == pytest.approx(1)
    assert rank_correlation(maps, [1 - m for m in maps], all_of) == pytest.approx(-1)
    assert rank_correlation(maps, others, all_of) == pytest.approx(0, abs=0.05)
    flat = [np.zeros_like(m) for m in maps]
    assert rank_correlation(maps, flat, all_of) == 0
    assert rank_correlation(flat, flat, all_of) == 1


def test_background_alike_is_no_agreement() -> None:
    generator = np.random.default_rng(0)
    inside = np.zeros((15, 10), dtype=bool)
    inside[:, :5] = True
    maps = [np.zeros((30, 20), np.float32) for _ in range(16)]
    for score_map in maps:
        score_map[:, :10] = generator.random((30, 10))
    before, after = maps[:8], maps[8:]
    assert rank_correlation(before, after, [np.ones_like(inside)] * 8) > 0.6
    assert rank_correlation(before, after, [inside] * 8) == pytest.approx(0, abs=0.1)
