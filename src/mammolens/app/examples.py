"""The built-in examples: drawn, synthetic mammograms, as the files that someone would drop."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image as Pillow

from mammolens.app.uploads import Upload
from mammolens.phantoms.drawing import Breast, Patient, draw_patient, draw_view
from mammolens.records import Laterality, View

_POPULATION = 2026  # no model that ships has learnt from a patient of it
_VIEWS = (View.CC, View.MLO)


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
    Example("Black and white exchanged, a mass", 42, (Laterality.LEFT,), inverted=True),
    Example("Four views, a mass on the right", 54, (Laterality.RIGHT, Laterality.LEFT)),
)


@cache
def drawn(example: Example) -> tuple[Upload, ...]:
    """Draw the images of an example: PNG files whose names say synthetic, side and view."""
    patient = draw_patient(example.patient, _POPULATION)
    return tuple(
        Upload(
            key=f"example {example.title} {breast.laterality} {view}",
            name=f"synthetic-{patient.patient_id}-{breast.laterality}-{view}.png",
            content=_png(breast, view, inverted=example.inverted),
        )
        for breast in _breasts(patient, example.sides)
        for view in _VIEWS
    )


def _breasts(patient: Patient, sides: Sequence[Laterality]) -> list[Breast]:
    return [patient.left if side is Laterality.LEFT else patient.right for side in sides]


def _png(breast: Breast, view: View, *, inverted: bool) -> bytes:
    file = io.BytesIO()
    phantom = draw_view(breast, view, inverted=inverted)
    Pillow.fromarray(phantom.pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()
