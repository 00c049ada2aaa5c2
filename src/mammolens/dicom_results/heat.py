"""The map of where the network looked: as a Segmentation that lies on the picture, and drawn, as a Secondary Capture.

A Segmentation, not a Parametric Map: OHIF lays a binary one over its picture, but shows no fractional one, and few
viewers show a map. Each segment is a band of the map, and no two overlap.
"""

import highdicom
import numpy as np
from highdicom.sc import SCImage
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.sr.codedict import codes

from mammolens.dicom_results.maker import Maker
from mammolens.images.breast import Pixels
from mammolens.images.dicom.header import number, spacing_of
from mammolens.records import Prediction
from mammolens.serving.overlay import FAINTEST, LOOKED, captioned, heat

BANDS = (FAINTEST, 0.5, 0.8)
"""Values of the map at which segments begin; each ends where the next begins, the last at 1."""

_TAKEN_OVER = (
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Of a picture, what holds for what is made of it, too (PS3.3 C.7.6.1): nothing that is drawn names the patient."""

_SEGMENTATION, _CAPTURE = 9702, 9703  # numbers of series


def peak_of(score_map: Pixels, shape: tuple[int, int]) -> tuple[float, float]:
    """Return where a map is largest, as (column, row) in a picture of `shape`, (height, width).

    As PS3.3 C.18.6.1.1 counts: (0, 0) is the upper left corner of the first pixel, and (0.5, 0.5) its centre.
    """
    row, column = np.unravel_index(int(score_map.argmax()), score_map.shape)
    (height, width), (rows, columns) = shape, score_map.shape
    return (int(column) + 0.5) * width / columns, (int(row) + 0.5) * height / rows


def segmentation(header: Dataset, answer: Prediction, score_map: Pixels, maker: Maker) -> Segmentation | None:
    """Return the bands of a map as segments of its picture; None where nothing stands out.

    Args:
        header: of the picture.
        answer: for it.
        score_map: of the whole picture, as coarse as it may be.
        maker: of the map.
    """
    picture = Pillow.fromarray(np.ascontiguousarray(score_map, dtype=np.float32))
    full = np.asarray(picture.resize((header.Columns, header.Rows), Pillow.Resampling.BILINEAR))
    bands = [
        (low, high) for low, high in zip(BANDS, (*BANDS[1:], np.inf), strict=True) if _inside(full, low, high).any()
    ]
    if not bands:
        return None
    made = Segmentation(
        source_images=[header],
        pixel_array=np.stack([_inside(full, *band) for band in bands], axis=-1)[np.newaxis],
        segmentation_type="BINARY",
        segment_descriptions=[_described(number, band, maker) for number, band in enumerate(bands, start=1)],
        content_label="HEAT",
        content_description=LOOKED,
        # Of several in a series, OHIF shows the last alone.
        **maker.identified(
            _kind("heat", answer.laterality, answer.view),
            _SEGMENTATION,
            header.StudyInstanceUID,
            *_told(header, answer),
            alone=True,
        ),
    )
    made.PatientOrientation = header.PatientOrientation
    _add_plane(made.SharedFunctionalGroupsSequence[0], header)
    dimensions = maker.uid("dimensions", made.SOPInstanceUID)
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    return made


def _add_plane(shared: Dataset, header: Dataset) -> None:
    """Say what OHIF shows no segmentation without, and goes black: measures and a plane.

    A mammogram has no plane in the patient: viewers take it for an upright one. Of its thickness nothing depends, but
    highdicom reads no measures without.
    """
    shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence("PATIENT", (1, 0, 0, 0, 1, 0))
    spacing, thickness = spacing_of(header), number(header, "BodyPartThickness", 0)
    measures = highdicom.PixelMeasuresSequence(spacing, thickness if thickness > 0 else 1) if spacing else [Dataset()]
    shared.PixelMeasuresSequence = measures


def _inside(full: Pixels, low: float, high: float) -> NDArray[np.bool_]:
    return (full >= low) & (full < high)


def _described(number: int, band: tuple[float, float], maker: Maker) -> SegmentDescription:
    low, high = band
    red, green, blue, _ = heat(np.full((1, 1), low, np.float32))[0, 0]
    return SegmentDescription(
        number,
        f"Map from {low} to {min(high, 1)}. Not a lesion outline",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=maker.algorithm(),
        display_color=highdicom.color.CIELabColor.from_rgb(int(red), int(green), int(blue)),
    )


def capture(header: Dataset, answer: Prediction, pixels: Pixels, score_map: Pixels, maker: Maker) -> SCImage:
    """Return a picture with its heat, the answer and what it is not drawn into it, in colour.

    Uncompressed, 3 MB that every viewer reads: JPEG 2000 not all do, and RLE takes pydicom longer than all the rest.

    Args:
        header: of the picture.
        answer: for it.
        pixels: float32 (height, width) in [0, 1].
        score_map: of the whole picture.
        maker: of the answer.
    """
    doubt = ", uncertain" if answer.uncertain else ""
    said = (
        f"{maker.name}: {answer.decision}{doubt}, probability {answer.probability}, threshold {answer.threshold:.6g}."
    )
    made = SCImage.from_ref_dataset(
        header,
        pixel_array=np.asarray(captioned(pixels, score_map, said)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("A", "F"),  # highdicom asks for one; what the picture says replaces it
        **maker.identified(
            _kind("capture", answer.laterality), _CAPTURE, header.StudyInstanceUID, *_told(header, answer)
        ),
    )
    made.copy_patient_and_study_information(header)  # of which highdicom takes over less by itself
    for keyword in _TAKEN_OVER:
        if keyword in header:
            made[keyword] = header[keyword]
    made.PatientOrientation = header.PatientOrientation
    made.ConversionType = "WSD"
    made.Laterality = answer.laterality or ""
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.DerivationDescription = LOOKED
    made.SourceImageSequence = [reference(header)]
    return made


def reference(header: Dataset) -> Dataset:
    """Return a reference to the picture."""
    one = Dataset()
    one.ReferencedSOPClassUID = header.SOPClassUID
    one.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return one


def _kind(name: str, *place: str | None) -> str:
    return " ".join(filter(None, (name, *place)))


def _told(header: Dataset, answer: Prediction) -> tuple[object, ...]:
    """Return all that is told of a picture: results that tell something else are others."""
    return (
        *(header.SOPInstanceUID, answer.laterality),
        *(answer.probability, answer.decision, answer.uncertain, answer.threshold),
    )
