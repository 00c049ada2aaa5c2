"""A trained network → a bundle: what serving needs, fitted on validation, checked against Keras."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.errors import BundleError, DataError, ImageError, RunError
from mammolens.images.breast import Pixels
from mammolens.images.cache import CachedPixels, prepared_pixels
from mammolens.images.preprocess import Preprocess, as_float
from mammolens.images.reading import read_image
from mammolens.learning.keras_files import check_not_saved_model, open_keras
from mammolens.learning.networks import Network, ensemble, with_flips
from mammolens.learning.onnx_model import OUTPUTS, parity, round_weights, scores_by, to_onnx
from mammolens.learning.runs import MANIFEST, Run, open_run
from mammolens.learning.score_maps import with_score_map
from mammolens.measures import metrics
from mammolens.model.bundle import Bundle, BundleRecord, Learnt, Outputs, TrainingData, write_bundle
from mammolens.model.calibration import Calibration, fit_calibration
from mammolens.model.gate import MIN_IMAGES, Gate, fit_gate, is_admitted, statistics
from mammolens.model.recipe import Recipe
from mammolens.model.rules import FIXED, Rules, by_level, fit_rules, unmeasured
from mammolens.parallel import cores
from mammolens.phantoms.drawing import draw_patient, draw_view
from mammolens.records import LABEL_NAMES, Level, Split, View

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
        manifest: labelled images, with splits.
        pixels: theirs, prepared for the network, in the same order.
        calibration_only: whether the network learnt elsewhere.
    """

    name: str
    manifest: Manifest
    pixels: CachedPixels
    calibration_only: bool = False

    def of_split(self, split: Split) -> "Evidence":
        """Return the part in `split`."""
        chosen = [index for index, m in enumerate(self.manifest) if m.split is split]
        return replace(self, manifest=self.manifest.of_split(split), pixels=self.pixels.subset(chosen))


def export(  # noqa: PLR0913 - what answers, how, where to, and what it was fitted on
    network: Network,
    recipe: Recipe,
    out: Path,
    card: Card,
    *,
    others: Sequence[Network] = (),
    evidence: Evidence | None = None,
    scores: NDArray[np.float64] | None = None,
    half: bool = False,
    learnt: Sequence[Learnt] | None = None,
) -> Bundle:
    """Write a bundle into the new folder `out`.

    Args:
        network: float32 (images, height, width, 1) in, (images, 1) probability of tumor out.
        recipe: its preprocessing, a threshold where it fixes one, and mirror images.
        out: a new folder.
        card: the model's name and licence.
        others: networks of the same recipe but for what they started from: the bundle answers with
            the mean of all their logits.
        evidence: the data it was learnt from; its validation split gives calibration, operating
            points and prediction sets. Without it a score is shown as it is and 0.5 decides.
        scores: what the network as it is served makes of the validation images, where that is
            known already.
        half: store weights as 16-bit floats, half the size; the network is rounded alike first.
        learnt: how each network was learnt, or None where nobody knows.

    Raises:
        BundleError: Keras and ONNX Runtime do not agree.
        DataError: `out` exists, or validation images lack a class.
    """
    members = [network, *others]
    if half:
        for member in members:
            round_weights(member)
    served = served_network(*members, recipe=recipe)
    preprocess = recipe.preprocess
    threshold = None if recipe.threshold == "youden" else recipe.threshold
    model = to_onnx(served, half=half)
    valid = evidence.of_split(Split.VALID) if evidence else None
    examples = valid.pixels.take(range(min(_COMPARED, len(valid.pixels)))) if valid else None
    compared = _drawn(preprocess) if examples is None else examples
    difference = parity(served, model, compared, half=half)
    calibration, figures = Calibration(), {}
    rules = Rules(FIXED, {level: {FIXED: unmeasured(threshold or 0.5)} for level in Level})
    if valid is not None:
        scores = scores_by(model, valid.pixels) if scores is None else scores
        calibration = fit_calibration(valid.manifest.labels, scores, valid.manifest.patients)
        fixed = None if threshold is None else float(calibration(threshold))
        probabilities = calibration(scores)
        rules = fit_rules(valid.manifest, probabilities, fixed)
        figures = _figures(valid.manifest, probabilities)
    record = BundleRecord(
        name=card.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=card.licence,
        training_data=None if evidence is None else _training_data(evidence),
        learnt=None if learnt is None else tuple(learnt),
        preprocess=preprocess,
        outputs=Outputs(score_map=OUTPUTS[1] if len(served.outputs) > 1 else None),
        calibration=calibration,
        operating_points=rules.points,
        default_operating_point=rules.default_point,
        conformal=rules.conformal,
        gate=None if evidence is None else _gate(evidence.of_split(Split.TRAIN).manifest),
        metrics=figures,
        parity=difference,
    )
    return write_bundle(record, model, out)


def learnt_by(recipe: Recipe, data: str) -> Learnt:
    """Return what a bundle records of how a network was learnt."""
    started = {"none": "random weights", "imagenet": "ImageNet weights"}
    return Learnt.model_validate(
        {
            "network": recipe.network,
            "data": data,
            "started_from": started.get(recipe.initial_weights, "another network"),
            "optimizer": recipe.optimizer,
            "monitor": recipe.monitor,
        }
    )


def served_network(*networks: Network, recipe: Recipe) -> Network:
    """Return them as one that answers: with a map where all can have one, and mirror images."""
    mapped = ensemble([with_score_map(network) or network for network in networks])
    return with_flips(mapped, recipe.augment) if recipe.test_time_flips else mapped


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

    With `others`, runs on the same images, the bundle answers with the mean of all their logits.

    Raises:
        RunError: `folder` is not a complete run, or another is of other images or pixels.
        DataError: the data set lacks a split, a class, or its images.
        BundleError: Keras and ONNX Runtime do not agree.
    """
    check_not_saved_model(folder)
    run = open_run(folder)
    recipe = run.recipe
    members = [_member(other, run) for other in others]
    evidence = _evidence(data or str(folder / MANIFEST), recipe.preprocess, progress=progress)
    return export(
        run.load_network(),
        recipe,
        out,
        card,
        others=members,
        evidence=replace(evidence, name=data or run.record.data, calibration_only=data is not None),
        half=half,
        learnt=[learnt_by(one.recipe, one.record.data) for one in (run, *map(open_run, others))],
    )


def _member(folder: Path, first: Run) -> Network:
    """Open the network of a run that may answer together with `first`."""
    run = open_run(folder)
    if run.manifest.fingerprint() != first.manifest.fingerprint():
        raise RunError(
            f"{folder}: learnt from other images or splits than {first.folder}, so that one may "
            "know what the other is calibrated on. Train both on the same manifest."
        )
    flips = ("augment",) if first.recipe.test_time_flips else ()
    for field in ("preprocess", "test_time_flips", *flips):
        if getattr(run.recipe, field) != getattr(first.recipe, field):
            raise RunError(
                f"{folder}: its recipe has another {field} than that of {first.folder}, and an "
                "ensemble has one. Train both with the same."
            )
    return run.load_network()


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
        half: store weights as 16-bit floats.
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
    if evidence is not None:
        evidence = replace(evidence, calibration_only=True)
    return export(network, recipe, out, card, evidence=evidence, half=half)


def admitted(paths: Sequence[Path], gate: Gate | None) -> list[bool]:
    """Tell which images a bundle with this gate would decide about."""
    with ThreadPoolExecutor(cores()) as pool:  # not processes: each would first import Keras
        return list(pool.map(partial(_is_admitted, gate=gate), paths))


def _evidence(data: str, preprocess: Preprocess, *, progress: bool) -> Evidence:
    listed = read_source(data).labelled()
    used = listed.where(lambda m: m.split in (Split.TRAIN, Split.VALID) and m.path.is_file())
    if not len(used.of_split(Split.VALID)):
        raise DataError(
            f"{data}: no labelled validation images to calibrate on. Name a data set that has them: --data DATA."
        )
    pixels = prepared_pixels(used.paths, preprocess, progress=progress)
    keep = [index for index, error in enumerate(pixels.errors) if error is None]
    kept = Manifest(tuple(used.mammograms[index] for index in keep))
    if len(set(kept.of_split(Split.VALID).labels)) < len(LABEL_NAMES):
        raise DataError(
            f"{data}: its validation images that can be read are all of one class, or none. "
            "To calibrate takes both: --data DATA."
        )
    return Evidence(data, kept, pixels.subset(keep))


def _figures(valid: Manifest, probabilities: NDArray[np.float64]) -> dict[str, metrics.Estimate]:
    labels, values, patients, _ = by_level(valid, probabilities)[Level.BREAST]
    breasts = metrics.patient_weights(patients)
    images = metrics.patient_weights(valid.patients)
    precision = metrics.average_precision(valid.labels, probabilities)
    return {
        "roc_auc": metrics.estimate(metrics.roc_auc(valid.labels, probabilities), images),
        "average_precision": metrics.estimate(precision, images),
        "roc_auc_by_breast": metrics.estimate(metrics.roc_auc(labels, values), breasts),
    }


def _training_data(evidence: Evidence) -> TrainingData:
    used = evidence.manifest.where(lambda m: m.split in (Split.TRAIN, Split.VALID))
    return TrainingData(
        name=evidence.name,
        images=len(used),
        patients=len(set(used.patients)),
        prevalence=float(np.mean(evidence.manifest.of_split(Split.VALID).labels)),
        fingerprint=used.fingerprint(),
        synthetic=all(m.metadata.get("synthetic") == "1" for m in used),
        calibration_only=evidence.calibration_only,
    )


def _gate(training: Manifest) -> Gate | None:
    """Fit the input gate on training images, a thousand at most; none where they are too few."""
    step = max(1, len(training) // _GATE_IMAGES)
    with ThreadPoolExecutor(cores()) as pool:  # not processes: each would first import Keras
        found = [row for row in pool.map(_statistics, training.paths[::step]) if row is not None]
    return fit_gate(np.stack(found)) if len(found) >= MIN_IMAGES else None


def _statistics(path: Path) -> NDArray[np.float32] | None:
    try:
        return statistics(read_image(path).pixels)
    except ImageError:
        return None


def _is_admitted(path: Path, gate: Gate | None) -> bool:
    try:
        return is_admitted(read_image(path), gate)
    except ImageError:
        return True  # it went away after its pixels were cached: it is judged by them


def _drawn(preprocess: Preprocess) -> Pixels:
    """Return prepared phantoms, for networks whose data is not at hand."""
    drawn = [draw_view(draw_patient(number, 0).left, View.CC, size=256).pixels for number in range(_COMPARED // 4)]
    full = np.float32(255)
    return as_float(np.stack([preprocess(p.astype(np.float32) / full).pixels for p in drawn]))
