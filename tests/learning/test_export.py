import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from PIL import Image

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.errors import BundleError, DataError, RunError
from mammolens.files import write_text
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import Preprocess
from mammolens.learning import onnx_model
from mammolens.learning.export import NO_LICENCE, Card, Evidence, export, export_file, export_run
from mammolens.learning.keras_files import open_keras
from mammolens.learning.networks.folded import Network
from mammolens.learning.onnx_model import as_served, scores_by
from mammolens.learning.runs import RECIPE, Run
from mammolens.learning.training import train
from mammolens.levels import Level
from mammolens.model.age import fit_with_age
from mammolens.model.bundle import Bundle
from mammolens.model.decisions import BALANCED, FIXED, SENSITIVITY_90, SPECIFICITY_90
from mammolens.model.gate import MIN_IMAGES
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.records import Laterality, Mammogram, Split
from mammolens.serving.predictor import Predictor

CARD = Card("mine", "CC0-1.0")
CHOSEN = {BALANCED, SENSITIVITY_90, SPECIFICITY_90}

Saved = Callable[..., Path]


def grey(side: int = 32) -> Network:
    """As many a tutorial has it: grey in, one sigmoid out."""
    return keras.Sequential(
        [
            keras.Input((side, side, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def colour() -> Network:
    """As others have it: colour in, a softmax of two out."""
    return keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax", bias_initializer="glorot_uniform"),
        ]
    )


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Save a network as plain Keras does, and return its path."""
    logging.getLogger("absl").setLevel(logging.ERROR)

    def save(network: Network, name: str = "breast.keras") -> Path:
        network.save(tmp_path / name)
        return tmp_path / name

    return save


def scores(bundle: Bundle, paths: Sequence[Path]) -> NDArray[np.float64]:
    answers = Predictor.load(bundle.folder).predict(paths)
    return np.array([answer.probability for answer in answers], dtype=np.float64)


def listed(manifest: Manifest, path: Path) -> str:
    manifest.save(path)
    return str(path)


def test_a_run_has_a_bundle_that_says_what_it_is(run: Run, phantom_manifest: Manifest) -> None:
    record = Predictor.load(run.folder).bundle.record
    used = phantom_manifest.where(lambda m: m.split is not Split.TEST)
    valid = phantom_manifest.of_split(Split.VALID)
    data = record.training_data
    assert data is not None
    assert (data.images, data.patients) == (len(used), len(set(used.patients)))
    assert data.prevalence == pytest.approx(valid.labels.mean())
    assert data.synthetic
    assert record.preprocess == run.recipe.preprocess
    assert record.outputs.score_map == "score_map"
    assert 0 <= record.parity <= 1e-4
    assert record.default_operating_point == FIXED
    for level in Level:
        assert set(record.operating_points[level]) == {FIXED, *CHOSEN}
    fixed = record.operating_points[Level.IMAGE][FIXED]
    assert fixed.threshold == pytest.approx(float(record.calibration(0.5)))
    assert (fixed.subjects, fixed.patients) == (len(valid), len(set(valid.patients)))
    breasts = record.operating_points[Level.BREAST][BALANCED]
    assert breasts.subjects == len({m.breast_key for m in valid}) == 2 * fixed.patients
    assert {"roc_auc", "average_precision"} <= set(record.metrics)


def test_where_validation_patients_have_ages_there_is_an_answer_with_age(
    run: Run, saved: Saved, tmp_path: Path, phantom_manifest: Manifest
) -> None:
    assert Predictor.load(run.folder).bundle.record.with_age is None, "too few patients"
    listed = enumerate(phantom_manifest.mammograms[:40])
    known = [replace(m, label=(0, 1)[i % 2], patient_id=str(i), split=Split.VALID) for i, m in listed]
    plain = Preprocess.plain().model_copy(update={"height": 32, "width": 32})
    scores, recipe = np.linspace(0, 1, 40), Recipe(preprocess=plain)
    evidence = Evidence("aged", PreparedSet.of(Manifest(tuple(known)), plain), scores=scores)
    network = as_served([open_keras(saved(grey()))], recipe)
    record = export(network, recipe, tmp_path / "aged", CARD, evidence=evidence).record
    assert record.with_age == fit_with_age(evidence.data.manifest, record.calibration(scores), "aged")
    assert record.with_age is not None
    assert (record.with_age.images, record.with_age.patients) == (40, 40)


def test_a_run_exports_anew_at_half_the_size(run: Run, tmp_path: Path, phantom_manifest: Manifest) -> None:
    whole = Predictor.load(run.folder).bundle
    half = export_run(run.folder, tmp_path / "half", CARD, half=True)
    assert 0.45 < len(half.model) / len(whole.model) < 0.6
    paths = phantom_manifest.paths[:4]
    np.testing.assert_allclose(scores(half, paths), scores(whole, paths), atol=5e-3)
    assert (half.record.name, half.record.licence) == ("mine", "CC0-1.0")
    assert half.record.preprocess == whole.record.preprocess
    assert half.record.training_data is not None
    assert whole.record.training_data is not None
    data = whole.record.training_data.model_copy(update={"name": half.record.training_data.name})
    assert half.record.training_data == data
    with pytest.raises(RunError, match="no such run folder"):
        export_run(tmp_path / "gone", tmp_path / "new", CARD)


def test_two_runs_answer_together(run: Run, tmp_path: Path, phantom_manifest: Manifest) -> None:
    changed = run.recipe.model_copy(update={"seed": 1, "epochs": 1})
    other = train(run.manifest, changed, tmp_path / "other")
    both = export_run(run.folder, tmp_path / "both", CARD, others=[other.folder])
    assert both.record.learnt is not None
    assert [one.network for one in both.record.learnt] == ["baseline_cnn"] * 2
    assert Predictor.load(run.folder).bundle.record.learnt == both.record.learnt[:1]
    paths = phantom_manifest.paths[:6]
    logits = [
        np.log(raw / (1 - raw))
        for raw in (
            scores_by(bundle.model, prepared_pixels(paths, run.recipe.preprocess))
            for bundle in (
                both,
                Predictor.load(run.folder).bundle,
                Predictor.load(other.folder).bundle,
            )
        )
    ]
    np.testing.assert_allclose(logits[0], (logits[1] + logits[2]) / 2, atol=1e-3)
    assert both.record.metrics != Predictor.load(run.folder).bundle.record.metrics
    assert scores(both, paths).shape == (6,)
    unlike = run.recipe.model_copy(update={"test_time_flips": True})
    write_text(other.folder / RECIPE, unlike.to_toml())
    with pytest.raises(RunError, match="another test_time_flips"):
        export_run(run.folder, tmp_path / "neither", CARD, others=[other.folder])


def test_runs_of_other_patients_do_not_answer_together(run: Run, tmp_path: Path, phantom_manifest: Manifest) -> None:
    """The one may have learnt from whom the other is calibrated on."""
    gone = next(m.patient_key for m in phantom_manifest if m.split is Split.TRAIN)
    moved = Manifest(tuple(replace(m, split=Split.TEST) if m.patient_key == gone else m for m in phantom_manifest))
    other = train(moved, run.recipe.model_copy(update={"epochs": 1}), tmp_path / "other")
    with pytest.raises(RunError, match="learnt from other images or splits"):
        export_run(run.folder, tmp_path / "both", CARD, others=[other.folder])
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("name", ["breast.h5", "breast.keras"])
def test_a_grey_network_of_plain_keras_answers_as_it_did(
    saved: Saved, name: str, phantom_manifest: Manifest, tmp_path: Path
) -> None:
    network = grey()
    made = export_file(saved(network, name), tmp_path / "bundle", CARD)
    paths = phantom_manifest.paths[:5]
    small = [Image.open(p).resize((32, 32), Image.Resampling.BILINEAR) for p in paths]
    pixels = np.stack([np.asarray(picture, np.float32) / 255 for picture in small])
    expected = network.predict(pixels[..., np.newaxis], verbose=0)[:, 0]
    np.testing.assert_allclose(scores(made, paths), expected, atol=5e-3)
    assert made.record.outputs.score_map == "score_map"


def test_a_colour_network_gets_grey_thrice_and_its_second_output_is_tumor(
    saved: Saved, run: Run, tmp_path: Path
) -> None:
    network = colour()
    made = export_file(saved(network), tmp_path / "bundle", CARD)
    paths = run.manifest.paths[:5]
    pixels = prepared_pixels(paths, Preprocess.plain()).take(range(5))
    expected = network.predict(np.repeat(pixels[..., np.newaxis], 3, axis=-1), verbose=0)[:, 1]
    np.testing.assert_allclose(scores(made, paths), expected, atol=1e-4)
    assert made.record.outputs.score_map == "score_map"
    assert next(Predictor.load(made.folder).answers(paths[:1])).score_map is not None


def test_without_data_a_score_is_shown_as_it_is(saved: Saved, tmp_path: Path) -> None:
    record = export_file(saved(grey()), tmp_path / "bundle", Card("mine")).record
    assert (record.calibration.slope, record.calibration.intercept) == (1, 0)
    assert record.training_data is None
    assert record.gate is None
    assert record.metrics == {}
    assert record.licence == NO_LICENCE
    assert record.default_operating_point == FIXED
    for level in Level:
        (point,) = record.operating_points[level].values()
        assert (point.threshold, point.subjects) == (0.5, 0)
        assert np.isnan(point.sensitivity.value)
    text = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert text["operating_points"]["image"][FIXED]["sensitivity"]["value"] is None


def test_with_data_it_is_calibrated_there(saved: Saved, tmp_path: Path, phantom_manifest: Manifest) -> None:
    data = listed(phantom_manifest, tmp_path / "data.csv")
    record = export_file(saved(grey()), tmp_path / "bundle", CARD, data=data).record
    assert record.default_operating_point == BALANCED
    assert all(set(record.operating_points[level]) == CHOSEN for level in Level)
    valid = phantom_manifest.of_split(Split.VALID)
    probabilities = scores(Predictor.load(tmp_path / "bundle").bundle, valid.paths)
    assert np.mean(probabilities) == pytest.approx(valid.labels.mean(), abs=0.05)
    assert record.gate is not None


@pytest.mark.parametrize("learnt_from", [0, MIN_IMAGES - 1])
def test_data_to_calibrate_on_need_not_be_what_was_learnt_from(
    saved: Saved, tmp_path: Path, phantom_manifest: Manifest, learnt_from: int
) -> None:
    """A gate is fitted on training images: without enough of them there is none."""
    valid = phantom_manifest.of_split(Split.VALID).mammograms
    train = phantom_manifest.of_split(Split.TRAIN).mammograms[:learnt_from]
    data = listed(Manifest((*train, *valid)), tmp_path / "data.csv")
    record = export_file(saved(grey()), tmp_path / "bundle", CARD, data=data).record
    assert record.training_data is not None
    assert record.training_data.images == len(valid) + learnt_from
    assert record.training_data.calibration_only
    assert record.learnt is None
    assert record.gate is None


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (lambda m: m.split is Split.TRAIN, "no labelled validation images"),
        (lambda m: m.split is Split.TRAIN or m.label == 1, "all of one class"),
    ],
)
def test_data_without_a_validation_split_of_both_classes_is_refused(
    saved: Saved,
    tmp_path: Path,
    phantom_manifest: Manifest,
    wanted: Callable[[Mammogram], bool],
    said: str,
) -> None:
    data = listed(phantom_manifest.where(wanted), tmp_path / "data.csv")
    with pytest.raises(DataError, match=said):
        export_file(saved(grey()), tmp_path / "bundle", CARD, data=data)
    assert not (tmp_path / "bundle").exists()


def test_where_every_patient_has_a_tumor_the_breasts_lend_their_thresholds(
    saved: Saved, tmp_path: Path, phantom_manifest: Manifest
) -> None:
    """Patients with a tumor in one breast and none in the other, as many sets have them."""
    chosen = [
        replace(m, patient_id=str(i // 2), laterality=side, split=Split.VALID)
        for label, side in ((0, Laterality.LEFT), (1, Laterality.RIGHT))
        for i, m in enumerate(phantom_manifest.with_label(label).mammograms[:8])
    ]
    manifest = Manifest(tuple(chosen))
    plain = Preprocess.plain().model_copy(update={"height": 32, "width": 32})
    evidence = Evidence("pairs", PreparedSet.of(manifest, plain))
    recipe = Recipe(preprocess=plain, threshold="youden")
    made = export(as_served([open_keras(saved(grey()))], recipe), recipe, tmp_path / "bundle", CARD, evidence=evidence)
    by_level = made.record.operating_points
    assert by_level[Level.PATIENT] == by_level[Level.BREAST] != by_level[Level.IMAGE]


def test_a_network_that_onnx_answers_otherwise_is_not_written(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(grey())
    monkeypatch.setattr(onnx_model, "PARITY", -1.0)
    with pytest.raises(BundleError, match="Nothing was written"):
        export_file(path, tmp_path / "bundle", CARD)
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_answers_in_logits_is_not_written(saved: Saved, tmp_path: Path) -> None:
    path = saved(layered(layers.Flatten(), layers.Dense(1, kernel_initializer="ones")))
    with pytest.raises(BundleError, match=r"probabilities were expected\. End it in a sigmoid"):
        export_file(path, tmp_path / "bundle", CARD)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_holds_something_is_left_alone(saved: Saved, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "thesis.tex"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(DataError, match="mine: exists already"):
        export_file(saved(grey()), mine.parent, CARD)
    assert list(mine.parent.iterdir()) == [mine]


def test_a_recipe_of_another_size_is_refused(saved: Saved, tmp_path: Path) -> None:
    path = saved(grey())
    recipe = read_recipe("baseline", ["preprocess.preset=breast"])
    with pytest.raises(BundleError, match=r"takes 32 x 32 .* --set preprocess\.height=32"):
        export_file(path, tmp_path / "bundle", CARD, recipe)
    fitting = read_recipe("baseline", ["preprocess.preset=breast", "preprocess.height=32", "preprocess.width=32"])
    made = export_file(path, tmp_path / "bundle", CARD, fitting)
    assert made.record.preprocess == fitting.preprocess


def layered(*inner: object, size: tuple[int | None, ...] = (32, 32, 1)) -> Network:
    return keras.Sequential([keras.Input(size), *inner])


def two_inputs() -> Network:
    images = [keras.Input((32, 32, 1)) for _ in range(2)]
    both = layers.Flatten()(layers.Add()(images))
    return keras.Model(images, layers.Dense(1, activation="sigmoid")(both))


WRONG = {
    "three classes": lambda: layered(layers.Flatten(), layers.Dense(3, activation="softmax")),
    "no picture": lambda: layered(layers.Dense(1, activation="sigmoid"), size=(32,)),
    "four channels": lambda: layered(layers.Flatten(), layers.Dense(1), size=(32, 32, 4)),
    "any size": lambda: layered(layers.GlobalAveragePooling2D(), layers.Dense(1), size=(None, None, 1)),
    "a picture out": lambda: layered(layers.Conv2D(1, 3)),
    "two inputs": two_inputs,
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_a_network_of_another_kind_is_refused(saved: Saved, make: Callable[[], Network]) -> None:
    path = saved(make())
    with pytest.raises(BundleError, match=r"breast\.keras: expected .* in|expected one input"):
        open_keras(path)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"no model" * 999])
def test_garbage_is_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"breast{suffix}"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="cannot be opened as a Keras model") as raised:
        open_keras(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(BundleError, match="no such file"):
        open_keras(tmp_path / f"gone{suffix}")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_file_that_holds_code_is_refused_and_the_code_not_run(
    saved: Saved, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("TRACE", str(trace))
    code = layers.Lambda(lambda x: (__import__("os").system('touch "$TRACE"'), x)[1])
    path = saved(layered(code, layers.Flatten(), layers.Dense(1)), f"breast{suffix}")
    trace.unlink()
    with pytest.raises(BundleError, match=r"cannot be opened .*Lambda"):
        open_keras(path)
    assert not trace.exists()
    keras.saving.load_model(path, safe_mode=False)
    assert trace.exists(), "the code would have run"


def test_a_file_that_calls_what_is_not_of_keras_is_refused(saved: Saved, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    config = {"args": ["touch", str(trace)]}
    evil = {"module": "subprocess", "class_name": "Popen", "config": config}
    path = saved(grey())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    model = json.loads(members["config.json"])
    model["config"]["layers"][1] = evil | {"registered_name": "Popen"}
    members["config.json"] = json.dumps(model).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(BundleError, match="cannot be opened"):
        open_keras(path)
    assert not trace.exists()
