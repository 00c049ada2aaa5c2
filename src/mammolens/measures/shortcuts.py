"""How well the label is told with no tumor in sight: what a network may learn instead.

Each shortcut is judged out of fold, patients apart: a score near 0.5 is what one wants.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mammolens.data.manifest import Manifest
from mammolens.measures.metrics import Estimate, estimate, patient_weights, roc_auc
from mammolens.records import Mammogram

NUMBERS = ("age",)
CATEGORIES = ("machine_id", "manufacturer", "site_id", "implant", "density", "view", "laterality")
"""Metadata that is known before anyone has read the image; nothing that follows from the label."""

FOLDS = 5
_FEWEST = 30  # patients of each class below which nothing can be told


def can_be_judged(manifest: Manifest) -> bool:
    """Tell whether there are enough labelled patients of each class."""
    ill = {m.patient_key for m in manifest if m.label == 1}
    well = {m.patient_key for m in manifest if m.label == 0} - ill
    return min(len(ill), len(well)) >= _FEWEST


def metadata_auc(manifest: Manifest) -> Estimate | None:
    """Judge the label from age, machine, site, implant, density, view and laterality alone."""
    table = pd.DataFrame([_known_before_reading(mammogram) for mammogram in manifest])
    table = table.loc[:, table.nunique() > 1]
    if table.empty:
        return None
    numbers = [name for name in NUMBERS if name in table]
    categories = [name for name in CATEGORIES if name in table]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), categories),
    )
    return _judged(manifest, table, make_pipeline(columns, LogisticRegression(max_iter=1000)))


def file_name_auc(manifest: Manifest) -> Estimate | None:
    """Judge the label from the numbers in the file's name alone."""
    numbers = [_numbers(path) for path in manifest.paths]
    width = max(map(len, numbers))
    if not width:
        return None
    padded = [row + [np.nan] * (width - len(row)) for row in numbers]
    return _judged(manifest, np.array(padded), HistGradientBoostingClassifier(random_state=0))


def counts_auc(manifest: Manifest) -> Estimate | None:
    """Judge the label from how many images and breasts of its patient there are alone.

    Where it is told, figures by patient are the counts' as well: the larger of two breasts is
    larger than one.
    """
    patients = manifest.patients
    images = Counter(patients)
    breasts = Counter(patient for patient, _ in {(m.patient_key, m.laterality) for m in manifest})
    counts = np.array([(images[patient], breasts[patient]) for patient in patients])
    if (counts == counts[0]).all():
        return None
    return _judged(manifest, counts, HistGradientBoostingClassifier(random_state=0))


def pixels_auc(manifest: Manifest, features: NDArray[np.float32]) -> Estimate:
    """Judge the label from a few numbers an image, such as an 8 × 8 thumbnail."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return _judged(manifest, features, model)


def _judged(manifest: Manifest, features: object, model: object) -> Estimate:
    """Return the AUC of out-of-fold scores; patients never stand on both sides of a fold."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(
        model,
        features,
        manifest.labels.astype(int),
        groups=manifest.patients,
        cv=folds,
        method="predict_proba",
    )[:, 1]
    return estimate(roc_auc(manifest.labels, scores), patient_weights(manifest.patients))


def _known_before_reading(mammogram: Mammogram) -> dict[str, str | None]:
    metadata = {**mammogram.metadata, "view": mammogram.view, "laterality": mammogram.laterality}
    return {name: metadata.get(name) for name in (*NUMBERS, *CATEGORIES)}


def _numbers(path: Path) -> list[float]:
    """Return the decimal numbers of a file name, without what a download service appended."""
    stem = re.sub(r"_png\.rf\.[0-9a-f]+$", "", path.stem)
    return [float(digits) for digits in re.findall(r"\d+", stem)[:4]]


def needed_patients(auc: float, half_width: float, ill: int, well: int) -> int:
    """Return how many patients give an interval of ± `half_width` at this mix of classes.

    Hanley & McNeil 1982 (Radiology 143:29), equations 1 and 2, one image a patient.
    """
    share = ill / (ill + well)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    target = (half_width / 1.96) ** 2

    def variance(patients: int) -> float:
        positives, negatives = patients * share, patients * (1 - share)
        spread = (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
        return (auc * (1 - auc) + spread) / (positives * negatives)

    low, high = 4, 10_000_000
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if variance(middle) <= target else (middle + 1, high)
    return low
