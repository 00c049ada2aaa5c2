"""How well the label is told with no tumor in sight: what a network may learn instead.

Each shortcut is judged out of fold, patients apart: a score near 0.5 is what one wants.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
from threadpoolctl import threadpool_limits

from mammolens.measures.intervals import Estimate, estimate, patient_weights
from mammolens.measures.metrics import roc_auc
from mammolens.records import Mammogram

NUMBERS = ("age",)
CATEGORIES = ("machine_id", "manufacturer", "site_id", "implant", "density", "view", "laterality")
"""Metadata that is known before anyone has read the image; nothing that follows from the label."""

_FOLDS = 5
_FEWEST = 30  # patients of each class below which nothing can be told


def image_table(mammograms: Iterable[Mammogram]) -> pd.DataFrame:
    """Return a row an image: path, label (NaN: unknown), patient, laterality, view, and its metadata."""
    images = list(mammograms)
    columns: dict[str, Any] = {
        "path": [m.path for m in images],
        "label": [math.nan if m.label is None else m.label for m in images],
        "patient": [m.patient_key for m in images],
        "laterality": [m.laterality for m in images],
        "view": [m.view for m in images],
    }
    return pd.DataFrame([dict(m.metadata) for m in images]).assign(**columns)


def can_be_judged(table: pd.DataFrame) -> bool:
    """Tell whether there are enough labelled patients of each class in an `image_table`."""
    by_patient = table.groupby("patient")["label"].max()
    return min((by_patient == 1).sum(), (by_patient == 0).sum()) >= _FEWEST


def metadata_auc(table: pd.DataFrame) -> Estimate | None:
    """Judge the label from age, machine, site, implant, density, view and laterality alone.

    Here and below, of an `image_table` of labelled images; None where all images are alike.
    """
    metadata = table[[name for name in (*NUMBERS, *CATEGORIES) if name in table]]
    metadata = metadata.loc[:, metadata.nunique() > 1]
    if metadata.empty:
        return None
    numbers, categories = ([name for name in names if name in metadata] for names in (NUMBERS, CATEGORIES))
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), categories),
    )
    metadata = metadata.assign(**metadata[numbers].apply(pd.to_numeric, errors="coerce"))
    return _judged(table, metadata, make_pipeline(columns, LogisticRegression(max_iter=1000)))


def file_name_auc(table: pd.DataFrame) -> Estimate | None:
    """Judge the label from the numbers in the file's name alone."""
    numbers = pd.DataFrame([_numbers(path) for path in table["path"]])
    if numbers.empty:
        return None
    return _judged(table, numbers.to_numpy(np.float64), HistGradientBoostingClassifier(random_state=0))


def counts_auc(table: pd.DataFrame) -> Estimate | None:
    """Judge the label from how many images and breasts of its patient there are alone.

    Where it is told, figures by patient are the counts' as well: the larger of two breasts is
    larger than one.
    """
    sides = table.groupby("patient")["laterality"]
    counts = np.stack([sides.transform("size"), sides.transform(lambda side: side.nunique(dropna=False))], axis=1)
    if (counts == counts[0]).all():
        return None
    return _judged(table, counts, HistGradientBoostingClassifier(random_state=0))


def pixels_auc(table: pd.DataFrame, features: NDArray[np.float32]) -> Estimate:
    """Judge the label from a few numbers an image, (images, numbers), such as an 8 × 8 thumbnail."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return _judged(table, features, model)


def needed_patients(auc: float, half_width: float, ill: int, well: int) -> int:
    """Return how many patients give an interval of ± `half_width` at this mix of classes.

    Hanley & McNeil 1982 (Radiology 143:29), equations 1 and 2, one image a patient.
    """
    share = ill / (ill + well)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    target = (half_width / 1.96) ** 2

    def are_enough(patients: int) -> bool:
        positives, negatives = patients * share, patients * (1 - share)
        spread = (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
        return (auc * (1 - auc) + spread) / (positives * negatives) <= target

    fewest = 4
    return fewest + bisect_left(range(fewest, 10_000_000), True, key=are_enough)


def _judged(table: pd.DataFrame, features: object, model: object) -> Estimate:
    """Return the AUC of out-of-fold scores; patients never stand on both sides of a fold."""
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    labels, patients = table["label"].to_numpy(), table["patient"].tolist()
    known = {"groups": patients, "cv": folds, "method": "predict_proba"}
    with threadpool_limits(1, user_api="openmp"):  # on a busy machine threads of little work wait for each other
        scores = cross_val_predict(model, features, labels.astype(int), **known)[:, 1]
    return estimate(roc_auc(labels, scores), patient_weights(patients))


def _numbers(path: Path) -> list[float]:
    """Return the decimal numbers of a file name, without what a download service appended."""
    stem = re.sub(r"_png\.rf\.[0-9a-f]+$", "", path.stem)
    return [float(digits) for digits in re.findall(r"\d+", stem)[:4]]
