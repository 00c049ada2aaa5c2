"""What `docs/` shows of the library runs, and names all of it and no more."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mammolens

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_names_what_there_is_and_no_more() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `mammolens\.(\w+)`", page, flags=re.MULTILINE))
    assert named == set(mammolens.__all__)
    for name, arguments in re.findall(r"^## .*`(\w+)\((.*?)\)`$", page, flags=re.MULTILINE):
        taken = mammolens.load.__code__ if name == "load" else getattr(mammolens, name).__code__
        known = taken.co_varnames[: taken.co_argcount + taken.co_kwonlyargcount]
        assert {one.partition("=")[0] for one in arguments.split(", ")} <= set(known), name
    fields = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .*$", page[page.index("A `Prediction` has") :], flags=re.MULTILINE)
    shown = {name for row in fields for name in re.findall(r"`(\w+)`", row)}
    assert shown == set(mammolens.Prediction.__dataclass_fields__)


def test_the_code_of_the_page_runs(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "phantoms").symlink_to(phantoms)
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    known: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 8
    for block in blocks:
        exec(block, known)  # noqa: S102 - our own page


@pytest.mark.campaign
def test_the_tour_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)


def test_the_tour_is_kept_without_what_it_drew() -> None:
    kept = json.loads((DOCS / "tour.ipynb").read_text(encoding="utf-8"))
    for cell in kept["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
