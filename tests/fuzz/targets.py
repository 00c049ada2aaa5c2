"""What a hostile file must come to: a right answer, or an error of ours; nothing run, nothing written elsewhere.

A target takes the path of a file, raises `Broken` or anything that is no `MammolensError` where the rule does not
hold, and says whether there was an answer.
"""

import hashlib
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from corpus import SEEDS, bundle_record, model

from mammolens.data.manifest import Manifest
from mammolens.errors import BundleError, MammolensError, reason
from mammolens.images.archives import close_archives, find_inputs, image_in
from mammolens.images.image import MAX_PIXELS, MIN_SIDE, Image
from mammolens.images.reading import read_image
from mammolens.judging.predictions import read_predictions, scores_from
from mammolens.model.bundle import open_bundle
from mammolens.model.recipe import read_recipe
from mammolens.records import Mammogram
from mammolens.serving.predictor import Predictor
from mammolens.workers import confinement

_RUNS = {"os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pickle.find_class", "socket.connect"}
_RUNS |= {"subprocess.Popen", "code.__new__", "shutil.unpack_archive"}
_WRITES = {"os.mkdir", "os.rename", "os.symlink", "os.link", "shutil.copyfile"}


class Broken(AssertionError):  # noqa: N818 - reads as what it says
    """The rule does not hold."""


class Target(NamedTuple):
    """How files of a format are opened, and what they are called."""

    open: Callable[[Path], object]
    name: str


class Watch:
    """While it is on, forbids code that runs, and files that are written outside of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = str(folder), ""
        self.on = False
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        elsewhere = event in _WRITES or (event == "open" and _is_writing(arguments))
        if event in _RUNS or (elsewhere and not str(arguments[0]).startswith((self.folder, "/dev/null"))):
            self.seen = f"{event} {arguments[:1]}"


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = arguments
    return isinstance(path, str) and (bool(set(mode or "") & set("wax+")) or bool(flags & 0b11))


def written(target: Target, data: bytes, folder: Path) -> Path:
    """Write `data` as the one file of a folder, under the name that the target knows."""
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    path = folder / target.name
    path.write_bytes(data)
    return path


def is_read(target: Target, data: bytes, folder: Path) -> bool:
    """Open a whole file, unwatched: what is imported late may write caches."""
    try:
        target.open(written(target, data, folder))
    except MammolensError:
        return False
    return True


def attempt(target: Target, data: bytes, folder: Path, watch: Watch) -> bool:
    """Open `data` as a file in `folder`; tell whether there was an answer."""
    path = written(target, data, folder)
    watch.seen, watch.on = "", True
    try:
        target.open(path)
        answered = True
    except MammolensError as error:
        answered = False
        if not str(error).strip() or "\n" in str(error).strip():
            raise Broken(f"an error of {len(str(error))} letters on several lines") from error
        if _of_memory(error):
            raise Broken("more memory was asked for than there is") from error
    finally:
        watch.on = False
    if watch.seen:
        raise Broken(watch.seen)
    return answered


def _of_memory(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, MemoryError) or _of_memory(error.__cause__))


def _check(image: Image) -> None:
    height, width = image.pixels.shape
    if image.pixels.dtype != np.float32 or min(height, width) < MIN_SIDE or height * width > MAX_PIXELS:
        raise Broken(f"{image.pixels.dtype} of {image.pixels.shape}")
    if not (image.pixels.min() >= 0 and image.pixels.max() <= 1):
        raise Broken(f"pixels from {image.pixels.min()} to {image.pixels.max()}")


def _image(path: Path) -> None:
    image = read_image(path, windows=True)
    _check(image)
    if image.unwindowed and not np.isfinite(image.unwindowed.pixels).all():
        raise Broken("pixels before the window that are no numbers")


def _archive(path: Path) -> None:
    found, readable = find_inputs([path]), 0
    if not found or len(found) > 10_000:
        raise Broken(f"{len(found)} rows")
    errors: list[MammolensError] = []
    for one in found[:20]:
        try:
            _check(image_in(one, one.name))
            readable += 1
        except MammolensError as error:
            errors.append(error)
    close_archives()
    if left := [each.name for each in path.parent.iterdir() if each != path]:
        raise Broken(f"files that are left behind: {left}")
    if not readable:
        raise errors[0]


def _manifest(path: Path) -> None:
    manifest = Manifest.load(path, files=False)
    manifest.save(path.with_name("again.csv"))
    again = Manifest.load(path.with_name("again.csv"), files=False)
    if again.fingerprint() != manifest.fingerprint():
        raise Broken("a manifest that is not what was saved of it")


_IMAGES = Manifest(tuple(Mammogram(Path(name), image_id=name[0]) for name in ("0.png", "1.png", "A.png", "B.png")))


def _scores(path: Path) -> None:
    for one in scores_from(path, _IMAGES).predictions:
        if one.probability is not None and not 0 <= one.probability <= 1:
            raise Broken(f"a probability of {one.probability}")


def _predictions(path: Path) -> None:
    probabilities = read_predictions(path.parent).probabilities
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise Broken("probabilities outside of [0, 1]")


def _recipe(path: Path) -> None:
    recipe = read_recipe(str(path))
    path.write_text(recipe.to_toml(), encoding="utf-8")
    if read_recipe(str(path)) != recipe:
        raise Broken("a recipe that is not what was written of it")


def _record(path: Path) -> None:
    path.with_name("model.onnx").write_bytes(model())
    record = open_bundle(path.parent).record
    if not 0 <= record.calibration(0.25) <= 1:
        raise Broken(f"a probability of {record.calibration(0.25)}")


def _network(path: Path) -> None:
    path.with_name("bundle.json").write_bytes(bundle_record(path.read_bytes()))
    score, _ = Predictor.load(path.parent).score(np.full((16, 16), 9, np.uint16))
    if not 0 <= score <= 1:
        raise Broken(f"a score of {score}")


def _run(path: Path) -> None:
    from mammolens.learning.runs import open_run  # noqa: PLC0415 - loads Keras

    open_run(path.parent)


def _checkpoint(path: Path) -> None:
    from mammolens.learning.runs import latest_state  # noqa: PLC0415 - loads Keras

    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(path.with_name(f"000001-{checksum}.npz"))
    state = latest_state(path.parent, "k")
    for left in path.parent.glob("*.npz"):
        left.unlink()
    if state is not None and not math.isfinite(state.seconds):
        raise Broken(f"{state.seconds} seconds")


def _layers(path: Path) -> None:
    from mammolens.learning.keras_files import in_keras_3  # noqa: PLC0415 - loads Keras
    from mammolens.learning.networks.saved import checked_layers  # noqa: PLC0415

    try:
        checked_layers(path, in_keras_3)
    except Exception as error:  # as whoever opens it takes it
        raise BundleError(reason(error)) from error


def _keras(path: Path) -> None:
    from mammolens.learning.keras_files import open_keras  # noqa: PLC0415 - loads Keras

    open_keras(path)


_NAMES = {"zip": "archive.zip", "manifest csv": "table.csv", "scores csv": "scores.csv", "run.json": "run.json"}
_NAMES |= {"predictions parquet": "predictions.parquet", "recipe toml": "recipe.toml", "bundle.json": "bundle.json"}
_NAMES |= {"model.onnx": "model.onnx", "keras h5": "network.h5", "keras archive": "network.keras"}
_NAMES |= {"checkpoint npz": "state.npz"}
_OPENS = {"zip": _archive, "manifest csv": _manifest, "scores csv": _scores, "predictions parquet": _predictions}
_OPENS |= {"recipe toml": _recipe, "bundle.json": _record, "model.onnx": _network, "run.json": _run}
_OPENS |= {"keras h5": _layers, "keras archive": _layers, "checkpoint npz": _checkpoint}

TARGETS: Mapping[str, Target] = {
    kind: Target(_OPENS.get(kind, _image), _NAMES.get(kind, "image.dcm" if kind.startswith("dicom") else "image"))
    for kind in SEEDS
} | {f"{kind}, opened": Target(_keras, _NAMES[kind]) for kind in ("keras h5", "keras archive")}
"""By format. Networks of Keras take long to build: what their files say is tried more often than that."""


def here(folder: Path, change: Callable[[Any, str, Any], None] = setattr) -> None:
    """Decode in this process what workers decode otherwise, and unpack archives into `folder`."""
    change(confinement, "_inside", True)
    change(tempfile, "tempdir", str(folder))
