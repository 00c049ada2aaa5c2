"""The rules that keep it a house: a light door, small files, true documents. Its floors: `make check`."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from typer.main import get_command

from mammolens.cli import app
from mammolens.model.recipe import Augment, Recipe
from mammolens.reports.pages import GLOSSARY

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mammolens"

SHEDS = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]

ROOMS = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


def test_help_is_light() -> None:
    heavy = ["keras", "torch", "onnxruntime", "pandas", "streamlit", "sklearn", "scipy", "numpy", "pydantic"]
    script = (
        "import sys; from mammolens.cli import app; "
        "app(['--help'], standalone_mode=False); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage" in answer.stdout
    assert answer.stdout.strip().endswith("[]"), answer.stdout.splitlines()[-1]


def test_files_are_short_and_say_what_they_are_for() -> None:
    for path in [*ROOMS, *SHEDS]:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{path} is too long for one look"
        if path in ROOMS:
            assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is for"


def test_a_package_is_seen_at_one_look() -> None:
    packages = Counter(path.parent for path in ROOMS if path.name != "__init__.py")
    assert not {str(package): count for package, count in packages.items() if count > 12}


def test_the_tree_on_the_map_is_the_tree() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page[page.index("\nmammolens/\n") + 1 :].partition("\n```")[0].splitlines()
    drawn, folders = set(), {0: SOURCE}
    for line in tree[1:]:
        depth, name = len(line) - len(line.lstrip()), line.split()[0]
        path = folders[depth - 2] / name
        folders[depth] = path
        if name.endswith(".py"):
            assert path not in drawn, f"{path} is drawn twice"
            drawn.add(path)
    bare = {path for path in ROOMS if path.name == "__init__.py" and path not in drawn}
    assert drawn == {*ROOMS, SOURCE / "__init__.py"} - bare
    assert all(len(ast.parse(path.read_text(encoding="utf-8")).body) == 1 for path in bare), "more than a docstring"


def test_every_verb_and_option_in_readme_and_guide_exists() -> None:
    command = get_command(app)
    verbs = command.commands  # type: ignore[attr-defined]
    pages = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md"))
    shown = re.findall(r"^(?:\$|\.venv/bin/|\$ \.venv/bin/) ?mammolens (\w+)(.*)$", pages, flags=re.MULTILINE)
    assert {verb for verb, _ in shown} == set(verbs), "README and guide show each verb, and no other"
    for verb, rest in shown:
        options = {option for parameter in verbs[verb].params for option in parameter.opts}
        used = set(re.findall(r"--[a-z-]+", rest))
        assert used <= options, f"{verb} has no {used - options}"


def test_every_recipe_field_is_explained() -> None:
    for model in (Recipe, Augment):
        for field in model.model_fields:
            assert f"{field}:" in str(model.__doc__), f"{model.__name__}.{field}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")]:
        for link, place in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            if place:
                titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
                places = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
                assert place in places, f"{page.name}: {link}#{place}"


def test_the_glossary_is_that_of_the_reports() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    written = re.findall(r"^- \*\*(.+?)\.\*\* (.*)$", page, flags=re.MULTILINE)
    assert dict(written) == GLOSSARY
    assert len(written) == 10


def test_the_evidence_cites_what_its_reports_say() -> None:
    page = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    reports = sorted((ROOT / "docs" / "reports").iterdir())
    assert reports
    for folder in reports:
        told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        (row,) = [line for line in page.splitlines() if f"reports/{folder.name}/report.html" in line]
        for level in told["levels"].values():
            auc = level["discrimination"]["roc_auc"]
            assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**auc) in row
        assert "<img" not in (folder / "report.html").read_text(encoding="utf-8"), "a mammogram"
