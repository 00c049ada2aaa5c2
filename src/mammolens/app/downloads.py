"""What one may keep: the report of an examination, that of a picture, and all answers. Made when it is asked for."""

from collections.abc import Callable, Sequence
from threading import Thread

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from mammolens.app.cases import Examination, case_report
from mammolens.app.looked import held
from mammolens.files import scratch
from mammolens.model.bundle import BundleRecord
from mammolens.reports.answers import write_answers
from mammolens.reports.case import Case
from mammolens.serving.exam_reports import examination_report


def downloads(cases: Sequence[Case], mine: Examination, number: int, record: BundleRecord) -> None:
    """Offer the report of the examination, where it has several pictures; that of the picture; all answers."""
    unread = sum(case.answer.error is not None for case in cases)

    def of_examination() -> str:
        return examination_report(mine.answer, held(cases), record, unread=unread)

    offered: list[tuple[str, Callable[[], str | bytes], str, str]] = [
        (
            "Report of this picture",
            lambda: case_report(held(cases)[number], record),
            f"report-{number + 1}.html",
            "text/html",
        ),
        ("All answers" if len(cases) > 1 else "The answer", lambda: csv_of(held(cases)), "answers.csv", "text/csv"),
    ]
    if len(mine.numbers) > 1:
        name = f"examination-{mine.numbers[0] + 1}.html"
        offered.insert(0, ("Report of this examination", of_examination, name, "text/html"))
    for label, content, name, kind in offered:
        form = "CSV" if kind == "text/csv" else "HTML, prints on A4"
        called = f"mammolens-{name}"
        made = _kept(content, called, kind)
        st.download_button(f"{label} ({form})", made, called, kind, on_click="ignore", width="stretch")


def _kept(content: Callable[[], str | bytes], name: str, kind: str) -> Callable[[], bytes]:
    """Return what makes a download, and says that this session has it: Streamlit throws away what none has."""
    session = get_script_run_ctx()

    def made() -> bytes:
        made = content()
        data = made.encode() if isinstance(made, str) else made
        add = runtime.get_instance().media_file_mgr.add
        mine = Thread(target=add, args=(data, kind, f"kept {name}", name, True))
        add_script_run_ctx(mine, session).start()
        mine.join()
        return data

    return made


def csv_of(cases: Sequence[Case]) -> bytes:
    """Return what `mammolens predict --out answers.csv` would have written."""
    with scratch() as folder:
        path = folder / "answers.csv"
        write_answers((case.answer for case in cases), path)
        return path.read_bytes()
