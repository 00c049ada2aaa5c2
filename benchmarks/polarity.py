"""Polarity on altered real images: strips along each side, crops, and the negative of each.

    python benchmarks/polarity.py EVERY FOLDER…   # EVERY 1: all images; 10: each tenth

Counts errors against the polarity that each image is judged to have as it is (docs/experiments.md,
4 and 34: by eye, and by machine). Writes nothing.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from mammolens.images.breast import Pixels, anatomy, find_breast, polarity, thumbnail
from mammolens.images.reading import read_image

SHARES = (0.06, 0.09, 0.13)
COVERS = (0.75, 0.85, 0.9, 0.95)


def strip(upright: Pixels, side: int, share: float) -> Pixels:
    """Draw a white strip over one side: 0 is the top, 1 the right, 2 the bottom, 3 the left."""
    drawn = upright.copy()
    turned = np.rot90(drawn, side)
    turned[: round(len(turned) * share)] = 1
    return drawn


def crop(upright: Pixels, cover: float) -> Pixels:
    """Take off the emptiest side, again and again, until the breast covers `cover` of the rest."""
    breast = find_breast(upright)
    mask, (height, width) = breast.mask, upright.shape
    left, top, right, bottom = (
        round(share * side) for share, side in zip(breast.box, (width, height, width, height), strict=True)
    )
    while mask[top:bottom, left:right].mean() < cover and min(bottom - top, right - left) > 40:
        box = mask[top:bottom, left:right]
        sides = (box[0], box[-1], box[:, 0], box[:, -1])
        emptiest = int(np.argmin([side.mean() for side in sides]))
        top += 2 * (emptiest == 0)
        bottom -= 2 * (emptiest == 1)
        left += 2 * (emptiest == 2)
        right -= 2 * (emptiest == 3)
    kept = np.ascontiguousarray(upright[top:bottom, left:right])
    return thumbnail(np.asarray(Pillow.fromarray(kept).resize((256, 256))))


def middle(upright: Pixels, share: float) -> Pixels:
    """Keep the rows about the middle of the breast: its background is then a band beside it."""
    _, top, _, bottom = find_breast(upright).box
    height = upright.shape[0]
    centre, half = (top + bottom) / 2 * height, (bottom - top) / 2 * height * share
    rows = slice(max(0, round(centre - half)), max(round(centre + half), 20))
    kept = np.ascontiguousarray(upright[rows])
    return thumbnail(np.asarray(Pillow.fromarray(kept).resize((256, 256))))


def variants(upright: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Yield what is made of an image, by name."""
    yield "as it is", upright
    for share in SHARES:
        for side in range(4):
            yield f"strip {share:.0%}", strip(upright, side, share)
    yield "two strips 9%", strip(strip(upright, 0, 0.09), 2, 0.09)
    yield "two strips 9%", strip(strip(upright, 1, 0.09), 3, 0.09)
    if find_breast(upright).area > 0.02:
        for cover in COVERS:
            yield f"crop {cover:.0%}", crop(upright, cover)
        for share in (0.5, 0.7):
            yield f"middle {share:.0%}", middle(upright, share)


def errors(path: Path) -> Counter[tuple[str, str]]:
    """Count what is judged, and what wrongly, of one image."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, picture in variants(anatomy(read_image(path).pixels).upright):
        for negative in (False, True):
            found = polarity(1 - picture if negative else picture)
            counts[name, "judged"] += 1
            counts[name, "wrong"] += found.inverted != negative
    return counts


def main() -> None:
    """Print one line a kind of alteration."""
    found = [path for folder in sys.argv[2:] for path in sorted(Path(folder).rglob("*.jpg"))]
    paths = found[:: int(sys.argv[1])]
    total: Counter[tuple[str, str]] = Counter()
    with get_context("spawn").Pool(2) as pool:
        for counts in pool.imap_unordered(errors, paths, chunksize=16):
            total.update(counts)
    for name in dict.fromkeys(name for name, _ in total):
        print(f"{name:16}{total[name, 'wrong']:6} of {total[name, 'judged']:6}")


if __name__ == "__main__":
    main()
