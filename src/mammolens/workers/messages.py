"""Values as they travel between processes: JSON for what is plain, raw bytes for arrays, and nothing that runs.

Whoever reads a message calls nothing that its sender chooses: it makes plain values, arrays of numbers, and records of
this package's own (enums, frozen dataclasses, named tuples, pydantic models) whose modules it has imported itself.
"""

# ruff: noqa: ANN401, C901, PLR0911 - any value, and a case a kind of value

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import IO, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel

from mammolens.records import DetailedWarning, ImageWarning

_LENGTH = 8  # bytes of a number of bytes
_MOST = 64 * 2**20, 2**30  # bytes of JSON and of arrays in a message; two pictures of the largest size are 0.6 GiB
_ALSO = {float: (float, int, np.integer, np.floating), int: (int, np.integer), bool: (bool, np.bool_)}
_NUMBERS = "biufc"  # kinds of arrays


def pack(value: Any) -> list[Any]:
    """Return one value as the bytes that are to be written.

    Raises:
        TypeError: it holds something that does not travel.
    """
    raw: list[Any] = []
    content = _packed(value, raw)
    text = json.dumps([[memoryview(one).nbytes for one in raw], content]).encode()
    return [len(text).to_bytes(_LENGTH), text, *raw]


def receive(stream: IO[bytes]) -> Any:
    """Read one value.

    Raises:
        EOFError: the other side has ended.
        Exception: it is no message, or one that is too large or holds what is not made here.
    """
    text = _read(stream, int.from_bytes(_read(stream, _LENGTH)), _MOST[0])
    sizes, content = json.loads(text)
    if sum(sizes) > _MOST[1]:
        raise ValueError(f"{sum(sizes)} bytes")
    return _unpacked(content, [_read(stream, size, _MOST[1]) for size in sizes])


def _read(stream: Any, size: int, most: int = _LENGTH) -> bytearray:
    if not 0 <= size <= most:
        raise ValueError(f"{size} bytes")
    content = bytearray(size)
    if stream.readinto(content) < size:
        raise EOFError
    return content


def name_of(thing: Any) -> str:
    """Return the name of a class or function of this package, by which another process finds it.

    Raises:
        TypeError: it is none of this package's, or has no name of its own.
    """
    name = f"{thing.__module__}:{thing.__qualname__}"
    if not name.startswith("mammolens.") or "<" in name:
        raise TypeError(f"{name} does not travel: it is not of this package")
    return name


def found(name: str) -> Any:
    """Return the class or function of that name, of a module that is imported already.

    Raises:
        LookupError: there is none.
        TypeError: it is none of this package's.
    """
    module, _, path = name.partition(":")
    thing: Any = sys.modules[module]
    for part in path.split("."):
        thing = vars(thing)[part]
    if name_of(thing) != name:
        raise LookupError(name)
    return thing


def _packed(value: Any, raw: list[Any]) -> Any:
    match value:
        case np.ndarray() | np.generic():
            array = np.asarray(value)
            turned = array.flags.f_contiguous and not array.flags.c_contiguous
            raw.append(np.ascontiguousarray(array.T if turned else array).reshape(-1).view(np.uint8))
            return {"array": [len(raw) - 1, array.dtype.str, array.shape, turned, isinstance(value, np.generic)]}
        case Enum():
            return {"enum": [name_of(type(value)), value.name]}
        case DetailedWarning():
            return {"warning": [value.kind.name, str(value)]}
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            raw.append(value)
            return {"bytes": len(raw) - 1}
        case Path():
            return {"path": os.fspath(value)}
        case list():
            return [_packed(one, raw) for one in value]
        case dict():
            return {"dict": [_packed(list(pair), raw) for pair in value.items()]}
        case tuple() if not hasattr(value, "_fields"):
            return {"tuple": _packed(list(value), raw)}
    name = name_of(type(value))
    return {"record": [name, *([key, _packed(getattr(value, key), raw)] for key in _fields(type(value)))]}


def _unpacked(content: Any, raw: list[bytearray]) -> Any:
    if isinstance(content, list):
        return [_unpacked(one, raw) for one in content]
    if not isinstance(content, dict):
        return content
    match content.popitem():
        case "array", (place, kind, shape, turned, single) if np.dtype(kind).kind in _NUMBERS:
            flat = np.frombuffer(raw[place], kind)
            array = flat.reshape(shape[::-1]).T if turned else flat.reshape(shape)
            return array[()] if single else array
        case "enum", (name, member) if issubclass(found(name), Enum):
            return found(name)[member]
        case "warning", (name, text):
            warning = DetailedWarning(text)
            warning.kind = ImageWarning[name]
            return warning
        case "bytes", place:
            return bytes(raw[place])
        case "path", path:
            return Path(path)
        case "dict", pairs:
            return dict(_unpacked(pairs, raw))
        case "tuple", values:
            return tuple(_unpacked(values, raw))
        case "record", (name, *fields) if _fields(found(name)):
            return _checked(found(name), dict(_unpacked(fields, raw)))
    raise ValueError(f"{content} is no value")


def _checked(kind: Any, fields: dict[str, Any]) -> Any:
    hints = {} if issubclass(kind, BaseModel) else get_type_hints(kind)  # such a model looks for itself
    if hints and not all(fits(value, hints[name]) for name, value in fields.items()):
        raise TypeError(f"no {kind.__name__}")
    return kind(**fields)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value that was received is of the type that a hint names; of arrays, the kind of their numbers."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hasattr(kind, "__value__"):  # a name for a type: from NumPy 2.5 on, NDArray is one
        return fits(value, kind.__value__[inner] if inner else kind.__value__)
    if kind in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if kind is tuple and inner:
        several = inner[:1] * len(value) if isinstance(value, tuple) and inner[-1] is Ellipsis else inner
        return isinstance(value, tuple) and len(value) == len(several) and all(map(fits, value, several))
    if kind in (dict, Mapping) and inner:
        return isinstance(value, dict) and all(
            fits(each, one) for pair in value.items() for each, one in zip(pair, inner, strict=True)
        )
    if kind is np.ndarray:
        number = get_args(inner[1])[0]
        return isinstance(value, np.ndarray) and (number is Any or np.issubdtype(value.dtype, number))
    if kind is Literal:
        return value in inner
    if kind is Any or hint in (None, type(None)):
        return kind is Any or value is None
    return isinstance(value, _ALSO.get(kind, kind))


def _fields(kind: Any) -> tuple[str, ...]:
    """Return the names of a record's fields: of a pydantic model, a named tuple or a frozen dataclass."""
    if issubclass(kind, BaseModel):
        return tuple(kind.model_fields)
    if issubclass(kind, tuple) or (dataclasses.is_dataclass(kind) and getattr(kind, "__dataclass_params__").frozen):  # noqa: B009
        return tuple(kind.__match_args__)
    raise TypeError(f"{kind.__name__} does not travel: it is no record")
