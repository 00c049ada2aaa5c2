import io
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mammolens.errors import ImageError
from mammolens.images import MAX_BYTES
from mammolens.inputs import Input, close_archives, find_inputs
from mammolens.reading import read_image
from test_dicom import gradient, mammogram, save


def picture(level: int = 100) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((32, 24), level, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def packed(path: Path, *names: str, content: bytes = b"", method: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, content or picture())
    return path


def patched(path: Path, field: int, form: str, value: int) -> Path:
    """The archive with one number of its first file changed in the directory at its end."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(b"PK\x01\x02") + field, value)
    path.write_bytes(content)
    return path


def names(*paths: Path) -> list[str]:
    return [str(found.name) for found in find_inputs(paths)]


def levels(found: list[Input]) -> list[int]:
    """The grey of each picture, which is the same all over."""
    read = []
    for source in found:
        with source.on_disk() as path:
            read.append(round(255 * float(read_image(path).pixels.mean())))
    return read


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for temporary files, to see what is left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_folder_stands_for_the_images_below_it(tmp_path: Path) -> None:
    kept = ["a/c.JPG", "a/z.tif", "b.png", "c.dcm"]
    for name in (*kept, "a/notes.txt", ".hidden.png", "a/._c.JPG", "DICOMDIR", "empty/readme.md"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    assert names(tmp_path / "set") == [str(tmp_path / "set" / name) for name in kept]


def test_what_is_named_stays_in_its_place_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b.png").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    given_paths = [tmp_path / name for name in ("notes.txt", "gone.png", "empty", "gone.zip")]
    assert names(*given_paths, tmp_path / "set", tmp_path / "set" / "b.png") == [
        *map(str, given_paths),
        *[str(tmp_path / "set" / "b.png")] * 2,
    ]
    assert find_inputs([]) == []


def test_dicom_is_found_without_a_suffix(tmp_path: Path) -> None:
    dataset = mammogram(gradient(12), bits=12)
    (tmp_path / "study").mkdir()
    for name in ("study/IM0001", "study/1.2.840.10008", "study/x.dcm"):
        save(tmp_path / name, dataset)
    (tmp_path / "study" / "README").write_text("not a picture")
    found = find_inputs([tmp_path / "study"])
    assert [source.name.name for source in found] == ["1.2.840.10008", "IM0001", "x.dcm"]
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.write(tmp_path / "study" / "IM0001", "disc/IM0001")
    (source,) = find_inputs([archive])
    with source.on_disk() as path:
        assert read_image(path).format == "DICOM"


def test_an_archive_stands_for_the_images_in_it(tmp_path: Path, temporary: Path) -> None:
    archive = tmp_path / "set" / "views.zip"
    packed(archive, "b/two.png", "a one.png", "notes.txt", "__MACOSX/two.png", "b/._two.png", "b/")
    (tmp_path / "set" / "alone.png").write_bytes(picture(7))
    expected = [tmp_path / "set" / "alone.png", archive / "a one.png", archive / "b" / "two.png"]
    found = find_inputs([tmp_path / "set"])
    assert [source.name for source in found] == expected
    assert levels(found) == [7, 100, 100]
    assert list(temporary.iterdir()) == []


def test_temporary_files_are_gone_when_reading_fails(tmp_path: Path, temporary: Path) -> None:
    (source,) = find_inputs([packed(tmp_path / "a.zip", "x.png", content=b"no image")])
    with pytest.raises(ImageError, match="not an image"):
        levels([source])
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.png", "/evil.png", "a/../../../evil.png"])
def test_no_name_leads_out_of_the_temporary_folder(
    tmp_path: Path, temporary: Path, name: str
) -> None:
    archive = packed(tmp_path / "deep" / "er" / "a.zip", name)
    (source,) = find_inputs([archive])
    assert str(source.name).startswith(str(archive))
    with source.on_disk() as path:
        assert path.read_bytes() == picture()
        assert path.is_relative_to(temporary)
        assert [p for p in tmp_path.rglob("*.png") if p != path] == []
    assert not Path("/evil.png").exists()


def test_an_encrypted_file_says_so(tmp_path: Path) -> None:
    archive = patched(packed(tmp_path / "a.zip", "x.png"), 8, "<H", 1)
    (source,) = find_inputs([archive])
    with pytest.raises(ImageError, match=r"a\.zip/x\.png: .*encrypted.*Unpack it yourself"):
        levels([source])


def test_a_file_over_the_limit_is_not_unpacked(tmp_path: Path, temporary: Path) -> None:
    archive = patched(packed(tmp_path / "a.zip", "x.png"), 24, "<I", MAX_BYTES + 1)
    (source,) = find_inputs([archive])
    with pytest.raises(ImageError, match=r"a\.zip/x\.png: 512 MiB is over the limit of 512 MiB"):
        levels([source])
    assert list(temporary.iterdir()) == []


def test_a_bomb_that_declares_little_gives_little(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", "x.png", content=bytes(10**7))
    assert archive.stat().st_size < 20_000
    (source,) = find_inputs([patched(archive, 24, "<I", 1000)])
    with pytest.raises(ImageError, match=r"cannot be taken out .*CRC"):
        levels([source])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_limit_are_refused(tmp_path: Path, method: int) -> None:
    archive = packed(tmp_path / "a.zip", "x.png", method=method)
    with pytest.raises(ImageError, match="packed by a method other than deflate"):
        levels(find_inputs([archive]))


def test_an_archive_without_images_stays_and_fails(tmp_path: Path) -> None:
    for name, inside, said in (
        ("empty.zip", [], "the archive holds no image. Expected PNG"),
        ("text.zip", ["a.txt"], "the archive holds no image, but 1 other files"),
    ):
        archive = packed(tmp_path / name, *inside)
        assert names(archive) == [str(archive)]
        with pytest.raises(ImageError, match=f"{name}: {said}"):
            levels(find_inputs([archive]))


def test_what_only_calls_itself_an_archive_stays_and_fails(tmp_path: Path) -> None:
    fake = tmp_path / "fake.zip"
    fake.write_bytes(b"no archive")
    assert names(fake, tmp_path) == [str(fake)] * 2


@given(st.lists(st.tuples(st.integers(0, 499), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_archive_gives_rows_that_fail_or_pictures(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    """Whatever is wrong with it: nothing but `ImageError`, and never an empty list."""
    archive = packed(tmp_path_factory.mktemp("damage") / "a.zip", "ü.png", "b/IM1")
    content = bytearray(archive.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    archive.write_bytes(content)
    found = find_inputs([archive])
    assert found
    for source in found:
        try:
            with source.on_disk() as path:
                path.stat()
        except ImageError as error:
            assert str(archive) in str(error)  # noqa: PT017 - not every change does damage
    close_archives()


def test_a_cut_archive_stays_and_fails(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", "a.png", "b.png")
    archive.write_bytes(archive.read_bytes()[:-30])
    assert names(archive) == [str(archive)]


def test_an_archive_made_anew_is_read_anew(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", "x.png", content=picture(10))
    assert levels(find_inputs([archive])) == [10]
    archive.unlink()
    packed(archive, "x.png", content=picture(200))
    assert levels(find_inputs([archive])) == [200]
