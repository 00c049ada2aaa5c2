import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mammolens.model import provenance as module
from mammolens.model.bundle import BundleRecord, packaged_bundles
from mammolens.model.provenance import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that the package runs from, of one commit."""
    place = Path(shutil.copy(module.__file__, tmp_path))
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        _git(tmp_path, *words)
    monkeypatch.setattr(module, "__file__", str(place))
    return place


def _git(folder: Path, *words: str) -> str:
    someone = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", folder, *someone, *words], capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    commit = _git(checkout.parent, "rev-parse", "HEAD")
    assert provenance().commit == commit
    checkout.write_text("changed")
    assert provenance().commit == f"{commit}-dirty"


def test_the_commit_of_a_project_that_it_is_installed_in_is_not_its_own(checkout: Path) -> None:
    _git(checkout.parent, "rm", "-q", "--cached", checkout.name)
    _git(checkout.parent, "commit", "-q", "--allow-empty", "-m", "two")
    assert provenance().commit is None


def test_bundles_from_before_still_open() -> None:
    for folder in packaged_bundles().values():
        told = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        told.pop("made_with", None)
        assert BundleRecord.model_validate(told).made_with is None
