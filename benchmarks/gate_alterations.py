"""What happens to mammograms on their way: margins, crops, ratios, tones, grain, marks, a negative."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from mammolens.images.breast import Pixels, find_breast

Generator = np.random.Generator


def altered(pixels: Pixels, rng: Generator) -> Pixels:
    """Return a copy, float32 in [0, 1], that went through one to six random alterations."""
    chances = {_placed: 0.7, _toned: 0.5, _equalised: 0.3, _processed: 0.35, _marked: 0.2, _grained: 0.4}
    for alter in [one for one, chance in chances.items() if rng.random() < chance] or [_placed]:
        pixels = np.clip(alter(pixels, rng), 0, 1).astype(np.float32)
    return 1 - pixels if rng.random() < 0.12 else pixels


def _placed(pixels: Pixels, rng: Generator) -> Pixels:
    """Give margins, another ratio of height to width, a turn by some degrees, or cut tightly to the breast."""
    height, width = pixels.shape
    ways: tuple[Callable[[], Pixels], ...] = (
        lambda: np.pad(pixels, (rng.integers(0, height // 4, 2), rng.integers(0, width // 3, 2))),
        lambda: _as_square(_resized(pixels, height, width * rng.uniform(0.5, 0.85)), rng),
        lambda: _resized(pixels, height, width * rng.uniform(0.6, 1.4)),
        lambda: _shrunk(pixels, rng.uniform(0.4, 0.85), rng),
        lambda: _cropped(pixels, rng.uniform(-0.06, 0.01, 4)),
        lambda: _cropped(pixels, rng.uniform(-0.06, 0.10, 4)),
        lambda: np.asarray(Pillow.fromarray(pixels).rotate(rng.uniform(-12, 12), Pillow.Resampling.BILINEAR)),
    )
    return np.asarray(ways[rng.integers(len(ways))]())


def _resized(pixels: Pixels, height: float, width: float) -> Pixels:
    size = (max(int(width), 6), max(int(height), 6))
    return np.asarray(Pillow.fromarray(np.ascontiguousarray(pixels)).resize(size, Pillow.Resampling.BILINEAR))


def _as_square(narrow: Pixels, rng: Generator) -> Pixels:
    missing = max(len(narrow) - narrow.shape[1], 0)
    left = int(rng.choice([0, missing // 2, missing]))
    return np.pad(narrow, ((0, 0), (left, missing - left)))


def _shrunk(pixels: Pixels, share: float, rng: Generator) -> Pixels:
    """Show it smaller, at a side of a black picture of the same size, or anywhere in it."""
    height, width = pixels.shape
    small = _resized(pixels, height * share, width * share)
    down, across = height - len(small), width - small.shape[1]
    top, left = int(rng.integers(down + 1)), int(rng.choice([0, across, rng.integers(across + 1)]))
    return np.pad(small, ((top, down - top), (left, across - left)))


def _cropped(pixels: Pixels, cut: np.ndarray) -> Pixels:
    """Cut to the breast's box, less these shares of it at the left, right, top and bottom."""
    height, width = pixels.shape
    breast = find_breast(pixels)
    if breast.area < 0.05:
        return pixels
    left, top, right, bottom = breast.box
    wide, tall = right - left, bottom - top
    columns = np.clip([left + cut[0] * wide, right - cut[1] * wide], 0, 1) * width
    rows = np.clip([top + cut[2] * tall, bottom - cut[3] * tall], 0, 1) * height
    return pixels[int(rows[0]) : int(rows[1]) + 1, int(columns[0]) : int(columns[1]) + 1]


def _toned(pixels: Pixels, rng: Generator) -> Pixels:
    """Change the tones: gamma, brighter, lifted as film is, darker, fainter, or a sigmoid."""
    least = rng.uniform(0.02, 0.22)
    centre, slope = rng.uniform(0.3, 0.6), rng.uniform(3, 7)
    ways: tuple[Callable[[], Pixels], ...] = (
        lambda: pixels ** rng.uniform(0.5, 2.0),
        lambda: pixels * rng.uniform(1.1, 1.7),
        lambda: least + (1 - least) * pixels,
        lambda: (pixels - least / 2) / (1 - least / 2),
        lambda: pixels * rng.uniform(0.03, 0.8),
        lambda: (np.tanh(slope * (pixels - centre)) - np.tanh(-slope * centre)) / 2,
        lambda: np.interp(pixels, np.linspace(0, 1, 6), np.append(0, np.sort(rng.random(5)))),
    )
    return np.asarray(ways[rng.integers(len(ways))]())


def _equalised(pixels: Pixels, rng: Generator) -> Pixels:
    """Flatten the breast's thickness, as vendors do, or make more of it; raise or lower local contrast."""
    height, width = pixels.shape
    coarse = int(rng.integers(6, 24))
    smooth = np.maximum(_resized(_resized(pixels, coarse, coarse), height, width), 0)
    flattened = pixels * (smooth + 0.05) ** rng.uniform(-0.8, 0.6)
    flattened = flattened / max(float(np.percentile(flattened, 99.5)), 1e-3)
    sharper = smooth + (flattened - smooth) * rng.uniform(0.6, 1.6)
    return np.asarray(sharper if rng.random() < 0.4 else flattened, dtype=np.float32)


def _processed(pixels: Pixels, rng: Generator) -> Pixels:
    """Weaken or strengthen detail of each size by itself, as vendors' processing does."""
    height, width = pixels.shape
    rest, processed = pixels, np.zeros_like(pixels)
    for share in (0.5, 0.25, 0.12, 0.06, 0.03):
        blunt = _resized(_resized(rest, height * share, width * share), height, width)
        processed += (rest - blunt) * np.float32(2 ** rng.uniform(-1.2, 1.2))
        rest = blunt
    processed = np.maximum(processed + rest, 0) * (pixels > 0.02)
    return np.asarray(processed / max(float(np.percentile(processed, 99.8)), 1e-3), dtype=np.float32)


def _grained(pixels: Pixels, rng: Generator) -> Pixels:
    """Add noise, blur, compress as JPEG, or sharpen."""
    height, width = pixels.shape
    blur = rng.uniform(0.25, 0.8)
    ways: tuple[Callable[[], NDArray[Any]], ...] = (
        lambda: pixels + rng.normal(0, rng.uniform(0.005, 0.05), pixels.shape),
        lambda: _resized(_resized(pixels, height * blur, width * blur), height, width),
        lambda: _compressed(pixels, int(rng.integers(8, 60))),
        lambda: pixels + (pixels - _resized(_resized(pixels, height / 4, width / 4), height, width)) * blur,
    )
    return np.asarray(ways[rng.integers(len(ways))](), dtype=np.float32)


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    written = io.BytesIO()
    _levels(pixels).save(written, "JPEG", quality=quality)
    return np.asarray(Pillow.open(written), dtype=np.float32) / np.float32(255)


def _levels(pixels: Pixels) -> Pillow.Image:
    return Pillow.fromarray(np.rint(pixels * 255).astype(np.uint8))


def _marked(pixels: Pixels, rng: Generator) -> Pixels:
    """Draw a white strip along a side, or a marker or letters beside the breast."""
    height, width = pixels.shape
    if rng.random() < 0.33:
        drawn = pixels.copy()
        np.rot90(drawn, int(rng.integers(4)))[: round(rng.uniform(0.01, 0.07) * height)] = 1
        return drawn
    picture, left = _levels(pixels), find_breast(pixels).chest_wall_right
    draw = ImageDraw.Draw(picture)
    x = width * (rng.uniform(0.02, 0.15) if left else rng.uniform(0.6, 0.8))
    y = height * (rng.uniform(0.02, 0.12) if rng.random() < 0.5 else rng.uniform(0.8, 0.92))
    if rng.random() < 0.5:
        draw.rectangle((x, y, x + width * rng.uniform(0.04, 0.16), y + height * rng.uniform(0.03, 0.1)), fill=220)
    else:
        letters = rng.choice(["R CC", "L MLO", "RMLO 12.03.2011", "L-CC", "R"])
        draw.text((x, y), letters, fill=255, font=ImageFont.load_default(int(rng.integers(12, 30))))
    return np.asarray(picture, dtype=np.float32) / np.float32(255)
