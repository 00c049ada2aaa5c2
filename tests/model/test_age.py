from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mammolens.data.manifest import Manifest
from mammolens.model.age import WithAge, ages_of, fit_with_age, usable_age
from mammolens.model.bundle import open_bundle, packaged_bundles
from mammolens.model.calibration import sigmoid
from mammolens.records import Mammogram

KNOWN = WithAge(picture=0.9, decade=0.4, intercept=-0.3, data="rsna", images=538, patients=151)

Drawn = tuple[Manifest, np.ndarray]


def drawn(patients: int, *, sign: int = 1) -> Drawn:
    """Two images a patient whose labels follow from picture and age by the weights 0.9, 0.4 and -0.3."""
    generator = np.random.default_rng(0)
    ages, log_odds = generator.integers(40, 80, patients), generator.normal(-1, 1.5, patients)
    odds = sign * KNOWN.picture * log_odds + KNOWN.decade * (ages - 60) / 10 + KNOWN.intercept
    labels = (generator.random(patients) < sigmoid(odds)).astype(int)
    images = tuple(
        Mammogram(
            Path(f"{patient}{view}.png"),
            int(labels[patient]),  # type: ignore[arg-type]
            patient_id=str(patient),
            metadata={"age": str(ages[patient])},
        )
        for patient in range(patients)
        for view in ("CC", "MLO")
    )
    return Manifest(images), np.repeat(sigmoid(log_odds), 2)


def without_age(manifest: Manifest, images: int) -> Manifest:
    return Manifest(tuple(replace(m, metadata={}) if place < images else m for place, m in enumerate(manifest)))


def test_an_answer_worked_out_by_hand() -> None:
    assert KNOWN(0.5, 60) == round(1 / (1 + np.exp(0.3)), 6)
    odds = 0.9 * np.log(0.2 / 0.8) + 0.4 * 1.5 - 0.3
    np.testing.assert_allclose(KNOWN([0.2, 0.2], [75, 45]), [0.279355, 0.104550], atol=1e-6)
    assert KNOWN(0.2, 75) == round(1 / (1 + np.exp(-odds)), 6)
    assert 0 <= KNOWN(0.0, 18) < KNOWN(1.0, 18) <= 1


@pytest.mark.parametrize(
    ("said", "age"),
    [
        *(("63", 63), ("61.0", 61), (" 18 ", 18), (90, 90), ("110", 110)),
        *(("17", None), ("111", None), ("", None), (None, None), ("nan", None), ("inf", None), ("063Y", None)),
    ],
)
def test_usable_ages(said: str | float | None, age: float | None) -> None:
    assert usable_age(said) == age


def test_known_weights_are_found_again() -> None:
    manifest, probabilities = drawn(20_000)
    fitted = fit_with_age(manifest, probabilities, "drawn")
    assert fitted is not None
    assert (fitted.picture, fitted.decade, fitted.intercept) == pytest.approx((0.9, 0.4, -0.3), abs=0.05)
    assert (fitted.data, fitted.images, fitted.patients) == ("drawn", 40_000, 20_000)
    labels = manifest.labels
    # What a logistic regression without penalty keeps: as many tumors as there are, at the mean age there is.
    answers = fitted(probabilities, ages_of(manifest))
    assert answers.sum() == pytest.approx(labels.sum(), abs=1)
    assert (answers * ages_of(manifest)).sum() == pytest.approx((labels * ages_of(manifest)).sum(), rel=1e-4)


def test_nearly_all_images_need_an_age() -> None:
    manifest, probabilities = drawn(200)
    few = fit_with_age(without_age(manifest, 20), probabilities, "drawn")
    assert few is not None
    assert (few.images, few.patients) == (380, 190)
    assert fit_with_age(without_age(manifest, 21), probabilities, "drawn") is None
    assert fit_with_age(without_age(manifest, 400), probabilities, "drawn") is None


@pytest.mark.parametrize("rarer", [0, 1])
def test_either_class_needs_twenty_patients(rarer: int) -> None:
    manifest, probabilities = drawn(200)
    images = list(manifest)
    (of_rarer,), (others,) = np.nonzero(manifest.labels == rarer), np.nonzero(manifest.labels != rarer)
    for patients, fits in ((20, True), (19, False)):
        kept = np.sort([*of_rarer[: 2 * patients], *others])
        some = Manifest(tuple(images[place] for place in kept))
        assert (fit_with_age(some, probabilities[kept], "drawn") is not None) == fits


def test_a_picture_that_counts_against_itself_is_not_combined() -> None:
    assert fit_with_age(*drawn(400, sign=-1), "drawn") is None
    with pytest.raises(ValidationError, match="picture"):
        WithAge.model_validate(KNOWN.model_dump() | {"picture": -0.1})


def test_where_all_are_of_one_age_it_changes_nothing_much() -> None:
    manifest, probabilities = drawn(400)
    alike = Manifest(tuple(replace(m, metadata={"age": "50"}) for m in manifest))
    fitted = fit_with_age(alike, probabilities, "drawn")
    assert fitted is not None
    assert np.isfinite([fitted.picture, fitted.decade, fitted.intercept]).all()


def test_a_bundle_from_before_goes_on_opening() -> None:
    folder = packaged_bundles()["phantom"]
    assert '"with_age"' not in (folder / "bundle.json").read_text(encoding="utf-8")
    assert open_bundle(folder).record.with_age is None


def test_what_ships_for_real_mammograms_has_an_answer_with_age() -> None:
    fitted = open_bundle(packaged_bundles()["accurate"]).record.with_age
    assert fitted is not None
    assert fitted.decade > 0
    assert fitted.picture > 0
