import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import QUICK
from mammolens.data.manifest import Manifest
from mammolens.errors import DataError, RunError
from mammolens.files import content_hash
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import as_float
from mammolens.images.reading import read_image
from mammolens.judging.predictions import read_predictions
from mammolens.judging.schema import Report
from mammolens.learning.callbacks import EpochLines
from mammolens.learning.runs import Run, open_run
from mammolens.learning.training import check_trainable, train, with_others
from mammolens.levels import Level
from mammolens.measures.metrics import log_loss
from mammolens.model.bundle import open_bundle
from mammolens.model.gate import Likeness, is_admitted, likeness, measured
from mammolens.model.provenance import provenance
from mammolens.model.recipe import Recipe, read_recipe
from mammolens.records import Split
from mammolens.serving.predictor import Predictor


def history(run: Run) -> list[dict[str, str]]:
    with (run.folder / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def report_of(run: Run) -> Report:
    text = (run.folder / "evaluation" / "test" / "report.json").read_text()
    return Report.model_validate_json(text)


def test_a_run_holds_everything_it_promises(run: Run) -> None:
    files = {str(p.relative_to(run.folder)) for p in run.folder.rglob("*") if p.is_file()}
    judged = {"report.json", "report.html", "model-card.md", "predictions.parquet"}
    figures = {file for file in files if "/figures/" in file and file.startswith("evaluation/")}
    assert {Path(file).suffix for file in figures} == {".png", ".svg"}
    assert files - figures == {
        "recipe.toml",
        "manifest.csv",
        "fingerprints.csv",
        "environment.json",
        "history.csv",
        "figures/learning_curves.png",
        "breast.h5",
        "bundle/model.onnx",
        "bundle/bundle.json",
        "run.json",
        *(f"evaluation/{split}/{name}" for split in ("valid", "test") for name in judged),
    }


def test_the_record_says_what_was_done(run: Run, phantom_manifest: Manifest) -> None:
    record = run.record
    assert record.epochs == len(history(run)) == 2
    losses = [float(row["val_loss"]) for row in history(run)]
    assert record.best_epoch == 1 + int(np.argmin(losses))
    assert record.images == {s: len(phantom_manifest.of_split(s)) for s in Split}
    assert record.left_out == {}
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["backend"] == "torch"
    assert environment["command"] == "mammolens train phantoms"
    assert "keras" in environment["packages"]
    with (run.folder / "fingerprints.csv").open() as stream:
        told = {row["path"]: row["sha256"] for row in csv.DictReader(stream)}
    assert told == {str(path): content_hash(path) for path in phantom_manifest.paths}


def test_images_are_let_in_as_they_are_when_they_are_served(run: Run, phantom_manifest: Manifest) -> None:
    gate, phantom = open_bundle(run.folder / "bundle").record.gate, read_image(phantom_manifest.paths[0])
    assert gate is not None
    noise = replace(phantom, pixels=np.random.default_rng(0).random((96, 96), np.float32))
    for known in (gate, gate.model_copy(update={"whole": False}), None):
        images = (phantom, noise, replace(phantom, colour=True))
        found = [is_admitted(measured(image), known) for image in images]
        assert found == [likeness(image, known) is not Likeness.NO_MAMMOGRAM for image in images]
        assert found == [True, known is not gate, False]


def test_the_bundle_and_the_model_card_name_what_made_them(run: Run) -> None:
    record = open_bundle(run.folder / "bundle").record
    assert record.made_with == run.made_with == provenance()
    assert record.learnt
    assert record.learnt[0].made_with == record.made_with
    assert record.training_data
    card = (run.folder / "evaluation" / "test" / "model-card.md").read_text(encoding="utf-8")
    for told in (provenance().packages["keras"], str(provenance().commit), record.training_data.fingerprint):
        assert told in card


def test_a_run_opens_again_as_it_was(run: Run, phantom_manifest: Manifest) -> None:
    opened = open_run(run.folder)
    assert opened == run
    assert opened.recipe == read_recipe("baseline", [*QUICK, "preprocess.preset=breast"])
    assert opened.manifest == phantom_manifest


def test_the_saved_model_and_the_bundle_give_what_was_judged(run: Run) -> None:
    listed, judged, _ = read_predictions(run.folder / "evaluation" / "test")
    paths = listed.paths
    prepared = [run.recipe.preprocess(read_image(path).pixels).pixels for path in paths]
    network, predictor = run.load_network(), Predictor.load(run.folder)
    scores = network.predict(as_float(np.stack(prepared))[..., np.newaxis], verbose=0)[:, 0]
    np.testing.assert_allclose(predictor.bundle.record.calibration(scores), judged, atol=1e-5)
    answers = list(predictor.predict(paths))
    np.testing.assert_allclose([a.probability or 0 for a in answers], judged, atol=1e-4)
    assert listed.paths == run.manifest.of_split(Split.TEST).paths
    report = report_of(run)
    assert report.default_point == "fixed"
    assert report.images.decisions["fixed"].threshold == answers[0].threshold


def test_the_best_weights_are_the_ones_kept(run: Run) -> None:
    valid = run.manifest.of_split(Split.VALID)
    pixels = prepared_pixels(valid.paths, run.recipe.preprocess)
    scores = run.load_network().predict(pixels.take(range(len(valid)))[..., np.newaxis], verbose=0)
    loss = log_loss(valid.labels, scores[:, 0])(np.ones((1, len(valid))))
    best = min(float(row["val_loss"]) for row in history(run))
    assert float(loss[0]) == pytest.approx(best, abs=1e-3)


def test_plain_keras_opens_the_model(run: Run) -> None:
    network = keras.models.load_model(run.folder / "breast.h5")
    assert network.input_shape == (None, 32, 32, 1)
    assert network.compiled


def test_the_same_seed_gives_the_same_history(run: Run, phantom_manifest: Manifest, tmp_path: Path) -> None:
    learnt_from = without(phantom_manifest, Split.TEST)
    again = train(learnt_from, run.recipe, tmp_path / "again")
    assert history(again) == history(run)
    other = run.recipe.model_copy(update={"seed": 1, "epochs": 1})
    assert history(train(learnt_from, other, tmp_path / "other"))[0] != history(run)[0]


def test_options_of_the_recipe_are_obeyed(phantom_manifest: Manifest, tmp_path: Path) -> None:
    changes = [*QUICK, "class_weights=balanced", "threshold=youden", "augment.rotation=10"]
    changes += ["preprocess.preset=breast", "early_stopping_patience=0", "epochs=6"]
    run = train(phantom_manifest, read_recipe("baseline", changes), tmp_path / "run")
    record = open_bundle(run.folder / "bundle").record
    assert record.default_operating_point == "balanced"
    losses = [float(row["val_loss"]) for row in history(run)]
    worse = [later >= earlier for earlier, later in itertools.pairwise(losses)]
    assert True not in worse[:-1], "it should have stopped at the first epoch that was no better"
    decision = report_of(run).images.decisions["balanced"]
    assert decision.threshold == record.operating_points[Level.IMAGE]["balanced"].threshold != 0.5


def test_an_unreadable_image_is_left_out_and_named(phantom_manifest: Manifest, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    first, *others = without(phantom_manifest, Split.TEST).mammograms
    manifest = Manifest((replace(first, path=broken), *others))
    run = train(manifest, read_recipe("baseline", [*QUICK, "epochs=1"]), tmp_path / "run")
    assert list(run.record.left_out) == [str(broken)]
    assert sum(run.record.images.values()) == len(manifest) - 1


def without(manifest: Manifest, split: Split, label: int | None = None) -> Manifest:
    return manifest.where(lambda m: not (m.split is split and (label is None or m.label == label)))


@pytest.mark.parametrize(
    ("split", "label", "said"),
    [
        (Split.TRAIN, None, "no labelled images in split 'train'"),
        (Split.VALID, None, "no labelled images in split 'valid'.*--splits patient"),
        (Split.TRAIN, 1, "split 'train' has 0 images labelled 'tumor'; at least 4"),
        (Split.VALID, 0, "split 'valid' has 0 images labelled 'no tumor'"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_before_any_work(
    phantom_manifest: Manifest, tmp_path: Path, split: Split, label: int | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        train(without(phantom_manifest, split, label), Recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_set_without_a_test_split_can_be_learnt_from(phantom_manifest: Manifest) -> None:
    check_trainable(without(phantom_manifest, Split.TEST), Recipe())


def test_a_complete_run_is_never_overwritten(run: Run, phantom_manifest: Manifest) -> None:
    before = (run.folder / "run.json").read_text()
    with pytest.raises(RunError, match="exists already"):
        train(phantom_manifest, run.recipe, run.folder)
    assert (run.folder / "run.json").read_text() == before


def test_a_network_learns_what_is_there_to_learn(tmp_path: Path, phantom_manifest: Manifest) -> None:
    """Squares burnt into the images of one class must be found at once."""
    marked = []
    upright = phantom_manifest.where(lambda m: m.metadata["inverted"] == "0")
    for number, mammogram in enumerate(upright):
        pixels = np.asarray(Image.open(mammogram.path)).copy()
        label: Literal[0, 1] = 1 if number % 2 else 0
        if label:
            pixels[100:, 60:100] = 255
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        marked.append(replace(mammogram, path=path, label=label))
    changes = [*QUICK, "epochs=15", "batch_size=4", "early_stopping_patience=15"]
    run = train(Manifest(tuple(marked)), read_recipe("baseline", changes), tmp_path / "run")
    assert report_of(run).images.discrimination["roc_auc"].value > 0.95


ONE_CYCLE = [
    *("optimizer=adamw", "schedule=one_cycle", "moving_average=0.9", "monitor=auc"),
    *("label_smoothing=0.1", "test_time_flips=true", "epochs=3", "preprocess.height=32"),
    "augment.vertical_flip=true",
    *("preprocess.width=32", "threshold=youden"),
]


class Interrupted(Exception):  # noqa: N818
    """Somebody pulled the plug."""


# What is interrupted leaves its files open; the rubbish collector remarks on it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_training_goes_on_from_its_last_epoch(
    phantom_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, learnt_from = read_recipe("baseline", ONE_CYCLE), without(phantom_manifest, Split.TEST)

    def pull_the_plug(_: object, epoch: int, _logs: object = None) -> None:
        if epoch == 1:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_epoch_begin", pull_the_plug)
        with pytest.raises(Interrupted):
            train(learnt_from, recipe, tmp_path / "run")
    before = (tmp_path / "run" / "history.csv").read_text().splitlines()
    run = train(learnt_from, recipe, tmp_path / "run")
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert rows[: len(before)] == before
    assert [row["epoch"] for row in history(run)] == ["0", "1", "2"]
    assert not (run.folder / "checkpoint").exists()


def test_without_a_monitor_all_epochs_are_trained_and_the_last_is_kept(
    phantom_manifest: Manifest, tmp_path: Path
) -> None:
    changes = [*QUICK, "epochs=3", "monitor=nothing", "early_stopping_patience=0"]
    run = train(without(phantom_manifest, Split.TEST), read_recipe("baseline", changes), tmp_path / "run")
    assert (run.record.epochs, run.record.best_epoch) == (3, 3)


@pytest.mark.parametrize("frozen", [0, 4])
def test_boxes_are_learnt_from_where_there_are_any(frozen: int, phantom_manifest: Manifest, tmp_path: Path) -> None:
    changes = ["preprocess.height=64", "preprocess.width=32", "initial_weights=none", "epochs=1"]
    recipe = read_recipe("lesions", [*changes, "boxes=1", f"frozen_stages={frozen}", "test_time_flips=false"])
    run = train(without(phantom_manifest, Split.TEST), recipe, tmp_path / "run")
    assert run.load_network().input_shape == (None, 64, 32, 1)
    bare = Manifest(tuple(replace(m, boxes=()) for m in phantom_manifest))
    with pytest.raises(DataError, match="no training image of the data set has a box"):
        train(bare, recipe, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def by_patient(manifest: Manifest) -> tuple[Manifest, Manifest]:
    """Two data sets of one: neither has a patient of the other, and the second is to learn from alone."""
    others = set(sorted(set(manifest.patients) - set(without(manifest, Split.TRAIN).patients))[::3])
    return manifest.where(lambda m: m.patient_key not in others), manifest.where(lambda m: m.patient_key in others)


BESIDE = read_recipe("lesions", ["boxes=1", "also_images=4"])


def test_training_images_of_others_come_beside(phantom_manifest: Manifest) -> None:
    """Of one that has no splits, all that are labelled."""
    main, other = by_patient(phantom_manifest)
    patients = sorted(set(other.patients))
    first = other.where(lambda m: m.patient_key in patients[::2])
    rest = other.where(lambda m: m.patient_key not in patients[::2])
    second = Manifest(tuple(replace(m, split=None) for m in rest))
    together, also = with_others(main, [first, second], BESIDE)
    assert also == {*first.of_split(Split.TRAIN).paths, *second.paths}
    assert together.mammograms[: len(main)] == main.mammograms
    assert {m.path for m in together.mammograms[len(main) :]} == also
    assert all(m.split is Split.TRAIN for m in together if m.path in also)
    assert with_others(main, [], Recipe()) == (main, frozenset())


def test_of_others_the_ill_without_a_box_are_left_out(phantom_manifest: Manifest) -> None:
    main, other = by_patient(phantom_manifest)
    without_boxes = Manifest(tuple(replace(m, boxes=()) for m in other))
    assert other.with_label(1).paths
    assert with_others(main, [without_boxes], BESIDE)[1] == set(other.with_label(0).of_split(Split.TRAIN).paths)


def test_images_of_others_and_a_recipe_that_takes_some_need_one_another(phantom_manifest: Manifest) -> None:
    main, other = by_patient(phantom_manifest)
    with pytest.raises(
        DataError, match=r"4 images are of data sets.* none was named: add --also DATA, or --set also_images=0"
    ):
        with_others(main, [], BESIDE)
    with pytest.raises(DataError, match="one was named: leave --also out, or --set also_images=4 --set boxes=2"):
        with_others(main, [other], Recipe())


def test_others_have_nobody_who_is_judged_and_something_to_learn_from(
    phantom_manifest: Manifest, tmp_path: Path
) -> None:
    main, other = by_patient(phantom_manifest)
    judged = main.of_split(Split.VALID).with_splits(lambda _: Split.TRAIN)
    with pytest.raises(DataError, match="would be learnt from in one data set and judged in the other"):
        train(main, BESIDE, tmp_path / "run", also=[other, judged])
    with pytest.raises(DataError, match="no labelled training images"):
        train(main, BESIDE, tmp_path / "run", also=[other, main.of_split(Split.VALID)])
    assert not (tmp_path / "run").exists()


def test_a_folded_training_beside_others_ends_as_a_run_like_any(phantom_manifest: Manifest, tmp_path: Path) -> None:
    main, other = by_patient(phantom_manifest)
    size = ["preprocess.height=64", "preprocess.width=32", "initial_weights=none", "epochs=1", "frozen_stages=3"]
    changes = [*size, "boxes=1", "also_images=4", "normalisation=folded", "pooling=attention_and_peak"]
    run = train(main, read_recipe("lesions", changes), tmp_path / "run", also=[other])
    assert run.record.images[Split.TRAIN] == len(main.of_split(Split.TRAIN)) + len(other.of_split(Split.TRAIN))
    assert set(run.manifest.of_split(Split.TEST).paths) == set(main.of_split(Split.TEST).paths)
    network = run.load_network()
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert open_bundle(run.folder / "bundle").record.outputs.score_map == "score_map"


def test_others_that_cannot_be_read_are_refused(phantom_manifest: Manifest, tmp_path: Path) -> None:
    main, other = by_patient(phantom_manifest)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    first = other.of_split(Split.TRAIN).mammograms[0]
    unread = Manifest((replace(first, path=broken),))
    size = ["preprocess.height=64", "preprocess.width=32", "initial_weights=none", "epochs=1"]
    recipe = read_recipe("lesions", [*size, "boxes=1", "also_images=4"])
    with pytest.raises(DataError, match="none of the images to learn from as well could be read"):
        train(main, recipe, tmp_path / "run", also=[unread])
