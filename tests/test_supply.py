"""What the environment is made of: every file by its hash, all of it named, and looked up."""

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from audit import verdict

ROOT = Path(__file__).parents[1]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    """What is locked, by name: the version, its marker, and hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    blocks = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)
    return {canonicalize_name(block.partition("==")[0]): block for block in blocks if "==" in block}


def _version(block: str) -> str:
    return re.split(r"[\s;\\]", block.partition("==")[2], maxsplit=1)[0]


def test_every_file_that_is_installed_has_a_hash(lock: dict[str, str]) -> None:
    assert {name for name, block in lock.items() if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block)} == set()


def test_what_the_project_needs_is_locked_in_a_version_that_it_admits(lock: dict[str, str]) -> None:
    extras = PROJECT["optional-dependencies"].values()
    for need in map(Requirement, [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]):
        assert need.specifier.contains(_version(lock[canonicalize_name(need.name)])), need


def test_the_environment_is_what_is_locked(lock: dict[str, str]) -> None:
    for name, block in lock.items():
        marker = re.search(r";(.*?)\\", block)
        if marker is None or Marker(marker[1]).evaluate():
            assert metadata.version(name).partition("+")[0] == _version(block), name


def test_a_file_with_another_hash_is_refused(lock: dict[str, str], tmp_path: Path) -> None:
    block, wrong = lock["iniconfig"], tmp_path / "wrong.lock"
    wrong.write_text(re.sub("sha256:.", lambda m: "sha256:" + "10"[m[0][-1] == "1"], block), encoding="utf-8")
    right = tmp_path / "right.lock"
    right.write_text(block, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", str(tmp_path)]
    assert subprocess.run([*pip, "-r", right], check=False, capture_output=True).returncode == 0
    refused = subprocess.run([*pip, "-r", wrong], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def test_make_installs_by_hash() -> None:
    said = subprocess.run(["make", "-C", ROOT, "-Bn", "install"], check=True, capture_output=True, text=True)  # noqa: S607
    assert "--no-deps --require-hashes --requirement requirements.lock" in said.stdout


@pytest.mark.campaign
def test_the_bill_of_materials_names_all_and_keeps_to_its_schema(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    program = Path(sys.executable).with_name("cyclonedx-py")
    words = ["environment", sys.executable, "--pyproject", str(ROOT / "pyproject.toml"), "--no-validate"]
    subprocess.run([program, *words, "--output-file", str(out)], check=True)
    text = out.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told = json.loads(text)
    assert told["metadata"]["component"]["name"] == PROJECT["name"]
    named = {str(canonicalize_name(one["name"])): str(one["version"]) for one in told["components"]}
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]  # Ray adds others, of what it brings
    there = {str(canonicalize_name(one.metadata["Name"])): one.version for one in metadata.distributions(path=places)}
    assert named | {"mammolens": PROJECT["version"]} == there


CLEAN = {"name": "pillow", "version": "13.0.0", "vulns": []}
HOLE = {"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["13.0.0"]}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}


def test_a_known_hole_fails_the_audit() -> None:
    code, said = verdict([{**CLEAN, "version": "12.0.0", "vulns": [HOLE]}, UNKNOWN])
    assert code == 1
    assert said == [
        "pillow 12.0.0: PYSEC-1 (CVE-2026-1), mended in 13.0.0",
        "1 packages looked up, 1 known vulnerabilities.",
        "Not looked up: torch.",
    ]


def test_an_audit_without_an_answer_does_not_call_itself_one() -> None:
    assert verdict([CLEAN]) == (0, ["1 packages looked up, 0 known vulnerabilities."])
    for nothing in ([], [UNKNOWN]):
        assert verdict(nothing) == (0, ["Not audited: no database of known vulnerabilities answered."])
