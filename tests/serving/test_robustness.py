"""Changes are mild, sure and where they should be; their cost is measured in pairs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from brightness import brightness, bundle, flat, point
from mammolens.data.manifest import Manifest
from mammolens.errors import BundleError, DataError
from mammolens.images.breast import find_breast, thumbnail
from mammolens.images.reading import read_image
from mammolens.judging.schema import Robustness
from mammolens.levels import Level
from mammolens.measures.intervals import estimate, patient_weights
from mammolens.measures.localisation import breast_mask, rank_correlation
from mammolens.measures.metrics import called, roc_auc
from mammolens.model.bundle import write_bundle
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import Mammogram, View
from mammolens.serving.predictor import Predictor
from mammolens.serving.robustness import (
    PERTURBATIONS,
    UNCHANGED,
    auc_under,
    randomised,
    some_patients,
)

Pixels = NDArray[np.float32]


def phantom(number: int = 1, *, inverted: bool = False, right: bool = False) -> Pixels:
    """A mammogram without a marker, 256 high and 200 wide: one thumbnail pixel a pixel."""
    patient = draw_patient(number, 0)
    side = patient.right if right else patient.left
    drawn = draw_view(side, View.CC, size=256, inverted=inverted, marker=False).pixels
    cut = drawn[:, 56:] if right else drawn[:, :200]
    return np.asarray(cut / np.float32(255), dtype=np.float32)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("phantom")


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("inverted", [False, True])
def test_a_change_is_one_and_keeps_the_kind_of_the_picture(name: str, *, inverted: bool) -> None:
    pixels = phantom(inverted=inverted)
    before = pixels.copy()
    changed = PERTURBATIONS[name](pixels)
    assert changed.shape == pixels.shape
    assert changed.dtype == np.float32
    assert 0 <= changed.min() <= changed.max() <= 1
    np.testing.assert_array_equal(pixels, before, "the picture itself is left alone")
    np.testing.assert_array_equal(changed, PERTURBATIONS[name](pixels), "twice the same")
    assert 1e-4 < np.abs(changed - pixels).mean() < 0.15, "a change, and a mild one"


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("shape", [(16, 16), (17, 301), (90, 33)])
def test_any_picture_can_be_changed(name: str, shape: tuple[int, int]) -> None:
    odd = np.random.default_rng(0).random(shape, np.float32)
    for pixels in (odd, np.zeros(shape, np.float32), odd * np.float32(0.06), odd[:, ::-1]):
        changed = PERTURBATIONS[name](pixels)
        assert changed.shape == shape
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.parametrize("name", ["JPEG quality 25", "noise", "marker"])
def test_a_dark_picture_is_changed_as_much_as_a_bright_one(name: str) -> None:
    """12 bits in a file of 16 leave the upper part of the range empty."""
    pixels, scale = phantom(), np.float32(1 / 16)
    dark = PERTURBATIONS[name](pixels * scale) / scale
    bright = PERTURBATIONS[name](pixels)
    assert np.abs(np.minimum(dark, 1) - bright).mean() < 0.01


@pytest.mark.parametrize("right", [False, True])
def test_pictures_turn_about_their_centre_onto_black(*, right: bool) -> None:
    dot = np.zeros((200, 300), np.float32)
    place = (100, 260 if not right else 40)
    dot[place[0] - 3 : place[0] + 3, place[1] - 3 : place[1] + 3] = 1
    turned = PERTURBATIONS["rotation +5 degrees"](dot)
    row = float((np.arange(200) * turned.sum(axis=1)).sum() / turned.sum())
    down = 1 if right else -1
    assert row == pytest.approx(99.5 + down * 110 * np.sin(np.radians(5)), abs=1)
    pixels = phantom(right=right)
    pixels[pixels < 0.05] = 0
    for name in ("rotation +5 degrees", "rotation -5 degrees"):
        changed = PERTURBATIONS[name](pixels)
        assert changed[0, -1 if right else 0] == changed[-1, -1 if right else 0] == 0
        white = PERTURBATIONS[name](pixels.max() - pixels)
        np.testing.assert_allclose(white, pixels.max() - changed, atol=1e-5)
    there = PERTURBATIONS["rotation +5 degrees"](dot)
    back = PERTURBATIONS["rotation -5 degrees"](there)
    assert np.unravel_index(back.argmax(), dot.shape) == pytest.approx(place, abs=4)


def test_greys_change_as_they_are_called() -> None:
    pixels = phantom()
    mean, tissue = pixels.mean(), pixels > 0.3
    changed = {name: change(pixels) for name, change in PERTURBATIONS.items()}
    brighter = changed["brightness +10 %"]
    np.testing.assert_allclose(brighter, np.minimum(1.1 * pixels, 1), atol=1e-6)
    assert (changed["brightness -10 %"] == 0).sum() == (pixels == 0).sum(), "black stays black"
    assert changed["gamma 0.8"][tissue].mean() > pixels[tissue].mean()
    assert changed["gamma 1.25"][tissue].mean() < pixels[tissue].mean()
    assert changed["contrast x 0.8"].std() == pytest.approx(0.8 * pixels.std(), rel=1e-3)
    assert changed["contrast x 1.25"].std() > 1.1 * pixels.std()
    assert changed["contrast x 0.8"].mean() == pytest.approx(mean, rel=1e-3)
    errors = {name: np.abs(changed[name] - pixels).mean() for name in changed}
    assert errors["JPEG quality 25"] > errors["JPEG quality 50"]


def steps(pixels: Pixels) -> float:
    return float(np.abs(np.diff(pixels, axis=0)).mean())


def test_detail_is_lost_by_blur_and_half_resolution_and_won_by_noise() -> None:
    pixels = phantom()
    assert steps(PERTURBATIONS["blur"](pixels)) < 0.95 * steps(pixels)
    assert steps(PERTURBATIONS["half resolution"](pixels)) < 0.8 * steps(pixels)
    grey = np.full((100, 100), 0.5, np.float32)
    grey[0, 0], grey[0, 1] = 0, 1  # the picture's own range
    assert PERTURBATIONS["noise"](grey)[1:].std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_the_marker_lies_on_background_away_from_the_chest_wall(number: int, *, right: bool, inverted: bool) -> None:
    pixels = phantom(number, right=right, inverted=inverted)
    marked = PERTURBATIONS["marker"](pixels)
    letters = marked != pixels
    upright = phantom(number, right=right)
    assert letters.sum() > 20
    breast = find_breast(thumbnail(upright))
    assert breast.chest_wall_right == right
    assert not (letters & breast.mask).any()
    assert upright[letters].max() < 0.1, "where it was black"
    columns = np.flatnonzero(letters.any(axis=0))
    assert columns.max() < 100 if right else columns.min() > 100
    assert set(np.unique(marked[letters])) == {pixels.min() if inverted else pixels.max()}


def test_where_the_breast_leaves_little_room_the_marker_stays_off_it() -> None:
    tissue = np.random.default_rng(0).uniform(0.4, 0.9, (256, 200)).astype(np.float32)
    narrow, low = tissue.copy(), tissue.copy()
    narrow[:, 185:] = 0
    low[128:, 120:] = 0
    for pixels in (narrow, low):
        assert find_breast(thumbnail(pixels)).area > 0.75
        letters = PERTURBATIONS["marker"](pixels) != pixels
        assert letters.any()
        assert not pixels[letters].any()
    rows = np.flatnonzero((PERTURBATIONS["marker"](low) != low).any(axis=1))
    assert rows.min() > 200, "in the lower corner, where there is room"


def unchanged(pixels: Pixels) -> Pixels:
    return pixels


def blackened(pixels: Pixels) -> Pixels:
    return pixels * np.float32(0)


def test_the_identity_costs_nothing_and_black_pictures_cost_all(
    predictor: Predictor, phantom_manifest: Manifest
) -> None:
    some = some_patients(phantom_manifest, 24)
    changes = {"identity": unchanged, "black": blackened, "blur": PERTURBATIONS["blur"]}
    rows = auc_under(predictor, some, changes)
    assert [row.change for row in rows] == [UNCHANGED, "identity", "black", "blur"]
    plain, identity, black, blur = rows
    assert identity.roc_auc == plain.roc_auc
    for row in (plain, identity):
        assert (row.drop.value, row.drop.low, row.drop.high) == (0, 0, 0)
        assert row.decisions_changed.value == 0
        assert (row.images, row.patients) == (24, 6)
    answers = list(predictor.predict(some.paths))
    scores = np.array([answer.probability for answer in answers], dtype=np.float64)
    wanted = estimate(roc_auc(some.labels, scores), patient_weights(some.patients))
    assert plain.roc_auc == wanted, "what the predictor answers for the files"
    assert black.roc_auc.value == 0.5
    assert black.drop.value == pytest.approx(plain.roc_auc.value - 0.5)
    (empty,) = predictor.predict([np.zeros((160, 160), np.uint8)], ungated=True)
    assert empty.probability is not None
    calls = called([*scores, empty.probability], predictor.threshold())
    flipped = np.mean(calls[:-1] != calls[-1])
    assert black.decisions_changed.value == pytest.approx(flipped)
    assert blur.drop.value == pytest.approx(plain.roc_auc.value - blur.roc_auc.value)
    assert Robustness.model_validate_json(blur.model_dump_json()) == blur


def test_every_change_is_answered_for_by_the_predictor_itself(predictor: Predictor, phantom_manifest: Manifest) -> None:
    """Decisions that flip are those that flip when changed pictures are given to `predict`."""
    some = some_patients(phantom_manifest, 8)
    rows = {row.change: row for row in auc_under(predictor, some)}
    pictures = [read_image(path).pixels for path in some.paths]

    def answers(change: Callable[[Pixels], Pixels]) -> list[str | None]:
        return [answer.decision for answer in predictor.predict([change(p) for p in pictures])]

    before = answers(unchanged)
    assert len(rows) == len(PERTURBATIONS) + 1
    for name, change in PERTURBATIONS.items():
        flips = [one != other for one, other in zip(before, answers(change), strict=True)]
        assert rows[name].decisions_changed.value == pytest.approx(np.mean(flips)), name


def test_a_probability_at_the_threshold_is_a_tumor(tmp_path: Path, png: Callable[..., Path]) -> None:
    at_threshold, above = png(flat(51), "a.png"), png(flat(204), "b.png")
    points = {level: {"balanced": point(0.2)} for level in Level}
    known = Predictor.load(bundle(tmp_path / "bundle", operating_points=points).folder)
    manifest = Manifest((Mammogram(at_threshold, 0), Mammogram(above, 1)))
    darker = PERTURBATIONS["brightness -10 %"]
    rows = auc_under(known, manifest, {"identity": unchanged, "darker": darker})
    assert [row.decisions_changed.value for row in rows] == [0, 0, 0.5]
    assert [row.roc_auc.value for row in rows] == [1, 1, 1]


def test_what_has_no_label_or_no_pixels_is_left_out(
    predictor: Predictor, phantom_manifest: Manifest, tmp_path: Path
) -> None:
    some = some_patients(phantom_manifest, 8)
    missing = Mammogram(path=tmp_path / "none.png", label=1, patient_id="p")
    first, *others = some
    mixed = Manifest((missing, replace(first, label=None), *others))
    rows = auc_under(predictor, mixed, {"identity": unchanged})
    assert {row.images for row in rows} == {7}
    assert rows[0].roc_auc == auc_under(predictor, Manifest(tuple(others)), {})[0].roc_auc
    with pytest.raises(DataError, match="nothing to judge"):
        auc_under(predictor, Manifest((missing,)))


def test_a_limit_takes_whole_patients(phantom_manifest: Manifest) -> None:
    some = some_patients(phantom_manifest, 30)
    assert 0 < len(some) <= 30
    for patient in set(some.patients):
        assert some.patients.count(patient) == phantom_manifest.patients.count(patient)
    assert some == some_patients(phantom_manifest, 30)
    places = [phantom_manifest.paths.index(path) for path in some.paths]
    assert places == sorted(places)
    assert some_patients(phantom_manifest, None) == phantom_manifest
    assert some_patients(phantom_manifest, len(phantom_manifest)) == phantom_manifest


@pytest.mark.parametrize("name", ["phantom", "accurate"])
def test_maps_change_when_weights_do(name: str, phantom_manifest: Manifest, tmp_path: Path) -> None:
    """And a second run of the same network gives the same maps."""
    predictor = Predictor.load(name)
    bundle_there = predictor.bundle
    pictures = [read_image(path).pixels for path in phantom_manifest.paths[:6]]
    inside = [breast_mask(pixels) for pixels in pictures]

    def maps(other: Predictor) -> list[Pixels]:
        found = [answer.score_map for answer in other.predict(pictures)]
        return [score_map for score_map in found if score_map is not None]

    before = maps(predictor)
    assert len(before) == len(pictures)
    assert rank_correlation(before, maps(predictor), inside) == pytest.approx(1)
    model = randomised(bundle_there.model)
    assert model == randomised(bundle_there.model)
    other = write_bundle(bundle_there.record, model, tmp_path / "other")
    assert rank_correlation(before, maps(Predictor.load(other.folder)), inside) < 0.8


def weights(model: bytes) -> dict[str, NDArray[np.float32]]:
    graph = onnx.load_from_string(model).graph
    return {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}


def test_kernels_are_drawn_anew(predictor: Predictor) -> None:
    model = predictor.bundle.model
    before, after = weights(model), weights(randomised(model))
    assert {n: (w.shape, w.dtype) for n, w in after.items()} == {n: (w.shape, w.dtype) for n, w in before.items()}
    names = [name for name in before if (before[name] != after[name]).any()]
    for name in names:
        one, other = before[name].astype(np.float64), after[name].astype(np.float64)
        error = 5 * one.std() / np.sqrt(one.size)
        assert other.mean() == pytest.approx(one.mean(), abs=error)
        assert other.std() == pytest.approx(one.std(), abs=error)
    assert len(names) == 8
    assert all(before[name].ndim > 1 for name in names)
    with pytest.raises(BundleError, match="no kernel"):
        randomised(brightness())
