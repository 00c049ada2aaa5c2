"""Whole files from which hostile ones are made: small, from code and seeds alone, each encoded in its way."""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as Pillow
from pydicom import uid
from pydicom.dataset import Dataset
from test_dicom import gradient, mammogram, save, save_compressed, save_frame
from test_dicom_frames import FRAMES, jpeg_2000_of
from test_tiff import packed, tiff

from mammolens.model.bundle import packaged_bundles
from mammolens.model.recipe import read_recipe

Files = tuple[bytes, ...]

SYNTAXES = (
    *("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"),
    *("RLELossless", "JPEGBaseline8Bit", "JPEGExtended12Bit", "JPEGLosslessSV1", "JPEGLSLossless"),
    *("JPEG2000Lossless", "JPEG2000", "HTJ2KLossless"),
)
"""How pixels of DICOM are encoded, by pydicom's names."""

GREY, DEEP = gradient(8), gradient(12)
COLOUR = np.stack([GREY, GREY.T.reshape(GREY.shape), 255 - GREY], axis=2)


def _picture(array: np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def _tagged(blocks: list[bytes], tags: dict[int, int | tuple[int, ...]], **options: Any) -> bytes:
    with TemporaryDirectory() as folder:
        return tiff(Path(folder) / "image", blocks, tags, **options).read_bytes()


def _dicom(dataset: Dataset, syntax: str, frame: bytes | None = None) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.dcm"
        if frame is not None:
            save_frame(path, dataset, syntax, frame)
        elif syntax == uid.RLELossless:
            save_compressed(path, dataset, syntax)
        else:
            save(path, dataset, syntax)
        return path.read_bytes()


def _mammogram(stored: np.ndarray = DEEP, bits: int = 12) -> Dataset:
    """A header with all that is looked at: tables, windows, padding, views, ages."""
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [16, 0, 16], np.arange(16, dtype="<u2").tobytes()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399368009", "SCT", "medio-lateral oblique"
    told: dict[str, Any] = {"PatientID": "P1", "PatientAge": "045Y", "PatientBirthDate": "19580203"}
    told |= {"StudyDate": "20030405", "ImageLaterality": "L", "ViewPosition": "MLO", "ImagerPixelSpacing": [0.1, 0.1]}
    told |= {"WindowCenter": ["2048", "1000"], "WindowWidth": ["4096", "900"], "VOILUTFunction": "SIGMOID"}
    told |= {"RescaleSlope": "1", "RescaleIntercept": "-10", "PixelPaddingValue": 0, "VOILUTSequence": [table]}
    told |= {"ViewCodeSequence": [code], "PresentationLUTShape": "IDENTITY"}
    return mammogram(stored, bits, **told)


@cache
def _dicoms() -> Mapping[str, Files]:
    """By transfer syntax."""
    made: dict[str, Files] = {}
    native = ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian")
    made |= {name: (_dicom(_mammogram(), getattr(uid, name)),) for name in (*native, "RLELossless")}
    big = _mammogram()
    big.PixelData = DEEP.astype(">u2").tobytes()
    made["ExplicitVRBigEndian"] = (_dicom(big, uid.ExplicitVRBigEndian),)
    names = {value: name for name, value in vars(uid).items() if isinstance(value, uid.UID)}
    for syntax, (stored, bits, frame) in FRAMES.items():
        made[names[syntax]] = (_dicom(_mammogram(stored, bits), syntax, frame),)
    baseline = made[names[uid.JPEGBaseline8Bit]][0]
    extended = _dicom(_mammogram(GREY, 8), uid.JPEGExtended12Bit, FRAMES[uid.JPEGBaseline8Bit][2])
    lossy = _dicom(_mammogram(), uid.JPEG2000, jpeg_2000_of(DEEP, wrap=True, irreversible=True, quality_layers=[9]))
    rgb = mammogram(COLOUR, PhotometricInterpretation="YBR_FULL_422")
    colour = _dicom(rgb, uid.JPEGBaseline8Bit, _picture(COLOUR, "JPEG"))
    made[names[uid.JPEGBaseline8Bit]] = (baseline, colour)
    return made | {"JPEGExtended12Bit": (extended,), "JPEG2000": (lossy,)}


def _dicom_of(name: str) -> Files:
    return _dicoms()[name]


def _zip(*members: tuple[str, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def _zips() -> Files:
    """Plain, packed, nested, leading out, linking, repeated, a bomb; and one that counts more than it has."""
    picture = _picture(GREY, "PNG")
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../outside.png", picture)
        archive.writestr("/absolute.png", picture)
        archive.writestr("C:\\windows\\a.png", picture)
    plain = _zip(("a/R_CC.png", picture), ("b.dcm", _dicoms()["RLELossless"][0]))
    nested = _zip(("in.zip", plain), ("in/deeper.zip", _zip(("in.zip", plain))))
    bomb = _zip(("zeros.png", picture + bytes(2**20)), compression=zipfile.ZIP_DEFLATED)
    end = plain.rindex(b"PK\5\6")
    counting = plain[: end + 8] + struct.pack("<HH", 0xFFFF, 0xFFFF) + plain[end + 12 :]
    return plain, nested, stream.getvalue(), bomb, counting


def _tables() -> Files:
    rows = "path,label,split,patient_id,laterality,view,boxes\n" + "".join(
        f'{number}.png,{number % 2},train,P{number},L,CC,"[[1,2,3,4]]"\n' for number in range(4)
    )
    german = "sep=;\r\nPfad;label;path\r\n1;tumor;0.png\r\n2;normal;1.png\r\n"
    return rows.encode(), german.encode(), rows.encode("utf-16"), b"image_id;label\n0;benign\n1;malignant\n"


def _scores() -> Files:
    return (
        b"path,probability\n0.png,0.25\n1.png,nan\n2.png,1\n3.png,0\n",
        "image_id;probability;warnings\nA;0,5;ä\nB;0,1;\n".encode("utf-16"),
    )


def _parquet() -> Files:
    rows = [
        {"path": f"{number}.png", "label": number % 2, "patient_id": f"P{number}", "laterality": "L", "view": "CC"}
        | {"split": "test", "probability": number / 4, "warnings": "", "error": None, "admitted": True}
        for number in range(4)
    ]
    stream = io.BytesIO()
    pd.DataFrame(rows).astype({"label": "Int8", "error": "string"}).to_parquet(stream, index=False)
    return (stream.getvalue(),)


@cache
def model() -> bytes:
    """A network of three operators: pixels (images, 16, 16, 1) in, a probability out."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - takes a second

    weights = numpy_helper.from_array(np.ones((256, 1), np.float32), "weights")
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    shape = numpy_helper.from_array(np.array([-1, 256]), "shape")
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["images", 16, 16, 1])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["images", 1])],
        [weights, shape],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())


def _keras(suffix: str) -> Files:
    """Files of Keras 2 that lie with the tests, and one of Keras 3."""
    import keras  # noqa: PLC0415 - takes seconds

    old = Path(__file__).parents[1] / "learning" / "keras_2" / f"sequence{suffix}"
    image = keras.Input((8, 8, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, activation="relu")(image))
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"network{suffix}"
        keras.Model(image, keras.layers.Dense(1, "sigmoid")(pooled)).save(path)
        return path.read_bytes(), old.read_bytes()


def _checkpoint() -> bytes:
    stream = io.BytesIO()
    record = {"key": "k", "threads": 1, "seconds": 1.5, "epochs": [{"loss": 0.5}]}
    arrays: dict[str, Any] = {"network/00000": np.ones((3, 4), np.float32), "optimizer/00000": np.arange(5)}
    np.savez(stream, record=np.frombuffer(json.dumps(record).encode(), np.uint8), **arrays)
    return stream.getvalue()


def bundle_record(model: bytes, **others: Any) -> bytes:
    """A record of the small network, or of another, as it stands in `bundle.json`."""
    record = json.loads((packaged_bundles()["phantom"] / "bundle.json").read_bytes()) | others
    record["preprocess"] |= {"height": 16, "width": 16}
    record["outputs"] |= {"score_map": None}
    record["files"] = {"model.onnx": hashlib.sha256(model).hexdigest()}
    return json.dumps(record).encode()


SEEDS: Mapping[str, Callable[[], Files]] = {
    "png": lambda: (
        _picture(GREY, "PNG"),
        _picture(DEEP, "PNG"),
        _picture(COLOUR, "PNG"),
        _picture(GREY > 99, "PNG", transparency=0),
        _picture(np.dstack([COLOUR, GREY]), "PNG"),
    ),
    "jpeg": lambda: (
        _picture(GREY, "JPEG"),
        _picture(COLOUR, "JPEG", progressive=True),
        _picture(GREY, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
    ),
    "tiff": lambda: (
        _tagged([packed(DEEP, 12)], {256: 56, 257: 40, 258: 12}),
        _tagged([packed(GREY[:, :28], 8), packed(GREY[:, 28:], 8)], {256: 56, 257: 40, 322: 28, 323: 40}, tiled=True),
        _picture(GREY, "TIFF"),
        _picture(COLOUR, "TIFF", compression="tiff_lzw"),
        _picture(GREY > 99, "TIFF", compression="group4"),
        _picture(COLOUR, "TIFF", compression="jpeg"),
        _picture(DEEP, "TIFF", compression="tiff_adobe_deflate", big_tiff=True),
    ),
    "pnm": lambda: (
        _picture(GREY, "PPM"),
        _picture(COLOUR, "PPM"),
        b"P2 16 16 4095\n" + b"7 " * 256,
        b"P5 # deep\n16 16\n65535\n" + bytes(512),
        b"P4\n16 16\n" + b"\xf0" * 32,
    ),
    "bmp": lambda: (_picture(GREY, "BMP"), _picture(COLOUR, "BMP"), _picture(GREY > 99, "BMP")),
    "webp": lambda: (_picture(COLOUR, "WEBP"), _picture(COLOUR, "WEBP", lossless=True)),
    **{f"dicom {name}": partial(_dicom_of, name) for name in SYNTAXES},
    "zip": _zips,
    "manifest csv": _tables,
    "scores csv": _scores,
    "predictions parquet": _parquet,
    "recipe toml": lambda: tuple(read_recipe(name).to_toml().encode() for name in ("baseline", "accurate")),
    "bundle.json": lambda: (bundle_record(model()),),
    "run.json": lambda: (json.dumps(_RUN).encode(),),
    "model.onnx": lambda: (model(),),
    "keras h5": lambda: _keras(".h5"),
    "keras archive": lambda: _keras(".keras"),
    "checkpoint npz": lambda: (_checkpoint(),),
}
"""By format: whole files, made when they are asked for."""

_RUN: dict[str, Any] = {"schema_version": 2, "created": "2026-01-01", "data": "phantom", "epochs": 2, "best_epoch": 1}
_RUN |= {"seconds": 1.5, "parameters": 9, "images": {"train": 4}, "left_out": {}, "model_sha256": "00"}
