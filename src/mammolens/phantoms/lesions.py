"""Lesions for phantoms: which there are, where they fit, what they add to the attenuation."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from mammolens.records import Box

FloatArray = npt.NDArray[np.floating]


class LesionKind(StrEnum):
    """What a radiologist would call the lesion."""

    ROUND_MASS = "round mass"
    SPICULATED_MASS = "spiculated mass"
    CALCIFICATIONS = "microcalcification cluster"


_KIND_SHARES = {
    LesionKind.ROUND_MASS: 0.45,
    LesionKind.SPICULATED_MASS: 0.4,
    LesionKind.CALCIFICATIONS: 0.15,
}


@dataclass(frozen=True)
class Lesion:
    """One lesion of one breast. Both views show it, at the same distance behind the nipple.

    Offsets are from the nipple line, in half-heights of the breast: a craniocaudal view shows the
    lateral one, a mediolateral oblique view the superior one.
    """

    kind: LesionKind
    diameter: float
    """A fraction of the image side."""
    depth: float
    """From the nipple (0) to the chest wall (1)."""
    lateral: float
    superior: float
    seed: int


def draw_lesion(rng: np.random.Generator, breast_depth: float) -> Lesion:
    """Draw a lesion for a breast `breast_depth` image sides deep from chest wall to nipple."""
    kind = rng.choice(list(_KIND_SHARES), p=list(_KIND_SHARES.values()))
    return Lesion(
        kind=LesionKind(kind),
        diameter=min(rng.uniform(0.11, 0.19), 0.4 * breast_depth),
        depth=rng.uniform(0.3, 0.7),
        lateral=rng.uniform(-0.45, 0.45),
        superior=rng.uniform(-0.3, 0.45),
        seed=int(rng.integers(2**32)),
    )


def add_lesion(
    attenuation: FloatArray,
    lesion: Lesion,
    view_number: int,
    wanted: tuple[float, float],
    room: FloatArray,
) -> Box:
    """Add the lesion to a view in place, as near to `wanted` as there is room; see `find_place`."""
    size, side = len(attenuation), round(lesion.diameter * len(attenuation))
    place = find_place(wanted, room, margin=lesion.diameter * 0.6)
    left, top = (int(np.clip(centre * size - side / 2, 0, size - side)) for centre in place)
    patch = render_lesion(lesion, view_number, side)
    attenuation[top : top + side, left : left + side] += patch
    return Box(left, top, side, side)


def find_place(wanted: tuple[float, float], room: FloatArray, *, margin: float) -> tuple[float, float]:
    """The place (x, y) nearest to the wanted one that has the margin, or else the roomiest.

    `room` holds, on a square grid, how far each place is from what a lesion may not touch. Lengths
    are fractions of the image side.
    """
    places = (np.arange(len(room)) + 0.5) / len(room)
    distance = np.hypot(places - wanted[0], places[:, None] - wanted[1])
    cost = np.where(room >= margin, distance, 10 - room)
    row, column = np.unravel_index(cost.argmin(), cost.shape)
    return float(places[column]), float(places[row])


def render_lesion(lesion: Lesion, view_number: int, side: int) -> FloatArray:
    """What the lesion adds to the attenuation: a patch (side, side) that fades to zero."""
    rng = np.random.default_rng([lesion.seed, view_number])
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    match lesion.kind:
        case LesionKind.ROUND_MASS:
            return _round_mass(rng, x, y)
        case LesionKind.SPICULATED_MASS:
            return _spiculated_mass(rng, x, y)
        case LesionKind.CALCIFICATIONS:
            return _calcifications(rng, x, y)


def _round_mass(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    radius: FloatArray = np.hypot(x, y / rng.uniform(0.8, 1.0))
    edge = 0.76 + _wobble(rng, x, y, lobes=5, amount=0.06)
    return _disc(radius, edge, softness=0.18) * (0.52 - 0.2 * radius)


def _spiculated_mass(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    radius = np.hypot(x, y / rng.uniform(0.8, 1.0))
    core = _disc(radius, 0.5 + _wobble(rng, x, y, lobes=9, amount=0.25), softness=0.28)
    rays = _spicules(rng, x, y) * _disc(radius, 0.75, softness=0.24)
    return 0.5 * np.maximum(core, rays) + 0.08 * core


def _spicules(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Thin lines that leave the core, each with its own strength, length, bend and offset."""
    lines = np.zeros_like(x)
    for angle in rng.uniform(0, 2 * np.pi, rng.integers(16, 26)):
        along, across = _turned(x, y, angle)
        strength, reach, offset, bend = rng.uniform([0.4, 0.6, -0.1, -0.2], [0.9, 1.1, 0.1, 0.2])
        width = 0.07 * np.clip(1.2 - along, 0.3, 1)
        line = np.exp(-(((across + offset + bend * along * along) / width) ** 2))
        lines = np.maximum(lines, strength * line * _disc(along, reach, softness=0.3) * (along > 0))
    return lines


def _calcifications(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Pleomorphic specks over a faint density."""
    patch = 0.22 * _disc(np.hypot(x, y), 0.6, softness=0.39)
    for _ in range(rng.integers(9, 20)):
        distance, direction, turn = rng.uniform([0.05, 0, 0], [0.75, 2 * np.pi, np.pi])
        dx, dy = x - distance * np.cos(direction), y - distance * np.sin(direction)
        along, across = _turned(dx, dy, turn)
        length, width = rng.uniform(0.03, 0.075), rng.uniform(0.025, 0.04)
        speck = _disc(np.hypot(along / length, across / width), 1, softness=0.9)
        patch = patch + rng.uniform(0.5, 0.9) * speck
    return patch


def _turned(x: FloatArray, y: FloatArray, angle: float) -> tuple[FloatArray, FloatArray]:
    """Coordinates along and across a line at the angle, in radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def _wobble(rng: np.random.Generator, x: FloatArray, y: FloatArray, *, lobes: int, amount: float) -> FloatArray:
    """An irregular outline: by how much the radius differs at each angle, at most `amount`."""
    harmonics = np.arange(2, lobes + 1)
    strengths = rng.uniform(-1, 1, len(harmonics)) * amount / len(harmonics)
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    waves = np.cos(np.arctan2(y, x)[..., None] * harmonics + phases)
    return waves @ strengths


def _disc(radius: FloatArray, edge: FloatArray | float, *, softness: float) -> FloatArray:
    """One inside the edge, zero outside, and a smooth step ± softness wide between them."""
    return 1 - smoothstep(radius - edge, -softness, softness)


def smoothstep(values: FloatArray, low: float, high: float) -> FloatArray:
    """Zero up to `low`, one from `high`, and a smooth step between them."""
    ramp: FloatArray = np.clip((values - low) / (high - low), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)
