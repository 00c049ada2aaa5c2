"""Random changes to training pixels: NumPy and Pillow, so every backend sees the same ones."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammolens.images.breast import Pixels
from mammolens.model.recipe import Augment


def augmented(images: Pixels, augment: Augment, generator: np.random.Generator) -> Pixels:
    """Return a changed copy of `images`, float32 (images, height, width) in [0, 1].

    Each image draws its own changes; what turns in from outside is 0. Gamma and noise leave 0 as
    it is, so that nothing happens outside the breast.
    With all options off the images come back as they are.
    """
    return augmented_alike(images, images[:, :0], augment, generator)[0]


def augmented_alike(
    images: Pixels, masks: Pixels, augment: Augment, generator: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Return changed copies of `images`, and of `masks` moved along with them.

    Masks are of the images' size, or empty.
    """
    if augment == Augment():
        return images, masks
    pairs = [_augment_one(image, mask, augment, generator) for image, mask in zip(images, masks, strict=True)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def _augment_one(
    image: Pixels, mask: Pixels, augment: Augment, generator: np.random.Generator
) -> tuple[Pixels, Pixels]:
    # Every number is drawn whatever is switched on, so that one option does not reshuffle another.
    flips = generator.random(2) < 0.5  # noqa: PLR2004 - half of them
    angle, zoom, contrast, down, right, gamma, noise = generator.uniform(-1, 1, 7)
    grain = generator.integers(2**32)
    if augment.horizontal_flip and flips[0]:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if augment.vertical_flip and flips[1]:
        image, mask = image[::-1], mask[::-1]
    if augment.rotation or augment.zoom or augment.shift:
        shift = np.array([down * image.shape[0], right * image.shape[1]]) * augment.shift
        turn = np.deg2rad(angle * augment.rotation)
        scale = 1 + zoom * augment.zoom
        image = _moved(image, turn, scale, shift)
        mask = _moved(mask, turn, scale, shift) if mask.any() else mask
    if augment.contrast:
        mean = image.mean()
        image = np.clip(mean + (image - mean) * (1 + contrast * augment.contrast), 0, 1)
    if augment.gamma:
        image = image ** np.float32(np.exp(gamma * augment.gamma))
    if augment.noise:
        drawn = np.random.default_rng(grain).standard_normal(image.shape, dtype=np.float32)
        image = np.clip(image + drawn * np.float32(abs(noise) * augment.noise) * (image > 0), 0, 1)
    return np.asarray(image, dtype=np.float32), np.asarray(mask, dtype=np.float32)


def _moved(image: Pixels, angle: float, scale: float, shift: NDArray[np.float64]) -> Pixels:
    """Rotate by `angle` (radians) and scale about the centre, then shift (pixels), bilinearly."""
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) / scale
    centre = np.array(image.shape) / 2  # Pillow counts from the corner of the first pixel
    down, right = centre - matrix @ (centre + shift)
    picture = Image.fromarray(np.ascontiguousarray(image))
    # Pillow is asked for (x, y), and takes a third of the time that SciPy takes.
    coefficients = (matrix[1, 1], matrix[1, 0], right, matrix[0, 1], matrix[0, 0], down)
    moved = picture.transform(picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.array(moved)
