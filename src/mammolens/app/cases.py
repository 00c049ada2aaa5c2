"""`Case`s: pictures read and answered for, how views hang side by side, how one is drawn, the report of one."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.app.uploads import png
from mammolens.data.identity import exam_keys
from mammolens.errors import ImageError, reason
from mammolens.images.archives import Input
from mammolens.images.breast import LEAST_AREA, Pixels, anatomy
from mammolens.images.image import Image
from mammolens.images.reading import read_image
from mammolens.model.bundle import BundleRecord
from mammolens.model.decisions import Rules
from mammolens.model.decisions import decided as decided_at
from mammolens.records import Laterality, Prediction, ServedLevel, View
from mammolens.reports.case import Case, case_page
from mammolens.serving.overlay import caption, heat_of_size, overlay
from mammolens.serving.predictor import Predictor

LONGEST = 1400
"""Pixels of the longer side of a picture as it is kept and shown."""

CONFIG: dict[str, Any] = {
    "scrollZoom": True,
    "doubleClick": "reset",
    "displaylogo": False,
    "modeBarButtons": [["zoomIn2d", "zoomOut2d", "resetScale2d"]],
}
"""Of figures: the wheel or two fingers zoom, dragging moves, a double click shows the whole picture."""

_MODE_BAR = {"bgcolor": "rgba(20,26,32,0.6)", "color": "#e4e8ec", "activecolor": "#ffffff", "orientation": "v"}
_HEAT_LONGEST = 700  # pixels; the map itself has 256 at most, and browsers smooth


def answered(predictor: Predictor, source: Input) -> Case:
    """Read one picture and answer for it. What goes wrong becomes the case's error."""
    try:
        with source.on_disk() as path:
            answer = next(predictor.answers([Input(source.name, path)]))
            return Case(answer) if answer.error is not None else _with_picture(answer, read_image(path))
    except ImageError as error:
        told = reason(error)
    except Exception as error:  # noqa: BLE001 - one file stops no other, and reaches no log
        told = f"{source.name}: could not be looked at ({type(error).__name__}). Export it anew."
    return Case(Prediction.failure(source.name, told, predictor.threshold()))


def decided(case: Case, point: str, rules: Rules) -> Case:
    """Return the case with the answer that another operating point gives."""
    return replace(case, answer=decided_at(case.answer, ServedLevel.IMAGE, point, rules))


def _with_picture(answer: Prediction, image: Image) -> Case:
    breast = anatomy(image.pixels).breast
    height, width = image.pixels.shape
    small = image.pixels
    if max(height, width) > LONGEST:
        small = np.asarray(Pillow.fromarray(small).resize(_fitting(small.shape, LONGEST), Pillow.Resampling.BOX))
    return Case(
        answer=answer,
        picture=np.rint(np.clip(small, 0, 1) * 65535).astype(np.uint16),
        facts=f"{image.format}, {width} × {height} pixels, {image.bit_depth} bits",
        chest_wall_right=breast.chest_wall_right if breast.area >= LEAST_AREA else None,
    )


def _fitting(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Return the (width, height) of a picture whose longer side is made no longer than `longest`."""
    scale = min(1.0, longest / max(shape))
    height, width = (max(1, round(side * scale)) for side in shape)
    return width, height


def exam_of(case: Case, cases: Sequence[Case]) -> list[Case]:
    """Return the cases that hang together with `case`, itself among them, in their order: those of its examination."""
    if case.place is None:
        return [case]
    read = [one for one in cases if one.answer.error is None]
    keys = exam_keys([one.answer for one in read])
    mine = next(key for key, one in zip(keys, read, strict=True) if one is case)
    return [one for key, one in zip(keys, read, strict=True) if one.place and key == mine]


def hung(case: Case, cases: Sequence[Case]) -> list[tuple[Case | None, Case | None]]:
    """Return the exam of `case` in rows of two: CC on top, MLO below, other views after them.

    The right breast hangs on the left of the screen, as if the patient faced the reader. Of one
    breast alone, two views share a row. Where a view is there twice, `case` goes first.
    """
    placed = {one.place: one for one in (*reversed(exam_of(case, cases)), case)}
    right, left = ([placed.get((side, view)) for view in View] for side in (Laterality.RIGHT, Laterality.LEFT))
    if any(right) and any(left):
        return [row for row in zip(right, left, strict=True) if any(row)]
    one_side = [one for one in (*right, *left) if one is not None]
    return list(zip_longest(one_side[::2], one_side[1::2]))


def shown(picture: NDArray[np.uint16], window: tuple[float, float], *, inverted: bool) -> NDArray[np.uint8]:
    """Return the picture in grey levels 0 to 255 through a contrast window.

    Args:
        picture: (height, width).
        window: what is shown black and white, as shares of the picture's own range from dark to
            bright: ascending, each in [0, 1].
        inverted: whether black and white change places afterwards.
    """
    low, high = float(picture.min()), float(picture.max())
    black, white = (low + share * (high - low) for share in window)
    levels = np.clip((picture.astype(np.float32) - black) / max(white - black, 1.0), 0, 1)
    return np.asarray(np.rint(255 * (1 - levels if inverted else levels)), dtype=np.uint8)


def figure(
    picture: NDArray[np.uint8],
    score_map: Pixels | None = None,
    *,
    opacity: float = 0.0,
    mirrored: bool = False,
    identity: str = "",
) -> go.Figure:
    """Draw a picture and, over it, where the network looked: Plotly zooms and pans it in the browser alone.

    Args:
        picture: (height, width), as `shown` returns it.
        score_map: of any size, over the whole picture, in [0, 1]; None draws none.
        opacity: of the hottest places, in [0, 1].
        mirrored: left and right change places.
        identity: zoom is kept for as long as this stays the same.
    """
    height, width = picture.shape
    layers = [_layer(picture, picture.shape, mirrored=mirrored)]
    if score_map is not None and opacity > 0:
        heat = heat_of_size(score_map, _fitting(picture.shape, _HEAT_LONGEST))
        # Plotly draws one image a place and layer.
        layers.append(_layer(heat, picture.shape, mirrored=mirrored) | {"opacity": opacity, "layer": "above"})
    # Without a trace there are no axes to zoom.
    drawing = go.Figure(go.Scatter(x=[0, width], y=[0, height], mode="markers", marker_opacity=0, hoverinfo="skip"))
    hidden = {"visible": False, "constrain": "domain"}
    drawing.update_layout(
        images=layers,
        xaxis={"range": [0, width], **hidden},
        yaxis={"range": [height, 0], "scaleanchor": "x", "constraintoward": "top", **hidden},
        dragmode="pan",
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        modebar=_MODE_BAR,
        uirevision=f"{identity} {mirrored}",
    )
    return drawing


def _layer(pixels: NDArray[np.uint8], shape: tuple[int, ...], *, mirrored: bool) -> dict[str, Any]:
    """Return pixels of any size as an image over the whole of a picture of `shape`."""
    content = png(np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels)
    height, width = shape
    place = {"xref": "x", "yref": "y", "x": 0, "y": 0, "sizex": width, "sizey": height, "sizing": "stretch"}
    return {"source": f"data:image/png;base64,{base64.b64encode(content).decode()}", "layer": "below", **place}


def case_report(case: Case, record: BundleRecord) -> str:
    """Return the report of a case as one self-contained page of HTML, A4 when printed."""
    pictures = []
    if case.picture is not None:
        pixels = case.picture.astype(np.float32) / np.float32(65535)
        pictures.append((overlay(pixels, np.zeros((1, 1), np.float32)), "The picture as read"))
        if case.answer.score_map is not None:
            pictures.append((overlay(pixels, case.answer.score_map), caption([case.answer.score_map])))
    return case_page(case, record, pictures)
