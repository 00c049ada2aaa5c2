"""Drawn pictures that are no mammograms: X-rays of limbs, hands, fingers, teeth and chests, ultrasound, slices, shapes.

Each function draws one, float32 of `SIDE` pixels a side in [0, 1], from a generator of random numbers.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from mammolens.images.breast import Pixels
from mammolens.phantoms.drawing import power_law_noise

SIDE = 256
"""Height and width of every drawing, in pixels."""

_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float64)
_LETTER = ["one", "line", "of", "a", "letter", "that", "says", "nothing", "of", "any", "breast", "and", "goes", "on"]

Generator = np.random.Generator
Plane = NDArray[np.float64]


class _Exposure:
    """Soft tissue and bone, by thickness, of which an X-ray is made."""

    def __init__(self, rng: Generator) -> None:
        self.rng, self.soft, self.bone = rng, np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))

    def add(self, start: Plane, end: Plane, soft: float, bone: float) -> None:
        """Lay a rod of soft tissue, and in it a bone with knobs at its ends; radii in pixels."""
        along = end - start
        share = np.clip(((_X - start[0]) * along[0] + (_Y - start[1]) * along[1]) / max(along @ along, 1e-6), 0, 1)
        away = np.hypot(_X - start[0] - share * along[0], _Y - start[1] - share * along[1])
        self.soft = np.maximum(self.soft, np.sqrt(np.maximum(soft**2 - away**2, 0)))
        depth = away / (bone * (1 + 0.5 * np.exp(-((np.minimum(share, 1 - share) / 0.08) ** 2))))
        wall = 0.35 * np.sqrt(np.maximum(1 - depth**2, 0)) + 0.6 * np.exp(-(((depth - 0.8) / 0.12) ** 2))
        self.bone = np.maximum(self.bone, np.where(depth < 1, wall, 0))

    def developed(self) -> Pixels:
        """Return the picture, turned by a random quarter."""
        rng = self.rng
        noise = rng.normal(size=(SIDE, SIDE))
        texture = ndimage.gaussian_filter(noise, 1.2) + 3 * ndimage.gaussian_filter(noise, 4)
        soft = self.soft / max(self.soft.max(), 1e-6)
        grey = rng.uniform(0.25, 0.6) * soft ** rng.uniform(0.5, 1)
        grey += self.bone * rng.uniform(0.4, 0.8) * (1 + 0.1 * texture) + 0.02 * texture * (soft > 0)
        return _grey(np.rot90(ndimage.gaussian_filter(grey, rng.uniform(0.5, 1.5)), int(rng.integers(4))))


def limb(rng: Generator) -> Pixels:
    """Draw an X-ray of two long bones and their joint."""
    image, angle = _Exposure(rng), rng.uniform(-0.5, 0.5)
    middle = rng.uniform((80, 90), (176, 166))
    bone, half = np.array([np.sin(angle), np.cos(angle)]), 200
    soft = rng.uniform(35, 75)
    wide = soft * rng.uniform(0.3, 0.5)
    gap = bone * rng.uniform(4, 8)
    image.add(middle - half * bone, middle - gap, soft, wide)
    image.add(middle + gap, middle + half * bone, soft * rng.uniform(0.7, 1), wide * rng.uniform(0.6, 1))
    return image.developed()


def hand(rng: Generator) -> Pixels:
    """Draw an X-ray of a hand of three to five fingers."""
    image, palm = _Exposure(rng), rng.uniform((100, 140), (156, 180))
    for angle in np.linspace(-0.5, 0.5, rng.integers(3, 6)) * rng.uniform(0.7, 1.3):
        knuckle = palm + np.array([72 * np.sin(angle), -20 - 40 * np.cos(angle)])
        image.add(palm + np.array([35 * np.sin(2 * angle), 0]), knuckle, 16, 6)
        length = rng.uniform(22, 34)
        for joint in range(3):
            bone = np.array([np.sin(angle), -np.cos(angle)]) * length
            image.add(knuckle + 0.06 * bone, knuckle + 0.94 * bone, 11, 5 - 0.7 * joint)
            knuckle, length = knuckle + bone, 0.75 * length
    for side in (-12, 14):
        image.add(palm + np.array([side, 10]), np.array([palm[0] + side, SIDE]), 30, 12)
    return image.developed()


def finger(rng: Generator) -> Pixels:
    """Draw an X-ray of one finger or toe that comes in from a side, as a breast does."""
    image, joint = _Exposure(rng), np.array([-10, rng.uniform(100, 156)])
    soft = rng.uniform(35, 80)
    for length in rng.uniform(50, 80, 3):
        bone = np.array([length, rng.uniform(-8, 8)])
        image.add(joint + 0.05 * bone, joint + 0.95 * bone, soft, soft * rng.uniform(0.4, 0.55))
        joint = joint + bone
    return image.developed()


def teeth(rng: Generator) -> Pixels:
    """Draw an X-ray of two rows of teeth."""
    grey, count = 0.25 + 0.3 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2), int(rng.integers(3, 9))
    for place in (np.arange(count) + 0.5) * SIDE / count + rng.normal(0, 3, count):
        width = SIDE / count * rng.uniform(0.36, 0.48)
        for jaw in (-1, 1):
            share = np.clip(jaw * (_Y - 128) / rng.uniform(60, 110), 0, 1.3)
            away = np.abs(_X - place) / np.maximum(width * (1 - 0.55 * share), 1)
            tooth = (away < 1) & (share > 0.05) & (share < 1)
            grey = np.where(tooth, 0.9 - 0.3 * share + 0.4 * (share < 0.3) - 0.35 * (away < 0.15), grey)
    return _grey(ndimage.gaussian_filter(grey, 1))


def chest(rng: Generator) -> Pixels:
    """Draw an X-ray of a chest: two lungs, a spine, a heart, ribs."""
    body = np.exp(-(np.abs((_X - 128) / rng.uniform(105, 140)) ** 6))
    wide, tall = rng.uniform(35, 48), rng.uniform(75, 95)
    lungs = sum(np.exp(-((((_X - x) / wide) ** 2 + ((_Y - 120) / tall) ** 2) ** 3)) for x in (75, 181))
    heart = np.exp(-((((_X - 145) / 30) ** 2 + ((_Y - 160) / 38) ** 2) ** 2))
    grey = body * (0.75 + 0.2 * (_Y > 205)) - 0.5 * lungs + 0.35 * np.exp(-(((_X - 128) / 14) ** 2)) + 0.35 * heart
    for rib in range(8):
        line = 30 + 24 * rib + np.abs(_X - 128) * 0.25 + ((_X - 128) / 60) ** 2 * 8
        grey += 0.1 * body * np.exp(-(((_Y - line) / 4) ** 2))
    return _grey(grey + 0.03 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.5))


def ultrasound(rng: Generator) -> Pixels:
    """Draw the sector that an ultrasound probe sees, full of speckle."""
    angle, away = np.arctan2(_X - 128, _Y + 20), np.hypot(_X - 128, _Y + 20)
    sector = (np.abs(angle) < rng.uniform(0.5, 0.85)) & (away > 50) & (away < rng.uniform(220, 262))
    real, imaginary = (ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), (0.6, 2)) for _ in range(2))
    layers = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), (6, 18)) * rng.uniform(6, 15)
    echo = np.log1p(30 * np.hypot(real, imaginary) * np.clip(0.5 + layers, 0.05, 1.5))
    return _grey(echo * sector * np.exp(-_Y / rng.uniform(200, 600)))


def head(rng: Generator) -> Pixels:
    """Draw a slice of a head: a bright or dark ring, and blobs in it."""
    ring = ((_X - 128) / rng.uniform(60, 110)) ** 2 + ((_Y - 128) / rng.uniform(60, 115)) ** 2
    grey = np.where(ring < 1, np.where(ring > 0.85, rng.choice([0.25, 1.0]), 0.5), 0)
    for x, y in rng.uniform(80, 176, (rng.integers(3, 12), 2)):
        wide, tall = rng.uniform(6, 25, 2)
        grey[(((_X - x) / wide) ** 2 + ((_Y - y) / tall) ** 2 < 1) & (ring < 0.8)] = rng.uniform(0, 1)
    return _grey(ndimage.gaussian_filter(grey, 1) + rng.normal(0, 0.02, grey.shape) * (ring < 1.1))


def text(rng: Generator) -> Pixels:
    """Draw a page of text, dark on bright or bright on dark."""
    paper, ink = ((255, 0), (0, 230), (240, 40))[rng.integers(3)]
    picture, size = Pillow.new("L", (SIDE, SIDE), paper), int(rng.integers(8, 20))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for top in range(int(rng.integers(5, 40)), SIDE - 30, int(1.3 * size)):
        draw.text((int(rng.integers(5, 12)), top), " ".join(rng.choice(_LETTER, 10)), fill=ink, font=font)
    return np.asarray(picture, dtype=np.float32) / np.float32(255)


def chart(rng: Generator) -> Pixels:
    """Draw a chart of bars, or of lines, with axes."""
    paper, ink = ((255, 0), (20, 230))[rng.integers(2)]
    picture = Pillow.new("L", (SIDE, SIDE), paper)
    draw, values = ImageDraw.Draw(picture), rng.uniform(30, 210, 9)
    draw.line((30, 15, 30, 230, 245, 230), fill=ink, width=2)
    if rng.random() < 0.5:
        for number, value in enumerate(values):
            draw.rectangle((38 + 22 * number, 230 - value, 54 + 22 * number, 229), fill=int(rng.integers(60, 180)))
    else:
        draw.line([(38 + 22 * number, 230 - value) for number, value in enumerate(values)], fill=ink, width=3)
    return np.asarray(picture, dtype=np.float32) / np.float32(255)


def window(rng: Generator) -> Pixels:
    """Draw what a screen shows: a frame, bars, panels, some with a picture of smooth noise, and words."""
    picture = Pillow.new("L", (SIDE, SIDE), int(rng.choice([20, 60, 230, 245, 255])))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 7))):
        left, top = (int(place) for place in rng.uniform(0, 200, 2))
        right, bottom = left + int(rng.uniform(20, 200)), top + int(rng.uniform(10, 160))
        draw.rectangle((left, top, right, bottom), fill=int(rng.integers(256)), outline=int(rng.integers(256)))
        if rng.random() < 0.4:
            levels = np.rint(255 * _grey(power_law_noise(rng, SIDE, rng.uniform(1.5, 3.5)).astype(np.float64)))
            panel = Pillow.fromarray(levels.astype(np.uint8)).crop((0, 0, right - left, bottom - top))
            picture.paste(panel, (left, top))
    for _ in range(int(rng.integers(3, 20))):
        words = " ".join(rng.choice(_LETTER, int(rng.integers(1, 6))))
        x, y = (float(place) for place in rng.uniform(0, 240, 2))
        font = ImageFont.load_default(int(rng.integers(8, 18)))
        draw.text((x, y), words, fill=int(rng.choice([0, 120, 255])), font=font)
    side = int(rng.integers(4))
    draw.rectangle(((0, 0, SIDE, 14), (0, 0, 40, SIDE), (0, 240, SIDE, SIDE), (200, 0, SIDE, SIDE))[side], fill=90)
    return np.asarray(picture, dtype=np.float32) / np.float32(255)


def shape(rng: Generator) -> Pixels:
    """Draw a disc, a dome, a box, waves, a ramp, a half disc at the side, a chessboard or noise."""
    x, y = _X / SIDE, _Y / SIDE
    (left, top), size = rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.6)
    away = np.hypot(x - left, y - top)
    shapes: tuple[Callable[[], Plane], ...] = (
        lambda: (away < size) * 1.0,
        lambda: np.clip(1 - away / size, 0, 1),
        lambda: (np.abs(x - left) < size / 2) * (np.abs(y - top) < size) * 1.0,
        lambda: np.sin(x * rng.uniform(5, 90)) * np.cos(y * rng.uniform(0, 60)),
        lambda: x * y,
        lambda: (np.hypot(x, (y - 0.5) * 2 * rng.uniform(0.8, 1.3)) < rng.uniform(0.4, 0.9)) * 1.0,
        lambda: ((x * 8).astype(int) + (y * 8).astype(int)) % 2 * 1.0,
        lambda: rng.random((SIDE, SIDE)),
        lambda: power_law_noise(rng, SIDE, rng.uniform(1, 3.5)).astype(np.float64),
    )
    return _grey(shapes[rng.integers(len(shapes))]())


DRAWINGS: dict[str, Callable[[Generator], Pixels]] = {
    one.__name__: one for one in (limb, hand, finger, teeth, chest, ultrasound, head, text, chart, window, shape)
}
"""How to draw each kind, by its name."""


def _grey(levels: Plane) -> Pixels:
    """Stretch to [0, 1], the brightest thousandth cut off."""
    low, high = levels.min(), np.percentile(levels, 99.9)
    return np.asarray(np.clip((levels - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32)
