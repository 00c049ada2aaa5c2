"""Synthetic mammograms for demonstrations and tests, drawn from seeds alone. Knows no files.

The texture is Gaussian noise whose power falls as 1 / frequency^beta. In mammograms beta runs from
1.5 to 3.5 and is 2.8 on average (Burgess and Judy, Proc. SPIE 5034, 2003; Burgess, Jacobson and
Judy, Medical Physics 28:419, 2001). The rest is drawn by eye after real ones.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import fft, ndimage

from mammolens.phantoms.lesions import FloatArray, Lesion, add_lesion, draw_lesion, smoothstep
from mammolens.records import Box, Laterality, View

VIEWS = (View.CC, View.MLO)


class Density(StrEnum):
    """Breast composition in BI-RADS's categories, from almost entirely fatty to extremely dense."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"


_DENSITY_SHARES = {Density.A: 0.15, Density.B: 0.4, Density.C: 0.33, Density.D: 0.12}
_MARKERS_MISSING = 0.1
_GLANDULARITY = {Density.A: -0.95, Density.B: -0.45, Density.C: 0.0, Density.D: 0.5}


@dataclass(frozen=True)
class Breast:
    """What the views of one breast share. Lengths are fractions of the image side."""

    laterality: Laterality
    density: Density
    depth: float
    """From the chest wall to the nipple."""
    half_height: float
    roundness: float
    """The exponent of the outline: below 2 pointed, above 2 boxy."""
    tilt: float
    """By how much the nipple hangs, or stands up where negative, as a share of the depth."""
    fat_level: float
    seed: int
    lesion: Lesion | None = None


@dataclass(frozen=True)
class Patient:
    """A woman who does not exist."""

    patient_id: str
    age: int
    left: Breast
    right: Breast


@dataclass(frozen=True, eq=False)
class Phantom:
    """One synthetic mammogram: (size, size) grey levels in 0..255, and where its lesion is."""

    pixels: npt.NDArray[np.uint8]
    boxes: tuple[Box, ...]
    laterality: Laterality
    view: View
    inverted: bool


def draw_patient(number: int, seed: int, *, tumor_share: float = 0.4) -> Patient:
    """Draw patient `number` of population `seed`: the same one whenever and wherever asked for.

    Of all patients a share `tumor_share` has a lesion, in one breast. The lesion comes from a
    generator of its own, so nothing else about a patient tells whether she has one.
    """
    anatomy, fate = (np.random.default_rng([seed, number, stream]) for stream in range(2))
    age = int(np.clip(anatomy.normal(58, 10), 40, 89))
    breasts = _draw_breasts(anatomy)
    if fate.random() < tumor_share:
        ill = int(fate.integers(2))
        breasts[ill] = replace(breasts[ill], lesion=draw_lesion(fate, breasts[ill].depth))
    return Patient(f"{number + 1000}", age, *breasts)


def _draw_breasts(rng: np.random.Generator) -> list[Breast]:
    """The left and the right breast: one anatomy, each a little different."""
    density = rng.choice(list(_DENSITY_SHARES), p=list(_DENSITY_SHARES.values()))
    depth = rng.uniform(0.36, 0.78)
    half_height = 0.25 * depth + rng.uniform(0.2, 0.3)
    roundness, fat_level = rng.uniform(1.65, 2.2), rng.uniform(0.13, 0.32)
    return [
        Breast(
            laterality=laterality,
            density=Density(density),
            depth=depth * rng.uniform(0.95, 1.05),
            half_height=half_height * rng.uniform(0.96, 1.04),
            roundness=roundness,
            tilt=rng.normal(0, 0.08),
            fat_level=fat_level,
            seed=int(rng.integers(2**32)),
        )
        for laterality in (Laterality.LEFT, Laterality.RIGHT)
    ]


def draw_view(breast: Breast, view: View, *, size: int = 640, inverted: bool = False, marker: bool = True) -> Phantom:
    """Draw one (size, size) mammogram: craniocaudal (CC) or mediolateral oblique (MLO).

    The chest wall is at the left edge for a left breast, at the right edge for a right one.
    `inverted` draws dark tissue on white. `marker` burns in the view's name on most images.
    """
    if view not in VIEWS:
        raise ValueError(f"A phantom has the views {' and '.join(VIEWS)}; received {view}.")
    rng = np.random.default_rng([breast.seed, VIEWS.index(view)])
    # Drawn as a left breast, and all but lesion and noise at half the size: as good, and fast.
    shape = _shape(rng, breast, view, size // 2)
    attenuation = _enlarge(_tissue(rng, breast, shape), size)
    boxes = _add_lesion(attenuation, breast.lesion, view, shape)
    pixels = _expose(rng, attenuation, _enlarge(shape.inside, size))
    if breast.laterality == Laterality.RIGHT:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
        boxes = tuple(Box(size - box.x - box.width, box.y, box.width, box.height) for box in boxes)
    if marker:
        pixels = _burn_in_marker(rng, pixels, breast.laterality, view)
    return Phantom(255 - pixels if inverted else pixels, boxes, breast.laterality, view, inverted)


@dataclass(frozen=True, eq=False)
class _Shape:
    """A left breast's outline on a square grid. Lengths are fractions of the image side."""

    x: FloatArray
    y: FloatArray
    nipple: tuple[float, float]
    half_height: float
    inside: FloatArray
    """The distance to the skin, negative outside the breast."""
    muscle: FloatArray
    """The distance to the edge of the pectoral muscle, negative outside the muscle."""


def _shape(rng: np.random.Generator, breast: Breast, view: View, side: int) -> _Shape:
    x, y = _grid(side)
    oblique = view == View.MLO
    centre = rng.uniform(0.56, 0.62) if oblique else rng.uniform(0.46, 0.54)
    sag = rng.uniform(0.06, 0.14) if oblique else rng.uniform(-0.06, 0.06)
    nipple = (breast.depth, centre + (breast.tilt + sag) * breast.depth)
    inside = _half_ellipse(x, y - centre - (breast.tilt + sag * x / breast.depth) * x, breast)
    muscle = np.full_like(x, -1)
    if oblique:
        top, foot = breast.depth * rng.uniform(0.5, 0.95), rng.uniform(0.8, 1.3)
        inside = _join(inside, _left_of(x, y, top, foot), rounding=0.35)
        muscle = _pectoral(rng, x, y)
    inside = np.maximum(inside, _abdomen(rng, x, y, centre + breast.half_height, oblique=oblique))
    radius, reach = rng.uniform(0.012, 0.02), rng.uniform(-0.01, 0.012)
    bump = radius - np.hypot(x - nipple[0] - reach, y - nipple[1])
    return _Shape(x, y, nipple, breast.half_height, _join(inside, bump, rounding=0.015), muscle)


@cache
def _grid(side: int) -> tuple[FloatArray, FloatArray]:
    y, x = (np.mgrid[:side, :side].astype(np.float32) + 0.5) / side
    x.flags.writeable = y.flags.writeable = False
    return x, y


def _half_ellipse(x: FloatArray, y: FloatArray, breast: Breast) -> FloatArray:
    """The distance inside a superellipse round (0, 0), exact to first order at its edge."""
    p = breast.roundness
    across, along = x / breast.depth, np.abs(y) / breast.half_height
    across_slope, along_slope = across ** (p - 1), along ** (p - 1)
    power: FloatArray = np.maximum(across * across_slope + along * along_slope, 1e-6)
    reach: FloatArray = power ** (1 / p)
    slope: FloatArray = np.hypot(across_slope / breast.depth, along_slope / breast.half_height)
    return (1 - reach) * power / reach / slope


def _left_of(x: FloatArray, y: FloatArray, top: float, foot: float) -> FloatArray:
    """The distance to the left of the line from (top, 0) to (0, foot)."""
    return (1 - x / top - y / foot) * (top * foot / math.hypot(top, foot))


def _pectoral(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """The pectoral muscle: a wedge in the upper corner at the chest wall, a little convex."""
    top, foot = rng.uniform(0.2, 0.36), rng.uniform(0.45, 0.8)
    bulge = rng.uniform(0.0, 0.04) * np.sin(np.pi * np.clip(y / foot, 0, 1))
    return _left_of(x - bulge, y, top, foot)


def _abdomen(rng: np.random.Generator, x: FloatArray, y: FloatArray, fold: float, *, oblique: bool) -> FloatArray:
    """The skin below the inframammary fold, which some views catch."""
    caught = rng.random() < (0.6 if oblique else 0.1)
    width = rng.uniform(0.03, 0.14) if caught else -1.0
    below = y - fold
    strip: FloatArray = np.minimum(width + rng.uniform(0, 0.4) * below - x, below + 0.05)
    return strip


def _join(first: FloatArray, second: FloatArray, *, rounding: float) -> FloatArray:
    """The union of two shapes, the corner between them filled (a polynomial smooth maximum)."""
    overlap: FloatArray = np.maximum(rounding - np.abs(first - second), 0) / rounding
    return np.maximum(first, second) + overlap * overlap * (rounding / 4)


def power_law_noise(
    rng: np.random.Generator, side: int, beta: float, *, coarsest: float = 0.5, stretch: float = 1
) -> FloatArray:
    """Gaussian noise (side, side), mean 0 and deviation 1, whose power falls as 1 / frequency^beta.

    Structures larger than 1 / `coarsest` of the image are suppressed; `stretch` draws the others
    out along x. The field is periodic.
    """
    white = rng.standard_normal((side, side), dtype=np.float32)
    spectrum = fft.rfft2(white, workers=1) * _amplitude(side, beta, coarsest, stretch)
    noise: FloatArray = fft.irfft2(spectrum, s=(side, side), workers=1)
    noise /= noise.std()
    return noise


@cache
def _amplitude(side: int, beta: float, coarsest: float, stretch: float) -> FloatArray:
    cycles_y, cycles_x = fft.fftfreq(side, 1 / side)[:, None], fft.rfftfreq(side, 1 / side)
    frequency = np.hypot(cycles_y, cycles_x * stretch)
    frequency[0, 0] = np.inf
    amplitude: FloatArray = frequency ** (-beta / 2) * -np.expm1(-((frequency / coarsest) ** 4))
    return amplitude.astype(np.float32)


def _threads(rng: np.random.Generator, side: int, *, width: float, coarsest: float, stretch: float = 1) -> FloatArray:
    """A net of bright threads: where smooth noise crosses zero."""
    noise = power_law_noise(rng, side, 5, coarsest=coarsest, stretch=stretch)
    return 1 / (1 + (noise / width) ** 2) ** 2


def _tissue(rng: np.random.Generator, breast: Breast, shape: _Shape) -> FloatArray:
    """The attenuation of a healthy breast, about 0 to 1; nothing is said outside the breast."""
    side = len(shape.x)
    clouds = power_law_noise(rng, side, 3)
    grain = power_law_noise(rng, side, 1.8, coarsest=8, stretch=1.5)
    strands = _strands(rng, shape)
    tissue = breast.fat_level * (1 + 0.12 * clouds + 0.12 * grain)
    tissue += 0.08 * _threads(rng, side, width=0.2, coarsest=20, stretch=2.2)
    tissue += 0.16 * strands * smoothstep(shape.inside, 0.02, 0.2)
    vessels = _threads(rng, side, width=0.05, coarsest=4)
    tissue += 0.16 * vessels * smoothstep(grain + 2 * clouds, 0, 2)
    glands = _glands(rng, breast, shape, clouds)
    tissue += glands * (0.12 + 0.05 * clouds + 0.05 * grain + 0.38 * strands)
    tissue *= 0.5 + 0.5 * smoothstep(shape.inside, -0.02, 0.14)
    tissue *= 1 - 0.5 * smoothstep(shape.muscle, 0, 0.05)
    return tissue + _muscle(rng, shape, clouds) + _skin(shape, clouds)


def _strands(rng: np.random.Generator, shape: _Shape) -> FloatArray:
    """Ducts and ligaments: threads along x, fanned so that they run toward the nipple."""
    side = len(shape.x)
    coarse = _threads(rng, side, width=0.4, coarsest=9, stretch=2.6)
    fine = _threads(rng, side, width=0.35, coarsest=24, stretch=3.5)
    field = 0.6 * coarse + 0.4 * fine + 0.5 * coarse * fine
    behind, aside = shape.nipple[0] + 0.4 - shape.x, shape.y - shape.nipple[1]
    bend = 0.008 * power_law_noise(rng, side, 4.5, coarsest=2)
    places = np.stack([0.7 * np.arctan2(aside, behind) + bend, np.hypot(aside, behind)]) * side
    fanned: FloatArray = ndimage.map_coordinates(field, places, order=1, mode="grid-wrap")
    return fanned


def _glands(rng: np.random.Generator, breast: Breast, shape: _Shape, clouds: FloatArray) -> FloatArray:
    """How glandular the tissue is, 0 to 1: most so in a cone behind the nipple."""
    behind = (shape.nipple[0] - shape.x) / shape.nipple[0]
    aside = (shape.y - shape.nipple[1]) / shape.half_height
    cone = 1 - ((behind - 0.42) / 0.5) ** 2 - (aside / 0.65) ** 2
    lobules = power_law_noise(rng, len(shape.x), 3, coarsest=4, stretch=1.5)
    amount = _GLANDULARITY[breast.density] + np.maximum(cone, -2) + 0.4 * lobules + 0.3 * clouds
    return smoothstep(amount, -0.1, 1.1) * smoothstep(shape.inside, 0.02, 0.09)


def _muscle(rng: np.random.Generator, shape: _Shape, clouds: FloatArray) -> FloatArray:
    """The muscle over the tissue: brighter toward its corner, where it is thicker."""
    level = rng.uniform(0.14, 0.32)
    bright = level + 1.2 * np.maximum(shape.muscle, 0) + 0.03 * clouds
    return bright * smoothstep(shape.muscle, -0.006, 0.012)


def _skin(shape: _Shape, clouds: FloatArray) -> FloatArray:
    """The skin line, thicker and brighter round the nipple, and the nipple itself."""
    distance = np.hypot(shape.x - shape.nipple[0], shape.y - shape.nipple[1])
    near = 1 - smoothstep(distance, 0, 0.2)
    width = 0.0032 + 0.003 * near + 0.0008 * np.clip(clouds, -1, 2)
    line = 1 / (1 + ((shape.inside - 0.003) / width) ** 2) ** 2
    areola = 0.25 * (1 - smoothstep(distance, 0.005, 0.035))
    return line * (0.42 + 0.15 * near + 0.12 * clouds) + areola


def _enlarge(field: FloatArray, size: int) -> FloatArray:
    return np.array(Image.fromarray(field).resize((size, size), Image.Resampling.LANCZOS))


def _add_lesion(attenuation: FloatArray, lesion: Lesion | None, view: View, shape: _Shape) -> tuple[Box, ...]:
    """Add the lesion in place, as near to where it belongs as skin and muscle allow."""
    if lesion is None:
        return ()
    offset = lesion.lateral if view == View.CC else -lesion.superior
    wanted = (shape.nipple[0] * (1 - lesion.depth), shape.nipple[1] + offset * shape.half_height)
    room = np.minimum(np.minimum(shape.inside, -shape.muscle), shape.x)
    return (add_lesion(attenuation, lesion, VIEWS.index(view), wanted, room),)


def _expose(rng: np.random.Generator, attenuation: FloatArray, inside: FloatArray) -> npt.NDArray[np.uint8]:
    """Turn attenuation into grey levels with detector noise, on an almost black background."""
    noise = rng.standard_normal(attenuation.shape, dtype=np.float32)
    breast = smoothstep(inside, -0.0015, 0.0015)
    levels = 290 * np.tanh(np.maximum(attenuation, 0)) + 7 * noise
    background = 1.5 + 0.7 * noise
    return np.clip(background + (levels - background) * breast, 0, 255).astype(np.uint8)


def _burn_in_marker(
    rng: np.random.Generator, pixels: npt.NDArray[np.uint8], laterality: Laterality, view: View
) -> npt.NDArray[np.uint8]:
    size = len(pixels)
    absent, height = rng.random() < _MARKERS_MISSING, rng.uniform(0.02, 0.035)
    left, top = rng.uniform(0.06, 0.16), rng.uniform(0.03, 0.1)
    if absent:
        return pixels
    if laterality == Laterality.LEFT:
        left += 0.64
    picture = Image.fromarray(pixels)
    text, font = f"{laterality} {view}", ImageFont.load_default(max(round(height * size), 6))
    ImageDraw.Draw(picture).text((left * size, top * size), text, fill=235, font=font)
    return np.array(picture)
