"""A contact sheet of images as stored and as the network will see them: look before you learn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mammolens import figures
from mammolens.breast import Pixels, thumbnail
from mammolens.errors import ImageError, reason
from mammolens.preprocess import Preprocess, as_float
from mammolens.reading import read_image

_PAIRS = 5  # a row


def contact_sheet(
    paths: Sequence[Path], preprocess: Preprocess, count: int, seed: int = 0
) -> tuple[Figure, list[str]]:
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
