"""How fast pixels come: drawing phantoms, decoding and preparing, and reading them from the cache.

Times differ between machines; the ratios within one run are what to compare.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mammolens.data.sources.phantom import write_phantoms
from mammolens.images.cache import prepare, prepared_pixels
from mammolens.images.preprocess import Preprocess
from mammolens.parallel import cores

PATIENTS = 100


def rate(work: Callable[[], object], images: int) -> float:
    """Images a second."""
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


def measure(folder: Path) -> None:
    """Print a table of images a second for each way to get pixels."""
    rows: list[tuple[str, float]] = []
    data, count = folder / "phantoms", PATIENTS * 4
    drawing = rate(lambda: write_phantoms(data, PATIENTS), count)
    rows.append((f"draw phantoms at 640 px, {cores()} processes", drawing))
    paths = sorted(data.rglob("*.jpg"))
    for name, settings in (("plain", Preprocess.plain()), ("breast", Preprocess.breast())):
        one = rate(lambda s=settings: [prepare(path, s) for path in paths[:100]], 100)  # type: ignore[misc]
        first = rate(lambda s=settings: prepared_pixels(paths, s), count)  # type: ignore[misc]
        again = rate(lambda s=settings: prepared_pixels(paths, s).take(range(count)), count)  # type: ignore[misc]
        rows.append((f"{name}: decode and prepare, 1 process", one))
        rows.append((f"{name}: the same into the cache, {cores()} processes", first))
        rows.append((f"{name}: from the cache, {again / one:.0f} times one process", again))
    table = Table("what", "images a second")
    for name, value in rows:
        table.add_row(name, f"{value:.0f}")
    Console().print(table)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MAMMOLENS_CACHE"] = f"{scratch}/cache"
        measure(Path(scratch))
