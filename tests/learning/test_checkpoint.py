import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mammolens.learning.checkpoint import State, latest, save


def state(epochs: int, key: str = "mine") -> State:
    generator = np.random.default_rng(epochs)
    arrays = {
        "network": (generator.random((2, 3), np.float32), np.array([epochs, -1], np.int32)),
        "optimizer": (np.array(epochs, np.int64),),
    }
    course = tuple({"loss": 0.1 + 0.2 * number, "val_loss": float("nan")} for number in range(epochs))
    return State(key, 3, 1.5, course, arrays)


def assert_same(found: State | None, wanted: State) -> None:
    assert found is not None
    np.testing.assert_equal(asdict(found), asdict(wanted))
    for name, arrays in wanted.arrays.items():
        assert [a.dtype for a in found.arrays[name]] == [a.dtype for a in arrays]


def test_the_last_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert latest(tmp_path / "none", "mine") is None
    for epochs in (0, 9, 10, 11):
        save(state(epochs), tmp_path)
    assert_same(latest(tmp_path, "mine"), state(11))
    assert len(list(tmp_path.iterdir())) == 2


def test_those_of_another_training_do_not_outlast_what_comes(tmp_path: Path) -> None:
    """A new training counts from 0 again, and the newest are kept."""
    for epochs in (8, 9):
        save(state(epochs, "yours"), tmp_path)
    assert latest(tmp_path, "mine") is None
    for epochs in (0, 1):
        save(state(epochs), tmp_path)
        assert_same(latest(tmp_path, "mine"), state(epochs))


@pytest.mark.parametrize("kind", ["text", "archive", "pickle", "other record", "more in the record"])
def test_what_is_whole_and_says_other_things_is_thrown_away(tmp_path: Path, kind: str) -> None:
    save(state(1), tmp_path)
    whole = dict(np.load(next(tmp_path.iterdir())))
    record = json.loads(whole.pop("record").tobytes())
    told = {"more in the record": record | {"schema": 3}}.get(kind, {"epochs": 3})
    content = io.BytesIO()
    whole["record"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    if kind == "pickle":
        whole["record"] = np.array([{}], dtype=object)
    np.savez(content, **whole)
    written = {"text": b"no arrays", "archive": b"PK\3\4 and no more"}.get(kind, content.getvalue())
    path = tmp_path / f"000009-{hashlib.sha256(written).hexdigest()}.npz"
    path.write_bytes(written)
    (tmp_path / "000010-folder.npz").mkdir()
    assert_same(latest(tmp_path, "mine"), state(1))
    assert not path.exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_one_is_thrown_away_and_the_one_before_is_taken(tmp_path: Path, damage: str) -> None:
    for epochs in (1, 2):
        save(state(epochs), tmp_path)
    last = max(tmp_path.iterdir())
    content = last.read_bytes()
    flipped = content[:200] + bytes([content[200] ^ 1]) + content[201:]
    damaged = {"cut": content[:-1], "flip": flipped, "empty": b"", "text": b"not arrays"}
    last.write_bytes(damaged[damage])
    (tmp_path / "latest.weights.h5").touch()  # of another program
    assert_same(latest(tmp_path, "mine"), state(1))
    assert not last.exists()
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"")
    assert latest(tmp_path, "mine") is None
