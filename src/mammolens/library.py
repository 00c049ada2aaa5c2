"""What `import mammolens` offers: the rooms that the command line uses, by functions.

A door: each function calls the rooms behind it, and nothing is decided here. What is heavy is
imported by the function that needs it.
"""

# ruff: noqa: PLC0415, PLR0913 - late imports; an argument an option, as on the command line

import json
import os
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammolens.errors import BundleError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mammolens.doctor.findings import Diagnosis
    from mammolens.images.archives import Picture
    from mammolens.judging.schema import Report
    from mammolens.learning.runs import Run
    from mammolens.levels import Identifier, ServedLevel
    from mammolens.reports.answers import Predictions
    from mammolens.serving.predictor import Predictor


def load(model: "str | Path | Run | Predictor | None" = None, point: str | None = None) -> "Predictor":
    """Open a model, to answer more than once.

    Args:
        model: a model that ships, by name; the folder of a bundle; a run or its folder, whose
            bundle is opened; an opened model, to change its point; None: the model that answers where
            none is named, ``accurate``.
        point: the operating point that decides, such as ``sensitivity-90``; None: the model's own.

    Raises:
        BundleError: there is no such model, it is damaged, or has no such operating point.

    Example:
        >>> model = mammolens.load("phantom")
        >>> model.operating_point, 0 < model.threshold() < 1
        ('balanced', True)
    """
    from mammolens.serving.predictor import Predictor

    if isinstance(model, Predictor):
        return Predictor.load(model.bundle.folder, point or model.operating_point)
    if not isinstance(model, str | Path | None):
        if not isinstance(folder := getattr(model, "folder", None), Path):
            raise BundleError(f"{model!r} is no model: expected the name of one that ships, or a bundle or run.")
        model = folder
    return Predictor.load(model, point)


def predict(
    items: "Picture | Iterable[Picture]",
    model: "str | Path | Run | Predictor | None" = None,
    *,
    point: str | None = None,
    level: "ServedLevel | str" = "image",
    data: str | Path | None = None,
    ungated: bool = False,
    overlay: str | Path | None = None,
    maps: bool = True,
    with_age: bool = False,
    report: str | Path | None = None,
    identify: "Iterable[Identifier | str]" = (),
    dicom: str | Path | None = None,
    progress: bool = False,
) -> "Predictions":
    """Answer for pictures: `load`, then `Predictor.predict`, which see for every argument.

    Args:
        items: files, folders, ZIP archives, arrays (height, width), Pillow images or pydicom data
            sets: one, or any of them mixed.
        model: as for `load`.
        point: likewise.
        level: ``image``, ``breast`` or ``exam``: what the answers are about.
        data: a table of the pictures' side, view, patient and study, or another source of data.
        ungated: give the probability of what does not look like a mammogram, too.
        overlay: folder for heatmaps.
        maps: keep the score maps.
        with_age: give a second probability, of the picture and age together, where age is known.
        report: new folder for a report of each examination.
        identify: what reports tell of whose it is: ``patient``, ``study``, ``files``.
        dicom: folder for results as DICOM: heat of each picture, and a report of each study, in which they lie.
            A warning says where one could not be made.
        progress: show a bar on standard error.

    Returns:
        One `Prediction` a picture, breast or examination, in order. A picture that cannot be read has an `error`.

    Raises:
        BundleError: there is no such model or operating point, no map to draw, or no answer with age.
        DataError: `overlay`, `report` or `dicom` cannot be written to, there is no such level, or `data` is wrong.
        MissingExtra: what writes DICOM is not installed: ``pip install 'mammolens[dicom]'``.

    Example:
        >>> black = numpy.zeros((640, 480), numpy.uint8)
        >>> for answer in mammolens.predict([black, "gone.png"], model="phantom"):
        ...     print(answer.path, answer.probability, answer.reason or answer.error)
        array 0 None does not look like a mammogram
        gone.png None gone.png: no such file.
    """
    opened = load(model, point)
    results = None
    if dicom is not None:
        from mammolens.dicom_results.results import Results

        results = Results.begin(dicom, opened)
    answers = opened.predict(
        items,
        level=level,
        data=data,
        ungated=ungated,
        overlay=overlay,
        maps=maps,
        with_age=with_age,
        report=report,
        identify=identify,
        progress=progress,
        also=results.add if results else None,
    )
    if results is not None:
        results.finish()
        for why in results.left_out:
            warnings.warn(why, stacklevel=2)
    return answers


def examine(data: str | Path, *, positive: str | None = None, progress: bool = False) -> "Diagnosis":
    """Find what is wrong with a data set before anything learns from it, as `mammolens doctor` does.

    Args:
        data: folder of class folders, CSV, or ``phantom:PATIENTS`` for drawn ones.
        positive: the class that means tumor, where classes are not 0 and 1.
        progress: show a bar on standard error.

    Raises:
        DataError: there is nothing there, or it is not laid out as expected.

    Example:
        >>> diagnosis = mammolens.examine("phantoms")
        >>> diagnosis.images, diagnosis.patients
        (120, 30)
    """
    from mammolens.data.sources import read_source
    from mammolens.doctor import examination
    from mammolens.doctor.facts import collect_facts

    listed = read_source(str(data), positive=positive)
    command = shlex.join(["mammolens", "doctor", str(data)])
    return examination.examine(collect_facts(listed, progress=progress), data=str(data), command=command)


def train(
    data: str | Path,
    recipe: str | Path = "baseline",
    *,
    out: str | Path,
    changes: Mapping[str, Any] | None = None,
    also: str | Path | Iterable[str | Path] = (),
    progress: bool = False,
) -> "Run":
    """Train a network and write a run folder, as `mammolens train` does.

    Args:
        data: as for `examine`.
        recipe: the name of one that ships, or a TOML file.
        out: run folder; the same call goes on where an interrupted one stopped.
        changes: settings made on top of the recipe, such as
            ``{"epochs": 5, "preprocess.height": 128}``.
        also: data sets, or one, whose training images are learnt from as well, and never judged.
        progress: show bars and a line an epoch on standard error.

    Raises:
        MissingExtra: what trains is not installed: ``pip install 'mammolens[train]'``.
        DataError: the data set cannot be learnt from as it is.
        RecipeError: there is no such recipe, or a change will not do.
        RunError: `out` is in the way.

    Example:
        >>> small = {"epochs": 1, "preprocess.height": 32, "preprocess.width": 32}
        >>> run = mammolens.train("phantoms", out="runs/first", changes=small)
        >>> run.record.epochs, mammolens.load(run).bundle.record.name
        (1, 'baseline')
    """
    require_training()
    from mammolens.data.sources import read_source
    from mammolens.learning.training import train as train_network
    from mammolens.model.recipe import read_recipe

    settings = read_recipe(str(recipe), [f"{key}={_in_toml(value)}" for key, value in (changes or {}).items()])
    names = [str(data), *([str(also)] if isinstance(also, str | Path) else map(str, also))]
    listed, *others = map(read_source, names)
    return train_network(listed, settings, Path(out), also=others, name=", ".join(names), progress=progress)


def judge(
    labels: "ArrayLike",
    probabilities: "ArrayLike",
    patients: "Sequence[object] | None" = None,
    *,
    threshold: float = 0.5,
    name: str = "scores",
) -> "Report":
    """Judge any system's probabilities: every figure with its 95 % interval, no images needed.

    Args:
        labels: (images,), 1 for tumor and 0 for none.
        probabilities: of tumor, (images,), in [0, 1].
        patients: whose each image is, (images,): intervals draw patients, not images. One that is
            None or NaN, or None for all: each image is of a patient of its own.
        threshold: a probability at or above it is called tumor, in [0, 1].
        name: of the system that answered.

    Raises:
        DataError: lengths differ, there is no image, or a value is out of range.

    Example:
        >>> report = mammolens.judge([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], ["a", "b", "c", "d"])
        >>> report.images.discrimination["roc_auc"].value
        0.75
    """
    from mammolens.judging.judge import judge_scores

    return judge_scores(labels, probabilities, patients, threshold=threshold, name=name)


def _in_toml(value: object) -> str:
    """The JSON of numbers, booleans, strings and lists is valid TOML; of NumPy's numbers and paths, too."""
    plain = value.item() if hasattr(value, "item") else str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False, default=str)


def require_training() -> None:
    """Refuse where networks cannot be trained or exported.

    Raises:
        MissingExtra: what trains is not installed.
    """
    require("keras", os.environ["KERAS_BACKEND"], "onnx", extra="train")
