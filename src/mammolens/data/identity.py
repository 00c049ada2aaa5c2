"""Whose breast a picture shows, in which view, and which pictures are of one examination: one rule for all doors.

A table goes before the DICOM header, which goes before the file's name. Two patients are never joined.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammolens.data.manifest import STUDY
from mammolens.images.image import Header
from mammolens.records import ImageWarning, Laterality, Mammogram, Prediction, View, Warned

_TABLE, _HEADER, _NAME = "the table", "the DICOM header", "the file's name"
_CALLED = {"laterality": "side", "view": "view", "patient_id": "patient", "study_id": "study"}

_VIEWS = "|".join(view for view in View if view is not View.AT)  # "at" is a word, too
_PLACE = re.compile(rf"(?:(?P<side>LEFT|RIGHT)|(?P<letter>[LR]))?(?P<view>{_VIEWS})?")
_TOKEN = re.compile(r"[^\W_]+")
_BETWEEN = {"DM", "CM"}  # side and view, in names of contrast-enhanced examinations: P1_L_DM_MLO
_SUFFIX = re.compile(r"\.([A-Za-z]+)$")
_NOBODY = re.compile(r"anon\w*|de-?identified|removed|unknown|none|null|n/?a|[x0*?-]+", re.IGNORECASE)
"""What headers say of patients whose names were taken out: many may share it."""


@dataclass(frozen=True)
class Identity:
    """What is known of a picture: unknown is None, never a guess.

    Attributes:
        laterality: which breast.
        view: the projection.
        patient_id: whose it is.
        study_id: of which examination of hers.
    """

    laterality: Laterality | None = None
    view: View | None = None
    patient_id: str | None = None
    study_id: str | None = None


@dataclass(frozen=True)
class Known:
    """An identity, and how sure it is.

    Attributes:
        identity: by the strongest source that tells.
        by_name: whether side or view are known from the file's name alone.
        warnings: where sources contradict each other.
    """

    identity: Identity
    by_name: bool
    warnings: tuple[Warned, ...]


def known_of(path: Path, header: Header, row: Mammogram | None = None) -> Known:
    """Return what is known of the picture of that name by its row in a table, its header, and its name."""
    side, view = side_and_view(path)
    told = {
        _TABLE: Identity() if row is None else _of_row(row),
        _HEADER: _of_header(header),
        _NAME: Identity(side, view),
    }
    chosen: dict[str, str] = {}
    warnings: list[Warned] = []
    for field, called in _CALLED.items():
        said = [source for source, identity in told.items() if getattr(identity, field) is not None]
        values = [getattr(told[source], field) for source in said]
        chosen |= {field: said[0]} if said else {}
        if other := next((source for source, value in zip(said, values, strict=True) if value != values[0]), None):
            warnings.append(ImageWarning.CONTRADICTION.about(said[0], other, called, said[0]))
    identity = Identity(**{field: getattr(told[source], field) for field, source in chosen.items()})
    by_name = _NAME in (chosen.get("laterality"), chosen.get("view"))
    return Known(identity, by_name, tuple(warnings))


def _of_header(header: Header) -> Identity:
    return Identity(header.laterality, header.view, patient_of(header), header.study_id)


def patient_of(header: Header) -> str | None:
    """Return who a header says the patient is; what many share whose names were taken out says nothing."""
    nobody = header.patient_id is None or _NOBODY.fullmatch(header.patient_id)
    return None if nobody else header.patient_id


def _of_row(row: Mammogram) -> Identity:
    return Identity(row.laterality, row.view, row.patient_id, row.metadata.get(STUDY) or None)


def side_and_view(path: str | Path) -> tuple[Laterality | None, View | None]:
    """Return what a file's name says: ``L_CC``, ``RMLO``, ``left-mlo``. A contradiction is None.

    A lone L or R counts only next to a view: many names have one for other reasons. Where the name
    says nothing, its folder's does if it says both.
    """
    name = Path(path)
    places = _places(_stem(name.name))
    if not places:
        above = _places(name.parent.name)
        places = above if any(one.side for one in above) and any(one.view for one in above) else []
    sides = {one.side for one in places if one.side}
    views = {one.view for one in places if one.view}
    side, view = (only.pop() if len(only) == 1 else None for only in (sides, views))
    return Laterality(side) if side else None, View(view) if view else None


@dataclass(frozen=True)
class _Place:
    """A word of a name that says side, view or both, and where it stands."""

    start: int
    end: int
    side: str
    view: str
    alone: bool


def _places(stem: str) -> list[_Place]:
    words: list[_Place | None] = []
    for word in _TOKEN.finditer(stem):
        if word[0].upper() in _BETWEEN:
            continue
        found = _PLACE.fullmatch(word[0].upper())
        side = ((found["side"] or found["letter"] or "") if found else "")[:1]
        view = (found["view"] or "") if found else ""
        alone = found is not None and found["letter"] is not None and not view
        words.append(_Place(*word.span(), side, view, alone) if found else None)
    bare = [one is not None and bool(one.view) and not one.side for one in words]
    beside = [any(bare[max(0, place - 1) : place + 2]) for place in range(len(words))]
    return [one for one, near in zip(words, beside, strict=True) if one is not None and (near or not one.alone)]


def _stem(name: str) -> str:
    """Return a name without its suffix; one that says side or view is none."""
    suffix = _SUFFIX.search(name)
    return name[: suffix.start()] if suffix and not _PLACE.fullmatch(suffix[1].upper()) else name


def rest_of(name: str) -> str | None:
    """Return a name without side and view; None where it says neither, or one of them twice."""
    stem = _stem(name)
    places = _places(stem)
    if not places or max(sum(bool(one.side) for one in places), sum(bool(one.view) for one in places)) > 1:
        return None
    ends = [0, *(one.end for one in places)]
    starts = [*(one.start for one in places), len(stem)]
    return "\0".join(stem[end:start] for end, start in zip(ends, starts, strict=True))


def exam_keys(pictures: Sequence[Prediction]) -> list[Hashable]:
    """Return of each picture a key that those of its examination share, and no other.

    An examination is one study of one patient. Where no study is known, what is known of the same
    patient is one. Where neither is, it is the pictures of one folder whose names differ in side
    and view alone, each name once.
    """
    patients: dict[str, set[str]] = defaultdict(set)
    for one in pictures:
        if one.study_id is not None and one.patient_id is not None:
            patients[one.study_id].add(one.patient_id)
    keys = [_key(one, patients) or ("alone", number) for number, one in enumerate(pictures)]
    counts = Counter(zip(keys, (one.path for one in pictures), strict=True))
    # Who has two pictures of one name may have those of two patients.
    unclear = {key for (key, _), times in counts.items() if times > 1}
    unclear &= {key for key in keys if key[0] == "names"}
    return [("alone", number) if key in unclear else key for number, key in enumerate(keys)]


def _key(one: Prediction, patients: Mapping[str, set[str]]) -> tuple[Hashable, ...] | None:
    """Return the key of a picture's examination, or None where it is not known.

    Args:
        one: the picture.
        patients: those known of each study.
    """
    if one.study_id is not None:
        known = patients.get(one.study_id, set())
        patient = one.patient_id or next(iter(known), None)
        return None if one.patient_id is None and len(known) > 1 else ("study", one.study_id, patient)
    if one.patient_id is not None:
        return "patient", one.patient_id
    rest = rest_of(one.path.name)
    return None if rest is None else ("names", one.path.parent, rest)
