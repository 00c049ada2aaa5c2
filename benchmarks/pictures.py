"""Images to measure with: the real ones where they are at hand, else as many phantoms; and thousands of small ones."""

import os
from collections.abc import Sequence
from pathlib import Path

from mammolens.data.sources.phantom import write_phantoms

IMAGES = 2672

REAL = Path("../shared/data/rsna_breast")


def mammograms(scratch: Path) -> tuple[Path, str]:
    """Return a data set of 2,672 JPEGs of 640 × 640 in folders of splits and classes, and what they are."""
    if REAL.is_dir():
        return REAL, f"{IMAGES:,} mammograms"
    folder = scratch / "phantoms"
    write_phantoms(folder, IMAGES // 4)
    return folder, f"{IMAGES:,} phantoms"


def subset(folder: Path, images: int, into: Path) -> Path:
    """Link so many images of a data set, evenly taken, into folders of the same names."""
    paths = sorted(folder.rglob("*.jpg"))
    for number in range(images):
        path = paths[number * len(paths) // images]
        place = into / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)
    return into


def some(paths: Sequence[Path]) -> Sequence[Path]:
    """Return some 30 pictures, evenly taken, that tell what each takes."""
    return paths[:: max(1, len(paths) // 30)]
