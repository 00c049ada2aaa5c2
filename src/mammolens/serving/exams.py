"""From the answers for pictures to one for each breast, or each examination."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence

from mammolens.data.identity import exam_keys
from mammolens.data.matching import some
from mammolens.levels import ServedLevel
from mammolens.model.age import WithAge
from mammolens.model.decisions import Rules, aggregated, decided
from mammolens.records import ImageWarning, Laterality, Prediction, View, Warned

STANDARD = tuple((side, view) for side in Laterality for view in (View.CC, View.MLO))
"""The four views of an examination."""


def joined(
    answers: Iterable[Prediction], level: ServedLevel, point: str, rules: Rules, with_age: WithAge | None = None
) -> Iterator[Prediction]:
    """Yield one answer a breast or examination, in the order of their first pictures.

    A breast has the mean of its pictures, an examination the larger of its breasts. What is not
    admitted has no say; what could not be read is an answer of its own.

    Args:
        answers: one a picture; all are looked at before the first is yielded.
        level: what is answered for: breasts or examinations.
        point: the operating point that decides.
        rules: of the model.
        with_age: gives the second answer, where it is asked for.
    """
    for group in _groups(list(answers), level):
        if group[0].error is not None:
            yield decided(group[0], level, point, rules)
        else:
            yield _answer(group, level, point, rules, with_age)


def _groups(pictures: Sequence[Prediction], level: ServedLevel) -> list[list[Prediction]]:
    """Return the pictures of each breast or examination; one with an error, or without the side, is alone."""
    keys = iter(exam_keys([one for one in pictures if one.error is None]))
    groups: dict[Hashable, list[Prediction]] = {}
    for number, one in enumerate(pictures):
        key: Hashable = ("alone", number) if one.error is not None else ("exam", next(keys))
        if one.error is None and level is ServedLevel.BREAST:
            key = ("breast", key, one.laterality) if one.laterality else ("alone", number)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _answer(
    group: Sequence[Prediction], level: ServedLevel, point: str, rules: Rules, with_age: WithAge | None
) -> Prediction:
    speaking = [one for one in group if one.admitted]
    probability = _combined([(one, one.probability) for one in speaking], level)
    years = None if _ages_apart(group) else _combined([(one, one.age) for one in group], level)
    second = None if with_age is None or probability is None or years is None else with_age(probability, years)
    breasts: list[Prediction] = []
    if level is ServedLevel.EXAM:
        by_side = ([one for one in group if one.laterality is side] for side in Laterality)
        breasts = [_answer(of_side, ServedLevel.BREAST, point, rules, with_age) for of_side in by_side if of_side]
    first = group[0]
    answer = Prediction(
        path=first.path,
        probability=probability,
        laterality=first.laterality if len({one.laterality for one in group}) == 1 else None,
        view=first.view if len({one.view for one in group}) == 1 else None,
        patient_id=next((one.patient_id for one in group if one.patient_id is not None), None),
        study_id=first.study_id,
        by_name=any(one.by_name for one in group),
        age=None if years is None else round(years),
        probability_with_age=None if second is None else float(second),
        warnings=tuple(_warnings(group, level)),
        admitted=bool(speaking),
        views=tuple(group),
        breasts=tuple(breasts),
    )
    return decided(answer, level, point, rules)


def _ages_apart(group: Sequence[Prediction]) -> tuple[int, int] | None:
    """Return the least and greatest age of pictures that cannot be of one woman on one day; None where they can."""
    ages = [one.age for one in group if one.age is not None]
    return (min(ages), max(ages)) if ages and max(ages) - min(ages) > 1 else None


def _combined(values: Iterable[tuple[Prediction, float | None]], level: ServedLevel) -> float | None:
    """Return the mean of a breast, or the larger of an examination's breasts; None where nothing is known."""
    known = sorted(
        (value, one.laterality or f"of picture {number}")
        for number, (one, value) in enumerate(values)
        if value is not None
    )
    if not known:
        return None
    numbers, breasts = zip(*known, strict=True)
    return float(aggregated(numbers, breasts, ["hers"] * len(known), level.judged)[0])


def _warnings(group: Sequence[Prediction], level: ServedLevel) -> Iterator[Warned]:
    """Yield what is said of the pictures that have a say, and of what they are together."""
    speaking = [one for one in group if one.admitted]
    yield from dict.fromkeys(warning for one in speaking or group for warning in one.warnings)
    if silent := [one.path.name for one in group if speaking and not one.admitted]:
        yield ImageWarning.NO_SAY.about(some(silent))
    if apart := _ages_apart(group):
        yield ImageWarning.AGES.about(*apart)
    if nowhere := [one.path.name for one in group if one.laterality is None]:
        yield ImageWarning.NO_SIDE.about(some(nowhere))
    sides = {one.laterality for one in group} if level is ServedLevel.BREAST else set(Laterality)
    counts = Counter((one.laterality, one.view) for one in group)
    missing = [place for place in STANDARD if place[0] in sides and not counts[place]]
    if missing and len(nowhere) < len(group):
        yield ImageWarning.MISSING_VIEW.about(_listed(missing))
    if doubled := [place for place in STANDARD if counts[place] > 1]:
        yield ImageWarning.DOUBLED_VIEW.about(_listed(doubled))


def _listed(places: Iterable[tuple[Laterality, View]]) -> str:
    return ", ".join(f"{side} {view}" for side, view in places)
