"""Files in, `Prediction`s out. Knows no training framework: what gives scores is handed to it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammolens.breast import Pixels
from mammolens.cache import prepare
from mammolens.parallel import map_in_order, tracked
from mammolens.preprocess import Prepared, Preprocess, as_float
from mammolens.reading import IMAGE_SUFFIXES
from mammolens.records import Prediction

_BATCH = 32

Score = Callable[[Pixels], NDArray[np.float64]]
"""From pixels, float32 (images, height, width) in [0, 1], to probabilities of tumor, (images,)."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network ready to answer. Everything that shapes an answer came with the network."""

    preprocess: Preprocess
    threshold: float
    score: Score

    def predict(self, paths: Sequence[Path], *, progress: bool = False) -> Iterator[Prediction]:
        """Yield one `Prediction` a path, in order; a file that cannot be read yields its reason.

        Files are decoded by several processes ahead of the network; memory stays bounded.
        """
        work = map_in_order(partial(prepare, preprocess=self.preprocess), paths)
        pairs = tracked(zip(paths, work, strict=True), "Predicting", len(paths), visible=progress)
        for batch in _batched(pairs):
            yield from self._answer(batch)

    def _answer(self, batch: list[tuple[Path, Prepared | str]]) -> Iterator[Prediction]:
        ready = [prepared.pixels for _, prepared in batch if not isinstance(prepared, str)]
        answers = iter(self.score(as_float(np.stack(ready))) if ready else ())
        for path, prepared in batch:
            if isinstance(prepared, str):
                yield Prediction.failure(path, prepared, self.threshold)
            else:
                yield Prediction.answer(path, float(next(answers)), self.threshold)


def find_images(inputs: Iterable[Path]) -> list[Path]:
    """Return the files to answer for: a folder stands for the images below it, sorted.

    What does not exist, and a folder without images, stays in the list and fails with its reason.
    """
    found: list[Path] = []
    for path in inputs:
        below = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        found += below if path.is_dir() and below else [path]
    return found


def _batched(
    pairs: Iterable[tuple[Path, Prepared | str]],
) -> Iterator[list[tuple[Path, Prepared | str]]]:
    iterator = iter(pairs)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
