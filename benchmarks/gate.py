"""What tells mammograms from other pictures: fit it, and judge it on sources and packages that it was not fitted on.

    python -m benchmarks.gate ROWS OTHERS FOLDER…   # measure pictures into the file ROWS (.npz), and print the tables
    python -m benchmarks.gate ROWS                  # print them again
    python -m benchmarks.gate ROWS --write          # and write src/mammolens/model/gate.npz

Each FOLDER is a source of mammograms; their files are named after the patient, up to a low line. OTHERS has a folder
a kind (CT, photograph, …), in it a folder a package with pictures. Phantoms, drawings, pieces cut from breasts and
photographs within outlines of breasts are made here. ROWS holds numbers, no picture.
"""

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.gate_alterations import altered
from benchmarks.gate_drawings import DRAWINGS
from mammolens.images.appearance import STATISTICS, statistics
from mammolens.images.breast import Pixels, anatomy, find_breast, thumbnail
from mammolens.images.reading import read_image
from mammolens.model.gate import LEAST, Classes
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view

TABLE = Path(__file__).parent.parent / "src" / "mammolens" / "model" / "gate.npz"
MAMMOGRAM, OUTLINED = "mammogram", "photograph in an outline"
COPIES = 3  # altered ones of each mammogram
TURNED = 2  # altered ones of each other picture
DRAWN = 60  # of each kind of drawing
PENALTY = 0.01  # inverse of the ridge on the weights
RIDGE = 0.1  # shrinkage of correlations towards none
FOLDS = 4
LOST = 0.01  # of a source's mammograms that may be turned away where it was not fitted on
JUDGED = 100  # pictures that a source needs to set the limit
RATES = (0.10, 0.05, 0.03, 0.02, 0.01)  # of other pictures that pass

Vector = NDArray[np.float64]


class Rows(NamedTuple):
    """What was measured, a row a picture; `source` is a data set or a package."""

    values: Vector
    source: NDArray[np.str_]
    kind: NDArray[np.str_]
    patient: NDArray[np.str_]
    altered: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Return some rows."""
        values, source, kind, patient, changed = self
        return Rows(values[chosen], source[chosen], kind[chosen], patient[chosen], changed[chosen])


class Picture(NamedTuple):
    """One picture to measure."""

    pixels: Pixels
    source: str
    kind: str
    patient: str = ""
    altered: bool = False


def mammograms(folders: list[Path], rng: np.random.Generator) -> Iterator[Picture]:
    """Yield mammograms and phantoms, each with altered copies, and pieces cut from their middle."""
    found = [(path, folder.name) for folder in folders for path in sorted(folder.rglob("*.jpg"))]
    read = ((read_image(path).pixels, source, path.name.split("_")[0]) for path, source in found)
    people = [(number, draw_patient(number, 101)) for number in range(10)]
    drawn = (
        (draw_view(breast, view, size=256).pixels.astype(np.float32) / np.float32(255), "phantoms", str(number))
        for number, person in people
        for breast in (person.left, person.right)
        for view in VIEWS
    )
    for sort in (read, drawn):
        for pixels, source, patient in sort:
            small = thumbnail(pixels)
            yield Picture(small, source, MAMMOGRAM, patient)
            for _ in range(COPIES):
                yield Picture(altered(small, rng), source, MAMMOGRAM, patient, altered=True)
            if (piece := piece_of(small, rng)) is not None and rng.random() < 0.3:
                yield Picture(piece, source, "piece of a breast", patient)


def piece_of(small: Pixels, rng: np.random.Generator) -> Pixels | None:
    """Cut a piece without background from the breast, or none where it is too small."""
    mask = find_breast(small).mask
    if not mask.any():
        return None
    row, column = np.argwhere(mask).mean(axis=0).astype(int)
    tall, wide = (np.array(mask.shape) * rng.uniform(0.06, 0.16, 2)).astype(int)
    part = slice(max(row - tall, 0), row + tall), slice(max(column - wide, 0), column + wide)
    return small[part] if mask[part].mean() > 0.999 and min(tall, wide) > 7 else None


def others(folder: Path, outlines: list[Pixels], rng: np.random.Generator) -> Iterator[Picture]:
    """Yield what is no mammogram, as it is and turned, cut, padded or negated."""
    for path in sorted(path for path in folder.glob("*/*/*") if path.is_file()):
        small = thumbnail(read_image(path).pixels)
        kind, source = path.parts[-3:-1]
        yield Picture(small, source, kind)
        for _ in range(TURNED):
            yield Picture(varied(small, rng), source, kind, altered=True)
        if kind == "photograph" and outlines and rng.random() < 0.4:
            mask = find_breast(outlines[rng.integers(len(outlines))]).mask
            size = min(mask.shape[0], small.shape[0]), min(mask.shape[1], small.shape[1])
            yield Picture(small[: size[0], : size[1]] * mask[: size[0], : size[1]], source, OUTLINED)
    for kind, draw in DRAWINGS.items():
        for _ in range(DRAWN):
            yield Picture(draw(rng), "drawn", kind)


def varied(small: Pixels, rng: np.random.Generator) -> Pixels:
    """Turn, mirror, cut, pad, tone or negate what is no mammogram."""
    picture = np.rot90(small, int(rng.integers(4)) if rng.random() < 0.5 else 0)[:, :: rng.choice([1, -1])]
    height, width = picture.shape
    if rng.random() < 0.5 and min(height, width) > 60:
        share = rng.uniform(0.4, 0.9, 2)
        top, left = (rng.uniform(0, 1 - share) * (height, width)).astype(int)
        picture = picture[top : top + int(share[0] * height), left : left + int(share[1] * width)]
    if rng.random() < 0.35:
        edges = [rng.integers(0, side // 3 + 1, 2) * (rng.random(2) < 0.7) for side in picture.shape]
        picture = np.pad(picture, edges)
    picture = picture ** rng.uniform(0.5, 2) if rng.random() < 0.3 else picture
    return np.ascontiguousarray(1 - picture if rng.random() < 0.25 else picture, dtype=np.float32)


def measured(pictures: Iterator[Picture]) -> Rows:
    """Measure pictures, one by one."""
    rows = [(statistics(anatomy(picture.pixels)), *picture[1:]) for picture in pictures]
    columns = list(zip(*rows, strict=True))
    return Rows(np.stack(columns[0]).astype(np.float64), *(np.array(column) for column in columns[1:]))


def weights(rows: Rows) -> Vector:
    """Give each source of mammograms, and each class, the same weight; a kind of other pictures its root."""
    inner = [np.where(rows.kind == MAMMOGRAM, rows.source, rows.kind), rows.kind == MAMMOGRAM]
    _, group, count = np.unique(inner[0], return_inverse=True, return_counts=True)
    weight = np.where(inner[1], 1 / count[group], 1 / np.sqrt(count[group]))
    for one in (True, False):
        weight[inner[1] == one] *= len(rows.kind) / 2 / weight[inner[1] == one].sum()
    return np.asarray(weight)


def fitted(rows: Rows) -> Classes:
    """Fit both classes' distances, then what they weigh."""
    rows = rows.where(rows.kind != OUTLINED)
    truth, weight = rows.kind == MAMMOGRAM, weights(rows)
    mean = np.average(rows.values[truth], axis=0, weights=weight[truth])
    deviation = np.sqrt(np.average((rows.values[truth] - mean) ** 2, axis=0, weights=weight[truth])) + 1e-6
    blank = {"mean": mean, "deviation": deviation, "centre": np.zeros((2, STATISTICS))}
    blank |= {"precision": np.zeros((2, STATISTICS, STATISTICS))}
    standard = Classes(blank).features(rows.values)[:, :STATISTICS]
    places = [_placed(standard[truth == one], weight[truth == one]) for one in (True, False)]
    centres, precisions = zip(*places, strict=True)
    tables = blank | {"centre": np.stack(centres), "precision": np.stack(precisions)}
    regression = LogisticRegression(C=PENALTY, max_iter=300)
    regression.fit(Classes(tables).features(rows.values), truth, sample_weight=weight)
    return Classes(tables | {"weights": regression.coef_[0], "constant": regression.intercept_[0]})


def _placed(standard: Vector, weight: Vector) -> tuple[Vector, Vector]:
    """Return centre and precision of a class."""
    weight = weight / weight.sum()
    centre = weight @ standard
    covariance = (standard - centre).T @ ((standard - centre) * weight[:, np.newaxis])
    covariance += RIDGE * (np.diag(np.diag(covariance)) - covariance) + 0.02 * np.eye(len(centre))
    return np.asarray(centre), np.asarray(np.linalg.inv(covariance))


def _hashed(names: NDArray[np.str_]) -> NDArray[np.intp]:
    return np.array([zlib.crc32(name.encode()) for name in names])


def judged(rows: Rows) -> None:
    """Print who is turned away and who passes, by source and kind."""
    truth, sources = rows.kind == MAMMOGRAM, np.unique(rows.source[rows.kind == MAMMOGRAM])
    number = np.unique(rows.source, return_inverse=True)[1]
    fold = np.where(rows.source == "drawn", np.arange(len(truth)), number) % FOLDS
    unseen = np.full(len(truth), np.nan)  # log odds by what was fitted on other packages
    for part in range(FOLDS):
        there = ~truth & (fold == part)
        unseen[there] = fitted(rows.where(~there)).log_odds(rows.values[there])
    left = np.full(len(truth), np.nan)  # by what was fitted on other sources of mammograms
    for source in sources:
        there = truth & (rows.source == source)
        left[there] = fitted(rows.where(~there)).log_odds(rows.values[there])
    print(f"limit at which no source left out loses more than {LOST:.0%}: {_limit(rows, left):.2f}; in use: {LEAST}")
    half = _hashed(np.char.add(rows.source, rows.patient)) % 2 == 0
    known = np.full(len(truth), np.nan)  # by what was fitted on other patients of the same sources
    for one in (True, False):
        there = truth & (half == one)
        known[there] = fitted(rows.where(~there)).log_odds(rows.values[there])
    whole = truth & ~rows.altered
    tested = ~truth & (rows.kind != OUTLINED)
    print(
        "others pass, as they are / altered | least | "
        "turned away, percent, source left out: as it is / altered | source known"
    )
    for limit in (LEAST, *(float(np.quantile(unseen[tested], 1 - rate)) for rate in RATES)):
        cells = [
            f"{source} {_share(left[whole & (rows.source == source)] < limit)}"
            f" / {_share(left[truth & rows.altered & (rows.source == source)] < limit)}"
            f" | {_share(known[whole & (rows.source == source)] < limit)}"
            for source in sources
        ]
        parts = [_share(unseen[tested & (rows.altered == changed)] >= limit) for changed in (False, True)]
        print(" / ".join(parts) + f" | {limit:5.2f} | " + "; ".join(cells))
    print(f"at {LEAST}, package left out, by kind: pictures, percent that pass, as they are / altered")
    for kind in np.unique(rows.kind[~truth]):
        there = [(rows.kind == kind) & (rows.altered == changed) for changed in (False, True)]
        shares = " / ".join(_share(unseen[part] >= LEAST) for part in there)
        print(f"{kind} | {sum(int(part.sum()) for part in there)} | {shares}")
    for kind in np.unique(rows.kind[tested]):
        there = rows.kind == kind
        if there.sum() > 25:
            passed = fitted(rows.where(~there)).log_odds(rows.values[there]) >= LEAST
            print(f"kind left out: {kind} | {_share(passed)}")


def _limit(rows: Rows, left: Vector) -> float:
    """Return the largest limit that turns away at most `LOST` of any source, as it is, by what was not fitted on it."""
    whole = (rows.kind == MAMMOGRAM) & ~rows.altered
    sorts = [np.sort(left[whole & (rows.source == source)]) for source in np.unique(rows.source[whole])]
    return float(min(odds[int(LOST * len(odds))] for odds in sorts if len(odds) >= JUDGED))


def _share(of: NDArray[np.bool_]) -> str:
    return f"{100 * of.mean():.1f}" if of.size else "-"


def main(names: list[str]) -> None:
    """Measure or take the rows, print the tables, write what was fitted on all rows if asked to."""
    paths = [Path(name) for name in names if name != "--write"]
    if len(paths) > 1:
        rng = np.random.default_rng(37)
        outlines = [thumbnail(read_image(path).pixels) for path in sorted(paths[2].rglob("*.jpg"))[::50]]
        both = [measured(mammograms(paths[2:], rng)), measured(others(paths[1], outlines, rng))]
        rows = Rows(*(np.concatenate(columns) for columns in zip(*both, strict=True)))
        np.savez_compressed(paths[0], **rows._asdict())
    with np.load(paths[0]) as stored:
        rows = Rows(*(stored[name] for name in Rows._fields))
    rows = rows._replace(values=rows.values.astype(np.float64))
    judged(rows)
    if "--write" in names:
        tables = {name: np.asarray(table, dtype=np.float32) for name, table in fitted(rows).tables.items()}
        np.savez_compressed(TABLE, allow_pickle=False, **tables)


if __name__ == "__main__":
    main(sys.argv[1:])
