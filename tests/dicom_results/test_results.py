"""Results of examinations as DICOM, read back by pydicom and highdicom, and looked at by other people's validators."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from studies import (
    NAME,
    PATIENT,
    STUDY,
    Made,
    center_of,
    errors,
    examination,
    findings,
    installed,
    items,
    made_of,
    mammogram,
    named,
    percent,
    save,
    stored,
    value,
    without_dates,
)

from conftest import Typed
from mammolens.dicom_results.heat import BANDS
from mammolens.dicom_results.results import Results
from mammolens.records import Laterality, Prediction
from mammolens.serving.predictor import Predictor


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor.load("phantom")


@pytest.fixture(scope="session")
def made(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("examined")
    return made_of(predictor, examination(folder / "pictures"), folder / "results")


def source_of(view: Prediction) -> Dataset:
    return dcmread(view.path)


def test_the_report_has_the_numbers_of_the_answers(made: Made) -> None:
    (summary,) = named(made.report, "CAD Processing and Findings Summary")
    numbers = [one for one in summary.ContentSequence if one.ValueType == "NUM"]
    told = {value(named(one, "Laterality")[0]): value(one) for one in numbers}
    left, right = (made.exam.breast(side) for side in Laterality)
    assert left is not None
    assert right is not None
    assert told == {
        "Both breasts": percent(made.exam.probability),
        "Left breast": percent(left.probability),
        "Right breast": percent(right.probability),
    }
    found = findings(made.report)
    assert len(found) == len(made.exam.views) == 4
    for view in made.exam.views:
        finding = found[source_of(view).SOPInstanceUID]
        assert value(named(finding, "Probability of cancer")[0]) == percent(view.probability)
        parameters = [value(one) for one in named(finding, "Algorithm Parameters")]
        assert f"operating point: {view.operating_point}" in parameters
        assert f"threshold: {view.threshold!r}" in parameters
        shown = value(named(finding, "Rendering Intent")[0]).startswith("Presentation Required")
        assert shown == (view.decision == "tumor")
    assert {view.decision for view in made.exam.views} == {"tumor", "no tumor"}


def test_a_finding_lies_where_the_map_is_largest(made: Made) -> None:
    for view in made.exam.views:
        source = source_of(view)
        column, row = named(findings(made.report)[source.SOPInstanceUID], "Center")[0].GraphicData
        assert view.score_map is not None
        rows, columns = view.score_map.shape
        place = int(row * rows / source.Rows), int(column * columns / source.Columns)
        assert view.score_map[place] == view.score_map.max()


def test_a_segmentation_has_the_bands_of_the_map_and_no_two_overlap(made: Made) -> None:
    views = {source_of(view).SOPInstanceUID: view for view in made.exam.views}
    warm = {uid for uid, view in views.items() if view.score_map is not None and view.score_map.max() >= BANDS[0]}
    seen = set()
    for file in made.of(SegmentationStorage):
        one = highdicom.seg.Segmentation.from_dataset(file)
        (uid,) = {uid for *_, uid in one.get_source_image_uids()}
        seen.add(uid)
        view, source = views[uid], source_of(views[uid])
        assert view.score_map is not None
        full = Pillow.fromarray(view.score_map).resize((source.Columns, source.Rows), Pillow.Resampling.BILINEAR)
        band = np.digitize(np.asarray(full), BANDS)
        frames = one.get_pixels_by_source_instance([uid])[0]
        labels = [
            int(BANDS.index(float(one.get_segment_description(k + 1).segment_label.split()[2])))
            for k in range(len(one.SegmentSequence))
        ]
        np.testing.assert_array_equal(sum(frames[..., k] * (label + 1) for k, label in enumerate(labels)), band)
        assert frames.sum(axis=-1).max() == 1
    assert seen == warm
    assert 0 < len(warm) < 4


def test_each_segmentation_has_a_series_which_says_of_what(made: Made) -> None:
    series = {one.SeriesInstanceUID: one.SeriesDescription for one in made.of(SegmentationStorage)}
    assert sorted(series.values()) == [f"mammolens heat R {view}. For research use only" for view in ("CC", "MLO")]
    captures = {(one.SeriesInstanceUID, one.SeriesDescription) for one in made.of(SecondaryCaptureImageStorage)}
    assert sorted(said for _, said in captures) == [f"mammolens capture {side}. For research use only" for side in "LR"]


@pytest.mark.parametrize(("told", "said"), [({"BodyPartThickness": 52}, 52), ({"BodyPartThickness": 0}, 1), ({}, 1)])
def test_a_segmentation_has_the_measures_of_its_picture(
    told: dict[str, Any], said: int, predictor: Predictor, tmp_path: Path
) -> None:
    one = mammogram(stored(0, Laterality.RIGHT), ImagerPixelSpacing=[0.07, 0.08], **told)
    (made,) = made_of(predictor, one, tmp_path).of(SegmentationStorage)
    (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (measures.PixelSpacing, measures.SliceThickness) == ([0.07, 0.08], said)


def test_a_capture_shows_the_heat_in_colour(made: Made) -> None:
    captures = made.of(SecondaryCaptureImageStorage)
    assert {one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in captures} == set(findings(made.report))
    colours = [np.ptp(one.pixel_array.astype(int), axis=-1).max() for one in captures]
    assert max(colours) > 100


def test_results_lie_in_the_study_of_the_patient_in_series_of_their_own(made: Made) -> None:
    sources = {source_of(view).SeriesInstanceUID for view in made.exam.views}
    for one in made.files:
        assert one.StudyInstanceUID == STUDY
        assert (str(one.PatientName), one.PatientID) == (NAME, PATIENT)
        assert (one.PatientBirthDate, one.PatientSex, one.AccessionNumber) == ("19600203", "F", "A1")
        assert one.SeriesInstanceUID not in sources
        assert "For research use only" in one.SeriesDescription
    evidence = made.report.CurrentRequestedProcedureEvidenceSequence
    referred = {
        uid.ReferencedSOPInstanceUID
        for one in evidence
        for series in one.ReferencedSeriesSequence
        for uid in series.ReferencedSOPSequence
    }
    assert referred == set(findings(made.report))
    (said,) = [value(one) for one in named(made.report, "Impression Description")]
    assert said.startswith("FOR RESEARCH USE ONLY")


def test_doing_it_twice_gives_the_same_objects(made: Made, predictor: Predictor, tmp_path: Path) -> None:
    again = made_of(predictor, [view.path for view in made.exam.views][::-1], tmp_path)
    assert {path.name for path in again.results.written} >= {
        path.name for path in made.results.written if not path.name.startswith("CAD")
    }
    same = made_of(predictor, [view.path for view in made.exam.views], tmp_path / "same")
    for first, second in zip(made.files, same.files, strict=True):
        assert without_dates(first) == without_dates(second)


def test_a_picture_that_is_given_twice_has_its_results_once(made: Made, predictor: Predictor, tmp_path: Path) -> None:
    picture = made.exam.views[0].path
    results = made_of(predictor, [picture, picture], tmp_path).results
    assert results.written == {path: path.stat().st_size for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "change", [{"laterality": Laterality.LEFT}, {"threshold": 0.123}, {"uncertain": True}, {"decision": "no tumor"}]
)
def test_what_tells_something_else_is_another_object(
    change: dict[str, Any], predictor: Predictor, tmp_path: Path
) -> None:
    names = []
    for told in ({}, change):
        results = Results.begin(tmp_path / str(len(told)), predictor)
        one = mammogram(stored(0, Laterality.RIGHT), Laterality.RIGHT)
        (answer,) = predictor.predict(one)
        results.add(replace(answer, **told), one)
        results.finish()
        names.append({path.name for path in results.written})
    assert [len(one) for one in names] == [3, 3]
    assert not names[0] & names[1]


@pytest.mark.parametrize("said", ["YES", "NO", None])
def test_a_capture_says_of_names_in_its_picture_what_that_says(
    said: str | None, predictor: Predictor, tmp_path: Path
) -> None:
    made = made_of(predictor, mammogram(stored(0, Laterality.RIGHT), BurnedInAnnotation=said), tmp_path)
    (capture,) = made.of(SecondaryCaptureImageStorage)
    assert capture.get("BurnedInAnnotation") == said


@pytest.mark.parametrize(
    "more", [{}, {"LossyImageCompressionRatio": 12.5, "LossyImageCompressionMethod": "ISO_10918_1"}]
)
def test_pictures_of_what_was_compressed_with_losses_say_so(
    more: dict[str, Any], predictor: Predictor, tmp_path: Path
) -> None:
    one = mammogram(stored(0, Laterality.RIGHT), LossyImageCompression="01", **more)
    made = made_of(predictor, one, tmp_path)
    for kind in (SegmentationStorage, SecondaryCaptureImageStorage):
        (result,) = made.of(kind)
        assert {name: result.get(name) for name in more} == more
        assert result.LossyImageCompression == "01"


def test_all_results_of_a_copy_without_names_say_that_it_is_one(predictor: Predictor, tmp_path: Path) -> None:
    told: dict[str, Any] = {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "by hand", "PatientAge": "065Y"}
    made = made_of(predictor, mammogram(stored(0, Laterality.RIGHT), **told), tmp_path)
    assert [{name: one.get(name) for name in told} for one in made.files] == [told] * 3


def test_the_report_warns_of_what_pictures_are_together(predictor: Predictor, tmp_path: Path) -> None:
    raw: dict[str, Any] = {
        "SOPClassUID": DigitalMammographyXRayImageStorageForProcessing,
        "SOPInstanceUID": f"{STUDY}.9",
    }
    both = [mammogram(stored(0, Laterality.RIGHT), Laterality.RIGHT, **told) for told in ({}, raw)]
    report = made_of(predictor, both, tmp_path).report
    said = value(named(report, "Impression Description")[0])
    assert "Warning: more than one picture of R CC: all count" in said
    assert "Warning: standard views not found: L CC, L MLO, R MLO" in said


def test_others_find_nothing_wrong(made: Made) -> None:
    assert [error for path in made.results.written for error in errors(path)] == []


def test_dcmtk_reads_the_report(made: Made) -> None:
    (path,) = (path for path in made.results.written if path.name.startswith("CAD-report"))
    said = subprocess.run([installed("dsrdump", "dcmtk"), path], capture_output=True, text=True, check=True)
    assert not [line for line in said.stderr.splitlines() if line.startswith(("E:", "F:"))]
    assert f'"{percent(made.exam.probability)}" (%,UCUM,"Percent")' in said.stdout


def test_the_report_is_what_its_template_asks_for(made: Made) -> None:
    validator = Path("/usr/share/java/pixelmed.jar")
    if not validator.exists():
        pytest.skip("pixelmed is not installed (apt-get install libpixelmed-java)")
    (path,) = (path for path in made.results.written if path.name.startswith("CAD-report"))
    limits = [f"-Djdk.xml.xpath{one}Limit=0" for one in ("ExprOp", "TotalOp", "ExprGrp")]
    java: list[str | Path] = [installed("java", "default-jre-headless"), *limits, "-cp", validator]
    command = [*java, "com.pixelmed.validate.DicomSRValidator", path]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    told = said.stdout + said.stderr
    assert "Found Root Template TID_4000" in told
    assert "IOD validation complete" in told
    assert "Error" not in told


def test_results_are_no_mammograms(made: Made, predictor: Predictor) -> None:
    (capture, *_) = (path for path in made.results.written if path.name.startswith("capture"))
    (answer,) = predictor.answers([capture])
    assert answer.error == f"{capture}: is itself a result of mammolens. Give the mammogram that it is of."


def test_what_failed_or_is_no_mammogram_is_told(predictor: Predictor, tmp_path: Path) -> None:
    first, *others = examination(tmp_path / "pictures")
    first.write_bytes(first.read_bytes()[:-100_000])
    noise = np.random.default_rng(0).integers(0, 4096, (480, 480), np.uint16)
    save(mammogram(noise, view=1), others[0])
    made = made_of(predictor, [first, *others], tmp_path / "results")
    report = dcmread([*made.results.written][-1])
    assert [value(one) for one in named(report, "CAD Processing and Findings Summary")] == [
        "Not all algorithms succeeded; with findings"
    ]
    assert [value(one) for one in named(report, "Summary of Detections")] == ["Partially Succeeded"]
    (failed,) = named(report, "Failed Detections")
    assert len([one for one in items(failed) if "ReferencedContentItemIdentifier" in one]) == 2
    said = value(named(report, "Impression Description")[0])
    assert "not attempted: does not look like a mammogram" in said
    assert "failed: " in said
    assert str(tmp_path) not in said
    assert len(findings(report)) == 2
    assert [error for path in made.results.written for error in errors(path)] == []


def test_a_study_in_which_all_failed_gets_a_report(predictor: Predictor, tmp_path: Path) -> None:
    first, *_ = examination(tmp_path / "pictures")
    first.write_bytes(first.read_bytes()[:-100_000])
    made = made_of(predictor, first, tmp_path / "results")
    assert [value(one) for one in named(made.report, "CAD Processing and Findings Summary")] == [
        "No algorithms succeeded; without findings"
    ]
    assert errors(*made.results.written) == []


def test_monochrome1_and_pydicom_data_sets(predictor: Predictor, made: Made, tmp_path: Path) -> None:
    pixels = stored(0, Laterality.RIGHT)
    one = mammogram(4095 - pixels, Laterality.RIGHT, PhotometricInterpretation="MONOCHROME1")
    again = made_of(predictor, one, tmp_path)
    (before,) = (view for view in made.exam.views if view.laterality is Laterality.RIGHT and view.view == "CC")
    assert again.exam.probability == pytest.approx(before.probability, abs=1e-4)
    center = named(findings(again.report)[one.SOPInstanceUID], "Center")[0].GraphicData
    assert center == named(findings(made.report)[one.SOPInstanceUID], "Center")[0].GraphicData


def test_a_mirrored_picture_has_its_finding_at_the_mirrored_place(predictor: Predictor, tmp_path: Path) -> None:
    pixels = stored(0, Laterality.RIGHT)
    column, row = center_of(made_of(predictor, mammogram(pixels), tmp_path / "one"))
    mirrored, same = center_of(made_of(predictor, mammogram(np.ascontiguousarray(pixels[:, ::-1])), tmp_path / "other"))
    step = pixels.shape[1] / 256
    assert mirrored == pytest.approx(pixels.shape[1] - column, abs=1.5 * step)
    assert same == pytest.approx(row, abs=step)


@pytest.fixture(scope="session")
def accurate() -> Predictor:
    return Predictor.load("accurate")


def test_a_real_mammogram_of_full_size(accurate: Predictor, cesm_lesions: Path, tmp_path: Path) -> None:
    grey = Pillow.open(min(cesm_lesions.glob("P102_R_DM_*.jpg"))).convert("L")
    pixels = np.asarray(grey.resize((2560, 3328)), np.uint16) * 16
    one = mammogram(pixels, Laterality.RIGHT)
    made = made_of(accurate, save(one, tmp_path / "one.dcm"), tmp_path / "results")
    assert len(made.files) == 3
    assert made.exam.views[0].score_map is not None
    column, row = center_of(made)
    rows, columns = made.exam.views[0].score_map.shape
    assert (
        made.exam.views[0].score_map[int(row * rows / 3328), int(column * columns / 2560)]
        == made.exam.views[0].score_map.max()
    )
    assert [error for path in made.results.written for error in errors(path)] == []
    assert sum(path.stat().st_size for path in made.results.written) < pixels.nbytes / 2


def test_the_command_line_writes_results_and_names_nobody(mammolens: Typed, tmp_path: Path) -> None:
    examination(tmp_path / "pictures")
    Pillow.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "pictures" / "one.png")
    said = mammolens("predict", tmp_path / "pictures", "--model", "phantom", "--dicom", tmp_path / "results")
    assert said.code == 0
    assert f"DICOM results written to {tmp_path / 'results'}" in said.out
    assert "1 inputs are no DICOM" in said.err
    assert not [word for word in (PATIENT, *NAME.split("^")) if word in said.out + said.err]
    assert len(list((tmp_path / "results").glob("CAD-report-*.dcm"))) == 1
