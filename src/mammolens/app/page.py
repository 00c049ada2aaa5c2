"""The page itself, a Streamlit script: read `page` from top to bottom.

Answers are kept in the session alone: two people at one page never see each other's.
"""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import resources
from typing import Any

import pandas as pd
import streamlit as st

from mammolens.app.capacity import MEMORY, TURNS
from mammolens.app.cases import (
    Examination,
    answered,
    decided,
    examinations,
    hung,
    most_suspicious,
    whole,
)
from mammolens.app.downloads import downloads
from mammolens.app.looked import Looked, keys_of
from mammolens.app.uploads import (
    EXAMPLES,
    Example,
    Upload,
    admitted,
    as_inputs,
    drawn,
    thumbnail,
)
from mammolens.app.verdicts import lines_of, summary, verdicts
from mammolens.app.viewer import packed, viewer
from mammolens.errors import ImageError, MammolensError
from mammolens.hosting import MAX_FILE, MAX_IMAGES
from mammolens.images.archives import Input
from mammolens.judging.schema import SCREENING_PREVALENCE
from mammolens.levels import Level
from mammolens.model.bundle import BundleRecord
from mammolens.records import Prediction
from mammolens.reports.case import Case, blocks, entry, point_name, share, table_row
from mammolens.reports.pages import source as address_of
from mammolens.serving.overlay import caption
from mammolens.serving.predictor import Predictor

_PREVALENCES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
_MOST_IN_SIGHT = 5  # errors or examinations


def page(model: str | None) -> None:
    """Show the page: choose pictures, read what is suspected where, look at them, see what it is worth, keep it."""
    st.set_page_config("mammolens", layout="wide", initial_sidebar_state="collapsed")
    style = resources.files("mammolens.app").joinpath("streamlit.css").read_text("utf-8")
    st.html(f"{blocks.style()}<style>{style}</style>")
    st.html(blocks.banner())
    try:
        predictor = _predictor(model)
    except MammolensError as error:
        st.error(_literal(str(error)))
        st.stop()
    record = predictor.bundle.record
    st.html(blocks.title() + blocks.limits(record))
    uploads, refused = admitted(_chosen())
    complaints = st.container()
    looked: Looked = st.session_state.setdefault("looked at", Looked())
    with MEMORY.used(looked):
        cut = _look(looked, predictor, uploads)
        cases = looked.shown
        _open_where_nothing_was_read(cases)
        with complaints:
            unsaid = _complain(cases, [*refused, *cut])
        point = st.session_state.get("point", record.default_operating_point)
        cases[:] = [decided(case, point, record.rules()) for case in cases]
        if _read(cases):
            _results(record, looked, point)
        else:
            st.html(blocks.welcome(MAX_IMAGES))
        if len(cases) > 1:
            _table(cases, unsaid=unsaid)
    st.html(blocks.footer(record))


@st.cache_resource(show_spinner="Opening the model")
def _predictor(model: str | None) -> Predictor:
    return Predictor.load(model)


def _look(looked: Looked, predictor: Predictor, uploads: Sequence[Upload]) -> list[str]:
    """Look at what is new, when its turn comes; return what was cut short."""
    line = st.empty()

    def said(before: int) -> None:
        pictures = "picture is" if before == 1 else "pictures are"
        line.html(f"<p class='m-quiet' role='status'>{before} {pictures} before yours.</p>")

    def answer(source: Input) -> Case:
        with TURNS.turn(said):
            line.empty()
            return answered(predictor, source)

    return looked.look(uploads, answer, lambda number: st.spinner(f"Looking at file {number} of {len(uploads)}"))


def _results(record: BundleRecord, looked: Looked, point: str) -> None:
    """Show what is suspected where, then the pictures, and beside them what it is worth."""
    cases, uploads = looked.shown, looked.uploads
    expected = st.session_state.get("prevalence", SCREENING_PREVALENCE)
    examined = examinations(cases, point, record.rules())
    number = _number_of_shown(cases)
    mine = next(one for one in examined if number in one.numbers)
    lines = lines_of(mine, cases)
    with st.container(key="layout"):
        suspected, worth = st.columns([2.6, 1.3], gap="medium")
    with suspected:
        if len(examined) > 1:
            _choose_examination(examined, examined.index(mine), cases)
        st.html(verdicts.verdict(lines, record, expected, SCREENING_PREVALENCE))
        _pictures(number, cases, uploads, looked)
    with worth:
        _worth(lines[-1][1], record)
        _one_picture(number, cases)
        downloads(cases, mine, number, record)


def _choose_examination(examined: Sequence[Examination], chosen: int, cases: Sequence[Case]) -> None:
    """Show the verdict on each examination, of which one is chosen: its most suspicious picture is then shown."""
    said = []
    for one in examined:
        first, more = cases[one.numbers[0]].name, len(one.numbers) - 1
        said.append(f"{summary(lines_of(one, cases))} · {first}" + (f" and {more} more" if more else ""))
    st.session_state["examination"] = chosen
    title, numbers = f"{len(examined)} examinations", range(len(examined))
    firsts = [most_suspicious(cases, one.numbers) for one in examined]
    told: dict[str, Any] = {"key": "examination", "on_change": _chose_examination, "args": (firsts,)}
    if len(examined) <= _MOST_IN_SIGHT:
        st.radio(title, numbers, format_func=lambda number: _literal(said[number]), **told)
    else:
        st.selectbox(title, numbers, format_func=lambda number: said[number], **told)


def _chose_examination(firsts: Sequence[int]) -> None:
    """Show a picture of the examination that was chosen."""
    st.session_state["shown"] = firsts[st.session_state["examination"]]


def _worth(answer: Prediction, record: BundleRecord) -> None:
    """Show how good model and operating point were, and choose the point, and how common tumors are."""
    st.html(blocks.heading("What it is worth"))
    place = st.container()
    points = list(record.operating_points[Level.IMAGE])
    if answer.admitted:
        st.selectbox(
            "Operating point",
            points,
            index=points.index(record.default_operating_point),
            format_func=point_name,
            key="point",
            help="Where the line between tumor and no tumor is drawn.",
        )
    expected = SCREENING_PREVALENCE
    if answer.probability is not None and record.training_data is not None:
        expected = st.select_slider(
            "Share with a tumor among those examined",
            _PREVALENCES,
            value=SCREENING_PREVALENCE,
            format_func=share,
            key="prevalence",
            help="In screening, about 0.5 %. Only the prevalence differs: picture and model are the same.",
        )
    place.html(verdicts.worth(answer, record, expected, SCREENING_PREVALENCE))


def _one_picture(number: int, cases: Sequence[Case]) -> None:
    """Show which picture it is and, where there are several, choose it."""
    st.html(blocks.heading("The picture"))
    read = _read(cases)
    if len(read) > 1:
        named = {n: entry(n, cases[n]) for n in read}
        st.selectbox("Picture shown", read, key="shown", format_func=named.__getitem__, label_visibility="collapsed")
    st.html(verdicts.picture(cases[number], len(read) == 1))


def _table(cases: Sequence[Case], *, unsaid: bool) -> None:
    """Show all answers in a table, in which a picture can be chosen; and what was `unsaid` of those that have none."""
    st.html(blocks.heading(f"All {len(cases)} pictures"))
    rows = [table_row(case) for case in cases]
    for row, case in zip(rows, cases, strict=True):
        if case.answer.error is not None and not unsaid:
            row["Remarks"] = "not read"
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        key="table",
        on_select=partial(_clicked, _read(cases)),
        selection_mode="single-row",
        alt="Answers for all pictures",
    )


def _chosen() -> list[Upload]:
    """Return what was dropped, or the example that was picked: the later of the two."""
    key = f"files {st.session_state.get('round', 0)}"
    given = bool(st.session_state.get(key) or st.session_state.get("example"))
    opened = not given or st.session_state.get("nothing read", False)
    with st.expander("Drop mammograms, or choose an example", expanded=opened):
        files = st.file_uploader(
            "Mammograms",
            accept_multiple_files=True,
            key=key,
            max_upload_size=MAX_FILE // 2**20,
            on_change=_dropped,
            help=f"JPEG, PNG, TIFF, PGM, DICOM (with or without a suffix) or ZIP; up to {MAX_IMAGES} "
            "images. Nothing is stored.",
        )
        st.html(f"<p class='m-quiet'>Or a synthetic example:</p>{_thumbnails()}")
        with st.container(key="examples", horizontal=True):
            for number, one in enumerate(EXAMPLES):
                st.button(one.title, key=f"example {number}", on_click=_picked, args=(one,))
        if given:
            st.button("Take all pictures away", key="away", on_click=_picked, args=(None,))
    if files:
        return [Upload(file.file_id, file.name, file.getvalue()) for file in files]
    example = st.session_state.get("example")
    return list(drawn(example)) if example else []


@st.cache_data(show_spinner=False)
def _thumbnails() -> str:
    """Return the style that puts a picture of each example on its button."""
    rules = (
        f".st-key-example-{number} button::before {{ background-image: url({address_of(thumbnail(one), 'jpeg')}); }}"
        for number, one in enumerate(EXAMPLES)
    )
    return f"<style>{''.join(rules)}</style>"


def _dropped() -> None:
    """Take the example away."""
    st.session_state.update({"example": None, "shown": None})


def _picked(example: Example | None) -> None:
    """Take the files away, and show an example instead, if any: an uploader under another key is an empty one."""
    number = st.session_state.get("round", 0) + 1
    st.session_state.update({"round": number, "shown": None, "example": example})


def _clicked(read: Sequence[int]) -> None:
    """Show the picture whose row was clicked, where there is one."""
    rows = st.session_state["table"].selection.rows
    if rows and rows[0] in read:
        st.session_state["shown"] = rows[0]


def _read(cases: Sequence[Case]) -> list[int]:
    """Return which cases were read."""
    return [number for number, case in enumerate(cases) if case.answer.error is None]


def _open_where_nothing_was_read(cases: Sequence[Case]) -> None:
    """Run again with the uploader in sight where no file was read."""
    nothing = bool(cases) and not _read(cases)
    if nothing != st.session_state.get("nothing read", False):
        st.session_state["nothing read"] = nothing
        st.rerun()


def _complain(cases: Sequence[Case], refused: Sequence[str]) -> bool:
    """Say what got no answer and why; where there is too much to say, return that it is left to the table."""
    errors = [case.answer.error for case in cases if case.answer.error is not None]
    unsaid = len(errors) > _MOST_IN_SIGHT
    said = [f"{len(errors)} pictures could not be read: the table says why."] if unsaid else errors
    said = [*refused[:_MOST_IN_SIGHT], *said]
    if more := refused[_MOST_IN_SIGHT:]:
        said.append(f"{len(more)} more files were not looked at.")
    if said:
        st.error("\n\n".join(map(_literal, said)))
    return unsaid


def _number_of_shown(cases: Sequence[Case]) -> int:
    """Return which case is shown: of those that were read the most suspicious, until another is chosen."""
    read = _read(cases)
    if st.session_state.get("shown") not in read:
        st.session_state["shown"] = most_suspicious(cases, read)
    return int(st.session_state["shown"])


@st.fragment
def _pictures(number: int, cases: Sequence[Case], uploads: Sequence[Upload], looked: Looked) -> None:
    """Show the chosen picture as its exam hangs; reruns alone when a reader zooms in beyond what the browser has."""
    with MEMORY.used(looked):
        if not cases:  # let go, while nobody asked
            st.rerun()
        hanging = hung(cases[number], cases)
        rows = hanging if sum(one is not None for row in hanging for one in row) > 1 else [(cases[number],)]
        keys, want = keys_of(cases, uploads), partial(_want, cases, uploads, looked)
        told = viewer(cases, rows, number, keys=keys, shelf=looked.shelf, on_chosen=_chose, on_wanted=want)
        if told.chosen is not None:
            st.rerun()
        maps = [one.answer.score_map for row in rows for one in row if one and one.answer.score_map is not None]
        if maps:
            st.html(f"<p class='m-quiet'>{caption(maps)}</p>")


def _chose() -> None:
    """Show the picture that was clicked."""
    st.session_state["shown"] = st.session_state["viewer"].chosen


def _want(cases: Sequence[Case], uploads: Sequence[Upload], looked: Looked) -> None:
    """Have every pixel of the picture that was zoomed in on."""
    number = st.session_state["viewer"].wanted
    with MEMORY.used(looked):
        if cases and (key := keys_of(cases, uploads)[number]) not in looked.shelf.wholes:
            with TURNS.turn(lambda _: None):
                looked.shelf.put_whole(key, _whole(cases[number], uploads[number]))


def _whole(case: Case, upload: Upload) -> bytes:
    """Return every pixel of a picture, packed for the browser; nothing where it cannot be read any more."""
    with as_inputs(upload) as sources:
        source = next((one for one in sources if str(one.name) == case.name), None)
        try:
            return packed(whole(source, inverted=case.inverted)) if source else b""
        except ImageError:
            return b""


def _literal(text: str) -> str:
    """Return text from outside with everything that Streamlit's Markdown would read as markup."""
    return "".join(f"\\{one}" if one in r"\`*_{}[]()<>#+-.!|~:$" else one for one in text)


if __name__ == "__main__":
    page(sys.argv[1] if len(sys.argv) > 1 else None)
