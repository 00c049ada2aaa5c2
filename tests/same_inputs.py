"""What two versions of mammolens are asked about: drawn, odd, broken and real pictures in a folder.

Nothing here is read or drawn by mammolens itself, so that both versions get the same bytes.
"""

import io
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

REAL = ("rsna_breast", "cbis_ddsm_mass", "cesm_lesions")
IMAGES = 40
"""Of each real data set, at least: whole patients are taken."""


def make_inputs(folder: Path, shared: Path) -> list[str]:
    """Write all inputs below `folder`; return what could not be had."""
    missing = [name for name in REAL if not (shared / "data" / name).is_dir()]
    for name in set(REAL) - set(missing):
        copy_some(shared / "data" / name, folder / name)
    if (shared / "cases").is_dir():
        shutil.copytree(shared / "cases", folder / "cases", copy_function=shutil.copyfile)
    else:
        missing.append("cases")
    shutil.copytree(DATA_ROOT, folder / "pydicom", ignore=shutil.ignore_patterns("*.py*"))
    shutil.copytree(Path(__file__).parent / "learning" / "keras_2", folder / "keras_2")
    write_rasters(folder / "rasters")
    write_dicom(folder / "dicom")
    write_odd(folder / "odd")
    write_archives(folder / "archives", sorted((folder / "rasters").glob("*.png"))[:2])
    return missing


def copy_some(source: Path, target: Path) -> None:
    """Copy the images of some patients, and the rows of tables that are about them."""
    images = sorted(source.rglob("*.jpg"))
    patients = sorted({path.name.split("_")[0] for path in images})
    chosen: list[Path] = []
    for patient in np.random.default_rng(0).permutation(patients):
        if len(chosen) < IMAGES:
            chosen += [path for path in images if path.name.startswith(f"{patient}_")]
    for path in chosen:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    names = {path.name for path in chosen}
    names |= {number for name in names for number in re.findall(r"_(\d+)_png", name)}
    for table in (source / "labels.csv", source / "metadata.csv"):
        if table.is_file():
            header, *rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
            if source.name == "cesm_lesions":  # a plain table, which earlier versions read, too
                header = header.replace("malignant", "label").replace("boxes_xywh_512", "boxes")
            kept = [row for row in rows if names & set(re.split("[,/]", row))]
            (target / table.name).write_text("".join([header, *kept]), encoding="utf-8")


def breast(height: int = 320, width: int = 256, seed: int = 0) -> NDArray[np.float64]:
    """Draw half an ellipse of tissue at the left with one mass: (height, width) in [0, 1]."""
    y, x = np.mgrid[0:height, 0:width]
    radius = ((y / height - 0.5) / 0.42) ** 2 + (x / width / 0.75) ** 2
    mass = np.exp(-(((y - 0.45 * height) / 12) ** 2 + ((x - 0.35 * width) / 12) ** 2))
    noise = np.random.default_rng(seed).normal(0, 0.02, radius.shape)
    tissue = 0.55 * np.clip(1 - radius, 0, None) ** 0.4 + 0.35 * mass + noise
    return np.asarray(np.where(radius < 1, tissue.clip(0, 1), 0))


def levels(bits: int, seed: int = 0) -> NDArray[np.uint16]:
    """Draw a breast in whole numbers of so many bits."""
    return np.asarray(np.rint(breast(seed=seed) * (2**bits - 1)), np.uint16)


def write_rasters(folder: Path) -> None:
    """Write a breast in every format, depth and orientation."""
    folder.mkdir()
    shallow, deep = levels(8).astype(np.uint8), levels(16)
    for suffix in ("png", "tif", "jpg", "bmp", "gif", "webp", "pgm"):
        Image.fromarray(shallow).save(folder / f"8-bits.{suffix}")
    for suffix in ("png", "tif", "pgm"):
        Image.fromarray(deep).save(folder / f"16-bits.{suffix}")
    Image.fromarray(levels(12)).save(folder / "12-in-16-bits.tif", compression="tiff_lzw")
    Image.fromarray(shallow[:, ::-1]).save(folder / "mirrored.png")
    Image.fromarray(255 - shallow).save(folder / "inverted.png")
    Image.fromarray(shallow).convert("RGB").save(folder / "grey-as-colour.png")
    Image.fromarray(np.dstack([shallow, shallow])).save(folder / "with-alpha.png")


def write_dicom(folder: Path) -> None:
    """Write two patients with two views of each breast, in various depths and polarities."""
    folder.mkdir()
    for number in range(8):
        bits = (8, 10, 12, 16)[number % 4]
        inverse = number % 3 == 0
        stored = 2**bits - 1 - levels(bits, number) if inverse else levels(bits, number)
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
        dataset.SOPInstanceUID = f"1.2.3.{number}"
        dataset.Modality, dataset.PatientID = "MG", f"patient-{number // 4}"
        dataset.ImageLaterality = "LR"[number // 2 % 2]
        dataset.ViewPosition = ("CC", "MLO")[number % 2]
        dataset.Rows, dataset.Columns = stored.shape
        dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
        dataset.PhotometricInterpretation = f"MONOCHROME{1 if inverse else 2}"
        dataset.BitsAllocated = 8 if bits == 8 else 16
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        if number % 2:
            dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2 ** (bits - 1)
        dataset.add_new("PixelData", "OW", stored.astype("<u1" if bits == 8 else "<u2").tobytes())
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def write_odd(folder: Path) -> None:
    """Write what is no mammogram, and what cannot be read."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    grey = levels(8).astype(np.uint8)
    colour = generator.integers(0, 256, (200, 160, 3), np.uint8)
    Image.fromarray(colour).save(folder / "colour noise.png")
    Image.fromarray(colour).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(colour[..., 0]).save(folder / "grey noise.png")
    Image.fromarray(np.zeros_like(grey)).save(folder / "black.png")
    Image.fromarray(np.full_like(grey, 255)).save(folder / "white.png")
    Image.fromarray(grey[:3, :3]).save(folder / "tiny.png")
    Image.fromarray(np.tile(grey, (1, 8))).save(folder / "very wide.png")
    Image.fromarray(grey).save(folder / "Brüste – naïve [x].png")
    pages = [Image.fromarray(grey), Image.fromarray(grey)]
    pages[0].save(folder / "two pages.tif", save_all=True, append_images=pages[1:])
    whole = io.BytesIO()
    pages[0].save(whole, "JPEG")
    (folder / "cut short.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.png").write_text("no picture at all", encoding="utf-8")
    (folder / "words.dcm").write_text("no DICOM either", encoding="utf-8")
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 and no more")


def write_archives(folder: Path, pictures: list[Path]) -> None:
    """Write an archive of pictures, and one that holds it."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in pictures:
            archive.write(path, f"some/{path.name}")
    with zipfile.ZipFile(folder / "nested.zip", "w") as archive:
        archive.write(folder / "pictures.zip", "inner.zip")
        archive.writestr("notes.txt", "not a picture")
