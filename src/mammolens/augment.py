"""Random changes to training pixels: plain NumPy and SciPy, so every backend sees the same ones."""

import numpy as np
from scipy import ndimage

from mammolens.breast import Pixels
from mammolens.recipe import Augment


def augmented(images: Pixels, augment: Augment, generator: np.random.Generator) -> Pixels:
    """Return a changed copy of `images`, float32 (images, height, width) in [0, 1].

    Each image draws its own flips, rotation, zoom and contrast; what turns in from outside is 0.
    With all options off the images come back as they are.
    """
    if augment == Augment():
        return images
    return np.stack([_augment_one(image, augment, generator) for image in images])


def _augment_one(image: Pixels, augment: Augment, generator: np.random.Generator) -> Pixels:
    # Every number is drawn whatever is switched on, so that one option does not reshuffle another.
    flips = generator.random(2) < 0.5  # noqa: PLR2004 - half of them
    angle, zoom, contrast = generator.uniform(-1, 1, 3)
    if augment.horizontal_flip and flips[0]:
        image = image[:, ::-1]
    if augment.vertical_flip and flips[1]:
        image = image[::-1]
    if augment.rotation or augment.zoom:
        image = _turned(image, np.deg2rad(angle * augment.rotation), 1 + zoom * augment.zoom)
    if augment.contrast:
        mean = image.mean()
        image = np.clip(mean + (image - mean) * (1 + contrast * augment.contrast), 0, 1)
    return np.asarray(image, dtype=np.float32)


def _turned(image: Pixels, angle: float, scale: float) -> Pixels:
    """Rotate by `angle` (radians) and scale about the centre, bilinearly."""
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) / scale
    centre = (np.array(image.shape) - 1) / 2
    turned: Pixels = ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1)
    return turned
