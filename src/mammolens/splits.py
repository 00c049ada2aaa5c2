"""Splits that patients never cross, and the count of those that do where a data set came split."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mammolens.errors import DataError
from mammolens.manifest import Manifest
from mammolens.records import Mammogram, Split

FRACTIONS = (0.7, 0.15, 0.15)
"""Default shares of images for training, validation and test."""


@dataclass(frozen=True)
class Leakage:
    """How far two splits share patients.

    Attributes:
        images: images of the second split whose patient is in the first one too.
        of_images: all images of the second split.
        patients: patients in both.
        of_patients: all patients of the second split.
    """

    images: int
    of_images: int
    patients: int
    of_patients: int


def split_by_patient(
    manifest: Manifest, fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> Manifest:
    """Return `manifest` with new splits: a patient is in one split only, strata keep their shares.

    Patients are stratified by whether any of their images shows a tumor. Within a stratum they
    are shuffled, and each goes to the split that is furthest behind its share of images.

    Args:
        manifest: the data set; its old splits are forgotten.
        fractions: shares of train, valid and test; they add up to 1.
        seed: the same seed gives the same splits.

    Raises:
        DataError: the shares do not add up, or a class has too few patients to be in each split.
    """
    if len(fractions) != len(Split) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:  # noqa: PLR2004
        raise DataError(f"split fractions must be three shares adding up to 1, not {fractions}.")
    strata: dict[int, dict[str, int]] = defaultdict(dict)
    for patient, images in _by_patient(manifest).items():
        strata[_stratum(images)][patient] = len(images)
    chosen: dict[str, Split] = {}
    generator = np.random.default_rng(seed)
    for stratum in sorted(strata):
        _check_stratum(stratum, strata[stratum], fractions)
        chosen |= _assign(strata[stratum], fractions, generator)
    return Manifest(tuple(replace(m, split=chosen[m.patient_key]) for m in manifest))


def leakage(manifest: Manifest, learnt: Split, judged: Split) -> Leakage:
    """Count the images and patients of split `judged` whose patient is in split `learnt` too."""
    known = set(manifest.of_split(learnt).patients)
    counts = Counter(manifest.of_split(judged).patients)
    shared = {patient: images for patient, images in counts.items() if patient in known}
    return Leakage(sum(shared.values()), sum(counts.values()), len(shared), len(counts))


def _by_patient(manifest: Manifest) -> dict[str, list[Mammogram]]:
    groups: dict[str, list[Mammogram]] = defaultdict(list)
    for mammogram in manifest:
        groups[mammogram.patient_key].append(mammogram)
    return groups


def _stratum(images: list[Mammogram]) -> int:
    """1 where any image shows a tumor, 0 where none does, -1 where nothing is known."""
    return max(-1 if mammogram.label is None else mammogram.label for mammogram in images)


def _check_stratum(stratum: int, sizes: dict[str, int], fractions: Sequence[float]) -> None:
    needed = sum(fraction > 0 for fraction in fractions)
    if stratum >= 0 and len(sizes) < needed:
        raise DataError(
            f"only {len(sizes)} patients have label {stratum}; at least {needed} are needed to put "
            "one in each split."
        )


def _assign(
    sizes: dict[str, int], fractions: Sequence[float], generator: np.random.Generator
) -> dict[str, Split]:
    """Give each patient the split that is furthest behind, in images, relative to its share."""
    patients = sorted(sizes)
    generator.shuffle(patients)
    targets = np.array(fractions) * sum(sizes.values())
    filled = np.zeros(len(fractions))
    chosen = {}
    for patient in patients:
        behind = np.where(targets > 0, (targets - filled) / np.maximum(targets, 1e-9), -np.inf)
        best = int(behind.argmax())
        filled[best] += sizes[patient]
        chosen[patient] = list(Split)[best]
    return chosen
