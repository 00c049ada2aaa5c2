from collections.abc import Callable
from pathlib import Path

import numpy as np

from mammolens.predictor import Predictor, find_images
from mammolens.preprocess import Preprocess
from mammolens.records import Prediction


def brightness(pixels: np.ndarray) -> np.ndarray:
    """An honest small stand-in for a network: the mean of the pixels."""
    return np.asarray(pixels.mean(axis=(1, 2)), dtype=np.float64)


PREDICTOR = Predictor(Preprocess.plain(), 0.5, brightness)


def test_one_answer_an_input_in_order_failures_included(
    png: Callable[..., Path], tmp_path: Path
) -> None:
    levels = [10, 200, 60, 240]
    paths = [png(np.full((64, 64), level, np.uint8), f"{level}.png") for level in levels]
    text = tmp_path / "text.png"
    text.write_text("no image")
    inputs = [*paths[:2], text, *paths[2:], tmp_path / "missing.png", paths[0]]
    answers = list(PREDICTOR.predict(inputs))
    assert [answer.path for answer in answers] == inputs
    assert [answer.decision for answer in answers] == [
        "no tumor",
        "tumor",
        None,
        "no tumor",
        "tumor",
        None,
        "no tumor",
    ]
    assert str(text) in str(answers[2].error)
    assert answers[2].probability is None
    np.testing.assert_allclose(
        [a.probability for a in answers if a.probability is not None],
        np.array([10, 200, 60, 240, 10]) / 255,
        atol=1e-4,
    )


def test_many_files_come_in_order_too(phantoms: Path) -> None:
    paths = sorted(phantoms.rglob("*.jpg"))
    together = [answer.probability for answer in PREDICTOR.predict(paths)]
    alone = [next(PREDICTOR.predict([path])).probability for path in paths[::17]]
    np.testing.assert_array_equal(together[::17], alone)


def test_the_threshold_itself_is_called_tumor() -> None:
    assert Prediction.answer(Path("a"), 0.5, 0.5).decision == "tumor"
    assert Prediction.answer(Path("a"), 0.4999, 0.5).decision == "no tumor"


def test_folders_stand_for_the_images_below_them(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", "a/notes.txt", "empty/readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = find_images([tmp_path / "b.png", tmp_path, tmp_path / "gone", tmp_path / "empty"])
    assert listed == [
        tmp_path / "b.png",
        tmp_path / "a" / "c.JPG",
        tmp_path / "b.png",
        tmp_path / "gone",
        tmp_path / "empty",
    ]
