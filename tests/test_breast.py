import csv
from pathlib import Path

import numpy as np
import pytest

from mammolens.breast import find_breast, polarity, thumbnail
from mammolens.manifest import Manifest
from mammolens.reading import read_image
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
    assert polarity(small).margin > 0.5


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
