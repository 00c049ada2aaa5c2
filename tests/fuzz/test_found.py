"""What fuzzing found, each mended as a kind; the inputs are made here."""

import gzip
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from corpus import SEEDS
from pyarrow import parquet
from test_dicom import gradient, mammogram, save
from test_tiff import tiff

from mammolens.data.csv_table import read_header, read_rows
from mammolens.data.manifest import Manifest
from mammolens.errors import BundleError, DataError, ImageError, RecipeError, RunError
from mammolens.images.archives import find_inputs, image_in
from mammolens.images.reading import read_image
from mammolens.judging.predictions import PREDICTIONS, read_predictions
from mammolens.learning.keras_files import open_keras
from mammolens.learning.runs import RECORD, open_run
from mammolens.model.recipe import read_recipe


def an_element(folder: Path) -> Path:
    path = save(folder / "image.dcm", mammogram(gradient(8)))
    element = struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, 0xFFFFFFFE)
    data = path.read_bytes()
    place = data.index(struct.pack("<HH2s", 0x0028, 0x0002, b"US"))
    path.write_bytes(data[:place] + element + data[place:])
    return path


def a_chunk(folder: Path) -> Path:
    data = SEEDS["png"]()[0]
    end = data.index(b"IEND") - 4
    path = folder / "image.png"
    path.write_bytes(data[:end] + struct.pack(">I4s", 0xFFFFFFF0, b"tEXt") + data[end:])
    return path


def a_strip(folder: Path) -> Path:
    return tiff(folder / "image.tif", [bytes(4)], {279: 2**32 - 1})


@pytest.mark.parametrize("made", [an_element, a_chunk, a_strip])
def test_a_part_that_says_it_has_4_gib_gets_no_more_than_a_file_may_have(
    made: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = made(tmp_path)
    tracemalloc.start()
    with suppress(ImageError):
        read_image(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**30


def test_samples_of_a_pixel_count_towards_the_limit_on_size(tmp_path: Path) -> None:
    wide: dict[int, int | tuple[int, ...]] = {256: 8900, 257: 8900, 262: 2, 277: 16, 258: (16,) * 16}
    with pytest.raises(ImageError, match="16 samples a pixel are too many"):
        read_image(tiff(tmp_path / "image.tif", [bytes(9)], wide))


def test_a_header_cannot_command_the_terminal_that_an_error_is_shown_on(tmp_path: Path) -> None:
    path = save(tmp_path / "image.dcm", mammogram(gradient(8), Modality="M\x1b[2J\nX"))
    with pytest.raises(ImageError) as raised:
        read_image(path)
    assert str(raised.value).isprintable()
    assert "image.dcm" in str(raised.value)


def test_an_error_calls_a_file_in_an_archive_by_its_name_there_whatever_that_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("M\x1b[2J.png", b"\x89PNG\r\n\x1a\n of nothing")
    (found,) = find_inputs([tmp_path / "a.zip"])
    with pytest.raises(ImageError) as raised:
        image_in(found, found.name)
    assert str(raised.value).startswith(f"{tmp_path}/a.zip/M\\x1b[2J.png: ")


def test_boxes_in_boxes_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"path,label,boxes\na.png,1,{'[' * 9999}\n")
    with pytest.raises(DataError, match=r"row 2.*boxes"):
        Manifest.load(path, files=False)


def test_a_header_with_a_cell_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("path,label,x" + "y" * 2**18 + "\na.png,1,2\n")
    for read in (read_rows, read_header):
        with pytest.raises(DataError, match="header"):
            read(path)


def test_rows_are_not_filled_up_to_a_header_without_end(tmp_path: Path) -> None:
    """A table of 200 kB would have taken several gigabytes."""
    path = tmp_path / "table.csv"
    path.write_text("path,label" + "," * 10**5 + "\n" + "a\n" * 50_000)
    with pytest.raises(DataError, match="names 100,002 columns"):
        read_rows(path)


def test_tables_in_tables_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("name = " + "[" * 9999)
    with pytest.raises(RecipeError, match=r"recipe\.toml"):
        read_recipe(str(path))


def test_a_record_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(b'{"data": "\xff"}')
    with pytest.raises(RunError, match=RECORD):
        open_run(tmp_path)


def test_a_table_of_parquet_that_names_no_known_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    table = parquet.read_table(BytesIO(SEEDS["predictions parquet"]()[0]))
    told = table.schema.metadata[b"pandas"]
    parquet.write_table(table.replace_schema_metadata({"pandas": told.replace(b'"str', b'"sTr')}), path)
    with pytest.raises(DataError, match=PREDICTIONS):
        read_predictions(tmp_path)


def test_a_file_over_which_hdf5_crashes_is_refused(tmp_path: Path) -> None:
    """A worker crashes in this process's stead; whichever way a later HDF5 takes it, it is no network."""
    path = tmp_path / "network.h5"
    path.write_bytes(gzip.decompress(Path(__file__).with_name("crash.h5.gz").read_bytes()))
    with pytest.raises(BundleError, match=r"network\.h5"):
        open_keras(path)
