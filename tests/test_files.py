import hashlib
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from mammolens.errors import DataError
from mammolens.files import (
    cache_folder,
    check_new_folder,
    check_writable,
    content_hash,
    folder_written_whole,
    scratch,
    sweep,
    sweep_scratch,
    write_text,
    written_whole,
)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    write_text(path, "first")

    def fail() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half of the sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_colleagues_can_read_what_was_written(tmp_path: Path) -> None:
    write_text(tmp_path / "report.json", "{}")
    assert (tmp_path / "report.json").stat().st_mode & 0o044 == 0o044


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"report\.json: cannot be written here"):
        write_text(tmp_path / "file" / "report.json", "{}")


def test_content_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mammogram")
    assert content_hash(tmp_path / "file") == hashlib.sha256(b"mammogram").hexdigest()


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAMMOLENS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MAMMOLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "mammolens"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mammolens"


def test_a_cache_that_cannot_be_written_says_which_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, locked: Path
) -> None:
    (locked / "cache").mkdir()
    (locked / "cache").chmod(0o500)
    (locked / "file").touch()
    for folder in (locked / "cache", locked / "cache" / "deeper", locked / "file"):
        monkeypatch.setenv("MAMMOLENS_CACHE", str(folder))
        with pytest.raises(DataError, match=rf"{folder}.*: .* Set MAMMOLENS_CACHE to a"):
            check_writable(cache_folder() / "pixels")


@pytest.mark.parametrize("there", [True, False])
def test_a_new_folder_is_made_where_a_link_leads(tmp_path: Path, there: bool) -> None:
    out, target = tmp_path / "link", tmp_path / "elsewhere"
    out.symlink_to(target)
    if there:
        target.mkdir()
    with folder_written_whole(out) as folder:
        folder.mkdir()
        (folder / "file").touch()
    assert out.is_symlink()
    assert [path.name for path in target.iterdir()] == ["file"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_in_a_circle_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(DataError, match="circle: exists already"):
        check_new_folder(tmp_path / "circle")


def test_only_what_writers_left_is_swept(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (".env.template", ".git", ".a.settings", ".x.abcd1234.toml")]
    for path in others:
        path.touch()
    for name in ("report.html", "folder"):
        (tmp_path / f".{name}.part-abcd123_.html").touch()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_cache_that_may_only_be_read_is_not_swept(locked: Path) -> None:
    (locked / "shards").mkdir()
    (locked / "shards" / ".a.part-abcd1234.npy").touch()
    (locked / "shards").chmod(0o500)
    sweep(locked / "shards")
    assert len(list((locked / "shards").iterdir())) == 1


def test_text_of_any_file_name_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "name: b\udcff")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "name: b\\udcff"


def test_scratch_is_for_this_user_alone_and_gone_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import os, signal; from mammolens.app.uploads import Upload, as_inputs\n"
        "with as_inputs(Upload('1', 'jane.png', b'a picture')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.stat().st_mode & 0o077 == 0
    assert (left / "file.png").read_bytes() == b"a picture"
    with scratch() as mine:
        (mine / "file").touch()
        sweep_scratch()
        assert list(tmp_path.iterdir()) == [mine], "that of a living program stays"
    assert list(tmp_path.iterdir()) == []


ENDS_IN_THE_MIDDLE = """
from threading import Event, Thread
from mammolens.files import scratch

def hold():
    with scratch() as folder:
        (folder / "picture.png").touch()
        there.set()
        Event().wait()

there = Event()
Thread(target=hold, daemon=True).start()
there.wait()
"""


def test_scratch_of_a_thread_that_ends_with_the_program_is_gone(tmp_path: Path) -> None:
    """As those of the page do, which dropped pictures lie in."""
    subprocess.run([sys.executable, "-c", ENDS_IN_THE_MIDDLE], check=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_who_works_on_in_scratch_that_is_deleted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    remove = os.rmdir

    def written_meanwhile(path: str, **options: int) -> None:
        with suppress(FileNotFoundError):
            (mine / "late.png").touch()
        remove(path, **options)

    with scratch() as mine:
        monkeypatch.setattr(os, "rmdir", written_meanwhile)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_temporary_can_be_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"no place for temporary files .*TMPDIR"), scratch():
        pass
