"""Predictions as people keep them: a sequence, a data frame, CSV, JSON, Parquet."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from mammolens.data.csv_table import write_row
from mammolens.files import check_new_file, written_whole
from mammolens.levels import ServedLevel
from mammolens.records import Laterality, Prediction

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "path",
    "level",
    "probability",
    "decision",
    "operating_point",
    "threshold",
    "uncertain",
    "reason",
    "laterality",
    "view",
    "patient_id",
    "study_id",
    "warnings",
    "error",
)
"""Of every file of predictions: fields of `Prediction`, without the map."""

WITH_AGE = ("age", "probability_with_age")
"""Further columns, where the second answer is asked for."""

VIEWS = "views"
"""Further column of breasts and examinations: the pictures that an answer rests on, as a JSON list."""

OF_VIEW = ("path", "laterality", "view", "probability", "reason", "warnings")
"""What that says of each picture."""

_OF_BREAST = ("probability", "decision", "uncertain")
BREASTS = (*(f"{side.word}_{name}" for side in Laterality for name in _OF_BREAST), "difference")
"""Further columns of examinations: both breasts' answers, and the left probability less the right one."""

NUMBERS = ("probability", "threshold", "probability_with_age", "left_probability", "right_probability", "difference")
BOOLEANS = ("uncertain", "left_uncertain", "right_uncertain")

MOST_ROWS = 50
"""Rows that are shown on a screen."""

_CHUNK = 1000  # rows of Parquet that are held in memory

Row = dict[str, Any]


class Predictions(Sequence[Prediction]):
    """Answers, one a picture, breast or examination, in the order in which pictures were given; they do not change.

    Example:
        >>> answers = mammolens.predict("phantoms/test", model="phantom")
        >>> {answer.error for answer in answers}
        {None}
        >>> list(answers.to_frame().columns[:4])
        ['path', 'level', 'probability', 'decision']
    """

    def __init__(
        self,
        answers: Iterable[Prediction] = (),
        *,
        level: ServedLevel | str = ServedLevel.IMAGE,
        with_age: bool = False,
    ) -> None:
        self._answers = tuple(answers)
        self._level = ServedLevel.named(level)
        self._with_age = with_age

    def __len__(self) -> int:
        return len(self._answers)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> "Predictions": ...
    def __getitem__(self, place: int | slice) -> "Prediction | Predictions":
        if isinstance(place, slice):
            return Predictions(self._answers[place], level=self._level, with_age=self._with_age)
        return self._answers[place]

    def __repr__(self) -> str:
        return f"<{len(self)} predictions, {sum(one.error is not None for one in self)} of them errors>"

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(max_rows=MOST_ROWS))

    def to_frame(self) -> "pd.DataFrame":
        """Return a row an answer, with the columns of `mammolens predict --out answers.csv`."""
        import pandas as pd  # noqa: PLC0415 - takes longer to load than an answer takes

        columns = columns_of(self._level, with_age=self._with_age)
        kinds = dict.fromkeys(columns, "string")
        known = dict.fromkeys(NUMBERS, "float") | dict.fromkeys(BOOLEANS, "boolean")
        known |= {"uncertain": "bool", "age": "Int64"}
        kinds |= {name: kind for name, kind in known.items() if name in columns}
        return pd.DataFrame([_flat(answer, columns) for answer in self], columns=list(columns)).astype(kinds)

    def save(self, out: "str | Path") -> None:
        """Write them as CSV, JSON or Parquet, by the ending of `out`.

        Raises:
            DataError: the ending names no format, or it cannot be written.
        """
        write_answers(self, Path(out), level=self._level, with_age=self._with_age)


def columns_of(level: ServedLevel = ServedLevel.IMAGE, *, with_age: bool = False) -> tuple[str, ...]:
    """Return the columns of answers at a level."""
    further = {ServedLevel.IMAGE: (), ServedLevel.BREAST: (VIEWS,), ServedLevel.EXAM: (*BREASTS, VIEWS)}
    return (*COLUMNS, *further[level], *(WITH_AGE if with_age else ()))


def row_of(answer: Prediction, columns: Sequence[str] = COLUMNS) -> Row:
    """Return a prediction as plain text, numbers, truth values, None and, for its views, a list of such, by column."""
    return {name: _cell(answer, name) for name in columns}


def _cell(answer: Prediction, name: str) -> Any:  # noqa: ANN401 - whatever a cell holds
    if name == VIEWS:
        return [row_of(view, OF_VIEW) for view in answer.views]
    if name in BREASTS and name != "difference":
        side, _, field = name.partition("_")
        breast = answer.breast(Laterality[side.upper()])
        return None if breast is None else _cell(breast, field)
    value = getattr(answer, name)
    if name == "warnings":
        value = "; ".join(value) or None
    if name in NUMBERS and value is not None and math.isnan(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else text_of(value)


def _flat(answer: Prediction, columns: Sequence[str]) -> Row:
    """Return a row whose views are text: JSON."""
    row = row_of(answer, columns)
    return row | {VIEWS: json.dumps(row[VIEWS], ensure_ascii=False)} if VIEWS in row else row


def text_of(value: object) -> str:
    """Return what every file and screen can hold: names on disk may be no valid UTF-8."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def written(
    answers: Iterable[Prediction], out: Path, *, level: ServedLevel = ServedLevel.IMAGE, with_age: bool = False
) -> Iterator[Prediction]:
    """Yield `answers` while they are written to `out`, whole or not at all, one row each.

    Args:
        answers: at `level`.
        out: by whose ending they are CSV, JSON or Parquet.
        level: what they are about; see `columns_of`.
        with_age: whether rows also have the columns `WITH_AGE`.

    Raises:
        DataError: the ending of `out` names no format, or it cannot be written.
    """
    check_new_file(out, FORMATS)
    with written_whole(out) as temporary:
        yield from FORMATS[out.suffix.lower()](answers, temporary, columns_of(level, with_age=with_age))


def write_answers(
    answers: Iterable[Prediction], out: Path, *, level: ServedLevel = ServedLevel.IMAGE, with_age: bool = False
) -> None:
    """Write predictions as CSV, JSON or Parquet, by the ending of `out`; see `written`."""
    for _ in written(answers, out, level=level, with_age=with_age):
        pass


def _csv(answers: Iterable[Prediction], path: Path, columns: Sequence[str]) -> Iterator[Prediction]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_row(stream, columns)
        for answer in answers:
            write_row(stream, _flat(answer, columns).values())
            yield answer


def _json(answers: Iterable[Prediction], path: Path, columns: Sequence[str]) -> Iterator[Prediction]:
    passing, again = tee(answers)
    with path.open("w", encoding="utf-8") as stream:
        for text, answer in zip_longest(as_json(row_of(one, columns) for one in passing), again):
            stream.write(text)
            if answer is not None:
                yield answer


def as_json(rows: Iterable[Row]) -> Iterator[str]:
    """Yield rows as the text of a JSON file of answers: a piece a row, and its end."""
    before = "[\n"
    for row in rows:
        yield before + json.dumps(row, ensure_ascii=False)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _parquet(answers: Iterable[Prediction], path: Path, columns: Sequence[str]) -> Iterator[Prediction]:
    import pyarrow as pa  # noqa: PLC0415 - takes longer to load than an answer takes
    import pyarrow.parquet as pq  # noqa: PLC0415

    kinds = {"age": pa.int64()} | dict.fromkeys(NUMBERS, pa.float64()) | dict.fromkeys(BOOLEANS, pa.bool_())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    rows: list[Row] = []
    with pq.ParquetWriter(path, schema) as writer:
        for answer in answers:
            rows.append(_flat(answer, columns))
            if len(rows) == _CHUNK:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
            yield answer
        writer.write_table(pa.Table.from_pylist(rows, schema))


FORMATS = {".csv": _csv, ".json": _json, ".parquet": _parquet}
"""How a file of predictions is written while they pass through, by its ending."""
