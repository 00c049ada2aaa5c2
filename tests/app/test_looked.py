"""What a session looked at: as much as the page takes, once, and anew where it was let go."""

import io
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from mammolens.app.looked import Looked, held
from mammolens.app.uploads import Upload
from mammolens.images.archives import Input
from mammolens.records import Prediction
from mammolens.reports.case import Case


class Reader:
    """Answers for images, and counts them; breaks off where it is told to."""

    def __init__(self) -> None:
        self.read = 0
        self.breaks_at: int | None = None

    def __call__(self, source: Input) -> Case:
        if self.read == self.breaks_at:
            self.breaks_at = None
            raise InterruptedError
        self.read += 1
        return Case(Prediction.failure(Path(source.name), "x"))


def archive(name: str, images: int) -> Upload:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number in range(images):
            packed.writestr(f"{number:03}.png", "x")
    return Upload(name, name, file.getvalue())


def looks(looked: Looked, reader: Reader, *uploads: Upload) -> list[str]:
    return looked.look(uploads, reader, lambda _: nullcontext())


def test_of_several_archives_no_more_is_looked_at_than_is_shown_and_the_rest_is_named() -> None:
    looked, reader = Looked(), Reader()
    uploads = [archive("a.zip", 60), archive("b.zip", 60), archive("c.zip", 60)]
    assert looks(looked, reader, *uploads) == [
        "b.zip: of its 60 images the first 40 are shown. For the others use `mammolens predict` on the command line.",
        "c.zip: not looked at, because the page takes 100 images at a time.",
    ]
    assert (len(looked.shown), reader.read) == (100, 100)
    assert looks(looked, reader, *uploads[:2])[0].startswith("b.zip: of its 60 images the first 40")
    assert reader.read == 100, "what was looked at is kept"
    assert looks(looked, reader, *uploads[1:])[0].startswith("c.zip: of its 60 images the first 40")
    assert reader.read == 160, "what there is room for now is looked at, the rest is not read again"
    assert [case.name for case in looked.shown[:60]] == [f"b.zip/{number:03}.png" for number in range(60)]


def test_a_run_that_is_cut_off_goes_on_where_it_was() -> None:
    looked, reader = Looked(), Reader()
    reader.breaks_at = 7
    with pytest.raises(InterruptedError):
        looks(looked, reader, archive("a.zip", 10))
    looks(looked, reader, archive("a.zip", 10))
    assert (len(looked.shown), reader.read) == (10, 10)


def test_what_was_let_go_is_not_taken_for_nothing() -> None:
    looked, reader = Looked(), Reader()
    looks(looked, reader, archive("a.zip", 3))
    shown = looked.shown
    assert len(held(shown)) == 3
    looked.let_go()
    with pytest.raises(LookupError, match="let go"):
        held(shown)
    looks(looked, reader, archive("a.zip", 3))
    assert (len(held(looked.shown)), reader.read) == (3, 6)


def test_what_an_earlier_run_shows_stays_what_it_was() -> None:
    looked, reader = Looked(), Reader()
    looks(looked, reader, archive("a.zip", 3))
    before = looked.shown
    looks(looked, reader, archive("b.zip", 2))
    assert [case.name for case in before] == [f"a.zip/00{number}.png" for number in range(3)]
