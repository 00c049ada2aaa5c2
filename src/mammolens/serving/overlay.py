"""Pictures for people: a map laid over its picture, and an image as read and as the network sees it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from mammolens.data.identity import known_of
from mammolens.errors import ImageError, reason
from mammolens.files import written_whole
from mammolens.images.archives import Picture, image_in
from mammolens.images.breast import UNCERTAIN, Pixels, anatomy, thumbnail
from mammolens.images.image import Header
from mammolens.images.preprocess import Preprocess, as_float
from mammolens.images.reading import read_image
from mammolens.model.gate import Gate, Likeness, likeness
from mammolens.records import ImageWarning, Prediction, Reason

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINTEST = 0.2
"""Map value from which heat is drawn, and from which a place stands out: there is no other."""

LOOKED = "Where the network looked. Not a lesion outline."
RESEARCH = "Research use only."
_SAID: dict[Likeness, tuple[str, ...]] = {
    Likeness.NO_MAMMOGRAM: (Reason.NOT_A_MAMMOGRAM,),
    Likeness.UNLIKE_TRAINING: (ImageWarning.NOT_LIKE_TRAINING,),
    Likeness.LIKE_TRAINING: (),
}
NO_MAMMOGRAM = "Does not look like a mammogram: no decision, and the heat means nothing."

_LONGEST = 1024  # pixels of the longer side
_OPACITY = 0.6
_HOTTEST = 0.8  # map value from which heat is full
_STRIP, _FONT, _PADDING = 28, 14, 8  # height of the caption and of its letters, pixels
_SEEN = "as the network sees it"
_PAIRS, _LARGE = 5, 768  # pairs of pictures in a row; pixels of the longer side of one that is shown alone
_STEM = 60  # letters of an input's name that its heatmap keeps: file systems have a limit


def heat(score_map: Pixels) -> NDArray[np.uint8]:
    """Return a map in [0, 1] as RGBA, uint8 (height, width, 4): yellow to red above `FAINTEST`.

    The scale is fixed, not the map's own: a picture without anything suspect stays grey.
    """
    strength = np.clip((score_map - FAINTEST) / (_HOTTEST - FAINTEST), 0, 1)
    colour = np.empty((*score_map.shape, 4), dtype=np.uint8)
    colour[..., 0] = 255
    colour[..., 1] = np.rint(230 * (1 - strength))
    colour[..., 2] = 0
    colour[..., 3] = np.rint(255 * np.sqrt(strength))
    return colour


def heat_of_size(score_map: Pixels, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the heat of a map as a picture of `size`, (width, height); no place gets hotter."""
    # Bilinear: sharper filters overshoot, and would draw heat where the map has none.
    picture = Pillow.fromarray(np.ascontiguousarray(score_map, dtype=np.float32))
    return heat(np.asarray(picture.resize(size, Pillow.Resampling.BILINEAR)))


def caption(score_maps: Iterable[Pixels]) -> str:
    """Return what stands below pictures with heat; it says so where there is none to be seen."""
    if any(heat(score_map)[..., 3].any() for score_map in score_maps):
        return LOOKED
    return f"{LOOKED} No place stands out here, so nothing is drawn."


def overlay(pixels: Pixels, score_map: Pixels, opacity: float = _OPACITY) -> Pillow.Image:
    """Lay a map of any size over a picture, both of the whole image; the longer side is 1024.

    Args:
        pixels: float32 (height, width) in [0, 1].
        score_map: float32 in [0, 1].
        opacity: of the hottest places, in [0, 1].
    """
    scale = min(1.0, _LONGEST / max(pixels.shape))
    width, height = (max(1, round(side * scale)) for side in pixels.shape[::-1])
    size = width, height
    grey = Pillow.fromarray(np.rint(pixels * 255).astype(np.uint8)).resize(size)
    layer = heat_of_size(score_map, size)
    layer[..., 3] = np.rint(layer[..., 3] * opacity)
    mixed = Pillow.alpha_composite(grey.convert("RGBA"), Pillow.fromarray(layer))
    return mixed.convert("RGB")


def captioned(pixels: Pixels, score_map: Pixels, caveat: str = "") -> Pillow.Image:
    """Return the overlay with a line below it that says what it is not, after any `caveat`."""
    picture = overlay(pixels, score_map)
    said = " ".join(filter(None, (caveat, caption([score_map]), RESEARCH)))
    font = ImageFont.load_default(_FONT)
    width = max(picture.width, round(font.getlength(said)) + 2 * _PADDING)
    sheet = Pillow.new("RGB", (width, picture.height + _STRIP), "black")
    sheet.paste(picture)
    place = (_PADDING, picture.height + 6)
    ImageDraw.Draw(sheet).text(place, said, fill="white", font=font)
    return sheet


def drawn(answer: Prediction, score_map: Pixels, picture: Picture) -> Pillow.Image:
    """Return the heatmap of an answer, for which its picture is read once more.

    Raises:
        ImageError: it cannot be.
    """
    return captioned(image_in(picture, answer.path).pixels, score_map, "" if answer.admitted else NO_MAMMOGRAM)


def write_overlays(answers: Iterable[Prediction], pictures: Sequence[Picture], folder: Path) -> Iterator[Prediction]:
    """Yield `answers` while a heatmap of each is written into `folder`, named after its picture.

    An answer without a map gets none: what cannot be read, or does not look like a mammogram. What cannot be read a
    second time is a failure, as it would have been at first.

    Args:
        answers: in the order of `pictures`.
        pictures: read a second time for their pixels.
        folder: made if it is not there.
    """
    for number, (answer, picture) in enumerate(zip(answers, pictures, strict=True), start=1):
        if answer.score_map is not None:
            try:
                sheet = drawn(answer, answer.score_map, picture)
            except ImageError as error:
                failed = Prediction.failure(answer.path, reason(error), answer.threshold)
                yield replace(failed, operating_point=answer.operating_point)
                continue
            with written_whole(folder / f"{number:05d}-{answer.path.stem[:_STEM]}.png") as temporary:
                sheet.save(temporary, format="PNG")
        yield answer


def contact_sheet(paths: Sequence[Path], preprocess: Preprocess, count: int, seed: int) -> "tuple[Figure, list[str]]":
    """Draw `count` images chosen at random, each beside its prepared pixels.

    Returns:
        The figure, and a line for each image that could not be read.
    """
    from mammolens.reports import figures  # noqa: PLC0415 - matplotlib takes longer to load than an answer takes

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
        pictures.append((_SEEN, as_float(preprocess(pixels).pixels)))
    return figures.contact_sheet(pictures, columns=2 * _PAIRS), failures


def before_and_after(path: Path, preprocess: Preprocess, gate: Gate | None = None) -> "tuple[dict[str, str], Figure]":
    """Return what was read of one image, as text by name, and a picture before and after.

    Raises:
        ImageError: it cannot be read.
    """
    from mammolens.reports import figures  # noqa: PLC0415 - likewise

    image = read_image(path)
    seen = anatomy(image.pixels)
    prepared = preprocess(image.pixels, seen)
    header = image.header or Header()
    known = known_of(path, header)
    height, width = image.pixels.shape
    said = [*_SAID[likeness(image, gate, seen)], *image.warnings, *prepared.warnings, *known.warnings]
    spacing = f"{header.spacing[0]} x {header.spacing[1]} mm" if header.spacing else None
    facts = {
        "file": str(path),
        "format": " ".join(filter(None, (image.format, header.transfer_syntax))),
        "size": f"{width} x {height} pixels",
        "depth": f"{image.bit_depth} bits, {'colour' if image.colour else 'grey'}",
        "polarity": f"{'inverted' if seen.polarity.inverted else 'upright'}, margin {seen.polarity.margin:.2f}"
        f"{' (uncertain)' if seen.polarity.margin < UNCERTAIN else ''}",
        "chest wall": "right" if seen.breast.chest_wall_right else "left",
        "laterality": known.identity.laterality or "unknown",
        "view": known.identity.view or "unknown",
        "pixel spacing": spacing or "unknown",
        "age": "unknown" if header.age is None else f"{header.age} years",
        "manufacturer": header.manufacturer or "unknown",
        "cropped to": "left {}, top {}, right {}, bottom {}".format(*prepared.geometry.crop),
        "warnings": "; ".join(said) or "none",
    }
    pictures = [("as read", thumbnail(image.pixels, _LARGE)), (_SEEN, as_float(prepared.pixels))]
    return facts, figures.contact_sheet(pictures, columns=2)
