"""Predictions as people keep and read them: a sequence, CSV, JSON, Parquet, a table on the screen."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from rich.markup import escape
from rich.table import Table

from mammolens import numerals
from mammolens.data.csv_table import write_row
from mammolens.files import check_new_file, written_whole
from mammolens.records import Prediction

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
    "warnings",
    "error",
)
"""Of every file of predictions: fields of `Prediction`, without the map."""

WITH_AGE = ("age", "probability_with_age")
"""Further columns, where the second answer is asked for."""

_TEXTS = ("path", "level", "reason", "laterality", "view", "patient_id", "warnings", "error")
_NUMBERS = ("probability", "threshold", "probability_with_age")

MOST_ROWS = 50
"""Rows that the table shows."""

_CHUNK = 1000  # rows of Parquet that are held in memory

Row = dict[str, Any]


class Predictions(Sequence[Prediction]):
    """Answers, one a picture, in the order in which the pictures were given; they do not change.

    Example:
        >>> answers = mammolens.predict("phantoms/test", model="phantom")
        >>> {answer.error for answer in answers}
        {None}
        >>> list(answers.to_frame().columns[:4])
        ['path', 'level', 'probability', 'decision']
    """

    def __init__(self, answers: Iterable[Prediction] = (), *, with_age: bool = False) -> None:
        self._answers = tuple(answers)
        self._with_age = with_age

    def __len__(self) -> int:
        return len(self._answers)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> "Predictions": ...
    def __getitem__(self, place: int | slice) -> "Prediction | Predictions":
        if isinstance(place, slice):
            return Predictions(self._answers[place], with_age=self._with_age)
        return self._answers[place]

    def __repr__(self) -> str:
        return f"<{len(self)} predictions, {sum(one.error is not None for one in self)} of them errors>"

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(max_rows=MOST_ROWS))

    def to_frame(self) -> "pd.DataFrame":
        """Return a row an answer, with the columns of `mammolens predict --out answers.csv`."""
        import pandas as pd  # noqa: PLC0415 - takes longer to load than an answer takes

        columns = _columns(self._with_age)
        kinds = dict.fromkeys(columns, "string") | {"probability": float, "threshold": float, "uncertain": bool}
        if self._with_age:
            kinds |= {"age": "Int64", "probability_with_age": float}
        return pd.DataFrame([row_of(answer, columns) for answer in self], columns=list(columns)).astype(kinds)

    def save(self, out: "str | Path") -> None:
        """Write them as CSV, JSON or Parquet, by the ending of `out`.

        Raises:
            DataError: the ending names no format, or it cannot be written.
        """
        write_answers(self, Path(out), with_age=self._with_age)


def _columns(with_age: bool) -> tuple[str, ...]:
    return (*COLUMNS, *WITH_AGE) if with_age else COLUMNS


def row_of(answer: Prediction, columns: Sequence[str] = COLUMNS) -> Row:
    """Return a prediction as plain text, numbers and None, by column."""
    row = {name: getattr(answer, name) for name in columns}
    row["warnings"] = "; ".join(answer.warnings) or None
    row["threshold"] = None if math.isnan(answer.threshold) else answer.threshold
    for name in _TEXTS:
        row[name] = None if row[name] is None else _text(row[name])
    return row


def _text(value: object) -> str:
    """Return what every file and screen can hold: names on disk may be no valid UTF-8."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def written(answers: Iterable[Prediction], out: Path, *, with_age: bool = False) -> Iterator[Prediction]:
    """Yield `answers` while they are written to `out`, whole or not at all, one row an input.

    With `with_age`, rows also have the columns `WITH_AGE`.

    Raises:
        DataError: the ending of `out` names no format, or it cannot be written.
    """
    check_new_file(out, FORMATS)
    with written_whole(out) as temporary:
        yield from FORMATS[out.suffix.lower()](answers, temporary, _columns(with_age))


def write_answers(answers: Iterable[Prediction], out: Path, *, with_age: bool = False) -> None:
    """Write predictions as CSV, JSON or Parquet, by the ending of `out`; see `written`."""
    for _ in written(answers, out, with_age=with_age):
        pass


def answers_table(answers: Sequence[Prediction], hidden: int = 0, *, with_age: bool = False) -> Table:
    """Show the first answers, and how many more there are; with age and the second answer, or without."""
    shown = answers[:MOST_ROWS]
    hidden += len(answers) - len(shown)
    more = f"... and {hidden} more. " if hidden > 0 else ""
    level = f"of the {shown[0].level}" if shown else ""
    point = f"operating point {shown[0].operating_point}" if shown else ""
    table = Table(caption=f"{more}Probability {level}, {point}. Research use only.")
    for name in ("image", "probability", *(("age", "with age") if with_age else ()), "decision", "warnings"):
        table.add_column(name, overflow="fold")
    for answer in shown:
        probability = _shown(answer.probability)
        both = ("" if answer.age is None else str(answer.age), _shown(answer.probability_with_age)) if with_age else ()
        decision = escape(_text(_decision(answer)))
        decision = decision if answer.error is None else f"[red]{decision}[/]"
        said = escape(_text("; ".join(answer.warnings)))
        table.add_row(escape(_text(answer.path)), probability, *both, decision, said)
    return table


def _shown(probability: float | None) -> str:
    return "" if probability is None else numerals.probability(probability)


def _decision(answer: Prediction) -> str:
    """Return what is decided, whether it is to be relied on, and why not."""
    if answer.error is not None:
        return answer.error
    uncertain = " (uncertain)" if answer.decision and answer.uncertain else ""
    why = f": {answer.reason}" if answer.reason else ""
    return f"{answer.decision or 'none'}{uncertain}{why}"


def _csv(answers: Iterable[Prediction], path: Path, columns: Sequence[str]) -> Iterator[Prediction]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_row(stream, columns)
        for answer in answers:
            write_row(stream, row_of(answer, columns).values())
            yield answer


def _json(answers: Iterable[Prediction], path: Path, columns: Sequence[str]) -> Iterator[Prediction]:
    with path.open("w", encoding="utf-8") as stream:
        before = "[\n"
        for answer in answers:
            stream.write(before + json.dumps(row_of(answer, columns), ensure_ascii=False))
            before = ",\n"
            yield answer
        stream.write("[]\n" if before == "[\n" else "\n]\n")


def _parquet(answers: Iterable[Prediction], path: Path, columns: Sequence[str]) -> Iterator[Prediction]:
    import pyarrow as pa  # noqa: PLC0415 - takes longer to load than an answer takes
    import pyarrow.parquet as pq  # noqa: PLC0415

    kinds = {"uncertain": pa.bool_(), "age": pa.int64()} | dict.fromkeys(_NUMBERS, pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    rows: list[Row] = []
    with pq.ParquetWriter(path, schema) as writer:
        for answer in answers:
            rows.append(row_of(answer, columns))
            if len(rows) == _CHUNK:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
            yield answer
        writer.write_table(pa.Table.from_pylist(rows, schema))


FORMATS = {".csv": _csv, ".json": _json, ".parquet": _parquet}
"""How a file of predictions is written while they pass through, by its ending."""
