"""What many tests share: real images where there are any, small phantoms, a cache of their own."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# Before mammolens is imported: it then tells other libraries to keep their files there.
os.environ["MAMMOLENS_CACHE"] = tempfile.mkdtemp(prefix="mammolens-tests-")

from mammolens.cli import main
from mammolens.cli.options import screen
from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.data.sources.phantom import write_phantoms
from mammolens.model.recipe import read_recipe
from mammolens.workers import confinement

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from streamlit.testing.v1 import AppTest

    from mammolens.learning.runs import Run
    from mammolens.model.bundle import Bundle

# How long an example takes says nothing about what is tested.
settings.register_profile("mammolens", deadline=None)
settings.load_profile("mammolens")

# Small networks learn no faster with more threads, and ten times slower on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

atexit.register(shutil.rmtree, os.environ["MAMMOLENS_CACHE"], ignore_errors=True)

SHARED = Path(__file__).parents[2] / "shared"

QUICK = ["epochs=2", "preprocess.height=32", "preprocess.width=32", "learning_rate=1e-3"]
"""Changes to a recipe that make it learn in seconds."""


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Typed = Callable[..., Said]


@pytest.fixture(autouse=True, scope="session")
def cache() -> Path:
    """Keep the user's cache out of the tests, and the tests out of it."""
    return Path(os.environ["MAMMOLENS_CACHE"])


@pytest.fixture(autouse=True)
def images_decoded_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `tests/images` decode in this process, so that warnings and changed limits count; apart: `tests/workers`."""
    if request.path.is_relative_to(Path(__file__).parent / "images"):
        monkeypatch.setattr(confinement, "_inside", True)


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    return folder


@pytest.fixture(scope="session")
def rsna_breast() -> Path:
    return _shared("data/rsna_breast")


@pytest.fixture(scope="session")
def cbis_ddsm_mass() -> Path:
    return _shared("data/cbis_ddsm_mass")


@pytest.fixture(scope="session")
def cesm_lesions() -> Path:
    return _shared("data/cesm_lesions")


@pytest.fixture(scope="session")
def cases() -> Path:
    """Small files from elsewhere that were once read wrongly."""
    return _shared("cases")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Kaggle-like folder of 120 small synthetic mammograms of 30 patients."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, 30, size=160, seed=3)
    return folder


@pytest.fixture
def phantom_manifest(phantoms: Path) -> Manifest:
    return read_source(str(phantoms))


@pytest.fixture(scope="session")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A network that learnt from the phantoms for two epochs, with its bundle: look, not touch."""
    from mammolens.learning.training import train  # noqa: PLC0415 - most tests need no Keras

    folder = tmp_path_factory.mktemp("runs") / "quick"
    recipe = read_recipe("baseline", [*QUICK, "preprocess.preset=breast"])
    return train(read_source(str(phantoms)), recipe, folder, command="mammolens train phantoms")


@pytest.fixture(scope="module")
def copied(run: "Run", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a folder that may be touched."""
    return Path(shutil.copytree(run.folder, tmp_path_factory.mktemp("runs") / "copied"))


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder in which the rights of files and folders hold, for the superuser, too."""
    if not hasattr(os, "seteuid"):
        pytest.skip("this system has no such rights")
    top = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - pytest's own folders are for root alone
    with tempfile.TemporaryDirectory(dir=top) as name:
        folder, nobody, me = Path(name), 65534, os.geteuid()
        if me == 0:
            os.chown(folder, nobody, -1)
            os.seteuid(nobody)
        try:
            yield folder
        finally:
            os.seteuid(me)
            folder.chmod(0o700)
            for path in folder.rglob("*"):
                path.chmod(0o700)


@pytest.fixture
def png(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as PNG (or by another suffix) and return its path."""

    def write(pixels: np.ndarray, name: str = "image.png", **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
        return path

    return write


@pytest.fixture
def mammolens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Run the command line as typed, in this process."""
    monkeypatch.setattr(screen, "width", 400)  # so that nothing is folded

    def run_as_typed(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["mammolens", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return run_as_typed


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from browsing import served  # noqa: PLC0415 - skips where there is no browser

    with served(tmp_path_factory.mktemp("page") / "log.txt") as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from browsing import ARGUMENTS, CHROMIUM  # noqa: PLC0415 - likewise
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def bundle() -> "Bundle":
    """The bundle that learnt from drawings such as the page's examples."""
    from mammolens.model.bundle import open_bundle, packaged_bundles  # noqa: PLC0415 - few tests need it

    shipped = packaged_bundles()
    if "phantom" not in shipped:
        pytest.skip("no bundle ships with the package")
    return open_bundle(shipped["phantom"])


@pytest.fixture
def page(bundle: "Bundle", monkeypatch: pytest.MonkeyPatch) -> "AppTest":  # noqa: ARG001 - must exist
    """The page with that bundle, just opened, without a browser."""
    from driving import opened  # noqa: PLC0415 - skips where Streamlit is missing

    return opened(monkeypatch, "phantom")
