import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import brightness
from mammolens.errors import BundleError, DataError
from mammolens.images.preprocess import Preprocess
from mammolens.learning.runs import Run
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.model.bundle import (
    Bundle,
    BundleRecord,
    Outputs,
    find_bundle,
    open_bundle,
    packaged_bundles,
    write_bundle,
)
from mammolens.model.calibration import Calibration
from mammolens.model.decisions import OperatingPoint
from mammolens.serving.predictor import Predictor

MODEL = b"a graph of known operators " * 9
UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def record(**changes: Any) -> BundleRecord:
    point = OperatingPoint(
        threshold=0.3,
        sensitivity=Estimate(0.9, 0.8, 1),
        specificity=UNKNOWN,
        subjects=9,
        patients=4,
    )
    fields = {
        "name": "mine",
        "created": "2026-01-01T00:00:00+00:00",
        "licence": "CC0-1.0",
        "training_data": None,
        "preprocess": Preprocess.breast(48, 32),
        "outputs": Outputs(score_map="score_map"),
        "calibration": Calibration(slope=0.7, intercept=-1.5),
        "operating_points": {level: {"balanced": point} for level in Level},
        "default_operating_point": "balanced",
        "gate": None,
        "metrics": {"roc_auc": Estimate(0.9, 0.8, 1)},
        "parity": 1e-6,
    }
    return BundleRecord.model_validate(fields | changes)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(record(), MODEL, tmp_path / "bundle")


def changed(folder: Path, **changes: Any) -> Path:
    """The same folder with other fields in its record."""
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_what_was_written_is_what_opens(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder)
    assert opened.model == MODEL
    expected = record().model_copy(update={"files": opened.record.files})
    assert opened.record.model_dump_json() == expected.model_dump_json()
    assert math.isnan(opened.record.operating_points[Level.IMAGE]["balanced"].specificity.value)
    assert {path.name for path in bundle.folder.iterdir()} == {"model.onnx", "bundle.json"}


def test_nothing_is_overwritten(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="exists already"):
        write_bundle(record(), b"other", bundle.folder)
    assert open_bundle(bundle.folder).model == MODEL
    assert list(bundle.folder.parent.iterdir()) == [bundle.folder]


@given(place=st.integers(0, len(MODEL) - 1), bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    folder = write_bundle(record(), MODEL, tmp_path_factory.mktemp("bit") / "bundle").folder
    damaged = bytearray(MODEL)
    damaged[place] ^= 1 << bit
    (folder / "model.onnx").write_bytes(damaged)
    with pytest.raises(BundleError, match=r"bundle/model\.onnx: not the file that was exported"):
        open_bundle(folder)


def test_a_model_that_is_cut_short_or_missing_is_named(bundle: Bundle) -> None:
    (bundle.folder / "model.onnx").write_bytes(MODEL[:-1])
    with pytest.raises(BundleError, match=r"model\.onnx: not the file"):
        open_bundle(bundle.folder)
    (bundle.folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: missing"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 2}, r"bundle\.json: .*schema_version: .*Export it again"),
        ({"code": "import os"}, "code: Extra inputs are not permitted"),
        ({"calibration": {"slope": -1, "intercept": 0}}, r"calibration\.slope: "),
        ({"calibration": {"knots": [[0, 0.2], [1, 0.1]]}}, r"calibration: .*isotonic .* no longer.*Export it again"),
        ({"conformal": {"image": {"alpha": 0.1}}}, r"conformal\.image\.thresholds: Field required"),
        ({"preprocess_version": 99}, "its preprocessing is of version 99"),
        ({"files": {}}, "expected the checksum of model.onnx, no more or less"),
        ({"files": {"model.onnx": "0", "hook.py": "0"}}, "no more or less"),
        ({"files": {"../model.onnx": "0"}}, "no more or less"),
        ({"default_operating_point": "best"}, "the default among them"),
        ({"operating_points": {"image": {}}}, "every level needs the same operating points"),
        ({"operating_points": {"voxel": {}}}, "operating_points"),
        ({"name": None}, "name: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_record_of_another_kind_is_refused(bundle: Bundle, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        open_bundle(changed(bundle.folder, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 10_000])
def test_what_is_no_record_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match="not a bundle"):
        open_bundle(bundle.folder)
    (bundle.folder / "bundle.json").unlink()
    with pytest.raises(BundleError, match=r"not a bundle: it holds no readable bundle\.json"):
        open_bundle(bundle.folder)


def test_a_file_that_is_no_network_is_not_run(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="bundle: its network cannot be opened") as raised:
        Predictor.load(bundle.folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", "pixels"),
        ("outputs", {"probability": "score", "score_map": None}),
        ("outputs", {"probability": "probability", "score_map": "heat"}),
        ("preprocess", Preprocess.breast(32, 48).model_dump(mode="json")),
    ],
)
def test_a_record_of_another_network_is_refused_before_any_answer(tmp_path: Path, field: str, value: object) -> None:
    folder = changed(brightness.bundle(tmp_path / "bundle").folder, **{field: value})
    with pytest.raises(BundleError, match="not what its record says"):
        Predictor.load(folder)


def test_a_bundle_is_found_by_folder_by_run_and_by_name(run: Run, tmp_path: Path) -> None:
    assert find_bundle(run.folder) == find_bundle(str(run.folder)) == run.folder / "bundle"
    assert find_bundle(run.folder / "bundle") == run.folder / "bundle"
    assert find_bundle() == find_bundle("accurate") == packaged_bundles()["accurate"]
    shutil.copytree(run.folder / "bundle", tmp_path / "anywhere")
    assert Predictor.load(tmp_path / "anywhere").bundle.model == Predictor.load(run.folder).bundle.model


def test_every_bundle_that_ships_opens() -> None:
    for name, folder in packaged_bundles().items():
        assert Predictor.load(name).bundle.folder == folder


def test_a_run_has_prediction_sets_at_every_level_and_says_how_it_was_calibrated(run: Run) -> None:
    record = open_bundle(run.folder / "bundle").record
    assert record.calibration.method in json.loads(record.model_dump_json())["calibration"].values()
    for level in Level:
        conformal, points = record.conformal[level], record.operating_points[level]
        assert conformal.alpha == 0.1
        assert sum(conformal.subjects) == points["balanced"].subjects


def test_what_is_no_bundle_is_told_what_to_do(tmp_path: Path) -> None:
    for name in ("breast.h5", "breast.keras", "BREAST.H5"):
        with pytest.raises(BundleError, match=f"{name}: a Keras model.*mammolens export .*{name}"):
            find_bundle(tmp_path / name)
    for name in ("gone", "."):
        with pytest.raises(BundleError, match=r"not a run, a bundle or one of .* \(.*phantom"):
            find_bundle(tmp_path / name)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(BundleError, match="its training did not end"):
        find_bundle(tmp_path)


def test_a_bundle_that_does_not_record_how_it_learnt_opens(bundle: Bundle) -> None:
    path = bundle.folder / "bundle.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told.pop("learnt")
    path.write_text(json.dumps(told), encoding="utf-8")
    assert open_bundle(bundle.folder).record.learnt is None
