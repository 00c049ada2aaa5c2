"""Splits that patients never cross, and the count of those that do where a data set came split."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
    part = _parts(manifest, fractions, seed, strata)
    return Manifest(tuple(replace(m, split=list(Split)[part[m.patient_key]]) for m in manifest))


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
    part = _parts(rest, (1 - share, share), seed, ())
    new = (Split.TRAIN, Split.VALID)
    return Manifest(tuple(m if m.split is Split.TEST else replace(m, split=new[part[m.patient_key]]) for m in manifest))


def folds_by_patient(manifest: Manifest, folds: int = 5, seed: int = 0) -> list[Manifest]:
    """Return for each fold the data set with that fold for validation, the rest for training.

    Patients are dealt as by `split_by_patient`; each is in the validation split of one fold.

    Raises:
        DataError: there are fewer than two folds, or a class has fewer patients than folds.
    """
    if folds < 2:  # noqa: PLR2004 - one to learn from, one to judge
        raise DataError(f"cross-validation takes at least 2 folds, not {folds}.")
    part = _parts(manifest, [1 / folds] * folds, seed, ())

    def dealt(fold: int) -> Iterator[Mammogram]:
        for mammogram in manifest:
            held_out = part[mammogram.patient_key] == fold
            yield replace(mammogram, split=Split.VALID if held_out else Split.TRAIN)

    return [Manifest(tuple(dealt(fold))) for fold in range(folds)]


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
    return Manifest((*manifest, *(replace(m, split=Split.TRAIN) for m in taken)))


def _parts(manifest: Manifest, fractions: Sequence[float], seed: int, strata: Sequence[str]) -> dict[str, int]:
    """Deal patients to parts of these shares; return the part of each."""
    by_patient = _by_patient(manifest)
    classes: dict[int, list[str]] = defaultdict(list)
    for patient, images in by_patient.items():
        classes[_class(images)].append(patient)
    chosen: dict[str, int] = {}
    generator = np.random.default_rng(seed)
    for label in sorted(classes):
        patients = sorted(classes[label])
        _check_class(label, len(patients), fractions)
        generator.shuffle(patients)
        patients.sort(key=lambda patient: _stratum(by_patient[patient], strata))
        chosen |= _assign({p: len(by_patient[p]) for p in patients}, fractions)
    return chosen


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
            f"only {patients} patients have label {label}; at least {needed} are needed to put one in each split."
        )


def _assign(sizes: dict[str, int], fractions: Sequence[float]) -> dict[str, int]:
    """Give each patient, in order, the part furthest behind its share of images."""
    targets = np.array(fractions) * sum(sizes.values())
    filled = np.zeros(len(fractions))
    chosen = {}
    for patient, size in sizes.items():
        behind = np.where(targets > 0, (targets - filled) / np.maximum(targets, 1e-9), -np.inf)
        best = int(behind.argmax())
        filled[best] += size
        chosen[patient] = best
    return chosen
