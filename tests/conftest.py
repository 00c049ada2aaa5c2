"""What many tests share: real images where there are any, small phantoms, a cache of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammolens.manifest import Manifest
from mammolens.sources import read_source
from mammolens.sources.phantom import write_phantoms

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's cache out of the tests, and the tests out of it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAMMOLENS_CACHE", str(folder))
        yield folder


def _real(name: str) -> Path:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    return folder


@pytest.fixture(scope="session")
def rsna_breast() -> Path:
    return _real("rsna_breast")


@pytest.fixture(scope="session")
def cbis_ddsm_mass() -> Path:
    return _real("cbis_ddsm_mass")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Kaggle-like folder of 120 small synthetic mammograms of 30 patients."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, 30, size=160, seed=3)
    return folder


@pytest.fixture
def phantom_manifest(phantoms: Path) -> Manifest:
    return read_source(str(phantoms))


@pytest.fixture
def png(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as PNG (or by another suffix) and return its path."""

    def write(pixels: np.ndarray, name: str = "image.png", **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
        return path

    return write
