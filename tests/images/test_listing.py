import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_archives import inside, written
from test_dicom import gradient, mammogram, save

from mammolens.images import listing
from mammolens.images.archives import find_inputs
from mammolens.images.listing import Role, is_litter, list_folder, role_of


def picture(form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((32, 24), 100, np.uint8)).save(stream, form)
    return stream.getvalue()


def write(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "PPM", "BMP", "WEBP"])
@pytest.mark.parametrize("name", ["IM0001", "1.2.840.10008", "scan.bak"])
def test_an_image_is_told_by_content_where_its_name_does_not(tmp_path: Path, form: str, name: str) -> None:
    write(tmp_path, **{name: picture(form), "notes.txt": picture(form), "README": b"P1 is text"})
    found = list_folder(tmp_path)
    assert found.images == (tmp_path / name,)
    assert {path.name for path in found.others} == {"notes.txt", "README"}


def test_dicom_is_told_by_content_whatever_its_name(tmp_path: Path) -> None:
    for name in ("IM1", "1.2.3", "x.dcm", "old.ima"):
        save(tmp_path / name, mammogram(gradient(12), bits=12))
    assert len(list_folder(tmp_path).images) == 4


@pytest.mark.parametrize(
    "name",
    [
        *("__MACOSX/a.png", "._a.png", ".hidden.png", ".thumbnails/a.png", "Thumbs.db"),
        *(
            "THUMBS.DB",
            ".DS_Store",
            "desktop.ini",
            "DICOMDIR",
            "@eaDir/a.png",
            "$RECYCLE.BIN/a.png",
            "#recycle/a.png",
        ),
        *("System Volume Information/a.png", "deep/__MACOSX/deeper/._a.png"),
    ],
)
def test_litter_is_passed_over(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: picture()})
    found = list_folder(tmp_path)
    assert (found.images, found.archives, found.left_out, found.others) == ((), (), (), ())


def test_a_hidden_folder_that_is_named_is_looked_into(tmp_path: Path) -> None:
    write(tmp_path / ".data", **{"a.png": picture()})
    assert len(list_folder(tmp_path / ".data").images) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "is an HEIC or AVIF picture"),
        ("a", b"\0\0\0\x18ftypavif", "is an HEIC or AVIF picture"),
        ("a.gif", b"GIF89a", "is a GIF image"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "is a bare JPEG 2000 image"),
        ("a.tar.gz", b"\x1f\x8b\x08", "is an archive packed by gzip"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        ("a.rar", b"Rar!\x1a\x07\0", "is a RAR archive"),
        ("a.tar", bytes(257) + b"ustar", "is a tar archive"),
        ("a.z01", b"", "is a part of an archive"),
        ("a.zip.001", b"PK\x03\x04", "is a part of an archive"),
        ("a.zip", b"Rar!\x1a\x07\0", "is a RAR archive"),
    ],
)
def test_what_may_hold_an_image_and_is_not_read_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    write(tmp_path, **{name: content, "report.pdf": b"%PDF-1.4", "table.csv": b"path"})
    (left_out,) = list_folder(tmp_path).left_out
    assert str(left_out).startswith(f"{tmp_path / name}: {said}")
    assert len(list_folder(tmp_path).others) == 2


def test_archives_are_told_from_documents(tmp_path: Path) -> None:
    names = ("a.zip", "A.ZIP", "b", "c.docx", "d.xlsx", "e.zip.bak", "f.bin", "g.gz")
    write(tmp_path, **dict.fromkeys(names, b"PK\x03\x04"), **{"h.zip": picture()})
    found = list_folder(tmp_path)
    archives = ["A.ZIP", "a.zip", "b", "e.zip.bak", "f.bin", "g.gz"]
    assert [path.name for path in found.archives] == archives
    assert [path.name for path in found.images] == ["h.zip"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", **{"a.png": picture()})
    root = tmp_path / "set"
    write(root, **{"b.png": picture()})
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "c.png").symlink_to(root / "b.png")
    (root / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "around").symlink_to(root)
    found = list_folder(root)
    assert [str(path.relative_to(root)) for path in found.images] == [*("b.png", "c.png", "link/a.png")]
    assert not found.left_out


def test_folders_that_are_too_deep_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{"a.png": picture()})
    monkeypatch.chdir(tmp_path)
    for _ in range(110):
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    found = list_folder(tmp_path)
    assert [path.name for path in found.images] == ["a.png"]
    assert ["folders deep" in one.why for one in found.left_out] == [True]


def test_links_to_nothing_and_pipes_are_named_where_they_may_be_images(tmp_path: Path) -> None:
    for name in ("a.png", "IM1", "x.txt"):
        (tmp_path / name).symlink_to(tmp_path / "gone")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    said = [str(one) for one in list_folder(tmp_path).left_out]
    assert len(said) == 4
    assert said[0] == (f"{tmp_path}/IM1: cannot be opened (a link to {tmp_path}/gone: No such file or directory).")
    assert said[2] == f"{tmp_path}/pipe.png: is a pipe or a device; a file was expected."


def test_what_may_not_be_looked_into_is_named(locked: Path) -> None:
    write(locked, **{"open/a.png": picture(), "shut/b.png": picture(), "half/c.png": picture()})
    write(locked, IM1=picture(), **{"z.png": picture(), "z.txt": b"text"})
    (locked / "shut").chmod(0)
    (locked / "half").chmod(0o400)  # its names may be read, but nothing of its files
    for name in ("IM1", "z.png", "z.txt"):
        (locked / name).chmod(0)
    found = list_folder(locked)
    assert [path.name for path in found.images] == ["a.png", "z.png"]  # z.png fails when it is read
    assert [one.path.name for one in found.left_out] == ["IM1", "c.png", "shut"]
    assert str(found.left_out[2]) == (f"{locked}/shut: this folder cannot be looked into (Permission denied).")


def test_names_that_are_no_text_and_names_that_differ_in_case_are_listed(tmp_path: Path) -> None:
    for name in (b"\xff\xfe.png", b"a.png", b"A.png", b"A.PNG"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(picture())
    assert len(list_folder(tmp_path).images) == 4


def test_what_cannot_be_looked_at_counts_as_an_image_where_it_has_no_suffix() -> None:
    assert role_of("IM1", None) is role_of("1.2.3", None) is Role.IMAGE
    assert role_of("a.zip", None) is Role.ARCHIVE
    assert role_of("a.doc", None) is role_of("a.txt", None) is Role.OTHER


def test_litter_is_told_whatever_the_case() -> None:
    assert is_litter("__macosx")
    assert not is_litter("macosx.png")


def test_a_directory_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_DIRECTORY", 2**10)
    many = inside(*((f"{number}.png", b"") for number in range(30)))
    (tmp_path / "many.zip").write_bytes(many)
    outer = written(tmp_path / "outer.zip", ("many.zip", many))
    for archive, name in ((tmp_path / "many.zip",) * 2, (outer, outer / "many.zip")):
        (row,) = find_inputs([archive])
        assert row.name == name
        assert "its directory is over 0 MiB" in str(row.problem)
