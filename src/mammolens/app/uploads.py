"""What someone drops on the page, or the example chosen instead: how much is taken, and how it gets to the reader.

A dropped file is on disk only while it is read, in a folder of its own that is deleted at once.
"""

import io
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.files import scratch
from mammolens.hosting import MAX_FILE, MAX_IMAGES, MAX_TOTAL, inputs_called, kept_as
from mammolens.images import archives
from mammolens.images.archives import Input
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view
from mammolens.records import Laterality

NOT_TAKEN = secrets.token_bytes(16)
"""What the content of a file begins with of which there was no more to take; why is the rest."""

_THUMBNAIL = 160  # pixels of a side of each of its views
_POPULATION = 2026  # of synthetic patients: no model that ships has learnt from one of it


@dataclass(frozen=True)
class Upload:
    """One dropped file.

    Attributes:
        key: tells it from every other file of the session.
        name: as its owner calls it.
        content: the whole file.
    """

    key: str
    name: str
    content: bytes


@contextmanager
def as_inputs(upload: Upload) -> Iterator[list[Input]]:
    """Yield the images of a dropped file, those of an archive one by one, while they are on disk.

    They are named as their owner names them: the folder that holds them is never told.
    """
    name = safe_name(upload.name)
    with scratch() as folder:
        path = folder / kept_as(name)
        path.write_bytes(upload.content)
        try:
            yield inputs_called(name, path)
        finally:
            archives.close_archives()


def admitted(uploads: Sequence[Upload]) -> tuple[list[Upload], list[str]]:
    """Return the files that fit, in their order, and a sentence for each that does not."""
    taken: list[Upload] = []
    refused = []
    for upload in uploads:
        if why := _too_much(upload, taken):
            refused.append(
                f"{safe_name(upload.name)}: not looked at, because {why}. Remove other files, or use "
                "`mammolens predict` on the command line, which has no such limit."
            )
        else:
            taken.append(upload)
    return taken, refused


def _too_much(upload: Upload, taken: Sequence[Upload]) -> str | None:
    if upload.content.startswith(NOT_TAKEN):
        return upload.content.removeprefix(NOT_TAKEN).decode()
    if len(upload.content) > MAX_FILE:
        return f"it is over {MAX_FILE // 2**20} MB"
    if sum(len(one.content) for one in (upload, *taken)) > MAX_TOTAL:
        return f"all files together pass {MAX_TOTAL // 2**20} MB"
    if upload.content.startswith(b"PK") and safe_name(upload.name) in (safe_name(one.name) for one in taken):
        return "another archive of this name is on the page, and they may be of two patients"
    return f"the page takes {MAX_IMAGES} images at a time" if len(taken) == MAX_IMAGES else None


def safe_name(name: str) -> str:
    """Return the last part of a name from a browser, which may send a path of any system."""
    return PurePosixPath(name.replace("\\", "/")).name or "unnamed"


@dataclass(frozen=True)
class Example:
    """Which synthetic images stand under one title.

    Attributes:
        title: as it is listed; says what there is to see.
        patient: number of the synthetic patient.
        sides: of which all views are shown.
        inverted: dark tissue on white, as some machines store it.
    """

    title: str
    patient: int
    sides: tuple[Laterality, ...]
    inverted: bool = False


EXAMPLES = (
    Example("A mass, left breast, CC and MLO", 114, (Laterality.LEFT,)),
    Example("Microcalcifications, left breast, CC and MLO", 46, (Laterality.LEFT,)),
    Example("No lesion, right breast, CC and MLO", 8, (Laterality.RIGHT,)),
    Example("Inverted grey levels, a mass", 42, (Laterality.LEFT,), inverted=True),
    Example("Four views, a mass on the right", 54, (Laterality.RIGHT, Laterality.LEFT)),
)


@cache
def drawn(example: Example) -> tuple[Upload, ...]:
    """Draw the images of an example: PNG files whose names say synthetic, side and view."""
    patient = draw_patient(example.patient, _POPULATION)
    breasts = {breast.laterality: breast for breast in (patient.left, patient.right)}
    return tuple(
        Upload(
            key=f"example {example.title} {side} {view}",
            name=f"synthetic-{patient.patient_id}-{side}-{view}.png",
            content=png(draw_view(breasts[side], view, inverted=example.inverted).pixels),
        )
        for side in example.sides
        for view in VIEWS
    )


@cache
def thumbnail(example: Example) -> bytes:
    """Draw an example small, as a JPEG file: two breasts face each other, of one its two views."""
    patient = draw_patient(example.patient, _POPULATION)
    breasts = {breast.laterality: breast for breast in (patient.left, patient.right)}
    shown = [(side, view) for side in example.sides for view in VIEWS][:: len(example.sides)]
    pixels = [draw_view(breasts[side], view, size=_THUMBNAIL, inverted=example.inverted).pixels for side, view in shown]
    file = io.BytesIO()
    Pillow.fromarray(np.concatenate(pixels, axis=1)).save(file, format="JPEG")
    return file.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a grey or RGBA picture as a PNG file, packed fast rather than small."""
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()
