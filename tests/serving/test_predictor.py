import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from PIL import Image

from brightness import HEIGHT, WIDTH, bundle, flat
from mammolens.errors import BundleError
from mammolens.images.archives import Input, Picture, find_inputs, named
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import as_float
from mammolens.learning.runs import Run
from mammolens.levels import ServedLevel
from mammolens.model.bundle import Outputs
from mammolens.model.calibration import Calibration
from mammolens.records import ImageWarning, Reason, Split
from mammolens.serving import predictor as room
from mammolens.serving.pictures import seen_or_reason
from mammolens.serving.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(bundle(tmp_path_factory.mktemp("bundles") / "brightness").folder)


@pytest.fixture(scope="module")
def trained(run: Run) -> Predictor:
    return Predictor.load(run.folder)


def probability(predictor: Predictor, picture: Picture) -> float:
    (answer,) = predictor.predict([picture])
    assert answer.error is None
    return float(answer.probability or 0)


def test_a_path_may_be_text(predictor: Predictor, png: Callable[..., Path]) -> None:
    path = png(flat(60))
    assert probability(predictor, str(path)) == probability(predictor, path)


def test_one_answer_an_input_in_order_failures_included(
    predictor: Predictor, png: Callable[..., Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.write(png(flat(60), "c.png"), "deep/c.png")
        written.write(text, "deep/d.png")
    paths = [png(flat(10), "a.png"), png(flat(200), "b.png")]
    inputs: list[Picture] = [
        *paths,
        text,
        flat(240),
        *find_inputs([archive]),
        tmp_path / "gone.png",
    ]
    answers = list(predictor.predict([*inputs, paths[0]]))
    assert [str(answer.path) for answer in answers] == [
        *map(str, [*paths, text]),
        "array 3",
        str(archive / "deep" / "c.png"),
        str(archive / "deep" / "d.png"),
        str(tmp_path / "gone.png"),
        str(paths[0]),
    ]
    says = ["no tumor", "tumor", None, "tumor", "no tumor", None, None, "no tumor"]
    assert [answer.decision for answer in answers] == says
    for answer in answers:
        assert (answer.error is None) == (answer.probability is not None)
        assert answer.error is None or str(answer.path) in answer.error
        assert (answer.threshold, answer.operating_point) == (0.5, "balanced")
    found = [answer.probability for answer in answers if answer.probability is not None]
    np.testing.assert_allclose(found, np.array([10, 200, 240, 60, 10]) / 255, atol=1e-4)


def test_nothing_asked_nothing_answered(predictor: Predictor) -> None:
    for level in ServedLevel:
        assert list(predictor.predict([], level=level)) == []


def test_serving_sees_the_pixels_of_training_to_the_last_bit(run: Run, trained: Predictor) -> None:
    paths = run.manifest.paths[:30]
    preprocess = trained.bundle.record.preprocess
    assert preprocess == run.recipe.preprocess
    stored = prepared_pixels(paths, run.recipe.preprocess).take(range(30))
    seen = [seen_or_reason(one, preprocess, None) for one in named(paths)]
    levels = np.stack([picture.levels for picture in seen if not isinstance(picture, str)])
    np.testing.assert_array_equal(as_float(levels), stored)
    expected = run.load_network().predict(stored[..., np.newaxis], verbose=0)[:, 0]
    scores = [trained.score(picture)[0] for picture in levels]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    answers = [probability(trained, path) for path in paths]
    np.testing.assert_array_equal(answers, trained.bundle.record.calibration(scores))


def test_an_answer_does_not_depend_on_its_company(run: Run, trained: Predictor) -> None:
    """Many go through several processes, one through none."""
    paths = run.manifest.paths[:40]
    together = list(trained.predict(paths))
    assert [answer.path for answer in together] == list(paths)
    for index in range(0, 40, 13):
        (alone,) = trained.predict([paths[index]])
        assert alone.probability == together[index].probability
        assert alone.warnings == together[index].warnings
        assert alone.score_map is not None
        np.testing.assert_array_equal(alone.score_map, together[index].score_map)


@pytest.mark.parametrize(
    "array",
    [
        flat(51),
        flat(51).astype(np.uint16) * 257,
        (flat(51).astype(np.uint16) * 257).astype(">u2"),
        np.full((64, 48), 0.2),
        np.full((64, 48), 0.2, np.float32),
        np.full((64, 48), 0.2, np.float16),
        np.asfortranarray(flat(51))[::-1],
    ],
    ids=lambda array: str(array.dtype),
)
def test_an_array_is_answered_as_the_same_file(
    predictor: Predictor, png: Callable[..., Path], array: NDArray[np.generic]
) -> None:
    expected = probability(predictor, png(flat(51)))
    assert probability(predictor, array) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((64, 48, 4), np.uint8), r"shape \(64, 48, 4\); expected \(height, width\) or"),
        (np.zeros(64), "expected \\(height, width\\)"),
        (flat(51).astype(np.int64), "an array of int64 and shape .* of uint8, uint16, bool, or float"),
        (np.full((64, 48), -0.01), "outside"),
        (np.full((64, 48), 1.01), "outside"),
        (np.full((64, 48), np.nan), "outside"),
        (np.full((64, 48), 1e300), "outside"),
        (np.full((64, 48), "a"), "an array of <U1 and"),
        (np.full((64, 48), None), "an array of object and"),
        (np.full((64, 48), 0.5j), "an array of complex128"),
        (np.zeros((8, 8)), "too small"),
        (np.zeros((0, 0)), "too small"),
        (np.broadcast_to(np.uint8(0), (100_000, 100_000)), "over the limit"),
    ],
)
def test_an_array_that_is_no_picture_is_a_failure(predictor: Predictor, array: NDArray[np.generic], said: str) -> None:
    first, second = predictor.predict([array, flat(9)])
    assert re.search(said, str(first.error))
    assert second.error is None


def test_what_was_mended_and_what_is_doubtful_is_said(run: Run, trained: Predictor) -> None:
    inverted = next(m.path for m in run.manifest if m.metadata["inverted"] == "1")
    (answer,) = trained.predict([inverted])
    assert "grey levels were inverted: corrected" in answer.warnings
    upright = next(m.path for m in run.manifest if m.metadata["inverted"] == "0")
    pixels = np.asarray(Image.open(upright))
    fine, mended = trained.predict([pixels, 255 - pixels])
    assert "grey levels were inverted: corrected" not in fine.warnings
    assert mended.probability == pytest.approx(fine.probability, abs=1e-3)


def test_a_picture_smaller_than_the_canvas_is_doubtful(predictor: Predictor) -> None:
    small, large = predictor.predict([flat(9, height=40), flat(9, height=HEIGHT, width=WIDTH)])
    assert small.warnings == ("only 48 x 40 pixels: less than the network looks at",)
    assert large.warnings == ()


def test_a_picture_that_is_no_mammogram_gets_no_decision(run: Run, trained: Predictor) -> None:
    """The gate admits what it was fitted on, and not a page of text."""
    page = np.full((160, 160), 255, np.uint8)
    page[20:140:6, 15:145:2] = 0
    admitted = trained.predict(run.manifest.of_split(Split.TRAIN).paths[:20])
    assert sum(ImageWarning.NOT_LIKE_TRAINING in answer.warnings for answer in admitted) <= 1
    (answer,) = trained.predict([page])
    assert (answer.probability, answer.decision, answer.score_map) == (None, None, None)
    assert answer.error is None
    assert (answer.uncertain, answer.reason) == (True, Reason.NOT_A_MAMMOGRAM)
    assert ImageWarning.NOT_LIKE_TRAINING not in answer.warnings
    (asked,) = trained.predict([page], ungated=True)
    assert asked.probability is not None
    assert (asked.decision, asked.reason) == (None, Reason.NOT_A_MAMMOGRAM)
    assert asked.warnings == answer.warnings


def test_where_no_gpu_can_be_had_the_processor_answers_and_nothing_is_printed(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "knows_gpus", lambda: True)
    monkeypatch.setattr(room, "_ON_GPU", "no options")  # which ONNX Runtime refuses, as it does without a GPU
    opened = Predictor.load(predictor.bundle.folder)
    assert not opened.on_gpu
    assert probability(opened, flat(60)) == probability(predictor, flat(60))
    assert capfd.readouterr() == ("", "")


def test_a_gpu_that_fails_is_not_blamed_on_the_network(predictor: Predictor) -> None:
    class Full:
        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def run(self, *_: object) -> None:
            raise RuntimeError("CUDA failure 2: out of memory")

    full = replace(predictor, _session=cast("InferenceSession", Full()))
    with pytest.raises(BundleError, match=r"fails .*out of memory\)\. Set CUDA_VISIBLE_DEVICES= to leave"):
        full.score(np.zeros((HEIGHT, WIDTH), np.uint16))


def test_a_point_is_chosen_by_name(predictor: Predictor) -> None:
    folder = predictor.bundle.folder
    pictures = [flat(level) for level in (51, 102, 140, 204)]  # 0.2, 0.4, 0.55, 0.8
    expected = {"balanced": 0.5, "sensitivity-90": 0.3, "specificity-90": 0.6}
    for name, threshold in expected.items():
        chosen = Predictor.load(folder, name)
        assert chosen.threshold() == threshold
        answers = list(chosen.predict(pictures))
        assert {(a.operating_point, a.threshold) for a in answers} == {(name, threshold)}
        assert [a.decision == "tumor" for a in answers] == [level >= threshold for level in (0.2, 0.4, 0.55, 0.8)]
        assert [a.uncertain for a in answers] == [False, True, True, False]
    with pytest.raises(BundleError, match=r"no operating point 'best'; it has balanced, sens"):
        Predictor.load(folder, "best")


def test_calibration_comes_between_score_and_threshold(tmp_path: Path) -> None:
    calibration = Calibration(slope=2, intercept=-1)
    doubting = Predictor.load(bundle(tmp_path / "bundle", calibration=calibration).folder)
    assert doubting.score(np.full((HEIGHT, WIDTH), 39321, np.uint16))[0] == pytest.approx(0.6, abs=1e-4)
    assert probability(doubting, flat(153)) == pytest.approx(float(calibration(0.6)), abs=1e-4)


def test_a_bundle_without_a_map_answers_without_one(tmp_path: Path) -> None:
    plain = Predictor.load(bundle(tmp_path / "bundle", outputs=Outputs()).folder)
    (answer,) = plain.predict([flat(51)])
    assert answer.score_map is None
    assert answer.probability == pytest.approx(0.2, abs=1e-4)


def test_a_copied_bundle_answers_alike(predictor: Predictor, tmp_path: Path) -> None:
    shutil.copytree(predictor.bundle.folder, tmp_path / "copy")
    assert probability(Predictor.load(tmp_path / "copy"), flat(77)) == probability(predictor, flat(77))


def test_archives_are_answered_under_their_own_names(
    predictor: Predictor, png: Callable[..., Path], tmp_path: Path
) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.write(png(flat(60)), "x.png")
    gone = Input(archive / "gone.png", archive, (7,))
    answered, missing = predictor.predict([*find_inputs([archive]), gone])
    assert answered.path == archive / "x.png"
    assert f"{archive}/gone.png: cannot be taken out" in str(missing.error)
    assert "mammolens-" not in str(missing.error), "no temporary name is shown"
