"""A trained network → a bundle: what serving needs, fitted on validation, checked against Keras."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.data.sources import read_source
from mammolens.errors import BundleError, DataError, ImageError, RunError
from mammolens.images.breast import Pixels
from mammolens.images.preprocess import Preprocess, as_float
from mammolens.learning.keras_files import check_not_saved_model, open_keras
from mammolens.learning.onnx_model import OUTPUTS, Served, as_served, parity, scores_by
from mammolens.learning.runs import MANIFEST, Run, open_run
from mammolens.levels import Level
from mammolens.measures import metrics
from mammolens.measures.intervals import Estimate, estimate, patient_weights
from mammolens.model.age import fit_with_age
from mammolens.model.bundle import Bundle, BundleRecord, Learnt, Outputs, TrainingData, write_bundle
from mammolens.model.calibration import Calibration, fit_calibration
from mammolens.model.decisions import FIXED, by_level, fit_rules, unmeasured
from mammolens.model.gate import MIN_IMAGES, Gate, Measured, fit_gate, measured_file
from mammolens.model.provenance import Provenance, provenance
from mammolens.model.recipe import Recipe
from mammolens.parallel import map_in_order
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import LABEL_NAMES, Split, View
from mammolens.workers.crew import apart

NO_LICENCE = "none stated: the terms of the training data apply"

_COMPARED = 32  # images
_GATE_IMAGES = 1000


@dataclass(frozen=True)
class Card:
    """What a model is called and under which terms its weights may be used."""

    name: str
    licence: str = NO_LICENCE


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a network was learnt from and is calibrated on.

    Attributes:
        name: of the data set.
        data: labelled images, with splits, prepared for the network.
        calibration_only: whether the network learnt elsewhere.
        scores: what the network as it answers makes of the validation images, where that is known already.
        measured: what `measured_files` makes of them, likewise.
    """

    name: str
    data: PreparedSet
    calibration_only: bool = False
    scores: NDArray[np.float64] | None = None
    measured: Sequence[Measured | None] | None = None


def export(
    served: Served,
    recipe: Recipe,
    out: Path,
    card: Card,
    *,
    evidence: Evidence | None = None,
    learnt: Sequence[Learnt] | None = None,
) -> Bundle:
    """Write a bundle into the new folder `out`.

    Args:
        served: the network as it answers, which is what the bundle holds.
        recipe: its preprocessing, and a threshold where it fixes one.
        out: a new folder.
        card: the model's name and licence.
        evidence: the data it was learnt from; its validation split gives calibration, operating
            points and prediction sets, and where ages are known the answer with age. Without it a score
            is shown as it is and 0.5 decides.
        learnt: how each network was learnt, or None where nobody knows.

    Raises:
        BundleError: Keras and ONNX Runtime do not agree.
        DataError: `out` exists, or validation images lack a class.
    """
    fitted: dict[str, Any]
    threshold = None if recipe.threshold == "youden" else recipe.threshold
    pixels = evidence.data.of_split(Split.VALID).pixels if evidence else None
    compared = _drawn(recipe.preprocess) if pixels is None else pixels.take(range(min(_COMPARED, len(pixels))))
    difference = parity(served, compared)
    if evidence is None or pixels is None:
        points = {level: {FIXED: unmeasured(threshold or 0.5)} for level in Level}
        fitted = {"operating_points": points, "default_operating_point": FIXED}
        fitted |= {"training_data": None, "calibration": Calibration(), "gate": None, "metrics": {}}
    else:
        scores = scores_by(served.model, pixels) if evidence.scores is None else evidence.scores
        fitted = _fitted(evidence, scores, threshold)
    record = BundleRecord(
        name=card.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=card.licence,
        learnt=None if learnt is None else tuple(learnt),
        preprocess=recipe.preprocess,
        outputs=Outputs(score_map=OUTPUTS[1] if len(served.network.outputs) > 1 else None),
        parity=difference,
        made_with=provenance(),
        **fitted,
    )
    return write_bundle(record, served.model, out)


def _fitted(evidence: Evidence, scores: NDArray[np.float64], threshold: float | None) -> dict[str, Any]:
    """Return what a bundle holds that is learnt from images: all but the network."""
    images, measured = evidence.data.manifest, evidence.measured
    valid, used = images.of_split(Split.VALID), images.where(lambda m: m.split in (Split.TRAIN, Split.VALID))
    calibration = fit_calibration(valid.labels, scores, valid.patients)
    probabilities = calibration(scores)
    rules = fit_rules(valid, probabilities, None if threshold is None else float(calibration(threshold)))
    training_data = TrainingData(
        name=evidence.name,
        images=len(used),
        patients=len(set(used.patients)),
        prevalence=float(np.mean(valid.labels)),
        fingerprint=used.fingerprint(),
        synthetic=all(m.metadata.get("synthetic") == "1" for m in used),
        calibration_only=evidence.calibration_only,
    )
    return {
        "training_data": training_data,
        "calibration": calibration,
        "operating_points": rules.points,
        "default_operating_point": rules.default_point,
        "conformal": rules.conformal,
        "with_age": fit_with_age(valid, probabilities, evidence.name),
        "gate": _gate(images.of_split(Split.TRAIN), _measured(valid) if measured is None else measured),
        "metrics": _figures(valid, probabilities),
    }


def _figures(valid: Manifest, probabilities: NDArray[np.float64]) -> dict[str, Estimate]:
    labels, values, patients, _ = by_level(valid, probabilities)[Level.BREAST]
    breasts = patient_weights(patients)
    images = patient_weights(valid.patients)
    precision = metrics.average_precision(valid.labels, probabilities)
    return {
        "roc_auc": estimate(metrics.roc_auc(valid.labels, probabilities), images),
        "average_precision": estimate(precision, images),
        "roc_auc_by_breast": estimate(metrics.roc_auc(labels, values), breasts),
    }


def _gate(training: Manifest, valid: Sequence[Measured | None]) -> Gate | None:
    """Fit the gate on training images, and its threshold on validation images; none where the former are too few."""
    images, unseen = ([one for one in some if one is not None] for some in (_measured(training), valid))
    return fit_gate(images, unseen) if len(images) >= MIN_IMAGES else None


def _measured(images: Manifest) -> list[Measured | None]:
    """Measure at most `_GATE_IMAGES` images, at equal distances."""
    return measured_files(images.paths[:: max(1, math.ceil(len(images) / _GATE_IMAGES))])


def measured_files(paths: Sequence[Path]) -> list[Measured | None]:
    """Measure images for the gate, each apart; None for one that cannot be read, or went away."""

    def measure(path: Path) -> Measured | None:
        try:
            return apart(measured_file, path)
        except ImageError:
            return None

    return list(map_in_order(measure, paths))


def _drawn(preprocess: Preprocess) -> Pixels:
    """Return prepared phantoms, for networks whose data is not at hand."""
    drawn = [draw_view(draw_patient(number, 0).left, View.CC, size=256).pixels for number in range(_COMPARED // 4)]
    full = np.float32(255)
    return as_float(np.stack([preprocess(p.astype(np.float32) / full).pixels for p in drawn]))


def learnt_by(recipe: Recipe, data: str, made_with: Provenance | None) -> Learnt:
    """Return what a bundle records of how a network was learnt."""
    started = {"none": "random weights", "imagenet": "ImageNet weights"}
    told = {name: getattr(recipe, name) for name in ("network", "optimizer", "monitor")}
    started_from = started.get(recipe.initial_weights, "another network")
    return Learnt.model_validate(told | {"data": data, "started_from": started_from, "made_with": made_with})


def export_run(
    folder: Path,
    out: Path,
    card: Card,
    *,
    others: Sequence[Path] = (),
    data: str | None = None,
    half: bool = False,
    progress: bool = False,
) -> Bundle:
    """Export a run's network anew, calibrated on its own validation split or that of `data`.

    With `others`, runs on the same images, the bundle answers with the mean of all their logits;
    with `half`, weights are 16-bit floats, half the size.

    Raises:
        RunError: `folder` is not a complete run, or another is of other images or pixels.
        DataError: the data set lacks a split, a class, or its images.
        BundleError: Keras and ONNX Runtime do not agree.
    """
    check_not_saved_model(folder)
    first, *members = runs = [open_run(path) for path in (folder, *others)]
    recipe = first.recipe
    for member in members:
        _check_alike(member, first)
    evidence = _evidence(data or str(folder / MANIFEST), recipe.preprocess, progress=progress)
    evidence = replace(evidence, name=data or first.record.data, calibration_only=data is not None)
    learnt = [learnt_by(run.recipe, run.record.data, run.made_with) for run in runs]
    served = as_served([run.load_network() for run in runs], recipe, half=half)
    return export(served, recipe, out, card, evidence=evidence, learnt=learnt)


def _check_alike(run: Run, first: Run) -> None:
    """Refuse a run that may not answer together with `first`."""
    if run.manifest.fingerprint() != first.manifest.fingerprint():
        raise RunError(
            f"{run.folder}: learnt from other images or splits than {first.folder}, so that one may "
            "know what the other is calibrated on. Train both on the same manifest."
        )
    flips = ("augment",) if first.recipe.test_time_flips else ()
    for field in ("preprocess", "test_time_flips", *flips):
        if getattr(run.recipe, field) != getattr(first.recipe, field):
            raise RunError(
                f"{run.folder}: its recipe has another {field} than that of {first.folder}, and an "
                "ensemble has one. Train both with the same."
            )


def export_file(
    path: Path,
    out: Path,
    card: Card,
    recipe: Recipe | None = None,
    *,
    data: str | None = None,
    half: bool = False,
    progress: bool = False,
) -> Bundle:
    """Export a `.h5` or `.keras` file that anybody trained.

    Args:
        path: see `open_keras`.
        out: a new folder.
        card: the model's name and licence.
        recipe: whose preprocessing it expects; without one, the whole picture at the network's
            size, divided by 255, as the original project does.
        data: a data set with a validation split to calibrate on, or None.
        half: store weights as 16-bit floats, half the size; the network is rounded alike first.
        progress: show bars on standard error.

    Raises:
        BundleError: it cannot be opened safely, or Keras and ONNX Runtime do not agree.
    """
    network = open_keras(path)
    height, width = network.input_shape[1:3]
    recipe = recipe or Recipe(preprocess=Preprocess(height=height, width=width), threshold="youden")
    preprocess = recipe.preprocess
    if preprocess.shape != (height, width):
        raise BundleError(
            f"{path}: takes {height} x {width} pixels, the recipe makes "
            f"{preprocess.height} x {preprocess.width}. Add --set preprocess.height={height} "
            f"--set preprocess.width={width}."
        )
    evidence = _evidence(data, preprocess, progress=progress) if data else None
    return export(as_served([network], recipe, half=half), recipe, out, card, evidence=evidence)


def _evidence(name: str, preprocess: Preprocess, *, progress: bool) -> Evidence:
    """Prepare a data set to calibrate on, of which nothing is learnt."""
    listed = read_source(name).labelled()
    used = listed.where(lambda m: m.split in (Split.TRAIN, Split.VALID) and m.path.is_file())
    if not len(used.of_split(Split.VALID)):
        raise DataError(
            f"{name}: no labelled validation images to calibrate on. Name a data set that has them: --data DATA."
        )
    data = PreparedSet.of(used, preprocess, progress=progress)
    if len(set(data.of_split(Split.VALID).manifest.labels)) < len(LABEL_NAMES):
        raise DataError(
            f"{name}: its validation images that can be read are all of one class, or none. "
            "To calibrate takes both: --data DATA."
        )
    return Evidence(name, data, calibration_only=True)
