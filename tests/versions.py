"""Each door once, on every Python at hand, with lowest and newest versions: `make newest`.

The lock says what else the tests run on: one version of each, on Python 3.11.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
RESOLUTIONS = ("lowest-direct", "highest")

LIBRARY = """
import sys
import mammolens
if __name__ == "__main__":
    answers = mammolens.predict(sys.argv[1], model="phantom").to_frame()
    assert answers["error"].isna().all() and len(answers) == 160, answers
    assert mammolens.judge([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], "abcd").images.discrimination["roc_auc"].value == 1
"""

PAGE = """
import sys
from streamlit.testing.v1 import AppTest
from mammolens.app.server import PAGE
sys.argv = [str(PAGE), "phantom"]
page = AppTest.from_file(str(PAGE), default_timeout=120).run()
page = page.button(key="example 0").click().run()
assert not page.exception, page.exception[0].stack_trace
assert any("m-verdicts" in block.value for block in page.html)
"""

DOORS = (
    ("phantom", "drawn", "--patients", "40", "--size", "256", "--quiet"),
    ("predict", "drawn", "--model", "phantom", "--quiet", "--out", "answers.parquet"),
    ("predict", "drawn", "--model", "phantom", "--quiet", "--level", "exam", "--out", "exams.csv"),
    ("doctor", "drawn", "--quiet", "--out", "doctor"),
    ("preview", "drawn", "preview.png"),
    ("evaluate", "phantom", "--data", "drawn", "--quiet", "--out", "one"),
    (
        "evaluate",
        "phantom",
        "--data",
        "drawn",
        "--split",
        "test",
        "--point",
        "sensitivity-90",
        "--quiet",
        "--out",
        "two",
    ),
    ("compare", "one", "two"),
)
TRAINING = (
    ("train", "drawn", "--recipe", "quick", "--set", "epochs=1", "--quiet", "--out", "run"),
    ("predict", "drawn", "--model", "run", "--quiet", "--out", "learnt.csv"),
)


def tried(python: str, resolution: str, extras: str, folder: Path) -> list[str]:
    """Install the package in a folder, try its doors, and return what went wrong, nothing where all went well."""
    program = folder / ".venv" / "bin" / "python"
    pip: list[str | Path] = ["uv", "pip", "install", "--quiet", "--python", program, "--resolution", resolution]
    for command in (["uv", "venv", "--quiet", "--python", python, folder / ".venv"], [*pip, f"{ROOT}[{extras}]"]):
        if wrong := _wrong([*command], folder):
            return [wrong]
    verbs = (*DOORS, *(TRAINING if "train" in extras else ()))
    doors = [*(("-m", "mammolens", *words) for words in verbs), ("-c", LIBRARY, "drawn"), ("-c", PAGE)]
    wrongs = [_wrong([program, *words], folder) for words in doors]
    wrongs.append(_wrong([program, "-m", "mammolens", "predict", "--no-such"], folder, code=2))
    return [wrong for wrong in wrongs if wrong]


def _wrong(command: list[str | Path], folder: Path, code: int = 0) -> str:
    """Return the command and what it complained of where it ended otherwise than it should."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    words = " ".join(map(str, command[1:]))
    return "" if done.returncode == code else f"{words}\n{done.stderr}"


def _is_here(python: str) -> bool:
    command = ["uv", "python", "find", "--no-python-downloads", "--no-project", python]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Try what was asked for; 1 where anything went wrong."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--extras", default="app", help="app, or train,app: that takes PyTorch, gigabytes on Linux")
    asked.add_argument("--pythons", nargs="+", default=PYTHONS)
    extras, pythons = vars(asked.parse_args()).values()
    failed = 0
    for python in filter(_is_here, pythons):
        for resolution in RESOLUTIONS:
            with tempfile.TemporaryDirectory() as folder:
                wrong = tried(python, resolution, extras, Path(folder))
            print(f"Python {python}, {resolution}: {len(wrong)} doors failed", *wrong, sep="\n", flush=True)  # noqa: T201
            failed += bool(wrong)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
