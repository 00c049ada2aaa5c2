"""Decoding in a process of its own: the same pixels, or one clear error whatever goes wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGLSLossless
from test_dicom import gradient, mammogram, save_frame
from test_dicom_frames import FRAMES, JPEG_LS, height_after_scan, jpeg_2000_of, segments

from mammolens.images.dicom import pixels
from mammolens.images.dicom.pixels import decoded, decoded_apart

DEEP = gradient(12)
FRAME = jpeg_2000_of(DEEP)
OPTIONS: dict[str, Any] = {"rows": 40, "columns": 56, "samples_per_pixel": 1, "bits_allocated": 16}
OPTIONS |= {"bits_stored": 12, "pixel_representation": 0}
OPTIONS |= {"photometric_interpretation": "MONOCHROME2", "planar_configuration": 0}


def test_apart_is_as_here() -> None:
    for decode in (decoded, decoded_apart):
        np.testing.assert_array_equal(decode(FRAME, JPEG2000, OPTIONS), DEEP)


def test_what_goes_wrong_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Unable to decode"):
        decoded_apart(b"\xff\xd8\xff" * 9, JPEG2000, OPTIONS)
    monkeypatch.setattr(pixels, "MEMORY", 2**20)
    with pytest.raises(ValueError, match=r"broke off|[Mm]emory|failed to map"):
        decoded_apart(FRAME, JPEG2000, OPTIONS)
    monkeypatch.setattr(pixels, "SECONDS", 0.01)
    with pytest.raises(ValueError, match="takes too long"):
        decoded_apart(FRAME, JPEG2000, OPTIONS)


def test_a_decoder_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder at hand takes a height of 0 in JPEG-LS for very many rows."""
    place = next(each for each in segments(JPEG_LS) if JPEG_LS[each + 1] == 0xF7)
    endless = JPEG_LS[: place + 5] + b"\0\0" + JPEG_LS[place + 7 :]
    monkeypatch.setattr(pixels, "SECONDS", 1)
    with pytest.raises(ValueError, match=r"takes too long|broke off"):
        decoded_apart(endless, JPEGLSLossless, OPTIONS)


def test_a_plain_script_needs_no_guard(tmp_path: Path) -> None:
    stored, bits, frame = FRAMES[JPEGBaseline8Bit]
    path = tmp_path / "image.dcm"
    save_frame(path, mammogram(stored, bits), JPEGBaseline8Bit, height_after_scan(frame))
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom mammolens.images.reading import read_image\n"
        f"print(read_image(Path({str(path)!r})).pixels.shape)\n"
    )
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the folder is imported')")
    command = [sys.executable, "-P", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(40, 56)\n", "")
