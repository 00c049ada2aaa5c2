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
    manifest: Manifest,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    strata: Sequence[str] = (),
) -> Manifest:
    """Return `manifest` with new splits: a patient is in one split only, classes keep their shares.

    Patients are divided by whether any of their images shows a tumor, and shuffled. Each goes to
    the split that is furthest behind its share of images. With `strata`, patients of one stratum
    follow one another, so that each stratum is spread over the splits, too.

    Args:
        manifest: the data set; its old splits are forgotten.
        fractions: shares of train, valid and test; they add up to 1.
        seed: the same seed gives the same splits.
        strata: names of metadata to stratify by besides the label, such as ``machine_id``.

    Raises:
        DataError: the shares do not add up, or a class has too few patients to be in each split.
    """
    if len(fractions) != len(Split) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:  # noqa: PLR2004
        raise DataError(f"split fractions must be three shares adding up to 1, not {fractions}.")
    by_patient = _by_patient(manifest)
    classes: dict[int, list[str]] = defaultdict(list)
    for patient, images in by_patient.items():
        classes[_class(images)].append(patient)
    chosen: dict[str, Split] = {}
    generator = np.random.default_rng(seed)
    for label in sorted(classes):
        patients = sorted(classes[label])
        _check_class(label, len(patients), fractions)
        generator.shuffle(patients)
        patients.sort(key=lambda patient: _stratum(by_patient[patient], strata))
        chosen |= _assign({p: len(by_patient[p]) for p in patients}, fractions)
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


def _class(images: list[Mammogram]) -> int:
    """1 where any image shows a tumor, 0 where none does, -1 where nothing is known."""
    return max(-1 if mammogram.label is None else mammogram.label for mammogram in images)


def _stratum(images: list[Mammogram], names: Sequence[str]) -> tuple[str, ...]:
    """What the first image says of each name: a patient rarely changes the machine."""
    return tuple(images[0].metadata.get(name, "") for name in names)


def _check_class(label: int, patients: int, fractions: Sequence[float]) -> None:
    needed = sum(fraction > 0 for fraction in fractions)
    if label >= 0 and patients < needed:
        raise DataError(
            f"only {patients} patients have label {label}; at least {needed} are needed to put "
            "one in each split."
        )


def _assign(sizes: dict[str, int], fractions: Sequence[float]) -> dict[str, Split]:
    """Give each patient, in order, the split furthest behind its share of images."""
    targets = np.array(fractions) * sum(sizes.values())
    filled = np.zeros(len(fractions))
    chosen = {}
    for patient, size in sizes.items():
        behind = np.where(targets > 0, (targets - filled) / np.maximum(targets, 1e-9), -np.inf)
        best = int(behind.argmax())
        filled[best] += size
        chosen[patient] = list(Split)[best]
    return chosen
