"""The rooms of the page that need no page: names, hanging, pictures, limits, the report."""

import io
import re
import socket
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from mammolens.app.cases import answered, case_report, exam_of, hung, whole
from mammolens.app.server import serve
from mammolens.app.uploads import EXAMPLES, Upload, admitted, as_inputs, drawn, safe_name
from mammolens.app.viewer import LONGEST
from mammolens.data.identity import side_and_view
from mammolens.errors import MammolensError
from mammolens.hosting import MAX_IMAGES
from mammolens.images.image import Window
from mammolens.levels import Level
from mammolens.measures.intervals import Estimate
from mammolens.model.decisions import FIXED
from mammolens.records import Laterality, Prediction
from mammolens.reports.case import Case, blocks, interval, share
from mammolens.serving.overlay import LOOKED
from mammolens.serving.predictor import Predictor

LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("phantom")


def looked_at(predictor: Predictor, upload: Upload) -> Case:
    with as_inputs(upload) as (source,):
        return answered(predictor, source)


def case(name: str, patient: str | None = None, *, wall_right: bool | None = None) -> Case:
    side, view = side_and_view(name)
    told = Prediction(Path(name), 0.2, laterality=side, view=view, patient_id=patient)
    return Case(told, chest_wall_right=wall_right)


def test_views_hang_right_breast_left_and_cc_on_top() -> None:
    cases = [case(f"{one}.png") for one in ("L MLO", "R CC", "L CC", "R MLO")]
    rows = [[one.name if one else None for one in row] for row in hung(cases[0], cases)]
    assert rows == [["R CC.png", "L CC.png"], ["R MLO.png", "L MLO.png"]]


def test_two_views_of_one_breast_share_a_row() -> None:
    cases = [case("L MLO"), case("L CC"), case("L ML")]
    rows = [[one.name if one else None for one in row] for row in hung(cases[0], cases)]
    assert rows == [["L CC", "L MLO"], ["L ML", None]]


def test_a_missing_view_leaves_its_place_empty() -> None:
    cases = [case("R MLO"), case("L CC"), case("L MLO")]
    rows = [[one.name if one else None for one in row] for row in hung(cases[0], cases)]
    assert rows == [[None, "L CC"], ["R MLO", "L MLO"]]


def test_patients_never_hang_together() -> None:
    cases = [case("L CC 1", "A"), case("R CC 1", "B"), case("R MLO 1", "A"), case("R CC 2")]
    assert [one.name for one in exam_of(cases[0], cases)] == ["L CC 1", "R MLO 1"]
    names = [f"{patient}_{place}.png" for patient in ("ann", "eve") for place in ("L_CC", "R_CC")]
    unnamed = [case(name) for name in names]
    assert [one.name for one in exam_of(unnamed[3], unnamed)] == names[2:]
    nowhere = case("x.png")
    assert exam_of(nowhere, [*unnamed, nowhere]) == [nowhere]


def test_a_picture_is_mirrored_only_to_bring_its_chest_wall_to_the_middle() -> None:
    assert not case("R CC", wall_right=True).hangs_mirrored
    assert not case("L CC", wall_right=False).hangs_mirrored
    assert case("R CC", wall_right=False).hangs_mirrored
    assert case("L CC", wall_right=True).hangs_mirrored
    assert not case("L CC").hangs_mirrored
    assert not case("x", wall_right=True).hangs_mirrored


def test_uploads_are_named_as_their_owner_names_them_and_deleted_at_once() -> None:
    with as_inputs(Upload("1", "C:\\patients\\DOE JANE.png", b"x")) as (one,):
        assert one.name == Path("DOE JANE.png")
        assert "DOE" not in str(one.file)
        folder = one.file.parent
        assert folder.is_dir()
    assert not folder.exists()
    assert safe_name("../../etc/passwd") == "passwd"
    assert safe_name("") == "unnamed"


def test_what_is_too_much_is_refused_and_named() -> None:
    many = [Upload(str(n), f"{n}.png", b"x") for n in range(MAX_IMAGES + 2)]
    taken, refused = admitted(many)
    assert len(taken) == MAX_IMAGES
    assert [text.split(":")[0] for text in refused] == ["100.png", "101.png"]


def test_two_archives_of_one_name_may_be_of_two_patients() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("L_CC.png", b"x")
    visits = [Upload(str(n), "visit.zip", file.getvalue()) for n in range(2)]
    taken, refused = admitted([*visits, Upload("2", "a.png", b"x"), Upload("3", "a.png", b"x")])
    assert [one.key for one in taken] == ["0", "2", "3"]
    assert [text.split(",")[0] for text in refused] == ["visit.zip: not looked at"]


def test_a_bug_with_one_file_becomes_its_error(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ValueError("Patient DOE^JANE")

    monkeypatch.setattr("mammolens.images.archives.read_image", stumble)
    seen = looked_at(predictor, Upload("1", "x.png", b"x"))
    assert seen.answer.error == "x.png: could not be looked at (ValueError). Export it anew."
    assert "No answer" in case_report(seen, predictor.bundle.record)


def test_shares_have_the_digits_they_need() -> None:
    assert [share(value) for value in (0.005, 0.197, 0.05, 0.0002, 1, 0)] == [
        "0.5 %",
        "19.7 %",
        "5 %",
        "0.02 %",
        "100 %",
        "0 %",
    ]
    assert interval(Estimate(0.9, 0.735, 1.0)) == "90.0 % (73.5 to 100.0)"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MammolensError, match=f"localhost:{port}: the page cannot be served"):
            serve(None, port, "localhost")


def test_examples_are_what_they_say(predictor: Predictor) -> None:
    for example in EXAMPLES:
        for upload in drawn(example):
            seen = looked_at(predictor, upload)
            assert seen.answer.error is None
            assert seen.place is not None
            assert seen.answer.by_name
            assert seen.name.startswith("synthetic-")
            assert not seen.hangs_mirrored, "phantoms hang as they are drawn"


def test_large_pictures_are_kept_small_and_read_again_whole(predictor: Predictor) -> None:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 1500), np.uint8)
    Image.fromarray(pixels).save(file, format="PNG")
    upload = Upload("1", "large.png", file.getvalue())
    seen = looked_at(predictor, upload)
    assert seen.picture is not None
    assert seen.picture.shape == (LONGEST, LONGEST // 2)
    assert seen.shape == (3000, 1500)
    assert "1500 × 3000 pixels" in seen.facts
    with as_inputs(upload) as (source,):
        np.testing.assert_array_equal(whole(source, inverted=False), pixels * np.uint16(257))


def test_pictures_are_upright_and_windowed_by_the_breast(predictor: Predictor) -> None:
    plain, inverted = (looked_at(predictor, drawn(EXAMPLES[number])[0]) for number in (0, 3))
    assert (plain.inverted, inverted.inverted) == (False, True)
    for seen in (plain, inverted):
        assert seen.picture is not None
        corners = seen.picture[[0, -1], -1]
        assert corners.max() < 0.2 * 65535, "background is black"
        low, high, _ = seen.windows["tissue"]
        assert 0 <= low < high <= 1
        assert seen.windows["file"] == Window(0, 1)
        assert seen.windows["full"][0] == pytest.approx(float(seen.picture.min()) / 65535, abs=1e-4)
        assert seen.windows["full"][1] == pytest.approx(float(seen.picture.max()) / 65535, abs=1e-4)


def test_the_report_is_one_page_without_scripts_or_links(predictor: Predictor) -> None:
    example = drawn(EXAMPLES[0])[0]
    seen = looked_at(predictor, replace(example, name="<b>DOE L CC.png"))
    text = case_report(seen, predictor.bundle.record)
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!data:|#terms)', text)
    assert "<b>DOE" not in text
    assert "&lt;b&gt;DOE" in text
    assert text.count(blocks.disclaimer()) == 2
    assert text.count("<img ") == 2, "as read, and with the heatmap"
    assert f"{seen.answer.probability:.4f}" in text
    for wanted in ("drawn, synthetic mammograms only", LOOKED, "Sensitivity", "Screening", "SHA-256", "@page"):
        assert wanted in text
    assert len(text) < 1_000_000


def test_the_report_claims_of_a_model_what_is_recorded(predictor: Predictor) -> None:
    seen = looked_at(predictor, drawn(EXAMPLES[0])[0])
    record = predictor.bundle.record
    assert record.training_data is not None
    data = record.training_data.model_copy(update={"calibration_only": True})
    text = case_report(seen, record.model_copy(update={"training_data": data}))
    assert "This model learnt from" not in text
    assert "calibrated on drawn, synthetic mammograms only" in text
    assert "The threshold was chosen on them" in blocks.figures_of(record, "balanced")
    points = {Level.IMAGE: {FIXED: record.operating_points[Level.IMAGE]["balanced"]}}
    given = record.model_copy(update={"operating_points": points})
    assert "was given, not chosen" in blocks.figures_of(given, FIXED)


def test_the_report_of_a_failure_says_why(predictor: Predictor) -> None:
    seen = looked_at(predictor, Upload("1", "note.png", b"no picture"))
    text = case_report(seen, predictor.bundle.record)
    assert "No answer" in text
    assert "note.png" in text
    assert "<img " not in text
