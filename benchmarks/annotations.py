"""How often text that is burned into a picture beside the breast is noticed, and how often where there is none.

Names in letters of several heights and shades, level and slanted, on synthetic mammograms.
"""

import sys
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from mammolens.deidentification.annotations import beside_breast, has_text
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view

HEIGHTS = (0.004, 0.006, 0.008, 0.012, 0.02, 0.04, 0.08)
"""Of a line of text, as shares of the picture's height."""

SHADES = (32, 64, 128, 255)
SIZE = 1024  # pixels
_TRIES = 100
_LARGE = 0.04


def label(text: str, height: float, shade: int, angle: float) -> NDArray[np.uint8]:
    """Return a line of text, light on black."""
    font = ImageFont.load_default(size=height * SIZE)
    left, top, right, bottom = (round(end) for end in font.getbbox(text))
    picture = Pillow.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(picture).text((4 - left, 4 - top), text, fill=shade, font=font)
    return np.asarray(picture.rotate(angle, Pillow.Resampling.BICUBIC, expand=True))


def annotated(pixels: NDArray[np.uint8], text: NDArray[np.uint8], seed: int) -> NDArray[np.uint8] | None:
    """Return a picture with text in a place drawn at random beside the breast; None where there is no room."""
    generator = np.random.default_rng(seed)
    beside = beside_breast((pixels / 255).astype(np.float32))
    height, width = text.shape
    if height > SIZE or width > SIZE:
        return None
    for _ in range(_TRIES):
        row, column = (int(generator.integers(SIZE - side + 1)) for side in (height, width))
        place = slice(row, row + height), slice(column, column + width)
        if beside[place].all():
            changed = pixels.copy()
            changed[place] = np.maximum(changed[place], text)
            return changed
    return None


def is_noticed(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether text is noticed in a picture."""
    grey = (pixels / 255).astype(np.float32)
    return has_text(grey, beside_breast(grey))


def drawn(patients: int) -> Iterator[NDArray[np.uint8]]:
    """Yield synthetic mammograms without their markers."""
    for number in range(patients):
        breast = draw_patient(number, 77).left
        for view in VIEWS:
            pixels = draw_view(breast, view, size=SIZE).pixels.copy()
            beside = beside_breast((pixels / 255).astype(np.float32))
            pixels[beside] = np.median(pixels[beside])
            yield pixels


def measure(patients: int) -> None:
    """Print the share of pictures in which text is noticed, by height and shade, and without any."""
    bare = list(drawn(patients))
    table = Table("height of the line, % of the picture's", "shade of 255", "pictures", "noticed, %")
    table.add_row("no text", "", str(len(bare)), f"{100 * np.mean([is_noticed(one) for one in bare]):.0f}")
    for height, shade in product(HEIGHTS, SHADES):
        texts = (
            label("SMITH^JANE 12.03.58" if height < _LARGE else "SMITH", height, shade, 20 * (number % 3))
            for number in range(len(bare))
        )
        made = [annotated(one, text, seed) for seed, (one, text) in enumerate(zip(bare, texts, strict=True))]
        seen = [is_noticed(one) for one in made if one is not None]
        table.add_row(f"{100 * height:.1f}", str(shade), str(len(seen)), f"{100 * np.mean(seen):.0f}" if seen else "")
    Console().print(table)


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
