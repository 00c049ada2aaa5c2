from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mammolens.doctor.duplicates import duplicate_groups
from mammolens.measures import shortcuts
from mammolens.measures.metrics import roc_auc
from mammolens.measures.shortcuts import image_table
from mammolens.records import Mammogram


def cohort(tells: str | None = None, patients: int = 200) -> list[Mammogram]:
    """Two images a patient; `tells` names what gives the label away."""
    generator = np.random.default_rng(0)
    images = []
    for patient in range(patients):
        label = int(generator.random() < 0.4)
        machine = label if tells == "machine" and generator.random() < 0.9 else patient % 3
        number = generator.integers(0, 9999) + (10_000 if tells == "name" and label else 0)
        told = {"machine_id": str(machine), "age": str(generator.integers(40, 80))}
        if tells == "reading":
            told["BIRADS"] = str(label)
        images += [
            Mammogram(
                path=Path(f"{number}_{generator.integers(0, 10**6)}_{view}.png"),
                label=label,  # type: ignore[arg-type]
                patient_id=str(patient),
                metadata=told,
            )
            for view in range(2)
        ]
    return images


def test_nothing_is_told_where_nothing_tells() -> None:
    for judge in (shortcuts.metadata_auc, shortcuts.file_name_auc):
        figure = judge(image_table(cohort()))
        assert figure is not None
        assert figure.low < 0.5 < figure.high or figure.value < 0.56


def test_a_machine_that_tells_is_found() -> None:
    figure = shortcuts.metadata_auc(image_table(cohort("machine")))
    assert figure is not None
    assert figure.low > 0.7


def test_file_names_that_tell_are_found() -> None:
    figure = shortcuts.file_name_auc(image_table(cohort("name")))
    assert figure is not None
    assert figure.low > 0.95


def test_sides_that_only_the_healthy_have_are_found() -> None:
    """As where all tumors were taken, and of them no other breast."""
    whole = cohort()
    assert shortcuts.counts_auc(image_table(whole)) is None
    sides = (
        replace(m, laterality="LR"[place % 2])  # type: ignore[arg-type]
        for place, m in enumerate(whole)
        if m.label == 0 or place % 2
    )
    figure = shortcuts.counts_auc(image_table(sides))
    assert figure is not None
    assert figure.low > 0.95
    fewer = shortcuts.counts_auc(image_table(m for n, m in enumerate(whole) if n % 7))
    assert fewer is not None
    assert fewer.low < 0.5


def test_what_follows_from_the_label_is_no_metadata() -> None:
    assert shortcuts.metadata_auc(image_table(cohort("reading"))) == shortcuts.metadata_auc(image_table(cohort()))


def test_pixels_that_tell_are_found_and_patients_stay_apart() -> None:
    table = image_table(cohort())
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(len(table), 8)).astype(np.float32)
    told = noise.copy()
    told[:, 3] += 3 * table["label"]
    assert shortcuts.pixels_auc(table, told).low > 0.9
    # Two images of a patient with the same random numbers: learnt by heart, were they not apart.
    by_heart = np.repeat(noise[::2] * 10, 2, axis=0)
    assert shortcuts.pixels_auc(table, by_heart).value < 0.62


def test_few_patients_are_not_judged() -> None:
    assert shortcuts.can_be_judged(image_table(cohort()))
    assert not shortcuts.can_be_judged(image_table(cohort(patients=40)))


def test_the_patients_needed_for_an_interval_give_that_interval() -> None:
    """Simulated: binormal scores, one image a patient, 95 % of AUCs within ± 0.05 of 0.75."""
    needed = shortcuts.needed_patients(0.75, 0.05, 1, 2)
    assert needed == pytest.approx(480, abs=80)
    assert shortcuts.needed_patients(0.75, 0.025, 1, 2) == pytest.approx(4 * needed, rel=0.05)
    generator = np.random.default_rng(0)
    labels = (np.arange(needed) < needed / 3).astype(float)
    aucs = [
        roc_auc(labels, labels * 0.954 + generator.normal(size=needed))(np.ones((1, needed)))[0] for _ in range(300)
    ]
    assert np.mean(np.abs(np.array(aucs) - 0.75) < 0.05) == pytest.approx(0.95, abs=0.03)


def test_copies_among_thousands_are_found_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    originals = generator.normal(0, 20, (3000, 256))
    noisy = originals[[5, 70, 2999]] + generator.normal(0, 3, (3, 256))
    descriptors = np.clip(np.concatenate([originals, noisy]), -127, 127).astype(np.int8)
    digests = [str(index) for index in range(len(descriptors))]
    assert duplicate_groups(digests, list(descriptors)) == [[5, 3000], [70, 3001], [2999, 3002]]


def test_equal_files_are_copies_whatever_they_show() -> None:
    nothing = np.zeros((4, 256), np.int8)
    assert duplicate_groups(["a", "b", "a", "a"], list(nothing)) == [[0, 2, 3]]
    assert duplicate_groups(["a"], list(nothing[:1])) == []
