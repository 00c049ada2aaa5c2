"""Lists of what an archive holds: all of it, in order, in groups; objects from a real server that speaks S3."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

pytest.importorskip("ray", reason="pip install 'mammolens[cluster]'")

import brightness
from mammolens.cluster import stores
from mammolens.cluster.inputs import inputs_of, read_slice, write_list
from mammolens.cluster.stores import Stored
from mammolens.errors import DataError, ImageError
from mammolens.images.archives import Input, find_inputs


@pytest.fixture
def folder(png: Callable[..., Path], tmp_path: Path) -> Path:
    for name in ("set/b/2.png", "set/a/1.png", "set/a.png", "set/ü\udcff.png"):
        png(brightness.flat(100), name)
    (tmp_path / "set" / "c.gif").write_bytes(b"GIF89a")
    (tmp_path / "set" / "notes.txt").write_text("not an image")
    shutil.make_archive(str(tmp_path / "set" / "d"), "zip", tmp_path / "set" / "b")
    return tmp_path / "set"


def names(inputs: Iterable[Input]) -> list[str]:
    return [str(one.name) for one in inputs]


def test_a_list_on_disk_is_what_predict_looks_at(folder: Path, tmp_path: Path) -> None:
    found = find_inputs([folder, tmp_path / "gone.png"])
    count, digest = write_list(inputs_of([str(folder), str(tmp_path / "gone.png")]), tmp_path / "list")
    again = [one for first in range(0, count, 2) for one in read_slice(tmp_path / "list", first, 2, {})]
    assert again == found
    assert len(found) == 7
    assert any(one.members for one in again)
    assert write_list(inputs_of([str(folder), str(tmp_path / "gone.png")]), tmp_path / "list2") == (count, digest)
    assert write_list(inputs_of([str(folder)]), tmp_path / "list3")[1] != digest


def test_of_many_any_few_are_read(tmp_path: Path) -> None:
    many = [Input(Path(f"{number}.png"), Path(f"/{number}.png")) for number in range(600)]
    assert write_list(many, tmp_path / "list")[0] == 600
    assert read_slice(tmp_path / "list", 592, 16, {}) == many[592:]
    assert read_slice(tmp_path / "list", 256, 256, {}) == many[256:512]
    assert read_slice(tmp_path / "list", 260, 4, {}) == many[260:264]


def test_relative_names_stay_and_are_found_from_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write_list(inputs_of(["a"]), tmp_path / "list")
    monkeypatch.chdir("/")
    (one,) = read_slice(tmp_path / "list", 0, 256, {})
    assert (str(one.name), one.file) == ("a/1.png", folder / "a" / "1.png")


def test_tables_and_lists_name_files(folder: Path) -> None:
    (folder / "table.csv").write_text("path;site\na.png;x\nb/2.png;y\n")
    pq.write_table(
        pa.table({"path": ["b/2.png", None, str(folder / "a.png"), "s3://bucket/x.dcm"]}), folder / "l.parquet"
    )
    assert names(inputs_of([str(folder / "table.csv")])) == [str(folder / "a.png"), str(folder / "b" / "2.png")]
    listed = list(inputs_of([str(folder / "l.parquet")]))
    assert names(listed) == [str(folder / "b" / "2.png"), "''", str(folder / "a.png"), "s3://bucket/x.dcm"]
    assert isinstance(listed[3], Stored)
    assert listed[1].problem


def test_a_list_names_files_by_bytes_too(folder: Path) -> None:
    """As where its writer does not say that they are text, or they are none."""
    named = [b"a.png", "ü\udcff.png".encode(errors="surrogateescape"), "s3://bucket/ü.dcm".encode()]
    pq.write_table(pa.table({"path": pa.array(named, pa.binary())}), folder / "l.parquet")
    expected = [str(folder / "a.png"), str(folder / "ü\udcff.png"), "s3://bucket/ü.dcm"]
    assert names(inputs_of([str(folder / "l.parquet")])) == expected


def test_archives_in_lists_and_tables_are_told_of(folder: Path) -> None:
    pq.write_table(pa.table({"path": ["d.zip", "s3://bucket/x.ZIP"]}), folder / "l.parquet")
    (folder / "table.csv").write_text("path\nd.zip\na.png\n")
    found = [*inputs_of([str(folder / "l.parquet")]), *inputs_of([str(folder / "table.csv")])]
    problems = [one.problem or "" for one in found]
    assert [problem.partition(",")[0] for problem in problems] == [
        "is a ZIP archive in a list of pictures",
        "is a ZIP archive in a store",
        "is a ZIP archive in a list of pictures",
        "",
    ]


def test_a_table_names_objects_too(folder: Path) -> None:
    (folder / "table.csv").write_text("path\na.png\ns3://bucket/of many/x.dcm\n")
    file, stored = inputs_of([str(folder / "table.csv")])
    assert str(file.name) == str(folder / "a.png")
    assert (str(stored.name), isinstance(stored, Stored)) == ("s3://bucket/of many/x.dcm", True)


def test_a_list_that_names_nothing_is_a_row(folder: Path) -> None:
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), folder / "l.parquet")
    (one,) = inputs_of([str(folder / "l.parquet")])
    assert (one.name, one.problem) == (folder / "l.parquet", "this list names nothing.")
    pq.write_table(pa.table({"path": [1, 2]}), folder / "l.parquet")
    assert [one.problem for one in inputs_of([str(folder / "l.parquet")])] == ["is no name of a file."] * 2


def test_a_list_that_is_none_is_told_in_a_line(folder: Path) -> None:
    pq.write_table(pa.table({"file": ["a.png"]}), folder / "l.parquet")
    with pytest.raises(DataError, match="column path missing; found file"):
        list(inputs_of([str(folder / "l.parquet")]))
    (folder / "l.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"l\.parquet: cannot be read as a Parquet list"):
        list(inputs_of([str(folder / "l.parquet")]))


def test_objects_are_listed_in_order_and_fetched_when_looked_at(folder: Path, bucket: str) -> None:
    system, path = fs.FileSystem.from_uri(bucket)
    for file in (folder / "a.png", folder / "b" / "2.png", folder / "notes.txt", folder / "d.zip", folder / "c.gif"):
        with system.open_output_stream(f"{path}/{file.relative_to(folder)}") as stream:
            stream.write(file.read_bytes())
    found = list(inputs_of([bucket]))
    plain = stores.plain(bucket)
    assert "secret" not in plain
    assert names(found) == [f"{plain}/{name}" for name in ("a.png", "b/2.png", "c.gif", "d.zip")]
    assert [one.problem is None for one in found] == [True, True, False, False]
    named = stores.by_bucket([bucket])
    write_list(iter(found), folder / "list")
    first, *_, last = read_slice(folder / "list", 0, 256, named)
    with first.on_disk() as copy:
        assert copy.read_bytes() == (folder / "a.png").read_bytes()
    assert not copy.exists()
    with pytest.raises(ImageError, match=r"s3://.*d\.zip: is a ZIP archive in a store"), last.on_disk():
        pass
    (one,) = inputs_of([bucket.replace("?", "/b/2.png?")])
    assert str(one.name) == f"{plain}/b/2.png"


ODD = ("two words.png", "ü.png", "what?.png", "a@b:c.png", "100%41.png", "a#1.png", "[1]+&=.png", "empty.png")


def test_objects_are_found_by_whatever_name(folder: Path, bucket: str) -> None:
    system, path = fs.FileSystem.from_uri(bucket)
    for name in ODD:
        with system.open_output_stream(f"{path}/of many/{name}") as stream:
            stream.write(b"" if name.startswith("empty") else name.encode())
    plain = f"{stores.plain(bucket)}/of many"
    pq.write_table(pa.table({"path": [f"{plain}/{name}" for name in ODD]}), folder / "l.parquet")
    with system.open_output_stream(f"{path}/of many/l.parquet") as stream:
        pq.write_table(pa.table({"path": list(ODD)}), stream)
    within = bucket.replace("?", "/of many?")
    archive = [within, str(folder / "l.parquet"), within.replace("?", "/l.parquet?")]
    count, _ = write_list(inputs_of(archive), folder / "list")
    assert count == 3 * len(ODD)
    for one in read_slice(folder / "list", 0, 256, stores.by_bucket(archive)):
        with one.on_disk() as copy:
            assert copy.read_bytes() == (b"" if one.name.name.startswith("empty") else one.name.name.encode())
    assert {str(one.name) for one in inputs_of(archive)} == {f"{plain}/{name}" for name in ODD}


def test_a_prefix_without_images_is_a_row(bucket: str) -> None:
    system, path = fs.FileSystem.from_uri(bucket)
    system.create_dir(f"{path}/none")
    (one,) = inputs_of([bucket.replace("?", "/none?")])
    assert (str(one.name), one.problem) == (f"{stores.plain(bucket)}/none", "no object there is an image, by its name.")


def test_what_pyarrow_does_not_reach_is_a_row(bucket: str) -> None:
    host = bucket.partition("=")[2].partition("&")[0]
    for name in ("a//x.png", "a/y.png"):
        urlopen(Request(f"http://{host}/images/archive/{name}", data=b"x", method="PUT")).close()
    plain = stores.plain(bucket)
    assert [(str(one.name), one.problem) for one in inputs_of([bucket])] == [
        (f"{plain}/a", "objects with // in their name are not read."),
        (f"{plain}/a/y.png", None),
    ]


def test_a_bucket_in_two_stores_is_refused(bucket: str) -> None:
    assert stores.by_bucket([bucket, bucket.replace("?", "/2?"), "files"]) == {"images": bucket}
    elsewhere = bucket.replace("127.0.0.1", "localhost")
    with pytest.raises(DataError, match=r"s3://images/archive: is in another store than s3://images/archive"):
        stores.by_bucket([bucket, elsewhere])


def test_objects_that_cannot_be_fetched_fail_by_name(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = stores.by_bucket([bucket])
    gone = Stored(*2 * (stores.Address(f"{stores.plain(bucket)}/gone.png"),), stores=named)
    with pytest.raises(ImageError, match=r"^s3://images/archive/gone\.png: cannot be fetched"), gone.on_disk():
        pass
    system, path = fs.FileSystem.from_uri(bucket)
    with system.open_output_stream(f"{path}/large.png") as stream:
        stream.write(b"12345")
    monkeypatch.setattr(stores, "MAX_BYTES", 4)
    large = Stored(*2 * (stores.Address(f"{stores.plain(bucket)}/large.png"),), stores=named)
    with pytest.raises(ImageError, match=r"large\.png: 0 MiB is over the limit"), large.on_disk():
        pass


def test_a_store_that_does_not_answer_is_told_in_a_line(bucket: str) -> None:
    with pytest.raises(DataError, match=r"^s3://elsewhere/x: cannot be listed"):
        list(inputs_of([bucket.replace("images/archive", "elsewhere/x")]))
    with pytest.raises(DataError, match=r"^s3://images/archive: is no address of a store\. Name s3://BUCKET/PREFIX\.$"):
        list(inputs_of([bucket.replace("scheme=http", "schema=http")]))
    with pytest.raises(DataError, match=r"^s3://: names no bucket"):
        list(inputs_of(["s3://"]))
