"""The rules that keep it a house: floors, a light door, small files, true documents."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from mammolens.cli import app
from mammolens.recipe import Augment, Recipe

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mammolens"

# A room imports only from floors below its own, or from rooms named before it on its own floor.
FLOORS = (
    ("errors", "records", "numerals"),
    (
        "files",
        "privacy",
        "workers",
        "parallel",
        "images",
        "tiff",
        "raster",
        "dicom_header",
        "dicom_padding",
        "dicom_shades",
        "dicom_frames",
        "decoding",
        "dicom_pixels",
        "dicom",
        "file_kinds",
        "reading",
        "listing",
        "breast",
        "preprocess",
        "cache",
    ),
    ("phantom_lesions", "phantom"),
    ("csv_table", "meanings", "manifest", "splits", "sources"),
    ("intervals", "metrics", "decisions", "curves", "localisation", "figures", "answers", "doctor"),
    ("recipe", "calibration", "conformal", "triage", "gate", "bundle", "evaluation"),
    (
        "efficientnet_lite",
        "networks",
        "losses",
        "augment",
        "boxes",
        "onnx_model",
        "features",
        "regression",
        "batches",
        "runs",
        "score_maps",
        "keras_2",
        "keras_files",
        "export",
        "callbacks",
        "course",
        "checkpoint",
        "fitting",
        "training",
        "crossvalidation",
        "preview",
        "inputs",
        "overlay",
        "predictor",
        "robustness",
        "assessment",
        "tables",
        "app",
    ),
    ("cli",),
    ("__main__",),
)
LEARNING = {
    "efficientnet_lite",
    "networks",
    "losses",
    "augment",
    "features",
    "regression",
    "batches",
    "runs",
    "score_maps",
    "onnx_model",
    "keras_2",
    "keras_files",
    "export",
    "callbacks",
    "course",
    "checkpoint",
    "fitting",
    "training",
    "crossvalidation",
}
SERVING = {"inputs", "overlay", "predictor", "robustness", "assessment", "app"}
NO_TRAINING_FRAMEWORK = {"keras", "torch", "tensorflow", "jax"}

ROOMS = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, dotted, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_below(path: Path) -> None:
    order = [room for floor in FLOORS for room in floor]
    room = room_of(path)
    assert room in order, f"{room} has no floor: give it one here and in docs/architecture.md"
    inner = {name.split(".")[1] for name in imports_of(path) if name.startswith("mammolens.")}
    above = {name for name in inner if name in order and order.index(name) > order.index(room)}
    assert not above, f"{room} imports {above} from above"


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_learning_rooms_know_a_training_framework(path: Path) -> None:
    room, imported = room_of(path), imports_of(path)
    frameworks = {name.split(".")[0] for name in imported} & NO_TRAINING_FRAMEWORK
    assert room in LEARNING or not frameworks
    inner = {name.split(".")[1] for name in imported if name.startswith("mammolens.")}
    if room in SERVING:
        assert not inner & LEARNING
    if room in LEARNING:
        assert not inner & SERVING


def test_help_is_light() -> None:
    heavy = ["keras", "torch", "onnxruntime", "pandas", "streamlit", "sklearn", "scipy", "numpy"]
    script = (
        "import sys; from mammolens.cli import app; "
        "app(['--help'], standalone_mode=False); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Usage" in answer.stdout
    assert answer.stdout.strip().endswith("[]"), answer.stdout.splitlines()[-1]


def test_files_are_short_and_say_what_they_are_for() -> None:
    for path in [*ROOMS, *(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{path} is too long for one look"
        if path in ROOMS:
            assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is for"


def test_every_room_is_on_the_map() -> None:
    drawn = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in ROOMS:
        name = path.relative_to(SOURCE).as_posix()
        assert f"`{name}`" in drawn, f"{name} is not in docs/architecture.md"


def test_every_verb_and_option_in_the_readme_exists() -> None:
    command = get_command(app)
    verbs = command.commands  # type: ignore[attr-defined]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ mammolens (\w+)(.*)$", readme, flags=re.MULTILINE)
    assert {verb for verb, _ in shown} == set(verbs), "the README shows each verb, and no other"
    for verb, rest in shown:
        options = {option for parameter in verbs[verb].params for option in parameter.opts}
        used = set(re.findall(r"--[a-z-]+", rest))
        assert used <= options, f"{verb} has no {used - options}"


def test_every_recipe_field_is_explained() -> None:
    for model in (Recipe, Augment):
        for field in model.model_fields:
            assert f"{field}:" in str(model.__doc__), f"{model.__name__}.{field}"


def test_the_evidence_cites_what_its_reports_say() -> None:
    page = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    reports = sorted((ROOT / "docs" / "reports").iterdir())
    assert reports
    for folder in reports:
        told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        (row,) = [
            line for line in page.splitlines() if f"reports/{folder.name}/report.html" in line
        ]
        for level in told["levels"].values():
            auc = level["discrimination"]["roc_auc"]
            assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**auc) in row
        assert "<img" not in (folder / "report.html").read_text(encoding="utf-8"), "a mammogram"
