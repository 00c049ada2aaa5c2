"""Text that was burned into a picture beside the breast: found, and blackened with all else that is there."""

import numpy as np
from PIL import Image as Pillow
from scipy import ndimage

from mammolens.images.breast import Mask, Pixels, anatomy, dilated

_SIDE = 1024  # pixels of the longer side of what is looked at
_RIM = 8  # pixels around the breast, of a thumbnail of 256
_WINDOW = (25, 25)  # pixels: letters have thinner strokes
_CONTRAST = 0.12  # of strokes with what is around them
_LEAST, _TALLEST, _LONGEST = 4, 120, 600  # pixels: the height of letters, and the length of a line
_STROKES = 12  # pixels of a letter that stand out


def beside_breast(pixels: Pixels) -> Mask:
    """Return True where there is no breast and no rim of it: bool of (height, width), as the picture.

    Args:
        pixels: float32 (height, width) in [0, 1], in either polarity.
    """
    breast = anatomy(pixels).breast
    if not breast.is_found:
        return np.zeros(pixels.shape, dtype=bool)
    around = Pillow.fromarray(~dilated(breast.mask, _RIM))
    return np.asarray(around.resize(pixels.shape[::-1], Pillow.Resampling.NEAREST))


def has_text(pixels: Pixels, beside: Mask) -> bool:
    """Tell whether something like letters stands beside the breast: strokes, light or dark, of no great size."""
    scale = min(1.0, _SIDE / max(pixels.shape))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = np.asarray(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BOX))
    where = np.asarray(Pillow.fromarray(beside).resize(size, Pillow.Resampling.NEAREST))
    return any(
        _is_letter(labels[place] == number)
        for strokes in (ndimage.white_tophat(small, _WINDOW), ndimage.black_tophat(small, _WINDOW))
        for labels in (ndimage.label((strokes > _CONTRAST) & where, np.ones((3, 3)))[0],)
        for number, place in enumerate(ndimage.find_objects(labels), 1)
    )


def _is_letter(strokes: Mask) -> bool:
    short, long = sorted(strokes.shape)
    return _LEAST <= short <= _TALLEST and long <= _LONGEST and bool(strokes.sum() >= _STROKES)


def darkest(pixels: Pixels) -> tuple[int, int]:
    """Return where a picture is as black as its background: (row, column)."""
    inverted = anatomy(pixels).polarity.inverted
    row, column = np.unravel_index(int(pixels.argmax() if inverted else pixels.argmin()), pixels.shape)
    return int(row), int(column)
