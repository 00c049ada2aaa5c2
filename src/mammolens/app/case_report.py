"""One picture and its answer as one page of HTML that prints well: no network, no script."""

import base64
import io
from html import escape
from importlib import resources

import numpy as np

from mammolens.app import blocks, words
from mammolens.app.cases import Case
from mammolens.images.breast import Pixels
from mammolens.model.bundle import BundleRecord
from mammolens.serving.overlay import caption, overlay

_QUALITY = 85  # of JPEG


def case_report(case: Case, record: BundleRecord) -> str:
    """Return the report of a case as one self-contained page of HTML, A4 when printed."""
    style = resources.files("mammolens.app").joinpath("case_report.css").read_text("utf-8")
    blocks_style = resources.files("mammolens.app").joinpath("blocks.css").read_text("utf-8")
    answer = case.answer
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(case.name)}: mammolens</title>
<style>
{blocks_style}
{style}</style></head><body>
<p class="disclaimer">{words.DISCLAIMER}</p>
<header><h1>mammolens</h1>{blocks.subject(case)}</header>
{blocks.limits(record)}
<main>{_pictures(case)}
<div class="columns"><div>{blocks.verdict(case)}</div>
<div><h3>Operating point: {words.point_name(answer.operating_point)}</h3>
{blocks.figures_of(record, answer.operating_point)}
{_meaning(case, record)}</div></div></main>
{blocks.footer(record)}
<p class="disclaimer">{words.DISCLAIMER}</p></body></html>
"""


def _meaning(case: Case, record: BundleRecord) -> str:
    found = blocks.prevalences(case, record, words.SCREENING)
    return f"<h3>Where tumors are as common as</h3>\n{found}" if found else ""


def _pictures(case: Case) -> str:
    if case.picture is None:
        return ""
    pixels = case.picture.astype(np.float32) / np.float32(65535)
    nothing = np.zeros((1, 1), np.float32)
    shown = _figure(pixels, nothing, "The picture as read")
    if case.answer.score_map is not None:
        shown += _figure(pixels, case.answer.score_map, caption([case.answer.score_map]))
    return f'<div class="pictures">{shown}</div>'


def _figure(pixels: Pixels, score_map: Pixels, said: str) -> str:
    file = io.BytesIO()
    overlay(pixels, score_map).save(file, format="JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<figure><img src="{source}" alt="{said}"><figcaption>{said}</figcaption></figure>'
