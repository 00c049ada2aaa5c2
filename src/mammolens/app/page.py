"""The page itself, a Streamlit script: read `page` from top to bottom.

Answers are kept in the session alone: two people at one page never see each other's.
"""

import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from mammolens.app.cases import answered, case_report, decided, hung, whole
from mammolens.app.uploads import EXAMPLES, MAX_FILE, MAX_IMAGES, Upload, admitted, as_inputs, drawn
from mammolens.app.viewer import Shelf, packed, viewer
from mammolens.errors import ImageError, MammolensError
from mammolens.judging.schema import SCREENING_PREVALENCE
from mammolens.model.bundle import BundleRecord
from mammolens.records import Level
from mammolens.reports.answers import write_answers
from mammolens.reports.case import Case, blocks, entry, point_name, share, table_row
from mammolens.serving.overlay import caption
from mammolens.serving.predictor import Predictor

_PREVALENCES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
_MOST_COMPLAINTS = 5


def page(model: str | None) -> None:
    """Show the page: choose pictures, look at them, read the answer, keep it."""
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
    complaints = st.container()
    with st.container(key="layout"):
        columns = st.columns([1, 2.5, 1.4], gap="medium")
    with columns[0]:
        uploads, refused = admitted(_chosen())
        cases, sources, cut = _looked_at(predictor, uploads)
    with complaints:
        _complain(cases, [*refused, *cut])
    if cases:
        _results(record, cases, sources, columns)
    else:
        columns[1].html(blocks.welcome(MAX_IMAGES))
    st.html(blocks.footer(record))


@st.cache_resource(show_spinner="Opening the model")
def _predictor(model: str | None) -> Predictor:
    return Predictor.load(model)


def _results(
    record: BundleRecord, cases: Sequence[Case], uploads: Sequence[Upload], columns: Sequence[DeltaGenerator]
) -> None:
    """Show the pictures, the answer for the one that is chosen, and all answers."""
    choice, picture, answer = columns
    with choice:
        number = _number_of_shown(cases)
    points = list(record.operating_points[Level.IMAGE])
    with answer:
        verdict = st.container()
        point = st.selectbox(
            "Operating point",
            points,
            index=points.index(record.default_operating_point),
            format_func=point_name,
            key="point",
            help="Where the line between tumor and no tumor is drawn.",
        )
    cases = [decided(case, point, record.rules()) for case in cases]
    verdict.html(blocks.subject_of(cases[number]) + blocks.verdict(cases[number]))
    with answer:
        _meaning(cases[number], record, point)
        _downloads(cases, number, record)
    with picture:
        if cases[number].picture is not None:
            _pictures(number, cases, uploads)
    if len(cases) > 1:
        st.html(blocks.heading(f"All {len(cases)} pictures"))
        rows, told = pd.DataFrame([table_row(case) for case in cases]), "Answers for all pictures"
        st.dataframe(rows, hide_index=True, key="table", on_select=_clicked, selection_mode="single-row", alt=told)


def _chosen() -> list[Upload]:
    """Return what was dropped, or the example that was picked: the later of the two."""
    files = st.file_uploader(
        "Mammograms",
        accept_multiple_files=True,
        key=f"files {st.session_state.get('round', 0)}",
        max_upload_size=MAX_FILE // 2**20,
        on_change=_dropped,
        help=f"JPEG, PNG, TIFF, PGM, DICOM (with or without a suffix) or ZIP; up to {MAX_IMAGES} "
        "images. Nothing is stored.",
    )
    example = st.selectbox(
        "or a synthetic example",
        EXAMPLES,
        index=None,
        format_func=lambda one: one.title,
        key="example",
        placeholder="Choose an example",
        on_change=_picked,
    )
    if files:
        return [Upload(file.file_id, file.name, file.getvalue()) for file in files]
    return list(drawn(example)) if example else []


def _dropped() -> None:
    """Take the example away."""
    st.session_state.update({"example": None, "shown": None})


def _picked() -> None:
    """Take the files away: an uploader under another key is an empty one."""
    st.session_state.update({"round": st.session_state.get("round", 0) + 1, "shown": None})


def _clicked() -> None:
    """Show the picture whose row was clicked."""
    if rows := st.session_state["table"].selection.rows:
        st.session_state["shown"] = rows[0]


def _looked_at(predictor: Predictor, uploads: Sequence[Upload]) -> tuple[list[Case], list[Upload], list[str]]:
    """Return the cases of all uploads, of which upload each is, and which archives were cut short.

    Only new uploads are looked at. Those that were taken away are forgotten.
    """
    before: dict[str, tuple[list[Case], list[str]]] = st.session_state.get("looked at", {})
    kept = {upload.key: before[upload.key] for upload in uploads if upload.key in before}
    st.session_state["looked at"] = kept
    for number, upload in enumerate(uploads, start=1):
        if upload.key in kept:
            continue
        with st.spinner(f"Looking at file {number} of {len(uploads)}"), as_inputs(upload) as sources:
            cases = [answered(predictor, source) for source in sources[:MAX_IMAGES]]
        cut = (
            f"{upload.name}: of its {len(sources):,} images the first {MAX_IMAGES} are shown. For the others use "
            "`mammolens predict` on the command line."
        )
        kept[upload.key] = cases, [cut] if len(sources) > MAX_IMAGES else []
    found = [(case, upload) for upload in uploads for case in kept[upload.key][0]][:MAX_IMAGES]
    told = [text for _, cut in kept.values() for text in cut]
    return [case for case, _ in found], [upload for _, upload in found], told


def _complain(cases: Sequence[Case], refused: Sequence[str]) -> None:
    """Say what got no answer and why; the table has those that do not fit here."""
    errors = [case.answer.error for case in cases if case.answer.error is not None]
    said = [_literal(text) for text in (*refused, *errors)]
    if len(said) > _MOST_COMPLAINTS:
        said[_MOST_COMPLAINTS:] = [f"And {len(said) - _MOST_COMPLAINTS} more: see the table."]
    if said:
        st.error("\n\n".join(said))


def _number_of_shown(cases: Sequence[Case]) -> int:
    """Return which case is shown: the first with an answer until another is chosen."""
    numbers = range(len(cases))
    if st.session_state.get("shown") not in numbers:
        st.session_state["shown"] = next((n for n in numbers if not cases[n].answer.error), 0)
    if len(cases) == 1:
        return 0
    return st.selectbox("Picture shown", numbers, key="shown", format_func=lambda n: entry(n, cases[n]))


def _meaning(case: Case, record: BundleRecord, point: str) -> None:
    """Show how good the operating point is, and what the answer means at other prevalences."""
    st.html(blocks.figures_of(record, point))
    if case.answer.probability is None or record.training_data is None:
        return
    st.html(blocks.heading("Where tumors are rarer"))
    place = st.container()
    expected = st.select_slider(
        "Share with a tumor among those examined",
        _PREVALENCES,
        value=SCREENING_PREVALENCE,
        format_func=share,
        key="prevalence",
    )
    place.html(blocks.prevalences(case, record, expected, SCREENING_PREVALENCE))


@st.fragment
def _pictures(number: int, cases: Sequence[Case], uploads: Sequence[Upload]) -> None:
    """Show the chosen picture as its exam hangs; reruns alone when a reader zooms in beyond what the browser has."""
    keys = [f"{upload.key} {case.name}" for upload, case in zip(uploads, cases, strict=True)]
    shelf = st.session_state.setdefault("shelf", Shelf())
    shelf.keep_only(keys)

    def want() -> None:
        wanted = st.session_state["viewer"].wanted
        if keys[wanted] not in shelf.wholes:
            shelf.put_whole(keys[wanted], _whole(cases[wanted], uploads[wanted]))

    hanging = hung(cases[number], cases)
    rows = hanging if sum(one is not None for row in hanging for one in row) > 1 else [(cases[number],)]
    told = viewer(cases, rows, number, keys=keys, shelf=shelf, on_chosen=_chose, on_wanted=want)
    if told.chosen is not None:
        st.rerun()
    maps = [one.answer.score_map for row in rows for one in row if one and one.answer.score_map is not None]
    if maps:
        st.caption(caption(maps))


def _chose() -> None:
    """Show the picture that was clicked."""
    st.session_state["shown"] = st.session_state["viewer"].chosen


def _whole(case: Case, upload: Upload) -> bytes:
    """Return every pixel of a picture, packed for the browser; nothing where it cannot be read any more."""
    with as_inputs(upload) as sources:
        source = next((one for one in sources if str(one.name) == case.name), None)
        try:
            return packed(whole(source, inverted=case.inverted)) if source else b""
        except ImageError:
            return b""


def _downloads(cases: Sequence[Case], number: int, record: BundleRecord) -> None:
    report, answers = "Report of this picture (HTML, prints on A4)", "All answers (CSV)"
    for label, content, name, kind in (
        (report, lambda: case_report(cases[number], record), f"mammolens-report-{number + 1}.html", "text/html"),
        (answers if len(cases) > 1 else "The answer (CSV)", lambda: _csv(cases), "mammolens-answers.csv", "text/csv"),
    ):
        st.download_button(label, content, name, kind, on_click="ignore", width="stretch")


def _csv(cases: Sequence[Case]) -> bytes:
    """Return what `mammolens predict --out answers.csv` would have written."""
    with tempfile.TemporaryDirectory(prefix="mammolens-") as folder:
        path = Path(folder) / "answers.csv"
        write_answers((case.answer for case in cases), path)
        return path.read_bytes()


def _literal(text: str) -> str:
    """Return text from outside with everything that Streamlit's Markdown would read as markup."""
    return "".join(f"\\{one}" if one in r"\`*_{}[]()<>#+-.!|~:$" else one for one in text)


if __name__ == "__main__":
    page(sys.argv[1] if len(sys.argv) > 1 else None)
