import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mammolens.data.sources import download, read_source
from mammolens.errors import DataError, MissingExtra

HANDLE = "hayder17/breast-cancer-detection"


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], None]:
    """Stand in for kagglehub, whose one function talks to the network."""

    def answer(dataset_download: Callable[[str], str]) -> None:
        module = ModuleType("kagglehub")
        module.dataset_download = dataset_download  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "kagglehub", module)

    return answer


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """What kagglehub leaves in its cache."""
    folder = tmp_path / "cache" / "versions" / "1"
    for name in ("train/0/1_2.jpg", "train/1/3_4.jpg"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
    return folder


def test_the_set_is_copied_and_can_be_read(tmp_path: Path, fetched: Path, kaggle: Callable[..., None]) -> None:
    asked = []

    def dataset_download(handle: str) -> str:
        asked.append(handle)
        return str(fetched)

    kaggle(dataset_download)
    out = tmp_path / "new" / "set"
    assert download("kaggle-breast", out) == out
    assert asked == [HANDLE]
    assert [m.label for m in read_source(str(out))] == [0, 1]
    assert [path.name for path in out.parent.iterdir()] == ["set"], "nothing temporary is left"
    assert (fetched / "train/0/1_2.jpg").exists(), "the cache is kagglehub's own"


def test_an_empty_folder_is_filled(tmp_path: Path, fetched: Path, kaggle: Callable[..., None]) -> None:
    kaggle(lambda _: str(fetched))
    (tmp_path / "set").mkdir()
    download("kaggle-breast", tmp_path / "set")
    assert (tmp_path / "set/train/1/3_4.jpg").read_text() == "train/1/3_4.jpg"


def test_what_is_there_is_kept_and_nothing_fetched(tmp_path: Path, kaggle: Callable[..., None]) -> None:
    kaggle(lambda _: pytest.fail("fetched all the same"))
    (tmp_path / "mine.txt").write_text("precious")
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(DataError, match="exists already"):
            download("kaggle-breast", out)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_without_kagglehub_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # import raises ImportError
    with pytest.raises(MissingExtra, match="pip install kagglehub") as caught:
        download("kaggle-breast", tmp_path / "set")
    assert f"unzip it into {tmp_path / 'set'}" in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("bad kaggle.json")])
def test_a_refused_download_says_what_to_do(tmp_path: Path, kaggle: Callable[..., None], error: Exception) -> None:
    def dataset_download(_: str) -> str:
        raise error

    kaggle(dataset_download)
    with pytest.raises(DataError, match=str(error)) as caught:
        download("kaggle-breast", tmp_path / "set")
    for advice in (
        *("Kaggle account settings", "~/.kaggle/kaggle.json", "KAGGLE_USERNAME"),
        *("KAGGLE_KEY", f"https://www.kaggle.com/datasets/{HANDLE}", str(tmp_path / "set")),
    ):
        assert advice in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, fetched: Path, kaggle: Callable[..., None]) -> None:
    (fetched / "train/0/broken.jpg").symlink_to(fetched / "nowhere")  # copytree trips over it
    kaggle(lambda _: str(fetched))
    with pytest.raises(DataError, match="cannot be written"):
        download("kaggle-breast", tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_an_empty_answer_is_refused(tmp_path: Path, kaggle: Callable[..., None]) -> None:
    (tmp_path / "cache").mkdir()
    kaggle(lambda _: str(tmp_path / "cache"))
    with pytest.raises(DataError, match="left no files"):
        download("kaggle-breast", tmp_path / "set")


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no download is called 'ddsm'; known are kaggle-breast"):
        download("ddsm", tmp_path / "set")
