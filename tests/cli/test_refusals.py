"""What the system refuses, verb by verb: one line, exit code 1, and nothing half-written.

Run as typed, in this process.
"""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import brightness
from conftest import Said, Typed
from mammolens.cli import main
from mammolens.cli.options import screen
from mammolens.errors import DataError, MammolensError
from mammolens.files import check_new_folder, written_whole
from mammolens.learning.runs import Run, save_network
from mammolens.locks import folder_held_alone

WRITERS = {
    "phantom": "phantom {place}/made --patients 12 --size 64 --quiet",
    "manifest": "manifest {data} {place}/made.csv",
    "doctor": "doctor {images} --quiet --out {place}/made",
    "doctor --mend": "doctor {data} --quiet --mend {place}/made.csv",
    "preview": "preview {data} {place}/made.png --images 2",
    "deidentify": "deidentify {image} {place}/made --quiet",
    "train": "train {data} --quiet --out {place}/made",
    "reproduce": "reproduce {run} --quiet --out {place}/made",
    "crossvalidate": "crossvalidate {data} --set also_images=0 --quiet --out {place}/made",
    "evaluate": "evaluate {bundle} --quiet --data {data} --out {place}/made",
    "compare": "compare {report} {report} --out {place}/made.json",
    "export": "export {run} {place}/made --quiet",
    "predict": "predict {images} --quiet --model {bundle} --out {place}/made.csv",
    "predict json": "predict {images} --quiet --model {bundle} --out {place}/made.json",
    "predict parquet": "predict {images} --quiet --model {bundle} --out {place}/made.parquet",
    "predict --overlay": "predict {images} --quiet --model {bundle} --overlay {place}/made",
    "show": "show {image} --model {bundle} --out {place}/made.png",
    "demo": "demo {place}/made --patients 20",
}
"""Each verb that writes, and each way it does."""

INTO_FILES = [verb for verb, words in WRITERS.items() if "made." in words]
AT_ONCE = ["compare", "demo", "predict", "predict parquet"]
"""Tried on a disk that is full before they start: the others, on one that becomes full."""


@pytest.fixture(scope="module")
def named(phantoms: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What commands name, by the words of `WRITERS`."""
    return {
        "data": str(phantoms),
        "bundle": str(brightness.bundle(tmp_path_factory.mktemp("refusals") / "bundle").folder),
        "run": str(run.folder),
        "report": str(run.folder / "evaluation" / "test"),
        "images": str(phantoms / "valid"),
        "image": str(min(phantoms.rglob("*.jpg"))),
    }


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of one page: a file can be begun there, and few can be ended."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = _mount(folder, "size=4k")
    if not mounted:
        pytest.skip("only the administrator can make a small disk (mount -t tmpfs)")
    yield folder
    subprocess.run(["umount", folder], check=True)  # noqa: S607


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that may not be written to, whoever asks."""
    folder = tmp_path_factory.mktemp("locked")
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if not _mount(folder, "ro"):
        pytest.skip("nothing is locked to the administrator, and nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)  # noqa: S607


def _mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def typed(verb: str, named: dict[str, str], place: Path) -> list[str]:
    return [word.format(place=place, **named) for word in WRITERS[verb].split()]


def complaint(said: Said) -> str:
    """The one line that is not a warning about the model; the exit code must be 1."""
    lines = [line for line in said.err.splitlines() if not line.startswith("warning: this model")]
    assert said.code == 1, said
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("verb", WRITERS)
def test_a_file_where_a_folder_should_be(mammolens: Typed, named: dict[str, str], tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").write_text("mine")
    said = mammolens(*typed(verb, named, tmp_path / "file"))
    assert f"{tmp_path}/file/" in complaint(said)
    assert "Not a directory" in said.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", [verb for verb, words in WRITERS.items() if "--out {place}/" in words])
def test_no_name_is_not_the_folder_that_one_is_in(
    mammolens: Typed, named: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """As where a variable of a shell is empty."""
    monkeypatch.chdir(tmp_path)
    said = mammolens(*("" if "made" in word else word for word in typed(verb, named, tmp_path)))
    assert said.code in (1, 2), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["train", "crossvalidate", "reproduce"])
def test_a_folder_that_another_process_trains_into(
    mammolens: Typed, named: dict[str, str], tmp_path: Path, verb: str
) -> None:
    with folder_held_alone(tmp_path / "made", DataError("held")):
        assert f"{tmp_path}/made: another process writes here" in complaint(mammolens(*typed(verb, named, tmp_path)))
        assert list((tmp_path / "made").iterdir()) == []
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("verb", WRITERS)
def test_a_locked_folder(mammolens: Typed, named: dict[str, str], locked: Path, verb: str) -> None:
    said = mammolens(*typed(verb, named, locked))
    assert f"{locked}/" in complaint(said)
    assert "Read-only file system" in said.err or "Permission denied" in said.err
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize("verb", INTO_FILES)
def test_a_folder_where_the_file_should_be(mammolens: Typed, named: dict[str, str], tmp_path: Path, verb: str) -> None:
    words = typed(verb, named, tmp_path)
    out = next(Path(word) for word in words if word.startswith(f"{tmp_path}/made"))
    out.mkdir()
    assert f"{out}: is a folder" in complaint(mammolens(*words))
    assert list(tmp_path.rglob("*")) == [out]


@pytest.mark.parametrize("suffix", ["", ".xlsx", ".txt", ".pdf", ".csv.gz", ".abc"])
@pytest.mark.parametrize("verb", INTO_FILES)
def test_an_ending_that_cannot_be_written(
    mammolens: Typed, named: dict[str, str], tmp_path: Path, verb: str, suffix: str
) -> None:
    nowhere = dict.fromkeys(named, "nowhere")  # which would be told first, had any work begun
    words = typed(verb, nowhere, tmp_path)
    endless = [re.sub(r"(/made)\.\w+$", rf"\1{suffix}", word) for word in words]
    assert "expected a name ending in ." in complaint(mammolens(*endless))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [verb for verb in WRITERS if verb not in AT_ONCE])
def test_a_disk_that_becomes_full(mammolens: Typed, named: dict[str, str], disk: Path, verb: str) -> None:
    said = mammolens(*typed(verb, named, disk))
    left = [path.name for path in disk.rglob("*") if path.is_file()]
    for path in sorted(disk.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert "No space left on device" in complaint(said)
    assert str(disk) in said.err
    assert not [name for name in left if name.startswith((".", "made"))]


@pytest.mark.parametrize("verb", AT_ONCE)
def test_a_disk_that_is_full(mammolens: Typed, named: dict[str, str], disk: Path, verb: str) -> None:
    (disk / "theirs").write_bytes(bytes(4096))
    said = mammolens(*typed(verb, named, disk))
    left = [path.name for path in disk.iterdir()]
    (disk / "theirs").unlink()
    assert "No space left on device" in complaint(said)
    assert left == ["theirs"]


def test_a_network_on_a_full_disk_is_an_error_not_the_end_of_the_process(run: Run, disk: Path) -> None:
    with pytest.raises(DataError, match="No space left on device"):
        save_network(run.load_network(), disk / "breast.h5")
    assert list(disk.iterdir()) == []


def test_a_full_cache_is_named_with_what_moves_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch, mammolens: Typed, named: dict[str, str]
) -> None:
    monkeypatch.setenv("MAMMOLENS_CACHE", str(disk))
    assert "MAMMOLENS_CACHE" in complaint(mammolens("manifest", "phantom:12", "data.csv"))
    with (
        pytest.raises(DataError, match=r"is the disk full\?\).* Set MAMMOLENS_CACHE"),
        written_whole(disk / "shard.npy") as path,
    ):
        np.save(path, np.zeros(10_000))
    assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert mammolens("predict", named["image"], "--model", named["bundle"]).code == 0


def test_a_folder_on_which_a_disk_is_mounted_cannot_be_replaced(disk: Path) -> None:
    with pytest.raises(DataError, match=r"a disk is mounted here\. Name a new folder in it"):
        check_new_folder(disk)


def test_a_limit_of_the_size_of_files(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(DataError, match=r"big: cannot be written here \(File too large"),
            written_whole(tmp_path / "big") as path,
        ):
            path.write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "doctor {images} --json --quiet",
        WRITERS["manifest"],
        WRITERS["predict"],
        WRITERS["show"],
    ],
)
def test_standard_output_that_takes_nothing(
    named: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
) -> None:
    typed_words = [word.format(place=tmp_path, **named) for word in words.split()]
    monkeypatch.setattr(sys, "argv", ["mammolens", *typed_words])
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main()
    said = Said(int(ended.value.code or 0), "", capsys.readouterr().err)
    assert "No space left on device" in complaint(said)
    assert not list(tmp_path.rglob(".*"))


def test_a_reader_that_has_read_enough(named: dict[str, str]) -> None:
    command = [sys.executable, "-m", "mammolens", "doctor", named["images"], "--json", "--quiet"]
    piped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert piped.stdout is not None
    piped.stdout.close()
    assert piped.communicate(timeout=120)[1] == b""


def test_a_standard_error_that_takes_nothing() -> None:
    command = [sys.executable, "-m", "mammolens", "show", "nothing"]
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run(command, stderr=full, check=False).returncode == 1


class Full:
    """A standard output that takes nothing until there is room."""

    def __init__(self) -> None:
        self.room, self.taken = False, ""

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        self.taken += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def test_what_could_not_be_printed_does_not_come_out_later(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Full()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(MammolensError, match="standard output: cannot be written"):
        screen.print("the first table")
    out.room = True
    screen.print("the second")
    assert out.taken == "the second\n"


def test_each_data_set_to_learn_from_as_well_is_read_and_needs_a_recipe_for_it(
    mammolens: Typed, phantoms: Path, tmp_path: Path
) -> None:
    beside = ["train", phantoms, "--quiet", "--out", tmp_path / "run", "--also", phantoms]
    for more, said in (
        (["--also", tmp_path / "missing"], "missing: no such folder or file"),
        ([], "one was named: leave --also out"),
    ):
        answer = mammolens(*beside, *more)
        assert answer.code == 1
        assert said in answer.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", [("crossvalidate",), ("tune", "--space", "space.toml")])
def test_what_no_fold_could_judge_is_said_before_any_data_is_read(mammolens: Typed, verb: tuple[str, ...]) -> None:
    answer = mammolens(*verb, "missing", "--recipe", "baseline")
    assert answer.code == 1
    assert "Add --set monitor=nothing --set schedule=one_cycle, and set epochs." in answer.err
