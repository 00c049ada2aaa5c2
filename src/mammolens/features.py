"""What frozen stages make of the images, computed once and kept: epochs then cost a fraction.

Each image is kept as it is, for validation, and in several augmented variants, of which a training
epoch draws one. The stages learn nothing, so nothing is lost but the variety of augmentation.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from mammolens.augment import augmented
from mammolens.breast import Pixels
from mammolens.cache import CachedPixels
from mammolens.efficientnet_lite import STAGES, layers_by_stage
from mammolens.files import written_whole
from mammolens.networks import Network
from mammolens.parallel import tracked
from mammolens.recipe import Augment, Recipe

_BATCH = 16


@dataclass(frozen=True, eq=False)
class Features:
    """Activations at the end of the frozen stages, read from disk when asked for.

    Attributes:
        values: float16 (1 + variants, images, rows, columns, channels); the first is unchanged.
        channels_first: whether the network wants channels before rows.
    """

    values: NDArray[np.float16]
    channels_first: bool
    _rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self._rows)

    def subset(self, indices: Sequence[int]) -> "Features":
        """Return the activations of some of the images, in the order of `indices`."""
        return replace(self, _rows=self._rows[list(indices)])

    def take(
        self, indices: NDArray[np.intp], generator: np.random.Generator | None = None
    ) -> NDArray[np.float32]:
        """Return activations of images: a random variant of each, or unchanged without generator.

        Out: float32, (images, rows, columns, channels) or (images, channels, rows, columns).
        """
        variants = np.zeros(len(indices), np.intp)
        if generator is not None:
            variants = generator.integers(1, len(self.values), len(indices))
        taken = self.values[variants, self._rows[indices]].astype(np.float32)
        return np.moveaxis(taken, -1, 1) if self.channels_first else taken


def cut(network: Network, stages: int) -> tuple[Network, Network]:
    """Return the first `stages` of `STAGES` and the rest of a network; they share its layers."""
    last = layers_by_stage(network)[STAGES[stages - 1]][-1]
    frozen = keras.Model(network.input, last.output, name="frozen")
    return frozen, keras.Model(last.output, network.output, name=network.name)


def frozen_features(
    frozen: Network, pixels: CachedPixels, recipe: Recipe, folder: Path, *, progress: bool = False
) -> Features:
    """Compute the activations of all `pixels`, or find them in `folder` from an earlier call.

    They take room: 205 KB a variant of an image at 512 x 320 pixels and four stages of Lite0.

    Args:
        frozen: what `cut` returned first.
        pixels: of all images.
        recipe: how many variants, and how they are augmented.
        folder: where they are kept.
        progress: show a bar on standard error.
    """
    shape = frozen.output_shape[1:]
    channels_first = _is_channels_first(frozen)
    inner = (*shape[1:], shape[0]) if channels_first else shape
    path = folder / f"features-{_key(frozen, pixels, recipe)}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        sizes = (1 + recipe.cached_variants, len(pixels), *inner)
        with written_whole(path) as temporary:
            kept = np.lib.format.open_memmap(temporary, "w+", np.float16, sizes)
            batches = list(_batches(sizes[0], len(pixels)))
            for variant, indices in tracked(
                batches, "Frozen stages", len(batches), visible=progress
            ):
                made = _variant(pixels.take(indices), recipe.augment, variant, indices)
                answer = keras.ops.convert_to_numpy(frozen(made[..., np.newaxis], training=False))
                moved = np.moveaxis(answer, 1, -1) if channels_first else answer
                kept[variant, indices] = moved
            kept.flush()
    return Features(np.load(path, mmap_mode="r"), channels_first, np.arange(len(pixels)))


def forget_features(folder: Path) -> None:
    """Remove what `frozen_features` left in `folder`."""
    for path in folder.glob("features-*.npy"):
        path.unlink()


def _batches(variants: int, images: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    for variant in range(variants):
        for start in range(0, images, _BATCH):
            yield variant, np.arange(start, min(start + _BATCH, images))


def _variant(images: Pixels, augment: Augment, variant: int, indices: NDArray[np.intp]) -> Pixels:
    if variant == 0:
        return images
    return augmented(images, augment, np.random.default_rng([variant, int(indices[0])]))


def _is_channels_first(frozen: Network) -> bool:
    return any(getattr(layer, "data_format", "") == "channels_first" for layer in frozen.layers)


def _key(frozen: Network, pixels: CachedPixels, recipe: Recipe) -> str:
    """Name what activations depend on: weights, pixels and augmentation."""
    digest = hashlib.sha256(f"{recipe.augment!r} {recipe.cached_variants}".encode())
    for weight in frozen.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    for index in range(len(pixels)):  # one pixel in 256 tells images apart
        digest.update(pixels.take([index])[0, ::16, ::16].tobytes())
    return digest.hexdigest()[:16]
