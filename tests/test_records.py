"""A warning is a value, and its text is its sentence."""

import pickle

from mammolens.records import ImageWarning


def test_a_warning_is_its_sentence() -> None:
    assert "; ".join([ImageWarning.COLOUR, ImageWarning.SMALL.about(48, 40)]) == (
        "colour image: turned to grey; only 48 x 40 pixels: less than the network looks at"
    )


def test_a_warning_with_details_still_tells_which_it_is_in_another_process() -> None:
    said = pickle.loads(pickle.dumps((ImageWarning.FAINT, ImageWarning.DEEP.about(16, 8))))  # noqa: S301
    assert [warning.kind for warning in said] == [ImageWarning.FAINT, ImageWarning.DEEP]
    assert said[1] == "16 bits a pixel where the header has room for 8"
