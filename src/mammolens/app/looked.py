"""`Looked`: the pictures that one session looked at, and their pixels, until they are taken away or let go."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from mammolens.app.uploads import Upload, as_inputs, safe_name
from mammolens.app.viewer import Shelf
from mammolens.hosting import MAX_IMAGES
from mammolens.images.archives import Input
from mammolens.reports.case import Case


@dataclass(eq=False)
class Looked:
    """What one session looked at.

    Streamlit keeps callbacks, fragments and downloads longer than a run of the page, and what they name with them: they
    may name this and its lists, which are emptied when pixels are let go, and no case.

    Attributes:
        kept: by an upload's key, the cases of its images that were looked at, and how many images it has.
        shown: the cases that are shown, in order; another list in each run.
        uploads: of which each of them is; likewise.
        shelf: their pixels, packed.
    """

    kept: dict[str, tuple[list[Case], int]] = field(default_factory=dict)
    shown: list[Case] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    shelf: Shelf = field(default_factory=Shelf)

    @property
    def size(self) -> int:
        """Bytes of all pixels."""
        cases = [case for cases, _ in list(self.kept.values()) for case in list(cases)]
        arrays = [one for case in cases for one in (case.picture, case.unwindowed, case.answer.score_map)]
        return self.shelf.size + sum(one.nbytes for one in arrays if one is not None)

    def let_go(self) -> None:
        """Keep nothing."""
        for held in (self.kept, self.shown, self.uploads):
            held.clear()
        self.shelf = Shelf()

    def look(
        self,
        uploads: Sequence[Upload],
        answer: Callable[[Input], Case],
        looking_at: Callable[[int], AbstractContextManager[None]],
    ) -> list[str]:
        """Look at uploads that are new, as many as are shown, forget those that are gone, and say what was cut short.

        Args:
            uploads: all of the page.
            answer: looks at one image.
            looking_at: is open while one looks at the images of an upload, of which it is told the number from 1.
        """
        before, self.kept = self.kept, {}
        self.kept.update({one.key: before[one.key] for one in uploads if one.key in before})
        self.shown, self.uploads, told = [], [], []
        for number, upload in enumerate(uploads, start=1):
            room = MAX_IMAGES - len(self.shown)
            cases, images = self.kept.get(upload.key, ([], 1))
            if len(cases) < min(images, room):
                with looking_at(number), as_inputs(upload) as sources:
                    images = len(sources)
                    self.kept[upload.key] = cases, images  # a run that is cut off goes on where it was
                    for source in sources[len(cases) : room]:
                        cases.append(answer(source))
            self.shown += cases[:room]
            self.uploads += [upload] * len(cases[:room])
            if images > room:
                told.append(f"{safe_name(upload.name)}: {_cut(images, room)}")
        self.shelf.keep_only(keys_of(self.shown, self.uploads))
        return told


def keys_of(shown: Sequence[Case], uploads: Sequence[Upload]) -> list[str]:
    """Return under which keys the shelf has the pixels of cases, each of an upload."""
    return [f"{upload.key} {case.name}" for upload, case in zip(uploads, shown, strict=True)]


def held(shown: Sequence[Case]) -> list[Case]:
    """Return cases that were shown.

    Raises:
        LookupError: they were let go since.
    """
    if cases := list(shown):
        return cases
    raise LookupError("the pictures were let go")


def _cut(images: int, room: int) -> str:
    if not room:
        return f"not looked at, because the page takes {MAX_IMAGES} images at a time."
    first = "the first is" if room == 1 else f"the first {room} are"
    return f"of its {images:,} images {first} shown. For the others use `mammolens predict` on the command line."
