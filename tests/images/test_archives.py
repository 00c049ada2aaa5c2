import gc
import io
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_dicom import gradient, mammogram, save

from mammolens.errors import ImageError
from mammolens.images import archives
from mammolens.images.archives import MAX_DEPTH, Input, close_archives, find_inputs, on_disk
from mammolens.images.image import MAX_BYTES
from mammolens.images.reading import read_image


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


def test_temporary_files_are_gone_when_reading_fails_and_not_named(tmp_path: Path, temporary: Path) -> None:
    (source,) = find_inputs([packed(tmp_path / "a.zip", "two\nlines.png", content=b"no image")])
    with pytest.raises(ImageError, match=r"a\.zip/two\\nlines\.png: not an image"), on_disk(source) as path:
        read_image(path)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.png", "/evil.png", "a/../../../evil.png"])
def test_no_name_leads_out_of_the_temporary_folder(tmp_path: Path, temporary: Path, name: str) -> None:
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
        ("empty.zip", [], "the archive holds no image .nothing is in it.. Expected PNG"),
        ("text.zip", ["a.txt"], "the archive holds no image .others: 1."),
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


@pytest.mark.parametrize("cut", [1, 10, 30, 60, 100, 150])
def test_a_cut_archive_is_not_taken_for_one_within(tmp_path: Path, cut: int) -> None:
    inner = ("in.zip", inside(("x.png", picture())))
    content = inside(inner, ("b.png", picture()))
    (tmp_path / "a.zip").write_bytes(content[:-cut])
    assert names(tmp_path / "a.zip") == [str(tmp_path / "a.zip")]
    with pytest.raises(ImageError, match=r"a\.zip: the archive is damaged, cut short or locked"):
        levels(find_inputs([tmp_path / "a.zip"]))
    (tmp_path / "b.exe.zip").write_bytes(b"MZ program" + content)
    assert len(find_inputs([tmp_path / "b.exe.zip"])) == 2


def test_an_archive_made_anew_is_read_anew(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", "x.png", content=picture(10))
    assert levels(find_inputs([archive])) == [10]
    archive.unlink()
    packed(archive, "x.png", content=picture(200))
    assert levels(find_inputs([archive])) == [200]


def inside(*members: tuple[str, bytes]) -> bytes:
    """An archive as bytes; names may stand in it twice."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def written(path: Path, *members: tuple[str, bytes]) -> Path:
    path.write_bytes(inside(*members))
    return path


def test_files_of_one_name_in_an_archive_each_have_their_own_content(tmp_path: Path) -> None:
    members = [("s.png", picture(20)), ("s.png", picture(200)), ("s (2).png", picture(90))]
    archive = written(tmp_path / "dup.zip", *members, ("./s.png", picture(70)))
    found = find_inputs([archive])
    assert len({one.name for one in found}) == 4
    by_name = dict(zip((one.name.name for one in found), levels(found), strict=True))
    assert by_name["s.png"] == 20
    assert sorted(by_name.values()) == [20, 70, 90, 200]


def test_archives_in_archives_are_opened(tmp_path: Path, temporary: Path) -> None:
    deepest = inside(("d.png", picture(40)))
    inner = inside(("c.png", picture(30)), ("deepest.zip", deepest), ("notes.txt", b""))
    archive = written(tmp_path / "a.zip", ("inner.zip", inner), ("b.png", picture(20)), ("x/inner.ZIP", inner))
    found = find_inputs([archive])
    assert [str(one.name.relative_to(archive)) for one in found] == [
        *("b.png", "inner.zip/c.png", "inner.zip/deepest.zip/d.png"),
        *("x/inner.ZIP/c.png", "x/inner.ZIP/deepest.zip/d.png"),
    ]
    assert levels(found) == [20, 30, 40, 30, 40]
    close_archives()
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_an_archive_that_lies_too_deep_is_a_row_that_fails(tmp_path: Path) -> None:
    content = inside(("x.png", picture()))
    for depth in range(MAX_DEPTH):
        content = inside((f"{depth}.zip", content), (f"{depth}.png", picture(depth)))
    (tmp_path / "a.zip").write_bytes(content)
    found = find_inputs([tmp_path / "a.zip"])
    (refused,) = [one for one in found if one.problem]
    assert len(found) == MAX_DEPTH + 1
    with pytest.raises(ImageError, match=r"0\.zip: lies in 3 archives. Unpack it yourself"):
        levels([refused])


def test_more_archives_than_the_limit_are_rows_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ARCHIVES", 3)
    one = inside(("x.png", picture()))
    archive = written(tmp_path / "a.zip", *((f"{n}.zip", one) for n in range(6)))
    found = find_inputs([archive])
    assert len(found) == 6
    assert [one.problem is None for one in found] == [True] * 3 + [False] * 3


def test_archives_that_unpack_without_end_are_rows_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED", 2**20)
    one = bytes(2**19) + inside(("x.png", picture()))  # half a megabyte of nothing before it
    found = find_inputs([packed(tmp_path / "a.zip", *(f"{number}.zip" for number in range(4)), content=one)])
    assert [one.problem is None for one in found] == [True] + [False] * 3
    assert str(found[-1].problem).endswith("a.zip unpack to far more than it has. Unpack it yourself.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "the archive is damaged, cut short or locked"),
        (inside(("x.png", picture()))[:-30], "the archive is damaged, cut short or locked"),
        (b"", "the archive is damaged, cut short or locked"),
        (inside(("x.txt", b"")), "the archive holds no image .others: 1."),
    ],
)
def test_a_bad_archive_in_an_archive_is_a_row_that_fails(tmp_path: Path, content: bytes, said: str) -> None:
    archive = written(tmp_path / "a.zip", ("in.zip", content), ("b.png", picture(5)))
    good, bad = find_inputs([archive])
    assert levels([good]) == [5]
    with pytest.raises(ImageError, match=f"{archive}/in.zip: {said}"):
        levels([bad])


@pytest.mark.parametrize("name", [r"folder\x.png", r"C:\x.png", r"..\..\x.png", "/x.png", "a//./x.png"])
def test_names_of_other_systems_are_folders_and_names(tmp_path: Path, name: str) -> None:
    archive = written(tmp_path / "a.zip", (name, picture(9)), (r"b\._x.png", picture()))
    (one,) = find_inputs([archive])
    assert one.name.name == "x.png"
    assert ".." not in one.name.parts
    assert levels([one]) == [9]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_many_times_takes_no_longer_than_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    with_name = Path.with_name

    def noted(path: Path, name: str) -> Path:
        asked.append(name)
        return with_name(path, name)

    monkeypatch.setattr(Path, "with_name", noted)
    found = find_inputs([packed(tmp_path / "a.zip", *["a.png"] * 300, "a (2).png")])
    assert len({one.name for one in found}) == 301
    assert len(asked) < 400


def test_a_part_of_an_archive_says_so(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", "x.png")
    content = bytearray(archive.read_bytes())
    end = content.index(b"PK\x05\x06")
    locator = b"PK\x06\x07" + struct.pack("<IQI", 1, 0, 2)
    archive.write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(ImageError, match="is one part of a ZIP archive"):
        levels(find_inputs([archive]))


def test_what_may_hold_an_image_and_is_not_read_is_a_row_that_fails(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "gone")
    written(tmp_path / "set" / "z.zip", ("b.rar", b"Rar!\x1a\x07\0"), ("c.png", picture(8)))
    found = find_inputs([tmp_path / "set"])
    said = [one.problem and one.problem.split(",")[0] for one in found]
    assert said == [
        *("is an HEIC or AVIF picture", said[1], "is a RAR archive", None),
    ]
    with pytest.raises(ImageError, match=r"gone\.png: cannot be opened \(a link to .*/gone: No such"):
        levels([found[1]])


def test_a_folder_without_images_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "set" / "deep").mkdir(parents=True)
    with pytest.raises(ImageError, match="set: the folder holds no image: nothing is in it"):
        levels(find_inputs([tmp_path / "set"]))
    (tmp_path / "set" / "deep" / "notes.txt").touch()
    with pytest.raises(ImageError, match="no image: in it is a file that is no image, notes"):
        levels(find_inputs([tmp_path / "set"]))


def test_what_may_not_be_read_is_a_row_that_says_so(locked: Path) -> None:
    for name in ("set/a.png", "set/b/c.png", "set/x.zip"):
        (locked / name).parent.mkdir(parents=True, exist_ok=True)
        (locked / name).write_bytes(picture())
    for name in ("set/a.png", "set/b", "set/x.zip"):
        (locked / name).chmod(0)
    tempfile.tempdir = None
    for found in (*find_inputs([locked / "set"]), *find_inputs([locked / "set/x.zip"])):
        with pytest.raises(ImageError, match=r"(?i)permission denied"):
            levels([found])
    assert len(find_inputs([locked / "set"])) == 3
    (locked / "set").chmod(0)
    for name in ("set", "set/a.png"):
        with pytest.raises(ImageError, match=r"(?i)permission denied"):
            levels(find_inputs([locked / name]))


def test_the_cases_that_went_wrong(cases: Path) -> None:
    folder = cases / "left_out_in_silence"
    both = find_inputs([folder / "dup.zip"])
    contents = set()
    for source in both:
        with source.on_disk() as path:
            contents.add(path.read_bytes())
    assert len(contents) == 2
    assert names(folder / "outer.zip") == [
        str(folder / "outer.zip" / name) for name in ("inner.zip/sub/0/a.png", "sub/1/b.png")
    ]
    assert len(find_inputs([folder])) == 11
