"""The `PreparedSet`: images of a data set with their pixels, as a network takes them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mammolens.data.manifest import Manifest
from mammolens.errors import DataError
from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.images.preprocess import Preprocess
from mammolens.records import Split


@dataclass(frozen=True, eq=False)
class PreparedSet:
    """Images of a data set, in a fixed order, each with its pixels.

    Attributes:
        manifest: the images.
        pixels: theirs, in the same order.
        left_out: path → why it could not be read: it is not in the set. Subsets say the same.
    """

    manifest: Manifest
    pixels: CachedPixels
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, preprocess: Preprocess, *, progress: bool = False) -> "PreparedSet":
        """Prepare all images, or find them in the cache; leave out those that cannot be read.

        Raises:
            DataError: there are images, and none of them can be read.
        """
        pixels = prepared_pixels(manifest.paths, preprocess, progress=progress)
        reasons = zip(manifest.paths, pixels.errors, strict=True)
        left_out = {str(path): error for path, error in reasons if error is not None}
        readable = [index for index, error in enumerate(pixels.errors) if error is None]
        if left_out and not readable:
            raise DataError(f"none of {len(left_out)} images can be read. The first: {next(iter(left_out.values()))}")
        return cls(manifest, pixels, left_out).subset(readable)

    @classmethod
    def whole(cls, manifest: Manifest, preprocess: Preprocess) -> "PreparedSet":
        """Prepare images that could be read before, be it on another machine.

        Raises:
            DataError: one of them cannot be read.
        """
        data = cls.of(manifest, preprocess)
        if data.left_out:
            raise DataError(
                f"{next(iter(data.left_out.values()))} It could be read when this began: put it back, or see that all "
                "machines see the same files."
            )
        return data

    def fingerprint(self) -> str:
        """Return a SHA-256 of what images hold and what is known of them, whatever their names and order."""
        known = zip(self.pixels.digests, self.manifest, strict=True)
        rows = sorted(f"{digest}|{m.label}|{m.split}|{m.patient_id}|{m.boxes}" for digest, m in known)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.manifest)

    def subset(self, indices: Sequence[int]) -> "PreparedSet":
        """Return some of the images, in the order of `indices`."""
        mammograms = tuple(self.manifest.mammograms[index] for index in indices)
        return PreparedSet(Manifest(mammograms), self.pixels.subset(indices), self.left_out)

    def described_by(self, manifest: Manifest) -> "PreparedSet":
        """Return the images of `manifest` that are in the set, with the splits that it gives them."""
        places = {mammogram.path: index for index, mammogram in enumerate(self.manifest)}
        kept = Manifest(tuple(mammogram for mammogram in manifest if mammogram.path in places))
        return PreparedSet(kept, self.pixels.subset([places[path] for path in kept.paths]), self.left_out)

    def of_split(self, split: Split) -> "PreparedSet":
        """Return the images of one split."""
        return self.subset([index for index, m in enumerate(self.manifest) if m.split is split])
