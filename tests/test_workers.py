"""Processes beside this one: they end, they die, they are interrupted; nothing hangs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

LONG = 120  # seconds after which a command counts as hanging


def test_a_plain_script_needs_no_guard(phantoms: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom mammolens.serving.predictor import Predictor\n"
        "paths = sorted(Path(sys.argv[1]).rglob('*.jpg'))\n"
        "predictor = Predictor.load('phantom')\n"
        "print(next(predictor.answers(paths[:1])).decision is not None)\n"
        "print(sum(answer.decision is not None for answer in predictor.predict(paths[:30])))\n"
    )
    done = subprocess.run(
        [sys.executable, script, phantoms],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["True", "30"], "")


@pytest.fixture(scope="module")
def many(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More pictures than are answered for before a signal comes, as links."""
    folder = tmp_path_factory.mktemp("many") / "train"
    pictures = sorted(phantoms.rglob("*.jpg"))
    for label in "01":
        (folder / label).mkdir(parents=True)
    for number in range(4000):
        (folder / str(number % 2) / f"{number}.jpg").symlink_to(pictures[number % len(pictures)])
    (folder.parent / "valid").symlink_to("train")
    return folder.parent


def children(process: int) -> list[int]:
    threads = Path(f"/proc/{process}/task").glob("*/children")
    try:
        return [int(one) for thread in threads for one in thread.read_text().split()]
    except OSError:  # it has ended meanwhile
        return []


def workers(process: int) -> list[int]:
    """Those of its children that have come so far as to load what they need."""
    begun = [one for one in children(process) if "serve" in told(one, "cmdline")]
    return [one for one in begun if "numpy" in told(one, "maps")]


def at_it(folder: Path, verb: object) -> Callable[[int], object]:
    """Return what tells whether workers are at it; of `predict`, whose first one begins before all else, since when."""
    if verb != "predict":
        return workers
    return lambda process: workers(process) and list(folder.glob(".answers.part-*"))


def told(process: int, what: str) -> str:
    try:
        return Path(f"/proc/{process}/{what}").read_text()
    except OSError:  # it has ended meanwhile
        return ""


def struck(
    command: Sequence[object], moment: Callable[[int], object], strike: Callable[[int], None], cwd: Path
) -> tuple[int, list[str]]:
    """Start mammolens, wait for the moment, strike; return its exit code and what it complained."""
    program = subprocess.Popen(
        [sys.executable, "-m", "mammolens", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
    )
    deadline = time.monotonic() + LONG
    while not moment(program.pid):
        assert program.poll() is None, "ended before the moment came"
        assert time.monotonic() < deadline, "the moment never came"
    helpers = children(program.pid)
    strike(program.pid)
    _, complaints = program.communicate(timeout=LONG)
    assert not [one for one in helpers if Path(f"/proc/{one}").exists()], "a worker is left"
    # Where it came while a string was executed, Python ends by the signal, which shells call 130.
    code = 130 if program.returncode == -signal.SIGINT else program.returncode
    return code, [one for one in complaints.splitlines() if "warning:" not in one]


def interrupt(process: int) -> None:
    os.killpg(process, signal.SIGINT)


def interrupt_all(process: int) -> None:
    for one in (*workers(process), process):
        os.kill(one, signal.SIGINT)


def kill_a_worker(process: int) -> None:
    os.kill(workers(process)[0], signal.SIGKILL)


def interrupted(told: tuple[int, list[str]], folder: Path) -> int:
    """Return the exit code of a batch that said so in one line, and left nothing but its journal, if that."""
    code, (complaint,) = told
    kept = [path.name for path in folder.iterdir()]
    assert complaint.startswith("Interrupted. answers.csv was not written.")
    assert complaint.endswith("answers are kept: go on with --resume." if kept else "written.")
    assert kept in ([], [".answers.csv.journal"])
    return code


PREDICT = ("predict", "{many}", "--model", "phantom", "--quiet", "--out", "answers.csv")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (PREDICT, "Interrupted. answers.csv was not written."),
        (("doctor", "{many}", "--quiet", "--out", "report"), "Interrupted."),
        (("phantom", "made", "--patients", "500", "--quiet"), "Interrupted. made was not written."),
        (
            ("train", "{many}", "--quiet", "--out", "run"),
            "The same mammolens train, with --out run, goes on.",
        ),
    ],
)
def test_ctrl_c_while_workers_are_at_it(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("MAMMOLENS_CACHE", str(tmp_path / "cache"))  # nothing is prepared yet
    typed = [word.format(many=many) for word in command]
    code, complaints = struck(typed, at_it(tmp_path, command[0]), interrupt, tmp_path)
    assert code == 130
    assert len(complaints) == 1, complaints
    assert said in complaints[0]
    assert {path.name for path in tmp_path.rglob(".*")} <= {".answers.csv.journal"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_leave_nothing_half_written_either(many: Path, tmp_path: Path, number: signal.Signals) -> None:
    command: list[object] = [word.format(many=many) for word in PREDICT]
    end = lambda process: os.kill(process, number)  # noqa: E731
    assert interrupted(struck(command, at_it(tmp_path, "predict"), end, tmp_path), tmp_path) == 128 + number


def test_ctrl_c_that_reaches_every_process(many: Path, tmp_path: Path) -> None:
    command: list[object] = [word.format(many=many) for word in PREDICT]
    assert interrupted(struck(command, at_it(tmp_path, "predict"), interrupt_all, tmp_path), tmp_path) == 130


def test_ctrl_c_without_workers(phantoms: Path, tmp_path: Path) -> None:
    pictures = sorted(phantoms.rglob("*.jpg"))[:20]
    command = ["predict", *pictures, "--model", "phantom", "--quiet", "--out", "answers.csv"]
    begun = lambda _: list(tmp_path.glob(".answers.part-*"))  # noqa: E731
    assert interrupted(struck(command, begun, interrupt, tmp_path), tmp_path) == 130


@pytest.mark.parametrize("library", ["_pydantic_core", "onnxruntime", "_multiarray_umath"])
def test_ctrl_c_while_libraries_load(phantoms: Path, tmp_path: Path, library: str) -> None:
    command = ["predict", phantoms, "--model", "phantom", "--quiet", "--out", "answers.csv"]
    loading = lambda process: library in told(process, "maps")  # noqa: E731
    code, complaints = struck(command, loading, interrupt, tmp_path)
    assert code == 130
    assert [line.partition(".")[0] for line in complaints] == ["Interrupted"]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_costs_no_more_than_its_picture(many: Path, tmp_path: Path) -> None:
    pictures = sorted(many.rglob("*.jpg"))[:200]
    command: list[object] = ["predict", *pictures, "--model", "phantom", "--quiet", "--out", "answers.csv"]
    code, complaints = struck(command, workers, kill_a_worker, tmp_path)
    assert complaints == []
    rows = (tmp_path / "answers.csv").read_text().splitlines()[1:]
    lost = [row for row in rows if "decoding broke off (SIGKILL, as systems do when memory runs out)" in row]
    assert len(rows) == len(pictures)
    assert len(lost) <= 1  # none, where it had just answered
    assert code == len(lost)
