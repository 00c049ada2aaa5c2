"""The picture on the page: a Plotly figure that zooms and pans in the browser alone."""

import base64
import io
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image as Pillow

from mammolens.images.breast import Pixels
from mammolens.serving.overlay import heat_of_size

CONFIG: dict[str, Any] = {
    "scrollZoom": True,
    "doubleClick": "reset",
    "displaylogo": False,
    "modeBarButtons": [["zoomIn2d", "zoomOut2d", "resetScale2d"]],
}
"""The wheel or two fingers zoom, dragging moves, a double click shows the whole picture."""

_HEAT_LONGEST = 700  # pixels; the map itself has 256 at most, and browsers smooth

Window = tuple[float, float]
"""What is shown black and white, as shares of the picture's own range from dark to bright."""


def shown(picture: NDArray[np.uint16], window: Window, *, inverted: bool) -> NDArray[np.uint8]:
    """Return the picture in grey levels 0 to 255 through a contrast window.

    Args:
        picture: (height, width).
        window: ascending, each in [0, 1]; what lies outside is black or white.
        inverted: whether black and white change places afterwards.
    """
    low, high = float(picture.min()), float(picture.max())
    black, white = (low + share * (high - low) for share in window)
    levels = np.clip((picture.astype(np.float32) - black) / max(white - black, 1.0), 0, 1)
    grey = np.rint(255 * (1 - levels if inverted else levels))
    return np.asarray(grey, dtype=np.uint8)


def figure(
    picture: NDArray[np.uint8],
    score_map: Pixels | None = None,
    *,
    opacity: float = 0.0,
    mirrored: bool = False,
    identity: str = "",
) -> go.Figure:
    """Draw a picture and, over it, where the network looked.

    Args:
        picture: (height, width), as `shown` returns it.
        score_map: of any size, over the whole picture, in [0, 1]; None draws none.
        opacity: of the hottest places, in [0, 1].
        mirrored: left and right change places.
        identity: zoom is kept for as long as this stays the same.
    """
    height, width = picture.shape
    layers = [_layer(_png(_turned(picture, mirrored=mirrored)), width, height)]
    if score_map is not None and opacity > 0:
        coloured = _turned(_heat(score_map, picture.shape), mirrored=mirrored)
        # Plotly draws one image a place and layer.
        layers.append(_layer(_png(coloured), width, height) | {"opacity": opacity, "layer": "above"})
    # Without a trace there are no axes to zoom.
    drawn = go.Figure(go.Scatter(x=[0, width], y=[0, height], mode="markers", marker_opacity=0, hoverinfo="skip"))
    hidden = {"visible": False, "constrain": "domain"}
    drawn.update_layout(
        images=layers,
        xaxis={"range": [0, width], **hidden},
        yaxis={"range": [height, 0], "scaleanchor": "x", "constraintoward": "top", **hidden},
        dragmode="pan",
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        modebar={
            "bgcolor": "rgba(20,26,32,0.6)",
            "color": "#e4e8ec",
            "activecolor": "#ffffff",
            "orientation": "v",
        },
        uirevision=f"{identity} {mirrored}",
    )
    return drawn


def _turned(picture: NDArray[np.uint8], *, mirrored: bool) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture


def _heat(score_map: Pixels, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    scale = min(1.0, _HEAT_LONGEST / max(shape))
    height, width = (max(1, round(side * scale)) for side in shape)
    return heat_of_size(score_map, (width, height))


def _layer(source: str, width: int, height: int) -> dict[str, Any]:
    return {
        "source": source,
        "xref": "x",
        "yref": "y",
        "x": 0,
        "y": 0,
        "sizex": width,
        "sizey": height,
        "sizing": "stretch",
        "layer": "below",
    }


def _png(pixels: NDArray[np.uint8]) -> str:
    """Return a grey or RGBA picture as a PNG data URI."""
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
