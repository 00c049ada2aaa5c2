"""What is asked of a worker, and what comes back of it."""

import gc
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammolens.data.sources import read_source
from mammolens.errors import DataError, ImageError, reason
from mammolens.files import content_hash
from mammolens.images.reading import read_image
from mammolens.workers import confinement, crew
from mammolens.workers.crew import Crew, apart, start


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) * 20).save(path)
    return path


def test_apart_is_as_here(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = read_image(picture)
    monkeypatch.setattr(confinement, "_inside", True)
    here = read_image(picture)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert (there.format, there.bit_depth, there.warnings) == (here.format, here.bit_depth, here.warnings)


def test_an_error_of_ours_comes_back_as_what_it_is() -> None:
    with pytest.raises(ImageError, match=r"^gone\.png: no such file"):
        read_image(Path("gone.png"))
    with pytest.raises(DataError):
        apart(read_source, "nowhere at all")


def test_an_error_that_nobody_thought_of_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"could not be looked at \(IsADirectoryError.*Export it anew") as told:
        apart(content_hash, tmp_path)
    assert str(told.value).startswith(f"{tmp_path}: ")
    (trace,) = told.value.__notes__
    assert "in content_hash" in trace
    assert str(tmp_path) not in trace  # where it was, and nothing of the file


def test_what_is_not_of_this_package_does_not_travel(picture: Path) -> None:
    with pytest.raises(TypeError, match="does not travel"):
        apart(os.path.getsize, picture)
    with pytest.raises(TypeError, match="does not travel"):
        apart(reason, threading.Lock())
    assert apart(content_hash, picture) == content_hash(picture)  # the worker has not been led astray


def test_a_relative_path_is_of_the_folder_one_is_in(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart(content_hash, picture)
    monkeypatch.chdir(picture.parent)
    assert apart(content_hash, Path(picture.name)) == content_hash(picture)


def test_one_worker_serves_one_file_after_the_other(picture: Path) -> None:
    own = Crew(1)
    own.start("mammolens.files:content_hash")
    (worker,) = own._idle
    for _ in range(3):
        assert own("mammolens.files:content_hash", picture, {})[0] is None
    assert own._idle == [worker]
    own.end()
    assert not worker.is_ready()


def test_a_worker_that_is_ready_is_not_started_again() -> None:
    start()
    start()
    assert len(crew._everyones._all) <= crew._KEPT


def test_workers_are_let_go_without_complaint(picture: Path) -> None:
    own = Crew(1)
    own("mammolens.files:content_hash", picture, {})
    with warnings.catch_warnings(action="error"):
        own.end()
        del own
        gc.collect()


def test_no_file_beside_the_data_is_imported(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy.py", "json.py", "PIL.py"):
        (picture.parent / name).write_text("raise SystemExit('a file of the folder is imported')")
    monkeypatch.chdir(picture.parent)
    own = Crew(1)
    assert own("mammolens.files:content_hash", picture, {})[0] is None
    own.end()


def test_where_there_is_no_seccomp_files_are_read_all_the_same(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyseccomp.py").write_text("raise RuntimeError('Unable to find libseccomp')")
    monkeypatch.syspath_prepend(tmp_path)
    own = Crew(1)
    assert own("mammolens.files:content_hash", picture, {})[0] is None
    own.end()
