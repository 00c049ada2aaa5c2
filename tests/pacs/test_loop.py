"""The loop closed: images out of a PACS, results back into it, whatever is killed meanwhile."""

from pathlib import Path
from typing import Any

import pytest
from loop import four_views, hospital, stow_peer, until
from outages import campaign
from pydicom import Dataset
from pydicom.uid import MammographyCADSRStorage
from studies import findings, named, percent, value

from mammolens.levels import ServedLevel
from mammolens.serving.predictor import Predictor


def reports_of(archive: Any, study: str) -> list[Dataset]:
    """The CAD reports of a study, found by QIDO and fetched by WADO."""
    found = archive.web.search_for_instances(study, search_filters={"SOPClassUID": MammographyCADSRStorage})
    return [
        archive.web.retrieve_instance(study, one.SeriesInstanceUID, one.SOPInstanceUID)
        for one in map(Dataset.from_json, found)
    ]


def test_a_study_comes_out_of_the_archive_and_its_results_go_back(tmp_path: Path) -> None:
    study, files = four_views(tmp_path / "pictures", 1)
    (exam,) = Predictor.load("phantom").predict(files, level=ServedLevel.EXAM)
    with hospital(tmp_path / "hospital") as (archive, listener):
        archive.take(files)
        assert archive.pass_on(study)
        (report,) = until(lambda: reports_of(archive, study), "a report")
        assert (report.PatientID, report.StudyInstanceUID) == ("P-1", study)
        said = {picture: value(named(one, "Probability of cancer")[0]) for picture, one in findings(report).items()}
        assert said == {f"{study}.{place + 1}.1": percent(view.probability) for place, view in enumerate(exam.views)}
        found = archive.results()[study]
        assert (found["CAD report"], found["capture"]) == (1, 4)

        assert archive.pass_on(study)  # once more: no new work
        other, again = four_views(tmp_path / "pictures", 2)
        archive.take(again)
        assert archive.pass_on(other)
        until(lambda: reports_of(archive, other), "a report of the next study")
        assert archive.results()[study] == found
        assert listener.stop() == 0
        assert not listener.names_somebody()


def test_a_late_picture_is_answered_anew_with_the_others(tmp_path: Path) -> None:
    study, files = four_views(tmp_path / "pictures", 1)
    with hospital(tmp_path / "hospital", stow_peer) as (archive, listener):
        archive.take(files[:3])
        assert archive.pass_on(study)
        until(lambda: reports_of(archive, study), "a report")
        archive.take(files[3:])
        assert archive.pass_on(study)
        reports = until(lambda: (found := reports_of(archive, study))[1:] and found, "two reports")
        assert sorted(len(findings(one)) for one in reports) == [3, 4]
        until(lambda: archive.results()[study]["capture"] == 4, "the fourth capture, and no other anew")
        assert not listener.names_somebody()


@pytest.mark.parametrize("how", [(4, 1, 1)])
def test_kills_and_outages_lose_nothing_and_double_nothing(how: tuple[int, int, int], tmp_path: Path) -> None:
    assert campaign(tmp_path / "hospital", *how)["CAD report"] == 4
