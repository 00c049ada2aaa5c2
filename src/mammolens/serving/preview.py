"""A contact sheet of images as stored and as the network will see them: look before you learn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mammolens.errors import ImageError, reason
from mammolens.images.breast import UNCERTAIN, Pixels, anatomy, thumbnail
from mammolens.images.image import Header
from mammolens.images.preprocess import Preprocess, as_float
from mammolens.images.reading import read_image
from mammolens.model.gate import Gate, is_admitted
from mammolens.records import ImageWarning, Warned
from mammolens.reports import figures

_PAIRS = 5  # a row
_LARGE = 768  # pixels of the longer side


def contact_sheet(paths: Sequence[Path], preprocess: Preprocess, count: int, seed: int = 0) -> tuple[Figure, list[str]]:
    """Draw `count` images chosen at random, each beside its prepared pixels.

    Returns:
        The figure, and a line for each image that could not be read.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(paths), size=min(count, len(paths)), replace=False)
    pictures: list[tuple[str, Pixels]] = []
    failures = []
    for index in sorted(chosen):
        path = paths[index]
        try:
            pixels = read_image(path).pixels
        except ImageError as error:
            failures.append(reason(error))
            continue
        pictures.append((path.name[:24], thumbnail(pixels)))
        pictures.append(("as the network sees it", as_float(preprocess(pixels).pixels)))
    return figures.contact_sheet(pictures, columns=2 * _PAIRS), failures


def before_and_after(path: Path, preprocess: Preprocess, gate: Gate | None = None) -> tuple[dict[str, str], Figure]:
    """Return what was read of one image, as text by name, and a picture before and after.

    Raises:
        ImageError: it cannot be read.
    """
    image = read_image(path)
    prepared = preprocess(image.pixels)
    seen = anatomy(image.pixels)
    header = image.header or Header()
    height, width = image.pixels.shape
    said: list[Warned] = [] if is_admitted(image, gate) else [ImageWarning.NOT_LIKE_TRAINING]
    said += [*image.warnings, *prepared.warnings]
    spacing = f"{header.spacing[0]} x {header.spacing[1]} mm" if header.spacing else None
    facts = {
        "file": str(path),
        "format": " ".join(filter(None, (image.format, header.transfer_syntax))),
        "size": f"{width} x {height} pixels",
        "depth": f"{image.bit_depth} bits, {'colour' if image.colour else 'grey'}",
        "polarity": f"{'inverted' if seen.polarity.inverted else 'upright'}, margin {seen.polarity.margin:.2f}"
        f"{' (uncertain)' if seen.polarity.margin < UNCERTAIN else ''}",
        "chest wall": "right" if seen.breast.chest_wall_right else "left",
        "laterality": header.laterality or "unknown",
        "view": header.view or "unknown",
        "pixel spacing": spacing or "unknown",
        "age": "unknown" if header.age is None else f"{header.age} years",
        "manufacturer": header.manufacturer or "unknown",
        "cropped to": "left {}, top {}, right {}, bottom {}".format(*prepared.geometry.crop),
        "warnings": "; ".join(said) or "none",
    }
    pictures = [
        ("as read", thumbnail(image.pixels, _LARGE)),
        ("as the network sees it", as_float(prepared.pixels)),
    ]
    return facts, figures.contact_sheet(pictures, columns=2)
