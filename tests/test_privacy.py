"""What leaves this machine and what stays on it: system calls tell, whoever made them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mammolens.privacy import FOLDERS, SETTINGS

SOURCE = Path(__file__).parents[1] / "src"
STRACE = shutil.which("strace")
FAST = ("-f", "--seccomp-bpf", "-qq")  # other calls do not stop for it
CALLS = "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
NOWHERE = ("/dev/null", "/dev/shm/", "/proc/")  # noqa: S108 - semaphores lie there

ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"')
WRITING = re.compile(r"O_CREAT|O_WRONLY|mkdir|rename|creat\(")  # O_RDWR alone is a lock
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _traceable() -> bool:
    if STRACE is None:
        return False
    done = subprocess.run([STRACE, *FAST, "true"], capture_output=True, check=False)
    return done.returncode == 0


traced = pytest.mark.skipif(not _traceable(), reason="no strace, or it may not trace here")


class Place:
    """A user's machine: an empty home, an empty folder to work in, and what a program did there."""

    def __init__(self, folder: Path) -> None:
        self.home, self.work, self.scratch = (folder / name for name in ("home", "work", "scratch"))
        for made in (self.home, self.work, self.scratch):
            made.mkdir()
        self.trace = folder / "trace.txt"

    def command(self, *arguments: object) -> list[str]:
        strace = [str(STRACE), *FAST, "-o", str(self.trace), "-e", f"trace={CALLS}"]
        return [*strace, sys.executable, *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        """Nothing of this process: where it is a test's, ONNX Runtime holds its tongue."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": str(SOURCE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *arguments: object) -> None:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.work,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def calls(self) -> Iterator[str]:
        """Each call on one line, those too that another thread's cut in two."""
        begun: dict[str, str] = {}
        for line in self.trace.read_text(errors="replace").splitlines():
            process = line.split(maxsplit=1)[0]
            if line.endswith("<unfinished ...>"):
                begun[process] = line
            else:
                yield begun.pop(process, "") + line

    def called(self) -> list[str]:
        """Addresses that were called, but for this machine's own, and any asked for names."""
        found = []
        for line in self.calls():
            for port, address in ADDRESS.findall(line):
                own = address.startswith("127.") or address in {"::1", "::ffff:127.0.0.1"}
                found += [] if own and port != "53" else [line]
        return found

    def written(self) -> set[str]:
        """Files and folders that were made or written to, in none of the folders asked for."""
        found = set()
        asked = (f"{self.work}/", f"{self.scratch}/", f"{self.home}/.cache/mammolens/", *NOWHERE)
        made = {f"{self.home}/.cache", f"{self.home}/.cache/mammolens"}
        for line in self.calls():
            if not WRITING.search(line) or " = -1 " in line:
                continue
            for name in QUOTED.findall(line):
                path = str(self.work / name)
                found |= set() if f"{path}/".startswith(asked) or path in made else {path}
        return found

    def assert_nothing_left_it(self) -> None:
        assert self.called() == []
        assert self.written() == set()
        assert [path.name for path in self.home.iterdir()] in ([], [".cache"])
        assert [path.name for path in self.home.glob(".cache/*")] in ([], ["mammolens"])
        assert list(self.scratch.iterdir()) == []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@traced
def test_the_trace_sees_what_is_sent_and_written(place: Place) -> None:
    script = (
        "import pathlib, socket; pathlib.Path.home().joinpath('.left').write_text('x'); "
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect_ex(('192.0.2.1', 9)); "
        "s.connect(('127.0.0.1', 53)); s.connect(('127.0.0.1', 9))"
    )
    place.run("-c", script)
    assert place.written() == {f"{place.home}/.left"}
    elsewhere, names = place.called()
    assert "192.0.2.1" in elsewhere, "although it fails where there is no network"
    assert "htons(53)" in names, "although it goes to this machine"


@traced
def test_predict_keeps_it_all_here(place: Place, phantoms: Path) -> None:
    options = ["--model", "phantom", "--out", "answers.csv", "--overlay", "heat"]
    place.run("-m", "mammolens", "predict", phantoms / "valid", *options)
    assert (place.work / "answers.csv").is_file()
    place.assert_nothing_left_it()


@pytest.mark.campaign
@traced
def test_train_keeps_it_all_here(place: Place, phantoms: Path) -> None:
    small = ["epochs=1", "preprocess.height=32", "preprocess.width=32"]
    changes = [part for change in small for part in ("--set", change)]
    place.run("-m", "mammolens", "train", phantoms, "--recipe", "quick", *changes, "--out", "run")
    assert (place.work / "run" / "run.json").is_file()
    place.assert_nothing_left_it()


@traced
def test_the_page_keeps_it_all_here(place: Place, phantoms: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'mammolens[dev]'")
    with _served(place) as url, playwright.sync_playwright() as drive:
        browser = drive.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        picture = next(phantoms.rglob("*.jpg"))
        page.locator("input[type=file]").set_input_files(picture)
        page.get_by_text("probability of a tumor").first.wait_for(timeout=60_000)
        browser.close()
    place.assert_nothing_left_it()


@contextmanager
def _served(place: Place) -> Iterator[str]:
    """Serve the page, and end it as Ctrl-C does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = place.command("-m", "mammolens", "app", "--model", "phantom", "--port", port)
    page = subprocess.Popen(
        command,
        cwd=place.work,
        env=place.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_until_open(port, page)
        yield f"http://localhost:{port}"
    finally:
        os.killpg(page.pid, 2)
        page.communicate(timeout=60)


def _wait_until_open(port: int, page: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while page.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
    pytest.fail(f"the page did not start (exit code {page.poll()})")


def test_libraries_are_told_before_they_can_be_imported(tmp_path: Path) -> None:
    names = [*SETTINGS, *FOLDERS]
    told = _after_import(names, {"HOME": str(tmp_path)})
    cache = tmp_path / ".cache" / "mammolens"
    folders = {name: str(cache / folder) for name, folder in FOLDERS.items()}
    assert told == SETTINGS | folders
    assert list(tmp_path.iterdir()) == [], "to be told costs no file"
    elsewhere = _after_import(names, {"MAMMOLENS_CACHE": str(tmp_path / "c")})
    assert elsewhere["KERAS_HOME"] == str(tmp_path / "c" / "keras")


def test_without_a_place_for_a_cache_libraries_find_their_own(tmp_path: Path) -> None:
    """PyTorch could not be imported otherwise."""
    (tmp_path / ".cache").touch()
    environment = {"HOME": str(tmp_path)} | dict.fromkeys(FOLDERS, "")
    script = "import os, mammolens; assert not any(os.environ[n] for n in os.environ['N'].split())"
    environment |= {"N": " ".join(FOLDERS), "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    mine = {"KERAS_BACKEND": "jax", "MPLCONFIGDIR": "/mine", "ORT_DISABLE_TELEMETRY": ""}
    told = _after_import([*mine], mine | {"HOME": str(tmp_path)})
    assert told == mine | {"ORT_DISABLE_TELEMETRY": "1"}, "an empty value says nothing"


def test_no_program_leaves_an_image_of_its_memory() -> None:
    script = (
        "import atexit, resource; from mammolens.cli import main; "
        "atexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_CORE)[0])); main()"
    )
    command = [sys.executable, "-c", script, "--version"]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"


def _after_import(names: list[str], environment: dict[str, str]) -> dict[str, str]:
    script = "import os, mammolens; print(*(os.environ[n] for n in os.environ['NAMES'].split()))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"NAMES": " ".join(names), "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(names, done.stdout.split(), strict=True))
