"""The package as users get it: a wheel with `[app]`, in an environment without Keras or PyTorch."""

import csv
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment's folder of programs."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    pip: list[str | Path] = [
        programs / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    constraints = folder / "constraints.txt"  # a folder to be installed has no hash, and pip takes all or none
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    constraints.write_text("\n".join(re.findall(r"^[^\s#][^\\]*", lock, flags=re.MULTILINE)), encoding="utf-8")
    subprocess.run([*pip, "--constraint", constraints, f"{ROOT}[app]"], check=True)
    return programs


def test_no_training_framework_is_there(light: Path) -> None:
    for name in ("keras", "torch", "onnx"):
        done = subprocess.run([light / "python", "-c", f"import {name}"], capture_output=True, check=False)
        assert done.returncode == 1, f"{name} was installed with the base package"


def test_predict_answers_as_the_full_install_does(light: Path, phantoms: Path, tmp_path: Path) -> None:
    paths = sorted(phantoms.rglob("*.jpg"))[:3]
    answers: list[list[dict[str, str]]] = []
    for program in (light / "mammolens", Path(sys.executable).with_name("mammolens")):
        out = tmp_path / f"{len(answers)}.csv"
        # Away from the checkout, so that the installed package answers, not the source.
        subprocess.run([program, "predict", *paths, "--out", out, "--quiet"], check=True, cwd="/")
        with out.open(encoding="utf-8") as stream:
            answers.append(list(csv.DictReader(stream)))
    assert answers[0] == answers[1]
    assert all(row["probability"] for row in answers[0])


SCRIPT = """
import sys
import numpy, pydicom
from PIL import Image
import mammolens

folder, picture = sys.argv[1:]
model = mammolens.load()
data_set = pydicom.Dataset()
for answer in model.predict([picture, folder, numpy.zeros((640, 480)), Image.open(picture), data_set]):
    print(answer.path, answer.probability, answer.error)
print(mammolens.predict(picture).to_frame()["probability"][0])
print(mammolens.examine(folder).images)
try:
    mammolens.train(folder, recipe="baseline", out="runs/x")
except mammolens.MammolensError as error:
    print(error)
print(mammolens.judge([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], "abcd").images.discrimination["roc_auc"].value)
"""


def test_a_plain_script_loads_predicts_examines_and_judges(light: Path, phantoms: Path, tmp_path: Path) -> None:
    """More pictures than one process works on, and no guard."""
    (tmp_path / "script.py").write_text(SCRIPT)
    picture = min(phantoms.rglob("*.jpg"))
    command = [light / "python", tmp_path / "script.py", phantoms, picture]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    *answers, again, images, missing, auc = done.stdout.splitlines()
    assert [line.split()[0] for line in answers[:2]] == [str(picture), str(min(phantoms.rglob("*.jpg")))]
    assert len(answers) == 124
    first = answers[0].split()[1]
    assert answers[-2].split()[1] == again == first
    assert "data set 123" in answers[-1]
    assert "None None" not in answers[-1], "it has an error"
    assert (images, auc) == ("120", "1.0")
    assert "pip install 'mammolens[train]'" in missing


def test_the_page_is_served(light: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [str(light / "mammolens"), "app", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as page:
        try:
            assert _healthy(page, f"http://localhost:{port}/_stcore/health")
        finally:
            page.kill()


def test_training_says_what_to_install(light: Path, phantoms: Path, tmp_path: Path) -> None:
    command = [light / "mammolens", "train", phantoms, "--out", tmp_path / "run"]
    wide = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=wide, check=False)
    assert done.returncode == 1
    assert "pip install 'mammolens[train]'" in done.stderr


def test_a_cluster_says_what_to_install(light: Path, phantoms: Path, tmp_path: Path) -> None:
    command = [light / "mammolens", "predict", phantoms, "--cluster", "local", "--out", tmp_path / "out"]
    wide = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=wide, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "pip install 'mammolens[cluster]'" in done.stderr
    assert not (tmp_path / "out").exists()


def _healthy(page: "subprocess.Popen[bytes]", address: str) -> bool:
    """Ask until the page answers or has ended."""
    deadline = time.monotonic() + 60
    while page.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - localhost
                return bool(answer.read() == b"ok")
        except OSError:
            pass
    return False
