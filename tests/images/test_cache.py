import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mammolens.errors import ImageError
from mammolens.images import cache
from mammolens.images.cache import prepare, prepared_pixels
from mammolens.images.preprocess import Prepared, Preprocess, as_float
from mammolens.images.reading import read_image

SETTINGS = Preprocess.breast(48, 32)


@pytest.fixture
def images(tmp_path: Path, png: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("MAMMOLENS_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (4, 64, 64), dtype=np.uint8)
    return [png(picture, f"{index}.png") for index, picture in enumerate(pictures)]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(cache, "read_image", refuse)


def test_cached_pixels_equal_fresh_ones_to_the_last_bit(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = [as_float(SETTINGS(read_image(path).pixels).pixels) for path in images]
    np.testing.assert_array_equal(prepared_pixels(images, SETTINGS).take(range(4)), fresh)
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(prepared_pixels(images, SETTINGS).take([2, 0]), fresh[2::-2])


def test_a_renamed_file_is_found_again_and_a_changed_one_is_not(
    images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepared_pixels(images, SETTINGS).take([0])
    renamed = images[0].rename(images[0].with_name("renamed.png"))
    shutil.copy(images[1], images[0])
    after = prepared_pixels([renamed, images[0]], SETTINGS).take([0, 1])
    np.testing.assert_array_equal(after[:1], before)
    assert not np.array_equal(after[1:], before)
    forbid_decoding(monkeypatch)
    with pytest.raises(AssertionError, match="was decoded"):
        prepared_pixels(images, SETTINGS.model_copy(update={"height": 40}))


def test_an_unreadable_file_stops_nothing(images: list[Path]) -> None:
    images[1].write_bytes(images[1].read_bytes()[:100])
    missing = images[0].with_name("missing.png")
    pixels = prepared_pixels([*images, missing], SETTINGS)
    assert [error is None for error in pixels.errors] == [True, False, True, True, False]
    assert str(images[1]) in str(pixels.errors[1])
    assert str(missing) in str(pixels.errors[4])
    with pytest.raises(ImageError, match="damaged"):
        pixels.take([1])
    np.testing.assert_array_equal(pixels.subset([3, 0]).take([0]), pixels.take([3]))


def test_a_file_that_is_written_to_meanwhile_is_kept_under_no_hash(
    images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = images[0].read_bytes()

    def prepare_another(path: Path, preprocess: Preprocess) -> Prepared | str:
        if path == images[0]:
            shutil.copy(images[1], images[0])
        return prepare(path, preprocess)

    monkeypatch.setattr(cache, "prepare", prepare_another)
    assert "written to while it was read" in str(prepared_pixels(images, SETTINGS).errors[0])
    monkeypatch.undo()
    monkeypatch.setenv("MAMMOLENS_CACHE", str(images[0].parent / "cache"))
    images[0].write_bytes(whole)
    fresh = as_float(SETTINGS(read_image(images[0]).pixels).pixels)
    np.testing.assert_array_equal(prepared_pixels(images, SETTINGS).take([0])[0], fresh)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_shards_that_cannot_all_be_open_are_not_taken_for_damaged_ones(
    png: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMOLENS_CACHE", str(tmp_path / "cache"))
    pictures = np.random.default_rng(0).integers(0, 255, (20, 64, 64), dtype=np.uint8)
    paths = [png(picture, f"{index}.png") for index, picture in enumerate(pictures)]
    for path in paths:
        prepared_pixels([path], SETTINGS)
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")}
    ask = (
        "import resource, sys; from pathlib import Path; from mammolens.images.cache import prepared_pixels; "
        "from mammolens.images.preprocess import Preprocess; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)); "
        "prepared_pixels([*map(Path, sys.argv[1:])], Preprocess.breast(48, 32))"
    )
    done = subprocess.run([sys.executable, "-c", ask, *paths], capture_output=True, text=True, check=False)
    assert "DataError" in done.stderr.splitlines()[-1]
    assert "Let this program open more files" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")} == shards


def test_what_is_written_is_not_kept_in_memory(tmp_path: Path) -> None:
    coming: list[weakref.ref[NDArray[np.uint16]]] = []

    def made() -> Iterator[tuple[str, NDArray[np.uint16]]]:
        for number in range(8):
            array = np.full((4, 3), number, dtype=np.uint16)
            coming.append(weakref.ref(array))
            yield f"{number}", array
            del array
            assert sum(one() is not None for one in coming) <= 3

    cache._write_shards(tmp_path, made(), 3)
    held = {
        key: row[0, 0]
        for listing in tmp_path.glob("*.json")
        for key, row in zip(json.loads(listing.read_text())["keys"], np.load(listing.with_suffix(".npy")), strict=True)
    }
    assert held == {f"{number}": number for number in range(8)}


def test_equal_files_are_prepared_once(images: list[Path], tmp_path: Path) -> None:
    twin = tmp_path / "twin.png"
    shutil.copy(images[0], twin)
    pixels = prepared_pixels([images[0], twin], SETTINGS)
    np.testing.assert_array_equal(pixels.take([0]), pixels.take([1]))
    shard = next((tmp_path / "cache").rglob("*.npy"))
    assert np.load(shard).shape == (1, 48, 32)


def test_an_interrupted_writer_leaves_a_cache_that_works(images: list[Path], tmp_path: Path) -> None:
    expected = prepared_pixels(images, SETTINGS).take([0])
    listing = next((tmp_path / "cache").rglob("*.json"))
    listing.unlink()  # the index is written last: without it the pixels do not count
    np.testing.assert_array_equal(prepared_pixels(images, SETTINGS).take([0]), expected)


def test_many_files_go_through_several_processes(phantoms: Path) -> None:
    paths = sorted(phantoms.rglob("*.jpg"))[:40]
    pixels = prepared_pixels(paths, SETTINGS)
    assert pixels.errors == (None,) * 40
    fresh = SETTINGS(read_image(paths[39]).pixels).pixels
    np.testing.assert_array_equal(pixels.take([39])[0], as_float(fresh))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def garble(path: Path) -> None:
    path.write_bytes(b"\xff\x00 not what was here")


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", [cut, flip, garble, Path.unlink, Path.touch, become_a_folder])
def test_a_damaged_shard_is_made_anew(
    images: list[Path], tmp_path: Path, damage: Callable[[Path], None], suffix: str
) -> None:
    """And only what it held: the other shard stays."""
    expected = prepared_pixels(images[:2], SETTINGS).take([0, 1])
    (damaged,) = (tmp_path / "cache").rglob(f"*{suffix}")
    prepared_pixels(images, SETTINGS)
    if damage is Path.touch:
        damaged.write_bytes(b"")
    damage(damaged)
    foreign = [damaged.with_name(name) for name in ("notes.json", "list.json", "readme.txt")]
    for path, text in zip(foreign, ("no JSON", "[1, 2]", ""), strict=True):
        path.write_text(text)
    again = prepared_pixels(images, SETTINGS)
    assert again.errors == (None,) * 4
    np.testing.assert_array_equal(again.take([0, 1]), expected)
    assert all(path.exists() for path in foreign)


def test_what_is_whole_is_not_made_anew(images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = prepared_pixels(images[:2], SETTINGS).take([0, 1])
    prepared_pixels(images, SETTINGS)
    newest = max((tmp_path / "cache").rglob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
    cut(newest)
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(prepared_pixels(images[:2], SETTINGS).take([0, 1]), expected)
    with pytest.raises(AssertionError, match="was decoded"):
        prepared_pixels(images, SETTINGS)
