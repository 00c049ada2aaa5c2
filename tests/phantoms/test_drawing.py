from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mammolens.phantoms.drawing import (
    VIEWS,
    Breast,
    Density,
    Patient,
    draw_patient,
    draw_view,
    power_law_noise,
)
from mammolens.phantoms.lesions import Lesion, LesionKind, find_place, render_lesion
from mammolens.records import Laterality, View

SIZE = 320
BACKGROUND = 12
"""Grey levels below are air: tissue with its noise stays above, air with its noise below."""


def _patient(number: int = 3) -> Patient:
    return draw_patient(number, seed=1)


def _ill_breasts(count: int) -> list[Breast]:
    patients = [draw_patient(number, seed=2, tumor_share=1) for number in range(count)]
    return [p.left if p.left.lesion else p.right for p in patients]


def _flipped_to_left(pixels: np.ndarray, laterality: Laterality) -> np.ndarray:
    return pixels if laterality == Laterality.LEFT else pixels[:, ::-1]


def test_the_same_number_and_seed_give_the_same_pixels() -> None:
    first, again = _patient(), _patient()
    assert first == again
    for view in VIEWS:
        pixels = draw_view(first.left, view, size=SIZE).pixels
        np.testing.assert_array_equal(pixels, draw_view(again.left, view, size=SIZE).pixels)


def test_other_numbers_seeds_views_and_sides_give_other_pictures() -> None:
    breasts = [_patient(3).left, _patient(3).right, _patient(4).left, draw_patient(3, seed=9).left]
    pictures = {draw_view(b, v, size=64).pixels.tobytes() for b, v in product(breasts, VIEWS)}
    assert len(pictures) == 8


@pytest.mark.parametrize("size", [64, 101, 320])
def test_a_view_is_a_square_of_bytes_on_an_almost_black_background(size: int) -> None:
    phantom = draw_view(_patient().left, View.CC, size=size, marker=False)
    assert phantom.pixels.shape == (size, size)
    assert phantom.pixels.dtype == np.uint8
    assert phantom.pixels[:, -size // 20 :].max() <= 8
    assert 0.1 < (phantom.pixels > BACKGROUND).mean() < 0.9


@pytest.mark.parametrize("view", VIEWS)
def test_the_chest_wall_is_on_the_side_of_the_laterality(view: View) -> None:
    patient = _patient()
    for breast in (patient.left, patient.right):
        phantom = draw_view(breast, view, size=SIZE, marker=False)
        tissue = _flipped_to_left(phantom.pixels > BACKGROUND, breast.laterality)
        assert phantom.laterality == breast.laterality
        assert tissue[:, :10].mean() > 0.5
        assert tissue[:, -10:].mean() < 0.1


def test_the_nipple_is_as_far_from_the_chest_wall_in_both_views() -> None:
    for number in range(5):
        breast = _patient(number).left
        for view in VIEWS:
            pixels = draw_view(breast, view, size=SIZE, marker=False).pixels
            reach = np.flatnonzero((pixels > 40).any(axis=0)).max() / SIZE
            assert reach == pytest.approx(breast.depth, abs=0.05)


def test_the_pectoral_muscle_brightens_the_upper_corner_of_oblique_views_only() -> None:
    for number in range(6):
        breast = _patient(number).left
        corner = {v: draw_view(breast, v, size=SIZE).pixels[:40, :30].mean() for v in VIEWS}
        assert corner[View.MLO] > corner[View.CC] + 40
        assert corner[View.MLO] > 90


@pytest.mark.parametrize("view", VIEWS)
def test_denser_breasts_are_brighter(view: View) -> None:
    def brightness(density: Density) -> float:
        pictures = [
            draw_view(replace(_patient(n).left, density=density, lesion=None), view, size=SIZE) for n in range(3)
        ]
        return float(np.mean([p.pixels[p.pixels > BACKGROUND].mean() for p in pictures]))

    levels = [brightness(density) for density in Density]
    assert levels == sorted(levels)
    assert levels[-1] > 1.2 * levels[0]


@pytest.mark.parametrize("beta", [1.8, 3.0])
def test_the_noise_has_the_power_law_spectrum_asked_for(beta: float) -> None:
    noise = power_law_noise(np.random.default_rng(0), 256, beta)
    power = np.abs(np.fft.fft2(noise)) ** 2
    cycles = np.fft.fftfreq(256, 1 / 256)
    rings = np.hypot(cycles, cycles[:, None]).round().astype(int)
    frequencies = np.arange(4, 100)
    ring_power = [power[rings == frequency].mean() for frequency in frequencies]
    slope, _ = np.polyfit(np.log(frequencies), np.log(ring_power), 1)
    assert slope == pytest.approx(-beta, abs=0.1)
    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-4)


def test_an_inverted_view_is_the_exact_complement() -> None:
    breast = _patient().right
    plain, inverted = (draw_view(breast, View.MLO, size=SIZE, inverted=i) for i in (False, True))
    np.testing.assert_array_equal(inverted.pixels, 255 - plain.pixels)
    assert inverted.inverted
    assert inverted.boxes == plain.boxes


def test_a_marker_changes_only_the_top_of_the_side_away_from_the_chest_wall() -> None:
    missing = 0
    for patient in map(_patient, range(12)):
        for breast in (patient.left, patient.right):
            marked, bare = (draw_view(breast, View.CC, size=128, marker=m) for m in (True, False))
            changed = _flipped_to_left(marked.pixels != bare.pixels, breast.laterality)
            rows, columns = np.nonzero(changed)
            missing += not changed.any()
            assert all(rows < 0.16 * 128)
            assert all(columns > 0.6 * 128)
    assert missing < 10


@pytest.mark.parametrize("view", VIEWS)
def test_a_lesion_brightens_its_box_and_nothing_else(view: View) -> None:
    for breast in _ill_breasts(8):
        ill = draw_view(breast, view, size=SIZE)
        healthy = draw_view(replace(breast, lesion=None), view, size=SIZE)
        (box,) = ill.boxes
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        top, left = int(box.y), int(box.x)
        inside[top : top + int(box.height), left : left + int(box.width)] = True
        difference = ill.pixels.astype(int) - healthy.pixels
        assert healthy.boxes == ()
        assert difference[inside].mean() > 5
        assert not difference[~inside].any()


@pytest.mark.parametrize("view", VIEWS)
def test_boxes_lie_in_the_image_and_in_the_breast(view: View) -> None:
    for breast in _ill_breasts(25):
        phantom = draw_view(breast, view, size=160, marker=False)
        (box,) = phantom.boxes
        top, left = int(box.y), int(box.x)
        bottom, right = int(box.y + box.height), int(box.x + box.width)
        assert bottom <= 160
        assert right <= 160
        assert (phantom.pixels[top:bottom, left:right] > BACKGROUND).mean() > 0.97


def test_a_lesion_that_belongs_behind_the_pectoral_muscle_is_moved_in_front_of_it() -> None:
    lesion = Lesion(LesionKind.ROUND_MASS, 0.12, depth=1, lateral=0, superior=0.9, seed=0)
    for number in range(8):
        fatty = replace(_patient(number).left, density=Density.A, fat_level=0.13)
        (box,) = draw_view(replace(fatty, lesion=lesion), View.MLO, size=SIZE).boxes
        pixels = draw_view(fatty, View.MLO, size=SIZE).pixels
        there = pixels[int(box.y) : int(box.y + box.height), int(box.x) : int(box.x + box.width)]
        assert there.mean() < pixels[:40, :30].mean() - 30


def test_both_views_show_the_lesion_at_the_same_distance_from_the_chest_wall() -> None:
    gaps = []
    for breast in _ill_breasts(20):
        boxes = [draw_view(breast, view, size=64).boxes[0] for view in VIEWS]
        gaps.append(abs(boxes[0].x - boxes[1].x) / 64)
    assert np.median(gaps) < 0.02
    assert max(gaps) < 0.15


@pytest.mark.parametrize("kind", LesionKind)
def test_a_lesion_fades_to_nothing_at_the_edge_of_its_patch(kind: LesionKind) -> None:
    for seed in range(10):
        lesion = Lesion(kind, diameter=0.1, depth=0.5, lateral=0, superior=0, seed=seed)
        patch = render_lesion(lesion, view_number=0, side=60)
        rim = np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]])
        assert patch.min() >= 0
        assert patch.max() > 0.35
        assert rim.max() < 0.01


def test_a_lesion_goes_to_the_nearest_place_with_room() -> None:
    room = np.zeros((10, 10), dtype=np.float32)
    room[2:5, 2:8] = 0.1
    assert find_place((0.55, 0.35), room, margin=0.05) == pytest.approx((0.55, 0.35))
    assert find_place((0.55, 0.95), room, margin=0.05) == pytest.approx((0.55, 0.45))


def test_a_lesion_goes_to_the_roomiest_place_where_none_has_the_margin() -> None:
    room = np.zeros((10, 10), dtype=np.float32)
    room[7, 3] = 0.04
    assert find_place((0.9, 0.1), room, margin=0.05) == pytest.approx((0.35, 0.75))


def test_the_share_of_patients_with_a_lesion_is_as_asked_for() -> None:
    for share in (0.0, 0.4, 1.0):
        patients = [draw_patient(number, seed=0, tumor_share=share) for number in range(400)]
        lesions = [[b.lesion is not None for b in (p.left, p.right)] for p in patients]
        assert np.mean([any(pair) for pair in lesions]) == pytest.approx(share, abs=0.06)
        assert not any(all(pair) for pair in lesions)
        if share:
            assert np.mean(lesions, axis=0) == pytest.approx([share / 2, share / 2], abs=0.06)


def test_every_kind_of_lesion_occurs_and_masses_prevail() -> None:
    kinds = Counter(breast.lesion.kind for breast in _ill_breasts(300) if breast.lesion)
    assert set(kinds) == set(LesionKind)
    assert 0.08 < kinds[LesionKind.CALCIFICATIONS] / 300 < 0.22


def test_nothing_but_the_lesion_tells_who_is_ill() -> None:
    for number in range(50):
        healthy = draw_patient(number, seed=4, tumor_share=0)
        ill = draw_patient(number, seed=4, tumor_share=1)
        left, right = replace(ill.left, lesion=None), replace(ill.right, lesion=None)
        assert replace(ill, left=left, right=right) == healthy


def test_the_two_breasts_of_a_patient_are_alike_but_not_the_same() -> None:
    for number in range(50):
        patient = _patient(number)
        assert patient.left.laterality == Laterality.LEFT
        assert patient.right.laterality == Laterality.RIGHT
        assert patient.left.density == patient.right.density
        assert patient.left.depth == pytest.approx(patient.right.depth, rel=0.12)
        assert patient.left.seed != patient.right.seed
        assert 40 <= patient.age <= 89


def test_a_view_that_is_not_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="CC and MLO; received ML"):
        draw_view(_patient().left, View.ML)
