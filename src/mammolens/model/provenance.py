"""What made a model: the code by its commit, libraries by their versions. Knows no network and no data."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_PACKAGES = (
    *("mammolens", "keras", "torch", "tensorflow", "jax", "h5py", "onnx", "onnxruntime", "numpy", "scipy"),
    *("scikit-learn", "pandas", "pillow", "pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg"),
)
"""What pixels, weights, answers and figures are computed with."""


class Provenance(BaseModel):
    """The code and the libraries that a model was made with.

    Attributes:
        commit: of the code, ending in ``-dirty`` where its files differed from it; None where it ran neither
            from a checkout nor as installed from one.
        python: version.
        packages: version of each library that pixels, weights and figures are computed with, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str | None
    python: str
    packages: dict[str, str]


def provenance() -> Provenance:
    """Return what runs now."""
    packages = {name: version for name in _PACKAGES if (version := _version(name))}
    return Provenance(commit=_commit_installed() or _commit_here(), python=sys.version.split()[0], packages=packages)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit_installed() -> str | None:
    """Return the commit that the package was installed from (PEP 610), if it was."""
    try:
        origin = metadata.distribution("mammolens").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    commit = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    return None if commit is None else str(commit)


def _commit_here() -> str | None:
    """Return the commit of the checkout that the package runs from: not of one that its environment lies in."""
    git = shutil.which("git")
    if not git or not _answer(git, "ls-files", Path(__file__).name):
        return None
    # `git describe --dirty` would do in one, but writes into the checkout.
    changed = _answer(git, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return _answer(git, "rev-parse", "HEAD") + "-dirty" * bool(changed)


def _answer(git: str, *arguments: str) -> str:
    command = [git, "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    return done.stdout.strip()
