import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.data.splits import (
    folds_by_patient,
    leakage,
    split_by_patient,
    split_off_validation,
    with_training_images,
)
from mammolens.errors import DataError
from mammolens.records import Mammogram, Split


def cohort(patients: int, tumors: int, seed: int = 0) -> Manifest:
    """Patients with 1 to 8 images; the first `tumors` have at least one with a tumor."""
    generator = np.random.default_rng(seed)
    images = []
    for patient in range(patients):
        for image in range(int(generator.integers(1, 9))):
            label = int(patient < tumors and image == 0)
            images.append(
                Mammogram(path=Path(f"{patient}_{image}"), label=label, patient_id=str(patient))  # type: ignore[arg-type]
            )
    return Manifest(tuple(images))


def patients_in(manifest: Manifest, split: Split) -> set[str]:
    return set(manifest.of_split(split).patients)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 200), st.integers(0, 2**31), st.integers(0, 2**31))
def test_no_patient_is_ever_in_two_splits(patients: int, data_seed: int, seed: int) -> None:
    manifest = cohort(patients, patients // 3, data_seed)
    divided = split_by_patient(manifest, seed=seed)
    train, valid, test = (patients_in(divided, split) for split in Split)
    assert not train & valid
    assert not train & test
    assert not valid & test
    assert train | valid | test == set(manifest.patients)
    assert divided.paths == manifest.paths


def test_shares_of_images_and_of_tumors_are_kept() -> None:
    manifest = cohort(600, 200)
    divided = split_by_patient(manifest, (0.6, 0.2, 0.2))
    for split, share in zip(Split, (0.6, 0.2, 0.2), strict=True):
        part = divided.of_split(split)
        assert len(part) / len(manifest) == pytest.approx(share, abs=0.01)
        assert part.labels.sum() / manifest.labels.sum() == pytest.approx(share, abs=0.03)


def test_a_seed_gives_the_same_splits_and_another_gives_others() -> None:
    manifest = cohort(100, 30)
    assert split_by_patient(manifest, seed=1) == split_by_patient(manifest, seed=1)
    assert split_by_patient(manifest, seed=1) != split_by_patient(manifest, seed=2)


def test_a_split_with_share_0_stays_empty() -> None:
    divided = split_by_patient(cohort(50, 20), (0.8, 0.2, 0))
    assert len(divided.of_split(Split.TEST)) == 0


def test_too_few_patients_of_a_class_are_refused() -> None:
    with pytest.raises(DataError, match="only 2 patients have label 1; at least 3"):
        split_by_patient(cohort(50, 2))


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.5), (math.nan, 0.5, 0.5)])
def test_fractions_that_do_not_add_up_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="adding up to 1"):
        split_by_patient(cohort(50, 20), fractions)


def test_leakage_counts_images_and_patients_in_both() -> None:
    images = [("a", Split.TRAIN), ("b", Split.TRAIN), ("a", Split.TEST), ("a", Split.TEST)]
    images += [("c", Split.TEST)]
    manifest = Manifest(
        tuple(
            Mammogram(path=Path(str(index)), patient_id=patient, split=split)
            for index, (patient, split) in enumerate(images)
        )
    )
    found = leakage(manifest, Split.TRAIN, Split.TEST)
    assert (found.images, found.of_images, found.patients, found.of_patients) == (2, 3, 1, 2)


def test_the_shipped_split_of_the_public_set_leaks_and_ours_does_not(rsna_breast: Path) -> None:
    """The counts were made independently, from file names alone."""
    shipped = read_source(str(rsna_breast))
    assert leakage(shipped, Split.TRAIN, Split.TEST).patients == 207
    ours = split_by_patient(shipped)
    assert leakage(ours, Split.TRAIN, Split.TEST).patients == 0
    assert leakage(ours, Split.TRAIN, Split.VALID).patients == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 100), st.integers(2, 6), st.integers(0, 2**31))
def test_each_patient_is_held_out_in_one_fold(patients: int, count: int, seed: int) -> None:
    manifest = cohort(patients, patients // 2, seed)
    folds = folds_by_patient(manifest, count, seed)
    held_out = [patients_in(fold, Split.VALID) for fold in folds]
    assert sum(map(len, held_out)) == len(set().union(*held_out)) == patients
    for fold, out in zip(folds, held_out, strict=True):
        assert patients_in(fold, Split.TRAIN) == set(manifest.patients) - out
        assert [m.path for m in fold] == manifest.paths


def test_folds_have_as_many_images_and_tumors() -> None:
    folds = folds_by_patient(cohort(500, 170, seed=7), 5)
    parts = [fold.of_split(Split.VALID) for fold in folds]
    assert max(map(len, parts)) - min(map(len, parts)) < 20
    tumors = [part.labels.sum() for part in parts]
    assert max(tumors) - min(tumors) < 10


def test_one_fold_or_too_few_patients_are_refused() -> None:
    with pytest.raises(DataError, match="at least 2 folds"):
        folds_by_patient(cohort(10, 5), 1)
    with pytest.raises(DataError, match="only 3 patients"):
        folds_by_patient(cohort(30, 3), 5)


def test_validation_is_taken_from_training_and_test_stays() -> None:
    shipped = split_by_patient(cohort(300, 100), (0.8, 0.0, 0.2), seed=1)
    divided = split_off_validation(shipped, 0.2)
    assert patients_in(divided, Split.TEST) == patients_in(shipped, Split.TEST)
    train, valid = patients_in(divided, Split.TRAIN), patients_in(divided, Split.VALID)
    assert not train & valid
    assert train | valid == patients_in(shipped, Split.TRAIN)
    images = len(divided.of_split(Split.VALID)) / len(shipped.of_split(Split.TRAIN))
    assert images == pytest.approx(0.2, abs=0.02)


def films(patients: str = "film ") -> Manifest:
    drawn = cohort(30, 10, seed=1)
    return Manifest(
        tuple(replace(m, path=Path("films") / m.path, patient_id=f"{patients}{m.patient_id}") for m in drawn)
    )


def test_another_data_set_adds_its_training_images_and_nothing_to_judge() -> None:
    main, other = split_by_patient(cohort(30, 10)), split_by_patient(films())
    both = with_training_images(main, other)
    assert len(both) == len(main) + len(other.of_split(Split.TRAIN))
    for split in (Split.VALID, Split.TEST):
        assert both.of_split(split).paths == main.of_split(split).paths
    assert len(with_training_images(main, films())) == len(main) + len(films())


def test_a_patient_who_is_judged_is_learnt_from_in_no_other_data_set() -> None:
    main = split_by_patient(cohort(30, 10))
    with pytest.raises(DataError, match="judged in the other"):
        with_training_images(main, films(patients=""))
    with pytest.raises(DataError, match="no labelled training images"):
        with_training_images(main, split_by_patient(films()).of_split(Split.TEST))
