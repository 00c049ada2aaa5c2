import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mammolens.data.manifest import Manifest
from mammolens.images.breast import _pieces, find_breast, polarity, thumbnail
from mammolens.images.reading import read_image
from mammolens.records import Laterality


def half_disc(size: int = 256, radius: float = 0.35) -> np.ndarray:
    """A bright half disc on black with its straight side on the left edge."""
    y, x = np.mgrid[:size, :size] / size
    breast = (np.hypot(x, y - 0.5) < radius).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.05, (size, size))
    return np.asarray(np.clip(breast * (0.5 + noise), 0, 1), dtype=np.float32)


def test_polarity_of_a_picture_and_its_negative_are_opposite() -> None:
    small = half_disc()
    assert not polarity(small).inverted
    assert polarity(1 - small).inverted
    assert polarity(small).margin > 0.4


def test_polarity_of_phantoms(phantom_manifest: Manifest) -> None:
    for mammogram in phantom_manifest:
        found = polarity(thumbnail(read_image(mammogram.path).pixels))
        assert found.inverted == (mammogram.metadata["inverted"] == "1"), mammogram.path


def test_polarity_of_real_images_follows_their_machine(rsna_breast: Path) -> None:
    """Machine 29 wrote white backgrounds always, 49 never: seen on contact sheets."""
    with (rsna_breast / "metadata.csv").open() as stream:
        machine = {row["image_id"]: row["machine_id"] for row in csv.DictReader(stream)}
    seen = {"29": 0, "49": 0}
    for path in sorted((rsna_breast / "valid").rglob("*.jpg")):
        its_machine = machine[path.name.split("_")[1]]
        if its_machine in seen and seen[its_machine] < 40:
            seen[its_machine] += 1
            found = polarity(thumbnail(read_image(path).pixels))
            assert found.inverted == (its_machine == "29"), path.name
    assert seen == {"29": 40, "49": 40}


def test_film_with_white_borders_is_not_taken_for_inverted(cbis_ddsm_mass: Path) -> None:
    for path in sorted((cbis_ddsm_mass / "test").iterdir())[:60]:
        assert not polarity(thumbnail(read_image(path).pixels)).inverted, path.name


def with_strips(upright: np.ndarray, sides: tuple[int, ...], share: float) -> np.ndarray:
    """White strips along sides: 0 is the top, 1 the right, 2 the bottom, 3 the left."""
    drawn = upright.copy()
    for side in sides:
        turned = np.rot90(drawn, side)
        turned[: round(share * len(turned))] = 1
    return drawn


STRIPS = [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 1), (0, 1, 2, 3)]


@pytest.mark.parametrize("share", [0.02, 0.06, 0.09, 0.13])
@pytest.mark.parametrize("sides", STRIPS)
@pytest.mark.parametrize("fog", [0, 0.3])
def test_strips_of_scanners_do_not_tell_polarity(sides: tuple[int, ...], share: float, fog: float) -> None:
    """Nor does their reverse on a negative, nor a background that is grey beside them."""
    drawn = with_strips(fog + (1 - fog) * half_disc(), sides, share)
    assert not polarity(thumbnail(drawn)).inverted
    assert polarity(thumbnail(1 - drawn)).inverted


def test_polarity_of_phantoms_on_film_with_strips(phantom_manifest: Manifest) -> None:
    for number, mammogram in enumerate(list(phantom_manifest)[::3]):
        pixels = read_image(mammogram.path).pixels
        upright = 1 - pixels if mammogram.metadata["inverted"] == "1" else pixels
        drawn = with_strips(upright, STRIPS[number % len(STRIPS)], 0.12)
        assert not polarity(thumbnail(drawn)).inverted, mammogram.path
        assert polarity(thumbnail(1 - drawn)).inverted, mammogram.path


@pytest.mark.parametrize("strip", [0, 0.1])
def test_polarity_where_the_breast_fills_the_film(strip: float) -> None:
    """Nine tenths are breast; a pectoral muscle makes a corner white, without texture."""
    y, x = np.mgrid[:256, :256] / 256
    breast = (x / 0.97) ** 2 + ((y - 0.5) / 0.65) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 0.05, (256, 256))
    small = np.where(breast, 0.55 + noise, 0.03)
    small[x + y < 0.25] = 0.92
    upright = np.asarray(np.clip(small, 0, 1), dtype=np.float32)
    assert breast.mean() > 0.85
    if strip:
        white = np.ones((256, round(strip * 256)), np.float32)
        upright = np.concatenate([white, upright], axis=1)
    assert not polarity(thumbnail(upright)).inverted
    assert polarity(thumbnail(1 - upright)).inverted


@pytest.mark.parametrize("negative", [False, True])
def test_polarity_of_real_images_with_strips(cbis_ddsm_mass: Path, rsna_breast: Path, *, negative: bool) -> None:
    """More of them, and what remains wrong, are in docs/experiments.md (experiment 34)."""
    films = sorted((cbis_ddsm_mass / "test").iterdir())[:16]
    digital = sorted((rsna_breast / "test" / "0").iterdir())[:16]
    for number, path in enumerate([*films, *digital]):
        small = thumbnail(read_image(path).pixels)
        upright = 1 - small if polarity(small).inverted else small
        drawn = with_strips(upright, STRIPS[number % 4], 0.12)
        assert polarity(1 - drawn if negative else drawn).inverted == negative, path.name


@pytest.mark.parametrize("shape", [(1, 256), (256, 3), (16, 16), (5, 200)])
def test_polarity_of_next_to_nothing_is_uncertain(shape: tuple[int, int]) -> None:
    assert polarity(np.full(shape, 0.5, np.float32)).margin <= 1
    assert polarity(np.zeros(shape, np.float32)).margin <= 1


@pytest.mark.parametrize("share", [0.05, 0.12])
@pytest.mark.parametrize("side", [0, 1, 2])
def test_strips_of_scanners_are_not_breast(side: int, share: float) -> None:
    drawn = with_strips(half_disc(), (side,), share)
    found = find_breast(drawn)
    np.testing.assert_allclose(found.box, find_breast(half_disc()).box, atol=0.02)


def test_the_breast_is_found_where_it_is() -> None:
    breast = find_breast(half_disc(radius=0.35))
    assert breast.box == pytest.approx((0, 0.15, 0.35, 0.85), abs=0.02)
    assert breast.area == pytest.approx(np.pi * 0.35**2 / 2, rel=0.05)
    assert not breast.chest_wall_right
    assert find_breast(half_disc()[:, ::-1]).chest_wall_right


def test_markers_lines_and_film_borders_are_not_breast() -> None:
    clean = half_disc()
    drawn = clean.copy()
    drawn[10:22, 200:240] = 1  # a marker
    drawn[:, 180:182] = 1  # a collimator line
    drawn[-6:, :] = 1  # a film border
    found = find_breast(drawn)
    np.testing.assert_allclose(found.box, find_breast(clean).box, atol=0.02)
    assert found.area == pytest.approx(find_breast(clean).area, rel=0.03)


def test_nothing_is_found_in_an_empty_picture() -> None:
    assert find_breast(np.zeros((64, 64), np.float32)).area == 0


def test_chest_wall_of_phantoms_is_on_the_side_of_their_laterality(
    phantom_manifest: Manifest,
) -> None:
    for mammogram in phantom_manifest:
        small = thumbnail(read_image(mammogram.path).pixels)
        breast = find_breast(1 - small if polarity(small).inverted else small)
        assert breast.chest_wall_right == (mammogram.laterality is Laterality.RIGHT)


def test_a_thumbnail_keeps_its_shape_and_spans_its_range() -> None:
    picture = half_disc(512)[:, :256] * np.float32(0.06)
    small = thumbnail(picture, 128)
    assert small.shape == (128, 64)
    assert (small.min(), small.max()) == (0, 1)


def _comb(side: int) -> np.ndarray:
    comb = np.zeros((side, side), dtype=bool)
    comb[:, ::2] = comb[-1] = True
    return comb


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 0.6, 0.9, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (40, 30), (256, 200)])
def test_pieces_are_those_of_scipy(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    np.testing.assert_array_equal(_pieces(mask), ndimage.label(mask)[0])


@pytest.mark.parametrize("turns", range(4))
def test_pieces_that_meet_late_are_one(turns: int) -> None:
    comb = np.rot90(_comb(64), turns)
    np.testing.assert_array_equal(_pieces(comb), ndimage.label(comb)[0])
