"""A CSV with at least the columns ``path`` and ``label``; a saved manifest is one of these."""

from pathlib import Path

from mammolens.data.manifest import Manifest


def read(data: str, positive: str | None = None, *, files: bool = True) -> Manifest:
    """Read the table at `data`; see `Manifest.load`."""
    return Manifest.load(Path(data), positive, files=files)
