"""Decoding of one picture: here, or in a process of its own with limits on memory and time.

The latter is for pictures whose headers cannot be understood: what goes wrong costs one file. Bytes
and JSON go through pipes, nothing is pickled, and a caller's script is not imported anew.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammolens.errors import reason

SECONDS = 30
"""Processor time, and half the time by the clock, that one picture may take."""

MEMORY = 2 * 2**30
"""Address space of a worker before it decodes anything, in bytes: what its imports map."""

_BYTES_A_SAMPLE = 32  # decoders keep coefficients, tiles and copies of both
_TYPES = ("|u1", "|i1", "<u2", "<i2")


def decoded(data: bytes, syntax: str, options: dict[str, Any]) -> NDArray[Any]:
    """Decode the one frame `data`, here and now.

    Args:
        data: the codestream, or plain pixels where that is the transfer syntax.
        syntax: the transfer syntax, as a UID.
        options: of `pydicom.pixels.Decoder.as_array`: what the header says of the pixels.

    Returns:
        (rows, columns) or (rows, columns, 3), with the bits above Bits Stored as they are.
    """
    from pydicom import encaps, pixels, uid  # noqa: PLC0415 - takes 0.2 s

    decoder = pixels.get_decoder(uid.UID(syntax))  # type: ignore[attr-defined]
    source = encaps.encapsulate([data]) if decoder.is_encapsulated else data
    fixed = {"number_of_frames": 1, "pixel_keyword": "PixelData", "pixel_vr": "OB"}
    known: Any = {**fixed, "correct_unused_bits": False, **options}
    return np.asarray(decoder.as_array(source, index=0, **known)[0])


def decoded_apart(data: bytes, syntax: str, options: dict[str, Any]) -> NDArray[Any]:
    """Do what `decoded` does in a process with limits.

    Raises:
        ValueError: it cannot be decoded, takes too long or too much memory, or ends the process.
    """
    size = options["rows"] * options["columns"] * options["samples_per_pixel"]
    order = {"syntax": syntax, "options": options, "memory": MEMORY + _BYTES_A_SAMPLE * size}
    threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
    paths = os.pathsep.join(os.path.abspath(each) for each in sys.path if each)  # noqa: PTH100
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mammolens.images.dicom.decoding"],
            input=json.dumps(order).encode() + b"\n" + data,
            capture_output=True,
            timeout=2 * SECONDS,
            env={**os.environ, **threads, "PYTHONPATH": paths},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError("decoding takes too long") from None
    head, _, body = done.stdout.partition(b"\n")
    if not head:
        raise ValueError(f"decoding broke off with code {done.returncode}")
    return _answer(json.loads(head), body)


def _answer(head: dict[str, Any], body: bytes) -> NDArray[Any]:
    """Return the array that a worker wrote, or raise the error that it met."""
    if "error" in head or head["type"] not in _TYPES:
        raise ValueError(head.get("error", "the decoder answers in another form"))
    return np.frombuffer(body, head["type"]).reshape(head["shape"])


def _limit(memory: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # Windows has none; a lower one may be set
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _work() -> None:
    """Decode what comes in at the standard input, and write what comes of it."""
    order = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read()
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what decoders print is no answer
        _limit(order["memory"])
        try:
            pixels = decoded(data, order["syntax"], order["options"])
        except Exception as error:  # noqa: BLE001 - decoders raise whatever they trip over
            out.write(json.dumps({"error": reason(error) or type(error).__name__}).encode() + b"\n")
            return
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
        head = {"type": pixels.dtype.str, "shape": pixels.shape}
        out.write(json.dumps(head).encode() + b"\n" + pixels.tobytes())


if __name__ == "__main__":
    _work()
