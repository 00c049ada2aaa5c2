import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mammolens.errors import ImageError
from mammolens.images import cache
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import Preprocess, as_float
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
