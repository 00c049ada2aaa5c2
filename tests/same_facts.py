"""What is compared of the files that mammolens writes: see `same_answers.py`."""

import base64
import csv
import io
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import onnxruntime
import pandas as pd
from PIL import Image

LEFT_OUT = {
    *("created", "seconds", "mammolens_version"),
    *("packages", "python", "platform", "cores", "device", "commit"),
    *("model_sha256", "model.onnx"),  # checksums of files whose weights are compared
    "knots",  # empty: of isotonic calibration, which bundles no longer have
}
"""Keys of JSON that are not compared."""

LEFT_OUT_OF_TEXT = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ][\d:+.Z]+)?"  # dates
    r"|\d+:\d\d:\d\d|\bin \d+ s\b"  # how long it took
    r"|\bmammolens\s+\d+\.\d+\.\d+\S*"  # versions
    r"|\b(?=\d*[a-f])[0-9a-f]{32,}\b"  # checksums
    r"|[─-╿]"  # frames of tables, bars of progress
)

WORDING = {
    *("title", "why", "mend", "reason", "warnings", "error", "licence", "intended_use"),
    *("started_from", "left_out"),
}
"""Keys of JSON and columns that hold sentences."""

NUMBER = re.compile(r"(?:(?<![\w.)])[-−+])?\d+(?:\.\d+)?(?:e[-+]?\d+)?")

Value = tuple[str, Any]
"""Where in a file, its keys parted by slashes, and what: a number, a name, an array, or `Words`."""


class Words(str):
    """Text for people: its numbers are compared, all else is only told."""

    __slots__ = ()


@dataclass
class Facts:
    """What is in a file: values by place, and words in which numbers are ``#``."""

    values: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many numbers and names."""
        return sum(int(np.size(value)) for value in self.values.values())


def facts_of(path: Path, here: Path) -> Facts:
    """Read a file; `here` is the folder in which commands were typed, and may be part of paths."""
    facts = Facts()
    for where, value in READERS.get(path.suffix, read_bytes)(path):
        place = where.replace(str(here), "HERE")
        keys = set(place.split("/"))
        if keys & LEFT_OUT:
            continue
        text = LEFT_OUT_OF_TEXT.sub(" ", str(value).replace(str(here), "HERE"))
        if isinstance(value, Words) or (isinstance(value, str) and keys & WORDING):
            for index, number in enumerate(NUMBER.findall(text)):
                facts.values[f"{place} number {index}"] = number
            facts.words += NUMBER.sub("#", text).split()
        else:
            facts.values[place] = text if isinstance(value, str) else value
    return facts


def equal(before: object, after: object) -> bool:
    """Tell whether two values are the same to the last bit; nothing is as good as nothing."""
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        floats = before.dtype.kind == "f"
        return before.dtype == after.dtype and np.array_equal(before, after, equal_nan=floats)
    if isinstance(before, float) and isinstance(after, float):
        return before == after or (math.isnan(before) and math.isnan(after))
    return type(before) is type(after) and before == after


class Page(HTMLParser):
    """What is seen of HTML or SVG: text, pictures and lines."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.drawn: list[Value] = []
        self.text: list[str] = []
        self._seen = True
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen = tag not in {"style", "script"}
        for name, value in attrs:
            if name == "src" and value and value.startswith("data:image/"):
                pixels = pixels_of(io.BytesIO(base64.b64decode(value.partition(",")[2])))
                self.drawn.append((f"picture {len(self.drawn)}", pixels))
            elif name == "d" and value:
                self.drawn.append((f"line {len(self.drawn)}", value))

    def handle_endtag(self, tag: str) -> None:
        self._seen = self._seen or tag in {"style", "script"}

    def handle_data(self, data: str) -> None:
        if self._seen:
            self.text.append(data)


def read_page(path: Path) -> Iterator[Value]:
    """Read HTML or SVG."""
    page = Page(path.read_text(encoding="utf-8"))
    yield from page.drawn
    yield "text", Words(" ".join(page.text))


def read_text(path: Path) -> Iterator[Value]:
    """Read what was said."""
    yield "text", Words(path.read_text(encoding="utf-8", errors="backslashreplace"))


def read_code(path: Path) -> Iterator[Value]:
    """Read with what a command ended."""
    yield "exit code", path.read_text(encoding="utf-8")


def read_bytes(path: Path) -> Iterator[Value]:
    """Read a file of which nothing else is known."""
    yield "bytes", np.fromfile(path, np.uint8)


def read_tree(tree: object, place: str = "") -> Iterator[Value]:
    """Read lists and dicts within one another."""
    if not isinstance(tree, dict | list):
        yield place.strip("/"), tree
        return
    for key, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from read_tree(branch, f"{place}/{key}")


def read_csv(path: Path) -> Iterator[Value]:
    """Read a table, all cells text."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from read_tree(list(csv.DictReader(file)))


def read_parquet(path: Path) -> Iterator[Value]:
    """Read a table with its types."""
    yield from read_tree(pd.read_parquet(path).to_dict("records"))


def pixels_of(file: Path | io.BytesIO) -> np.ndarray:
    """Read a picture."""
    with Image.open(file) as picture:
        return np.asarray(picture)


def read_weights(path: Path) -> Iterator[Value]:
    """Read the arrays of HDF5; the description of the network beside them names modules."""
    found: list[Value] = []

    def read(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            found.append((name, np.asarray(node)))

    with h5py.File(path) as file:
        file.visititems(read)
    yield from found


def read_onnx(path: Path) -> Iterator[Value]:
    """Read the weights, in order, and what the network answers for two pictures of noise."""
    graph = onnx.load(path).graph
    for index, tensor in enumerate(graph.initializer):
        yield f"weights {index}", onnx.numpy_helper.to_array(tensor)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    (asked,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 2 for size in asked.shape]
    pictures = np.random.default_rng(0).random(shape, np.float32)
    outputs = [output.name for output in session.get_outputs()]
    yield from zip(outputs, session.run(outputs, {asked.name: pictures}), strict=True)


READERS: dict[str, Callable[[Path], Iterator[Value]]] = {
    ".json": lambda path: read_tree(json.loads(path.read_text(encoding="utf-8"))),
    ".toml": lambda path: read_tree(tomllib.loads(path.read_text(encoding="utf-8"))),
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".h5": read_weights,
    ".onnx": read_onnx,
    ".code": read_code,
    **dict.fromkeys((".html", ".svg"), read_page),
    **dict.fromkeys((".png", ".jpg"), lambda path: iter([("pixels", pixels_of(path))])),
    **dict.fromkeys((".md", ".stdout", ".stderr"), read_text),
}
"""Suffix → how what is compared is read."""
