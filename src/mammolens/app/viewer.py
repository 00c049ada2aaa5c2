"""The viewer: pictures in the browser, zoomed, panned and windowed together, in full where one looks closely.

A Streamlit component of its own JavaScript, which loads nothing from elsewhere. Python gives it an
overview of each picture and, once it asks, all pixels; they stay in memory.
"""

import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from streamlit import runtime

from mammolens.app.uploads import png
from mammolens.images.breast import Pixels
from mammolens.reports.case import Case, class_name, percent, subject, uncertainty
from mammolens.serving.overlay import heat_of_size

LONGEST = 1400
"""Pixels of the longer side of an overview."""

WHOLE = 8
"""Pictures whose every pixel a session keeps, the last that were asked for: 3 to 15 MB each."""

PRESETS = {"file": "As in the file", "full": "Full range", "tissue": "Breast tissue"}
"""Contrast windows that every picture has, and what they are called."""

OF_FILE = "file: "
"""What the names of windows begin with that a file offers; their explanation follows."""

UPRIGHT = "black and white inverted in the file, shown upright"

_HEAT_LONGEST = 700  # pixels; the map itself has 256 at most, and browsers smooth
_LEVELS = 2**16


def _text(*names: str) -> str:
    folder = resources.files("mammolens.app")
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in names)


_component = st.components.v2.component(
    "mammolens_viewer",
    html='<div class="viewer"></div>',
    css=_text("viewer.css"),
    js=_text("pixels.js", "pane.js", "viewer.js"),
)


@dataclass
class Shelf:
    """Packed pixels of one session's pictures, by the picture's key; in memory alone.

    Attributes:
        overviews: of all pictures, each with its heat as PNG where there is a map.
        wholes: every pixel of those last asked for; empty where the file gives none any more.
        secret: goes into the addresses of pixels, so that who has a picture cannot tell whether another session has it.
    """

    overviews: dict[str, tuple[bytes, bytes | None]] = field(default_factory=dict)
    wholes: dict[str, bytes] = field(default_factory=dict)
    secret: str = field(default_factory=secrets.token_hex, repr=False)

    @property
    def size(self) -> int:
        """Bytes of all pixels."""
        overviews = sum(len(pixels) + len(heat or b"") for pixels, heat in list(self.overviews.values()))
        return overviews + sum(map(len, list(self.wholes.values())))

    def put_whole(self, key: str, pixels: bytes) -> None:
        """Keep every pixel of a picture, and let go of those that were asked for longest ago."""
        self.wholes.pop(key, None)
        self.wholes[key] = pixels
        for old in list(self.wholes)[:-WHOLE]:
            del self.wholes[old]

    def keep_only(self, keys: Sequence[str]) -> None:
        """Forget the pictures that are gone."""
        for shelf in (self.overviews, self.wholes):
            for key in shelf.keys() - set(keys):
                del shelf[key]


def levels_of(pixels: Pixels) -> NDArray[np.uint16]:
    """Return pixels in [0, 1], (height, width), as levels 0 to 65535."""
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * np.float32(_LEVELS - 1)), dtype=np.uint16)


def fitting(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Return the (width, height) of a picture whose longer side is made no longer than `longest`."""
    scale = min(1.0, longest / max(shape))
    height, width = (max(1, round(side * scale)) for side in shape)
    return width, height


def overview(pixels: Pixels) -> Pixels:
    """Return pixels (height, width) made no longer than `LONGEST`, by area averaging."""
    if max(pixels.shape) <= LONGEST:
        return pixels
    return np.asarray(Pillow.fromarray(pixels).resize(fitting(pixels.shape, LONGEST), Pillow.Resampling.BOX))


def packed(levels: NDArray[np.uint16]) -> bytes:
    """Return a picture (height, width) without loss, as a browser unpacks it by itself.

    A zlib stream of: width, height and count as uint32; the `count` levels that occur, ascending, as
    uint16; for each pixel the difference of its level's rank from that of the pixel to its left, low
    bytes of all first, then, where there are more than 256 levels, high bytes. All little-endian.
    """
    present = np.zeros(_LEVELS, dtype=bool)
    present[levels] = True
    values = np.flatnonzero(present).astype("<u2")
    ranks = (np.cumsum(present) - 1).astype(np.uint16)[levels]
    steps = np.diff(ranks, axis=1, prepend=np.uint16(0))
    planes = [steps.astype(np.uint8), (steps >> 8).astype(np.uint8)][: 1 + (len(values) > 256)]  # noqa: PLR2004
    size = np.array([*levels.shape[::-1], len(values)], dtype="<u4")
    # Background is runs, tissue is noise: looking for anything longer takes time and saves nothing.
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return b"".join(packer.compress(part.tobytes()) for part in (size, values, *planes)) + packer.flush()


def viewer(
    cases: Sequence[Case],
    rows: Sequence[Sequence[Case | None]],
    chosen: int,
    *,
    keys: Sequence[str],
    shelf: Shelf,
    on_chosen: Callable[[], None],
    on_wanted: Callable[[], None],
) -> Any:  # noqa: ANN401 - Streamlit's result
    """Show pictures as they hang; return what the reader did: `chosen` or `wanted`, numbers of cases.

    Args:
        cases: all of the page.
        rows: those that are shown, in rows of one or two.
        chosen: the number of the one whose answer is shown.
        keys: of all cases, under which `shelf` has their pixels.
        shelf: filled with overviews that it lacks.
        on_chosen: called when the reader clicks on another picture.
        on_wanted: called when the reader zooms in on a picture beyond its overview.
    """
    numbers = {id(case): number for number, case in enumerate(cases)}
    hanging = [case for row in rows for case in row if case is not None and case.picture is not None]
    places = {id(case): place for place, case in enumerate(hanging)}
    data = {
        "number": chosen,
        "numbers": [number for number, case in enumerate(cases) if case.picture is not None],
        "presets": presets(hanging),
        "rows": [[places.get(id(case)) for case in row] for row in rows],
        "panes": [_pane(case, numbers[id(case)], keys[numbers[id(case)]], shelf, len(rows[0])) for case in hanging],
    }
    return _component(key="viewer", data=data, on_chosen_change=on_chosen, on_wanted_change=on_wanted)


def presets(cases: Sequence[Case]) -> list[tuple[str, str]]:
    """Return the contrast windows of pictures that hang together, and what each is called."""
    offered = dict.fromkeys(name for case in cases for name in case.windows if name.startswith(OF_FILE))
    return [*PRESETS.items(), *((name, f"File: {name.removeprefix(OF_FILE)}") for name in offered)]


def _pane(case: Case, number: int, key: str, shelf: Shelf, in_a_row: int) -> dict[str, Any]:
    """Return all that the browser knows of one picture."""
    assert case.picture is not None  # noqa: S101 - those without hang nowhere
    if key not in shelf.overviews:
        shelf.overviews[key] = packed(case.picture if case.unwindowed is None else case.unwindowed), _heat(case)
    overviewed, heat = shelf.overviews[key]
    mirrored = case.hangs_mirrored and in_a_row > 1
    height, width = case.shape
    whole = shelf.wholes.get(key)
    if max(case.shape) <= LONGEST:
        whole = b""  # the overview is
    return {
        "number": number,
        "caption": [" ".join(case.place or ()), *caption(case, mirrored=mirrored)],
        "told": f"{subject(case)}. {class_name(case)}.",
        "width": width,
        "height": height,
        "mirrored": mirrored,
        "wall": None if case.chest_wall_right is None else "right" if case.chest_wall_right != mirrored else "left",
        "spacing": case.spacing,
        "windows": case.windows,
        "overview": _served(overviewed, f"overview {key}", shelf.secret),
        "full": "" if whole == b"" else whole and _served(whole, f"whole {key}", shelf.secret),
        "heat": heat and _served(heat, f"heat {key}", shelf.secret, "image/png"),
    }


def caption(case: Case, *, mirrored: bool) -> tuple[str, str]:
    """Return what stands above a picture: its answer, uncertainty first, and its name."""
    notes = (
        uncertainty(case),
        f"called {case.answer.decision}" if case.answer.decision else class_name(case).lower(),
        percent(case.answer.probability),
        "mirrored" if mirrored else "",
        UPRIGHT if case.inverted else "",
    )
    return " · ".join(filter(None, notes)), case.name


def _heat(case: Case) -> bytes | None:
    score_map = case.answer.score_map
    return None if score_map is None else png(heat_of_size(score_map, fitting(case.shape, _HEAT_LONGEST)))


def _served(content: bytes, place: str, secret: str, kind: str = "application/octet-stream") -> str:
    """Return the address, below the page's, at which content is served while this session shows it.

    It is a hash of content, kind and name: with a secret for a name, it is found by no guess.
    """
    return str(runtime.get_instance().media_file_mgr.add(content, kind, place, secret)).lstrip("/")
