from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mammolens.data.manifest import Manifest
from mammolens.data.prepared import PreparedSet
from mammolens.errors import DataError
from mammolens.images.cache import prepared_pixels
from mammolens.images.preprocess import Preprocess
from mammolens.records import Split

SETTINGS = Preprocess.plain().model_copy(update={"height": 16, "width": 16})


@pytest.fixture
def prepared(phantom_manifest: Manifest) -> PreparedSet:
    return PreparedSet.of(phantom_manifest, SETTINGS)


def shown(data: PreparedSet) -> np.ndarray:
    return data.pixels.take(range(len(data)))


def test_every_image_has_its_own_pixels_in_every_split(prepared: PreparedSet, phantom_manifest: Manifest) -> None:
    assert prepared.manifest == phantom_manifest
    assert not prepared.left_out
    for split in Split:
        part = prepared.of_split(split)
        assert part.manifest == phantom_manifest.of_split(split)
        assert len(part) == len(part.manifest) > 0
        np.testing.assert_array_equal(shown(part), shown(PreparedSet.of(part.manifest, SETTINGS)))


def test_what_cannot_be_read_is_left_out_and_named(phantom_manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    first, second, *others = phantom_manifest.mammograms
    data = PreparedSet.of(Manifest((first, replace(second, path=tmp_path / "broken.png"), *others[:4])), SETTINGS)
    assert data.manifest.mammograms == (first, *others[:4])
    assert list(data.left_out) == [str(tmp_path / "broken.png")]
    np.testing.assert_array_equal(shown(data), prepared_pixels(data.manifest.paths, SETTINGS).take(range(5)))
    assert data.of_split(Split.TEST).left_out == data.left_out
    with pytest.raises(DataError, match=r"broken\.png: .* It could be read when this began"):
        PreparedSet.whole(Manifest((first, replace(second, path=tmp_path / "broken.png"))), SETTINGS)


def test_other_splits_of_the_same_images_keep_the_pixels(prepared: PreparedSet) -> None:
    few = prepared.subset([3, 1, 4])
    dealt = Manifest(tuple(replace(m, split=Split.VALID) for m in reversed(prepared.manifest.mammograms)))
    again = few.described_by(dealt)
    assert again.manifest.paths == [prepared.manifest.paths[index] for index in (4, 3, 1)]
    assert len(again.of_split(Split.VALID)) == 3
    np.testing.assert_array_equal(shown(again), prepared.pixels.take([4, 3, 1]))


def test_where_no_image_can_be_read_the_reason_of_one_is_told(phantom_manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Manifest((replace(phantom_manifest.mammograms[0], path=tmp_path / "broken.png"),))
    with pytest.raises(DataError, match=r"none of 1 images can be read. The first: .*broken\.png: "):
        PreparedSet.of(broken, SETTINGS)
