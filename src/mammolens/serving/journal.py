"""What was answered, kept beside the output until that is whole: after a kill, only the rest is answered.

A text of JSON a line: what shapes the answers; then who writes, where reports were begun, and an answer a picture,
each written at once. A last line that a kill tore is cut off. Whoever writes holds the file's lock, which the system
takes back from a process that ends, however it ends.
"""

import base64
import dataclasses
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mammolens import __version__
from mammolens.errors import DataError, MammolensError
from mammolens.files import content_hash, sweep_beside, sweep_in, unwritten
from mammolens.images.archives import Input, Named
from mammolens.images.breast import Pixels
from mammolens.locks import lock
from mammolens.model.bundle import BundleRecord
from mammolens.records import DetailedWarning, ImageWarning, Laterality, Prediction, Reason, View, Warned

_ELSEWHERE = {"path", "level", "warnings", "error", "score_map", "views", "breasts"}
_PLAIN = [field.name for field in dataclasses.fields(Prediction) if field.name not in _ELSEWHERE]
"""Fields of an answer for a picture that are JSON as they are, or the value of one of `_KINDS`."""

_KINDS: dict[str, Callable[[str], object]] = {"laterality": Laterality, "view": View, "reason": Reason}
_TOLD: dict[str, type] = {"settings": dict, "heatmaps": str, "reports": str}

Settings = Mapping[str, object]
Key = tuple[object, ...]


def settings(record: BundleRecord, point: str, data: str | None = None, **options: bool) -> Settings:
    """Return what shapes the answers for pictures: with another of these, none that were kept may be taken.

    Args:
        record: of the model.
        point: the operating point that decides.
        data: what `Predictor.answers` takes, a table by its content.
        options: others that count.
    """
    model = hashlib.sha256(record.model_dump_json().encode()).hexdigest()
    table = data and f"{data} {content_hash(Path(data))[:16] if os.path.isfile(data) else ''}".rstrip()  # noqa: PTH113
    told = {"version": __version__, "model": f"{record.name} {model[:16]}", "point": point, "data": table}
    return told | options


class Journal:
    """Answers that were kept; made by `journal`.

    Attributes:
        path: the file: beside the output, by its name.
        count: pictures whose answer it holds.
    """

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(f".{out.name}.journal")
        self.count = 0
        self._out = out
        self._begun = False
        self._places: dict[Key, int] = {}
        self._drawn: set[str] = set()
        self._reports: set[str] = set()
        self._file = _locked(self.path, out)
        self._lines = self.path.open("rb")

    def begin(self, shaped: Settings, *, resume: bool) -> None:
        """Read what is there, or start anew where nothing was answered.

        Raises:
            DataError: answers are there and are not to be taken, or were given with other settings.
        """
        first, end = self._read()
        self._begun = True
        if self.count:
            self._check(first, shaped, resume=resume)
        else:
            end = 0
            self._reports.clear()
        os.ftruncate(self._file, end)
        if not end:
            self._append({"settings": shaped})
        self._append({"pid": os.getpid()})
        sweep_beside(self._out)
        for folder in self._drawn:
            sweep_in(Path(folder), ".*.png")

    def _read(self) -> tuple[Settings, int]:
        """Return the settings, and where the last line ends that a kill did not tear."""
        first: Settings = {}
        end = 0
        for line in self._lines:
            told = _parsed(line)
            if told is None or (not end and "settings" not in told):
                break
            first = told.get("settings", first)
            self._note(told, end)
            end += len(line)
        return first, end

    def _note(self, told: Mapping[str, Any], place: int) -> None:
        if "picture" in told:
            self._places[tuple(told["picture"])] = place
            self.count = len(self._places)
        self._drawn |= {told["heatmaps"]} if "heatmaps" in told else set()
        self._reports |= {told["reports"]} if "reports" in told else set()

    def _check(self, first: Settings, shaped: Settings, *, resume: bool) -> None:
        anew = f"to start anew, delete {self.path}."
        if not resume:
            raise DataError(
                f"{self._out}: was interrupted after {self.count} answers. To go on, give the same command with "
                f"--resume; {anew}"
            )
        if other := [name for name in shaped if first.get(name) != shaped[name]]:
            said = "; ".join(f"{name} {first.get(name)}, now {shaped[name]}" for name in other)
            raise DataError(f"{self._out}: was begun with {said}. To go on, give the command as it was; {anew}")

    def holds_reports(self, folder: Path) -> bool:
        """Tell whether reports were begun in `folder`, which was new or empty then."""
        return os.path.realpath(folder) in self._reports

    def begin_reports(self, folder: Path) -> None:
        """Note that reports will be written into `folder`."""
        if not self.holds_reports(folder):
            self._append({"reports": os.path.realpath(folder)})

    def begin_heatmaps(self, folder: str) -> None:
        """Note that heatmaps will be drawn into `folder`: of one that a kill tore, a part may lie there."""
        self._append({"heatmaps": folder})

    def find(self, key: Key | None, *, heat: str | None, maps: bool) -> int | None:
        """Return where the answer for a picture is; None where there is none with all that is wanted of it.

        Args:
            key: of the picture.
            heat: the folder in which its heatmap must have been drawn.
            maps: whether the answer must have its score map, which also stands in for a heatmap.
        """
        place = None if key is None else self._places.get(key)
        if place is None:
            return None
        told = self._line(place)
        mapless = told["map"] is None and told["answer"]["probability"] is not None
        return None if mapless and (maps or heat not in {None, told["heat"]}) else place

    def answer(self, place: int, path: Path) -> Prediction:
        """Return the answer that is kept there, for a picture of this name."""
        return _answer(self._line(place), path)

    def keep(self, key: Key, answer: Prediction, *, heat: str | None, maps: bool) -> None:
        """Keep an answer, at once.

        Raises:
            DataError: the disk is full.
        """
        plain = {name: getattr(answer, name) for name in _PLAIN}
        plain["warnings"] = [(warning.kind.name, warning) for warning in answer.warnings]
        packed = _packed(answer.score_map) if maps and answer.score_map is not None else None
        self._append({"picture": key, "answer": plain, "heat": heat, "map": packed})
        self.count += 1

    def _line(self, place: int) -> dict[str, Any]:
        self._lines.seek(place)
        told: dict[str, Any] = json.loads(self._lines.readline())
        return told

    def _append(self, told: Mapping[str, object]) -> None:
        line = memoryview(f"{json.dumps(told)}\n".encode())
        try:
            while line:  # a disk that becomes full takes a part
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise DataError(unwritten(self._out, error)) from error

    @property
    def told(self) -> str:
        """What it holds, as a sentence, and what to do with it; empty where it holds nothing."""
        return f"{self.count} answers are kept: go on with --resume." if self.count else ""

    def finish(self) -> None:
        """Hold nothing more: the output is whole."""
        self.count = 0

    def close(self) -> None:
        """Let go of the file, and delete it where it holds nothing."""
        if self._begun and not self.count:
            with suppress(OSError):
                self.path.unlink()  # before the lock is given back: afterwards, it may be another's
        self._lines.close()
        os.close(self._file)


@contextmanager
def journal(out: Path, shaped: Settings, *, resume: bool = False) -> Iterator[Journal]:
    """Yield a journal for the answers that are written to `out`; deleted where the block ends well.

    Args:
        out: the file of answers, whole when the block ends.
        shaped: see `settings`.
        resume: take answers that an earlier process kept.

    Raises:
        DataError: another process writes to `out`; it cannot be written here; answers are kept there already and are
            not to be taken, or were given with other settings. Errors of the block say what is kept, too.
    """
    with closing(Journal(out)) as kept:
        kept.begin(shaped, resume=resume)
        try:
            yield kept
        except MammolensError as error:
            raise type(error)(f"{error} {kept.told}".rstrip()) from error
        except KeyboardInterrupt as error:
            if kept.told:
                error.add_note(kept.told)
            raise
        kept.finish()


def answered(
    given: Sequence[Named],
    answer: Callable[[Sequence[Named]], Iterator[Prediction]],
    draw: Callable[[Iterable[Prediction]], Iterable[Prediction]],
    kept: Journal | None = None,
    *,
    heat: Path | None = None,
    maps: bool = False,
) -> Iterator[Prediction]:
    """Yield an answer a picture, in order: those that are kept, and those of `answer`, which are kept once drawn.

    What failed is not kept, so that it is tried again; nor is what lies in no file.

    Args:
        given: the pictures.
        answer: gives the answers for some of them, in order.
        draw: passes answers on once their heatmaps are drawn; one without a score map has none.
        kept: the journal, or None.
        heat: the folder of heatmaps, or None.
        maps: keep the score maps, too.
    """
    if kept is None:
        yield from draw(answer(given))
        return
    folder = None if heat is None else os.path.realpath(heat)
    if folder is not None:
        kept.begin_heatmaps(folder)
    keys = [_key(one) for one in given]
    places = [kept.find(key, heat=folder, maps=maps) for key in keys]
    rest = answer([one for one, place in zip(given, places, strict=True) if place is None])

    def all_of_them() -> Iterator[Prediction]:
        for one, place in zip(given, places, strict=True):
            yield next(rest) if place is None else kept.answer(place, one.name)
        yield from rest  # nothing is left, but it ends its processes

    for key, place, one in zip(keys, places, draw(all_of_them()), strict=True):
        if place is None and key is not None and one.error is None:
            kept.keep(key, one, heat=folder, maps=maps)
        yield one


def _key(one: Named) -> Key | None:
    """Tell a picture by name, file, and the file's size and time; None where it lies in none."""
    picture = one.picture
    if not isinstance(picture, Input):
        return None
    try:
        found = picture.file.stat()
    except (OSError, ValueError):
        return None
    return str(one.name), os.path.abspath(picture.file), *picture.members, found.st_size, found.st_mtime_ns  # noqa: PTH100


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return what a line tells; None where it is torn or makes no sense."""
    try:
        told = json.loads(line) if line.endswith(b"\n") else None
        if isinstance(told, dict) and "picture" in told:
            hash((*told["picture"], told["heat"]))
            _answer(told, Path())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error):
        return None
    plain = isinstance(told, dict) and all(isinstance(told.get(name, kind()), kind) for name, kind in _TOLD.items())
    return told if plain else None


def _answer(told: Mapping[str, Any], path: Path) -> Prediction:
    plain = {name: told["answer"][name] for name in _PLAIN}
    plain |= {name: kind(plain[name]) for name, kind in _KINDS.items() if plain[name] is not None}
    warnings = tuple(_warning(ImageWarning[kind], text) for kind, text in told["answer"]["warnings"])
    score_map = None if told["map"] is None else _unpacked(*told["map"])
    return Prediction(path, warnings=warnings, score_map=score_map, **plain)


def _warning(kind: ImageWarning, text: str) -> Warned:
    if text == kind.value:
        return kind
    detailed = DetailedWarning(text)
    detailed.kind = kind
    return detailed


def _packed(score_map: Pixels) -> tuple[int, int, str]:
    height, width = score_map.shape
    return height, width, base64.b64encode(zlib.compress(score_map.astype("<f4").tobytes(), 1)).decode()


def _unpacked(height: int, width: int, packed: str) -> Pixels:
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<f4")
    return pixels.reshape(height, width).astype(np.float32)


def _locked(path: Path, out: Path) -> int:
    """Open a journal for this process alone; return its descriptor.

    Raises:
        DataError: another process has it, or it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, flags, 0o644)
        except OSError as error:
            raise DataError(unwritten(out, error)) from error
        if lock(file) is False:
            os.close(file)
            raise DataError(
                f"{out}: is being written by another process{_writer(path)}. Wait until it has ended, or name another "
                "file."
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # whoever had it deleted it meanwhile


def _writer(path: Path) -> str:
    numbers = re.findall(rb'^{"pid": (\d+)}$', path.read_bytes(), re.MULTILINE)
    return f" ({numbers[-1].decode()})" if numbers else ""
