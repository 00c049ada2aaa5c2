"""A short campaign of hostile files, by seeds: `make fuzz` is the long one."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import targets
from corpus import SEEDS
from mutations import mutated
from targets import TARGETS, Broken, Target, Watch, attempt, is_read

from mammolens.errors import ImageError

FILES = 50


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        targets.here(folder, patch.setattr)
        watch = Watch(folder)
        yield watch
        watch.on = False


@pytest.mark.parametrize("kind", TARGETS)
def test_hostile_files_come_to_an_answer_or_to_an_error_of_ours(kind: str, watch: Watch) -> None:
    form = kind.partition(",")[0]
    folder = Path(watch.folder)
    seeds, random = SEEDS[form](), Random(zlib.crc32(kind.encode()))
    read = [is_read(TARGETS[kind], data, folder) for data in seeds]
    assert all(read) or (kind == "zip" and any(read))
    for _ in range(FILES if "opened" not in kind else 3):
        attempt(TARGETS[kind], mutated(random.choice(seeds), form, seeds, random), folder, watch)


def test_what_breaks_the_rule_is_seen(watch: Watch, tmp_path: Path) -> None:
    """The watch hears of code and of files elsewhere; memory that is not there is no answer."""

    def runs(_: Path) -> None:
        __import__("os").system("true")

    def writes(_: Path) -> None:
        (tmp_path / "elsewhere").write_text("x")

    def fills(_: Path) -> None:
        raise ImageError("image: damaged") from MemoryError()

    def falls(_: Path) -> None:
        raise ZeroDivisionError

    for breaks in (runs, writes, fills):
        with pytest.raises(Broken):
            attempt(Target(breaks, "file"), b"", Path(watch.folder), watch)
    with pytest.raises(ZeroDivisionError):
        attempt(Target(falls, "file"), b"", Path(watch.folder), watch)
