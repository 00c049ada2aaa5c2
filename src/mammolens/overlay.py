"""A score map laid over its picture: a heatmap PNG that says what it is not."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from mammolens.breast import Pixels
from mammolens.files import written_whole
from mammolens.inputs import Input
from mammolens.reading import read_image
from mammolens.records import Prediction

CAPTION = "Where the network looked. Not a lesion outline. Research use only."

_LONGEST = 1024  # pixels of the longer side
_OPACITY = 0.6
_FAINTEST, _HOTTEST = 0.2, 0.8  # map values from which heat is drawn, and from which it is full
_STRIP, _FONT, _PADDING = 28, 14, 8  # height of the caption and of its letters, pixels
_STEM = 60  # letters of an input's name that its heatmap keeps: file systems have a limit


def heat(score_map: Pixels) -> NDArray[np.uint8]:
    """Return a map in [0, 1] as RGBA, uint8 (height, width, 4): yellow to red, clear up to 0.2.

    The scale is fixed, not the map's own: a picture without anything suspect stays grey.
    """
    strength = np.clip((score_map - _FAINTEST) / (_HOTTEST - _FAINTEST), 0, 1)
    colour = np.empty((*score_map.shape, 4), dtype=np.uint8)
    colour[..., 0] = 255
    colour[..., 1] = np.rint(230 * (1 - strength))
    colour[..., 2] = 0
    colour[..., 3] = np.rint(255 * np.sqrt(strength))
    return colour


def overlay(pixels: Pixels, score_map: Pixels, opacity: float = _OPACITY) -> Pillow.Image:
    """Lay a map of any size over a picture, both of the whole image; the longer side is 1024.

    Args:
        pixels: float32 (height, width) in [0, 1].
        score_map: float32 in [0, 1].
        opacity: of the hottest places, in [0, 1].
    """
    scale = min(1.0, _LONGEST / max(pixels.shape))
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[::-1])
    grey = Pillow.fromarray(np.rint(pixels * 255).astype(np.uint8)).resize(size)
    coloured = Pillow.fromarray(np.ascontiguousarray(score_map)).resize(size)
    layer = heat(np.asarray(coloured))
    layer[..., 3] = np.rint(layer[..., 3] * opacity)
    mixed = Pillow.alpha_composite(grey.convert("RGBA"), Pillow.fromarray(layer))
    return mixed.convert("RGB")


def write_overlay(pixels: Pixels, score_map: Pixels, path: Path) -> None:
    """Write the overlay as PNG with a line below it that says what it is not."""
    picture = overlay(pixels, score_map)
    font = ImageFont.load_default(_FONT)
    width = max(picture.width, round(font.getlength(CAPTION)) + 2 * _PADDING)
    sheet = Pillow.new("RGB", (width, picture.height + _STRIP), "black")
    sheet.paste(picture)
    place = (_PADDING, picture.height + 6)
    ImageDraw.Draw(sheet).text(place, CAPTION, fill="white", font=font)
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG")


def write_overlays(
    answers: Iterable[Prediction], inputs: Sequence[Input], folder: Path
) -> Iterator[Prediction]:
    """Yield `answers` while a heatmap of each is written into `folder`, named after its input.

    Args:
        answers: in the order of `inputs`.
        inputs: read a second time for their pixels.
        folder: made if it is not there.
    """
    for number, (answer, source) in enumerate(zip(answers, inputs, strict=True), start=1):
        if answer.score_map is not None:
            with source.on_disk() as path:
                pixels = read_image(path).pixels
            name = f"{number:05d}-{source.name.stem[:_STEM]}.png"
            write_overlay(pixels, answer.score_map, folder / name)
        yield answer
