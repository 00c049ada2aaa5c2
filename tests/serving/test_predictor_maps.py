"""A score map lies over its picture: what the network saw goes back to where it is."""

from pathlib import Path

import numpy as np
import pytest

from brightness import HEIGHT, WIDTH, bundle, centre
from mammolens.images.archives import Named
from mammolens.images.preprocess import Preprocess
from mammolens.images.reading import read_image
from mammolens.learning.runs import Run
from mammolens.serving.pictures import Seen, seen_or_reason
from mammolens.serving.predictor import Predictor

ROWS, COLUMNS = 6, 4


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
        seen = seen_or_reason(Named(path, path), run.recipe.preprocess, None)
        assert isinstance(seen, Seen)
        assert answer.score_map is not None
        assert answer.score_map.shape == seen.geometry.image == (160, 160)
        y, x = np.unravel_index(answer.score_map.argmax(), seen.geometry.image)
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
