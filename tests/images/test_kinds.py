from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammolens.errors import ImageError
from mammolens.images.kinds import FOREIGN, foreign_kind, is_picture
from mammolens.images.reading import read_image


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.name)
def test_each_kind_is_called_by_its_name_with_a_remedy(tmp_path: Path, kind: object) -> None:
    for place, signature in kind.signatures:  # type: ignore[attr-defined]
        start = bytes(place) + signature + bytes(600)
        assert foreign_kind(start) is kind
        assert not is_picture(start)
        for name in ("a", "a.png", "a.xyz"):
            (tmp_path / name).write_bytes(start)
            with pytest.raises(ImageError, match=f"{name}: is an? .*, which is not read here. "):
                read_image(tmp_path / name)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "PPM", "BMP", "WEBP"])
def test_what_is_read_is_of_no_foreign_kind(tmp_path: Path, form: str) -> None:
    path = tmp_path / "image"
    Image.fromarray(np.full((32, 24), 100, np.uint8)).save(path, form)
    start = path.read_bytes()[:512]
    assert foreign_kind(start) is None
    assert is_picture(start)


@pytest.mark.parametrize("text", [b"", b"P", b"P5", b"BM", b"PATH,label", b"P1 is a name", b"RIFF"])
def test_text_is_neither(text: bytes) -> None:
    assert foreign_kind(text) is None
    assert not is_picture(text)
