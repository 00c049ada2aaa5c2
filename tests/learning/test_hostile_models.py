"""No code in a file of a network runs, whichever door it comes in by: proven by the file that it would have written."""

import ast
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pyarrow as pa
import pytest
from hostile import ATTACKS, graph, h5_file, hdf5, keras_file, layer, old_sequence, pickled
from pyarrow import parquet

from mammolens.errors import BundleError, MammolensError, RecipeError, RunError
from mammolens.files import content_hash
from mammolens.judging.predictions import PREDICTIONS, read_predictions
from mammolens.learning.keras_files import open_keras
from mammolens.learning.networks.builders import build
from mammolens.learning.runs import MODEL, Run, RunRecord, latest_state
from mammolens.model.recipe import read_recipe

SOURCE = Path(__file__).parents[2] / "src" / "mammolens"


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_brings_code_along_is_refused_and_the_code_not_run(attack: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = ATTACKS[attack](tmp_path, canary)
    with pytest.raises(
        BundleError, match=r"its layer '(?!network').*(may bring Python code along|is Python code)"
    ) as raised:
        open_keras(path)
    assert str(path) in str(raised.value)
    assert not canary.exists()
    assert keras.src.saving.serialization_lib.in_safe_mode() is None, "safe mode was switched"


def test_the_code_of_an_attack_is_real(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    h5_file(tmp_path / "a.h5", old_sequence(canary), "3.11.0")
    with pytest.raises(ValueError, match="layer"):  # it has no weights; by then the code has run
        keras.saving.load_model(tmp_path / "a.h5", compile=False, safe_mode=False)
    assert canary.exists()


def by_initial_weights(path: Path) -> None:
    build(read_recipe("baseline", [f"initial_weights={path}"]))


def by_a_run(path: Path) -> None:
    path.rename(path.with_name(MODEL))
    told = {"created": "2026", "data": "d", "epochs": 1, "best_epoch": 1, "seconds": 1, "parameters": 1, "images": {}}
    told |= {"left_out": {}, "model_sha256": content_hash(path.with_name(MODEL))}
    Run(path.parent, RunRecord.model_validate(told)).load_network()


@pytest.mark.parametrize(("door", "error"), [(by_initial_weights, RecipeError), (by_a_run, RunError)])
@pytest.mark.parametrize("attack", [name for name in ATTACKS if "Keras 3" in name or "any function" in name])
def test_no_other_door_lets_it_in(
    attack: str, door: Callable[[Path], None], error: type[MammolensError], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(error, match=r"its layer '(?!network').*may bring Python code along"):
        door(ATTACKS[attack](tmp_path, canary))
    assert not canary.exists()


def test_pickled_weights_of_pytorch_are_not_opened(tmp_path: Path) -> None:
    """CVE-2025-32434: what `torch.load` opens may run code, even where weights alone are asked for."""
    canary = tmp_path / "canary"
    path = tmp_path / "weights.pth"
    path.write_bytes(pickled(canary))
    for door, error in ((by_initial_weights, RecipeError), (open_keras, BundleError)):
        with pytest.raises(error, match="neither HDF5"):
            door(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(canary))
    with pytest.raises(RecipeError, match=r"data\.pkl"):
        by_initial_weights(path)
    assert not canary.exists()


class Writes:
    """What writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.canary), "w")


def test_a_checkpoint_with_objects_in_it_is_none(tmp_path: Path) -> None:
    canary, stream = tmp_path / "canary", io.BytesIO()
    record = json.dumps({"key": "k", "threads": 1, "seconds": 1.0, "epochs": []}).encode()
    arrays = {"record": np.frombuffer(record, np.uint8), "network/00000": np.array([Writes(canary)], object)}
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # its own option is no name here
    checksum = hashlib.sha256(stream.getvalue()).hexdigest()
    (tmp_path / f"000001-{checksum}.npz").write_bytes(stream.getvalue())
    assert latest_state(tmp_path, "k") is None
    assert not canary.exists()


def test_a_table_with_a_pickled_type_is_read_as_what_it_stores(tmp_path: Path) -> None:
    """CVE-2023-47248: Arrow unpickled types of columns."""
    canary = tmp_path / "canary"
    told = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickled(canary)}
    columns = {"path": ["a.png"], "label": [1], "probability": [0.5], "admitted": [True]}
    columns |= {name: [None] for name in ("patient_id", "laterality", "view", "split")}
    table = pa.table(columns)
    table = table.cast(table.schema.set(0, pa.field("path", pa.string(), metadata=told)))
    parquet.write_table(table, tmp_path / PREDICTIONS)
    assert read_predictions(tmp_path).probabilities.tolist() == [0.5]
    assert not canary.exists()


def test_no_call_runs_what_it_reads() -> None:
    """And `torch.load` opens nothing but the weights that an installed package brings."""
    calls: set[tuple[str, str]] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                calls.add((ast.unparse(node.func), path.stem))
            if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "safe_mode", "weights_only"}:
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is (node.arg != "allow_pickle"), f"{path}: {ast.unparse(node)}"
    run = {name for name, _ in calls}
    assert run.isdisjoint({"eval", "exec", "marshal.loads", "joblib.load", "pd.read_pickle", "keras.saving.load_model"})
    assert not [name for name in run if name.startswith("pickle.")]
    assert {place for name, place in calls if name == "torch.load"} == {"efficientnet_lite"}


def external(file: h5py.File) -> None:
    (Path(file.filename).parent / "secret").write_bytes(bytes(99))
    file.create_dataset("w", (8,), "f4", external=[(str(Path(file.filename).parent / "secret"), 0, 32)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "w", (8,))
    file.create_virtual_dataset("w", layout)


def linked(file: h5py.File) -> None:
    file["w"] = h5py.ExternalLink("secret.h5", "/w")


def linked_within(file: h5py.File) -> None:
    file["w"] = h5py.SoftLink("/model_weights")


def inflated(file: h5py.File) -> None:
    file.create_dataset("w", (2**40,), "f4", chunks=(2**20,), compression="gzip")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (external, "lies in another file"),
        (virtual, "lies in another file"),
        (linked, "is a link"),
        (linked_within, "is a link"),
        (inflated, "would take 4,398,046,511,104 bytes"),
    ],
)
def test_weights_that_lie_elsewhere_or_are_not_there_are_refused(
    change: Callable[[h5py.File], None], said: str, tmp_path: Path
) -> None:
    """CVE-2026-1669 and CVE-2026-0897."""
    plain = graph(layer("Flatten", {}))
    with pytest.raises(BundleError, match=said):
        open_keras(h5_file(tmp_path / "a.h5", plain, "3.12.0", change))
    if change is not external:
        with pytest.raises(BundleError, match=said):
            open_keras(keras_file(tmp_path / "a.keras", plain, weights=hdf5(change)))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../../outside": b"x"}, "outside"),
        ({"/outside": b"x"}, "outside"),
        ({"assets/code.py": b"x"}, "code.py"),
        ({"model.weights.npz": b"x"}, "npz"),
    ],
)
def test_an_archive_holds_what_plain_layers_need_and_no_more(
    members: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=said):
        open_keras(keras_file(tmp_path / "a.keras", graph(layer("Flatten", {})), members))
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "a.keras", graph(layer("Flatten", {})), weights=bytes(2**25))
    assert path.stat().st_size < 2**16
    with pytest.raises(BundleError, match="would take 33,554,432 bytes"):
        open_keras(path)


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("Dense", {"units": 10**12}, "have .* weights"),
        ("Conv2D", {"filters": 10**9, "kernel_size": [1, 1]}, "have .* weights"),
        ("UpSampling2D", {"size": [10**6, 10**6]}, "too much"),
        ("ZeroPadding2D", {"padding": [[10**6, 10**6], [10**6, 10**6]]}, "too much"),
    ],
)
def test_layers_without_measure_take_no_memory(kind: str, config: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=said):
        open_keras(keras_file(tmp_path / "a.keras", graph(layer(kind, config))))


def test_plain_networks_are_opened_as_before(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 1))
    seen = keras.layers.Conv2D(2, 3, activation="relu", kernel_regularizer="l2")(image)
    seen = keras.ops.relu(keras.layers.BatchNormalization()(seen) * 2 - 1)
    answer = keras.layers.Dense(1, "sigmoid")(keras.ops.mean(seen, (1, 2)))
    network = keras.Model(image, answer)
    network.compile("adam", "binary_crossentropy")
    network.save(tmp_path / "a.keras")
    shown = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    opened = open_keras(tmp_path / "a.keras")
    np.testing.assert_allclose(opened.predict(shown, verbose=0), network.predict(shown, verbose=0), atol=1e-6)
