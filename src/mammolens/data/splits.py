"""Splits that patients never cross, and the count of those that do where a data set came split."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mammolens.data.manifest import Manifest
from mammolens.errors import DataError
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
    manifest: Manifest, fractions: Sequence[float] = FRACTIONS, seed: int = 0, strata: Sequence[str] = ()
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
    if len(fractions) != len(Split) or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:  # noqa: PLR2004
        raise DataError(f"split fractions must be three shares adding up to 1, not {fractions}.")
    part = _parts(manifest, fractions, seed, strata)
    return manifest.with_splits(lambda m: list(Split)[part[m.patient_key]])


def split_off_validation(manifest: Manifest, share: float = 0.15, seed: int = 0) -> Manifest:
    """Return `manifest` with a new validation split dealt from training, by patient.

    For data sets that were published with a test split, which stays as it is, but none to choose
    an epoch on.

    Args:
        manifest: the data set; what was in its validation split goes back to training first.
        share: of training images that become validation.
        seed: the same seed gives the same split.

    Raises:
        DataError: a class of the training split has fewer than two patients.
    """
    rest = manifest.where(lambda m: m.split is not Split.TEST)
    part = _parts(rest, (1 - share, share), seed)
    new = (Split.TRAIN, Split.VALID)
    return manifest.with_splits(lambda m: m.split if m.split is Split.TEST else new[part[m.patient_key]])


def folds_by_patient(manifest: Manifest, folds: int = 5, seed: int = 0) -> list[Manifest]:
    """Return for each fold the data set with that fold for validation, the rest for training.

    Patients are dealt as by `split_by_patient`; each is in the validation split of one fold.

    Raises:
        DataError: there are fewer than two folds, or a class has fewer patients than folds.
    """
    if folds < 2:  # noqa: PLR2004 - one to learn from, one to judge
        raise DataError(f"cross-validation takes at least 2 folds, not {folds}.")
    part = _parts(manifest, [1 / folds] * folds, seed)

    def held_out(fold: int) -> Manifest:
        return manifest.with_splits(lambda m: Split.VALID if part[m.patient_key] == fold else Split.TRAIN)

    return [held_out(fold) for fold in range(folds)]


def with_training_images(manifest: Manifest, other: Manifest) -> Manifest:
    """Return `manifest` and, to learn from as well, the labelled training images of `other`.

    Where `other` has no splits, all its labelled images are taken.

    Raises:
        DataError: there are none, or one is of a patient whom `manifest` has for judging.
    """
    taken = other.labelled().where(lambda m: m.split in (None, Split.TRAIN))
    if not len(taken):
        raise DataError("the data set to learn from as well has no labelled training images.")
    judged = manifest.where(lambda m: m.split is not Split.TRAIN)
    if shared := sorted(set(taken.patients) & set(judged.patients)):
        raise DataError(
            f"patient {shared[0]} would be learnt from in one data set and judged in the other. "
            "Leave her out of one, or, if these are two people, change one patient_id."
        )
    return Manifest((*manifest, *taken.with_splits(lambda _: Split.TRAIN)))


def _parts(manifest: Manifest, fractions: Sequence[float], seed: int, strata: Sequence[str] = ()) -> dict[str, int]:
    """Deal patients to parts of these shares; return the part of each."""
    by_patient: dict[str, list[Mammogram]] = defaultdict(list)
    for mammogram in manifest:
        by_patient[mammogram.patient_key].append(mammogram)
    by_class: dict[int, list[str]] = defaultdict(list)
    for patient, images in by_patient.items():
        by_class[max(-1 if m.label is None else m.label for m in images)].append(patient)
    parts: dict[str, int] = {}
    generator = np.random.default_rng(seed)
    needed = sum(fraction > 0 for fraction in fractions)
    for label, patients in sorted(by_class.items()):
        if label >= 0 and len(patients) < needed:
            raise DataError(
                f"only {len(patients)} patients have label {label}; "
                f"at least {needed} are needed to put one in each split or fold."
            )
        shuffled = sorted(patients)
        generator.shuffle(shuffled)
        # By what the first image says of each name: a patient rarely changes the machine.
        shuffled.sort(key=lambda patient: [by_patient[patient][0].metadata.get(name, "") for name in strata])
        parts |= _assign({patient: len(by_patient[patient]) for patient in shuffled}, fractions)
    return parts


def _assign(sizes: dict[str, int], fractions: Sequence[float]) -> dict[str, int]:
    """Give each patient, in order, the part furthest behind its share of images."""
    targets = np.array(fractions) * sum(sizes.values())
    filled = np.zeros(len(fractions))
    parts = {}
    for patient, size in sizes.items():
        behind = np.where(targets > 0, (targets - filled) / np.maximum(targets, 1e-9), -np.inf)
        parts[patient] = int(behind.argmax())
        filled[parts[patient]] += size
    return parts


def leakage(manifest: Manifest, learnt: Split, judged: Split) -> Leakage:
    """Count the images and patients of split `judged` whose patient is in split `learnt` too."""
    patients = set(manifest.of_split(learnt).patients)
    images = Counter(manifest.of_split(judged).patients)
    shared = [count for patient, count in images.items() if patient in patients]
    return Leakage(sum(shared), images.total(), len(shared), len(images))
