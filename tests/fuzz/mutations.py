"""Whole files → hostile ones: what their formats count, name and nest is changed, and any byte."""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

INTEGERS: tuple[int, ...] = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    4096,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
INTEGERS += (2**40, 2**63 - 1, 2**63, 2**64 - 1)
"""Where counts, lengths and places go wrong."""

VALUES: tuple[Any, ...] = (None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, -0.0, "", " ", "nan", "Infinity", "\0")
VALUES += ("../../x", "/etc/passwd", "ä" * 300, "mammolens", [], {}, [[]], [None], {"a": 1}, {"class_name": "Lambda"})

WORDS: tuple[bytes, ...] = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"99999999999999999999",
    b"-1",
    b"0",
    b"null",
    b'""',
    b"[]",
    b"{}",
    b"\0",
    b"\r",
)
WORDS += (
    b"\xff",
    b"\xef\xbb\xbf",
    b"[" * 3000,
    b"[[" * 9,
    b"1_0",
    b"0x10",
    b"inf",
    b"'''",
    b'"',
    b"\\ud800",
    b",,,,",
    b"=",
)
"""Of texts: what may stand where another word stands."""

DICOM_VALUES: tuple[bytes, ...] = (
    b"",
    b"\0\0",
    b"-1",
    b"nan",
    b"1e400",
    b"9" * 16,
    b"1\\2\\3",
    b"\\",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
)
DICOM_VALUES += (
    b"MONOCHROME1",
    b"PALETTE COLOR",
    b"YBR_FULL",
    b"SIGMOID",
    b"FOR PROCESSING",
    b"\xe4\xf6",
    b"1,5",
    b"\0" * 9,
)
VRS = ("CS", "DS", "IS", "US", "SS", "SQ", "OB", "OW", "LO", "UN", "UI", "AT", "FD", "PN", "UL", "OF")


def mutated(data: bytes, kind: str, seeds: tuple[bytes, ...], random: Random) -> bytes:
    """Return `data` changed in one to four places; a function of `random` alone."""
    structured = next((change for name, change in STRUCTURED.items() if kind.startswith(name)), blind)
    for _ in range(random.choice((1, 1, 1, 3))):
        if random.random() < 0.1:
            data = _spliced(data, random.choice(seeds), random)
        try:
            data = (structured if random.random() < 0.6 else blind)(data, random)
        except Exception:  # noqa: BLE001 - what is damaged already has no structure to change
            data = blind(data, random)
    return data


def blind(data: bytes, random: Random) -> bytes:
    """Change some bytes, whatever they mean."""
    changed, place = bytearray(data or b"\0"), random.randrange(max(len(data), 1))
    span = random.choice((1, 2, 4, 8, 64, 512))
    match random.randrange(7):
        case 0:
            changed[place] ^= 1 << random.randrange(8)
        case 1:
            changed[place : place + span] = random.randbytes(span)
        case 2:
            changed[place : place + min(span, 8)] = _integer(min(span, 8), random)
        case 3:
            del changed[place : place + span]
        case 4:
            changed[place:place] = changed[place : place + span]
        case 5:
            del changed[place:]
        case 6:
            changed[place:place] = bytes(span)
    return bytes(changed)


def _integer(size: int, random: Random) -> bytes:
    value = random.choice(INTEGERS) + random.choice((0, 0, 1, -1))
    return int(value % 256**size).to_bytes(size, "little" if random.random() < 0.5 else "big")


def _spliced(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _png(data: bytes, random: Random) -> bytes:
    """Change chunks, with checksums that are right: Pillow looks no further otherwise."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        chunks.append((name, data[place + 8 : place + 8 + length]))
        place += 12 + length
    which = random.randrange(len(chunks))
    name, body = chunks[which]
    match random.randrange(5):
        case 0:
            chunks[which] = (name, blind(body, random))
        case 1:
            chunks.insert(random.randrange(len(chunks) + 1), chunks[which])
        case 2:
            del chunks[which]
        case 3:
            chunks[which] = (
                random.choice((b"tRNS", b"PLTE", b"IDAT", b"IEND", b"acTL", b"eXIf", b"iCCP", b"zTXt")),
                body,
            )
        case 4 if name == b"IDAT":
            chunks[which] = (name, zlib.compress(blind(zlib.decompress(body), random)))
    framed: Iterator[bytes] = (
        struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks
    )
    return data[:8] + b"".join(framed)


def _jpeg(data: bytes, random: Random) -> bytes:
    """Change a segment: its kind, its length, what is in it, where it stands, how often."""
    place = random.choice([found.start() for found in re.finditer(rb"\xff[\xc0-\xfe]", data)])
    length = int.from_bytes(data[place + 2 : place + 4])
    head, segment, rest = data[:place], data[place : place + 2 + length], data[place + 2 + length :]
    match random.randrange(5):
        case 0:
            return head + rest
        case 1:
            return head + segment * random.choice((2, 3, 50)) + rest
        case 2:
            return head + b"\xff" + bytes([random.choice(range(0xC0, 0xFF))]) + segment[2:] + rest
        case 3:
            return head + segment[:2] + _integer(2, random) + segment[4:] + rest
    return head + segment[:4] + blind(segment[4:], random) + rest


def _tiff(data: bytes, random: Random) -> bytes:
    """Change a field of an entry of the directory."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    start = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
    entry = start + (8 if big else 2) + random.randrange(count) * (20 if big else 12)
    field, form = random.choice(((0, "H"), (2, "H"), (4, "Q" if big else "I"), (12 if big else 8, "Q" if big else "I")))
    size = struct.calcsize(order + form)
    value = (
        random.choice(INTEGERS)
        if field
        else random.choice(
            (254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339)
        )
    )
    number = struct.pack(order + form, value % 256**size)
    return data[: entry + field] + number + data[entry + field + size :]


def _pnm(data: bytes, random: Random) -> bytes:
    return _text(data[:24], random) + data[24:]


def _dicom(data: bytes, random: Random) -> bytes:
    """Give an element another value or another kind; of encoded pixels, change the frame."""
    from pydicom import dcmread  # noqa: PLC0415
    from pydicom.dataelem import RawDataElement  # noqa: PLC0415
    from pydicom.uid import UID  # noqa: PLC0415

    dataset = dcmread(io.BytesIO(data), force=True)
    dataset.save_as(io.BytesIO(), enforce_file_format=False)
    tag = random.choice(list(dataset.keys()))
    element = dataset.get_item(tag)
    old = element.value if isinstance(element.value, bytes) else b""
    value = blind(old, random) if tag == 0x7FE00010 or random.random() < 0.3 else random.choice(DICOM_VALUES)
    kind = random.choice(VRS) if random.random() < 0.2 else element.VR
    implicit, little = dataset.original_encoding
    raw = RawDataElement(tag, kind, len(value), value, 0, bool(implicit), bool(little))
    dataset._dict[tag] = raw
    if random.random() < 0.1:
        del dataset[tag]
    if random.random() < 0.1:
        dataset.file_meta.TransferSyntaxUID = UID(
            random.choice(("1.2.840.10008.1.2", "1.2.840.10008.1.2.5", "1.2.3", ""))
        )
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=False)
    return stream.getvalue()


def _zip(data: bytes, random: Random) -> bytes:
    """Change a field of a header, of the directory or of its end."""
    fields = {b"PK\3\4": (4, 6, 8, 14, 18, 22, 26, 28), b"PK\1\2": (8, 10, 16, 20, 24, 28, 30, 32, 38, 42)}
    fields |= {b"PK\5\6": (4, 6, 8, 10, 12, 16, 20)}
    mark = random.choice(list(fields))
    header = random.choice([found.start() for found in re.finditer(re.escape(mark), data)])
    place, size = header + random.choice(fields[mark]), random.choice((2, 4))
    if random.random() < 0.2:  # a name, as long as before
        names = (b"../../../../tmp/x.png", b"/etc/passwd.png", b"C:\\x\\y.png", b"\0\0.png", b"a/" * 20)
        start = header + (46 if mark == b"PK\1\2" else 30)
        length = int.from_bytes(data[header + (28 if mark == b"PK\1\2" else 26) :][:2], "little")
        return data[:start] + random.choice(names)[:length].ljust(length, b"x") + data[start + length :]
    return data[:place] + _integer(size, random) + data[place + size :]


def _text(data: bytes, random: Random) -> bytes:
    """Change a word, or a line."""
    if random.random() < 0.3:
        lines = data.splitlines(keepends=True)
        which = random.randrange(len(lines))
        lines[which : which + 1] = random.choice(([], [lines[which]] * 2, [lines[which]] * 300, [lines[which][::-1]]))
        return b"".join(lines)
    word = random.choice(list(re.finditer(rb"[\w.+-]+|[^\w\s]", data)))
    return data[: word.start()] + random.choice(WORDS) + data[word.end() :]


def json_changed(data: bytes, random: Random) -> bytes:
    """Give a place of a JSON text another value, or add or take a key."""
    whole = json.loads(data)
    holder, key = random.choice(_places(whole))
    match random.randrange(4):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(random.choice(VALUES))] = holder[key]
        case 2 if isinstance(holder[key], int | float):
            holder[key] = random.choice(INTEGERS) * random.choice((1, -1, 0.5))
        case _:
            holder[key] = random.choice(VALUES)
    return json.dumps(whole).encode()


def _places(node: Any) -> list[tuple[Any, Any]]:
    pairs = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [place for key, value in pairs for place in ((node, key), *_places(value))]


def _json(data: bytes, random: Random) -> bytes:
    return (json_changed if random.random() < 0.7 else _text)(data, random)


def _onnx(data: bytes, random: Random) -> bytes:
    """Change an operator, its attributes, or the shape and type of weights and ends."""
    import onnx  # noqa: PLC0415

    model = onnx.load_model_from_string(data)
    node, weight = random.choice(model.graph.node), random.choice(model.graph.initializer)
    end = random.choice([*model.graph.input, *model.graph.output])
    match random.randrange(6):
        case 0:
            node.op_type = random.choice(
                ("Loop", "If", "Expand", "Tile", "ConstantOfShape", "Conv", "Relu", "Range", "Mine")
            )
        case 1:
            node.domain = random.choice(("com.microsoft", "ai.onnx.ml", "mine"))
        case 2:
            node.attribute.append(
                onnx.helper.make_attribute(random.choice(("axis", "to", "allowzero")), random.choice(INTEGERS[:18]))
            )
        case 3:
            weight.dims[random.randrange(len(weight.dims))] = random.choice(INTEGERS[:18])
        case 4:
            weight.data_type = random.randrange(24)
        case 5:
            end.type.tensor_type.shape.dim[random.randrange(2)].dim_value = random.choice(INTEGERS[:18])
    return bytes(model.SerializeToString())


def _h5(data: bytes, random: Random) -> bytes:
    """Change what the file says of its layers and of who wrote it."""
    import h5py  # noqa: PLC0415

    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        if random.random() < 0.1:
            file.attrs["keras_version"] = random.choice(("", "1", "3.0", "x", 7, b"\xff"))
        else:
            config = file.attrs["model_config"]
            text = config.encode() if isinstance(config, str) else bytes(config)
            file.attrs["model_config"] = json_changed(text, random).decode("utf-8", "replace")
    return stream.getvalue()


def _keras(data: bytes, random: Random) -> bytes:
    """Change what the archive says of its layers and of who wrote it; or the archive."""
    if random.random() < 0.3:
        return _zip(data, random)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            chosen = member.filename.endswith(".json") and random.random() < 0.7
            new.writestr(member, _json(content, random) if chosen else content)
    return stream.getvalue()


STRUCTURED: Mapping[str, Callable[[bytes, Random], bytes]] = {
    "png": _png,
    "jpeg": _jpeg,
    "tiff": _tiff,
    "pnm": _pnm,
    "dicom": _dicom,
    "zip": _zip,
    "checkpoint": _zip,
    "manifest": _text,
    "scores": _text,
    "recipe": _text,
    "bundle.json": _json,
    "run.json": _json,
    "model.onnx": _onnx,
    "keras h5": _h5,
    "keras archive": _keras,
}
"""By the beginning of a format's name: how files of it are changed that are still files of it."""
