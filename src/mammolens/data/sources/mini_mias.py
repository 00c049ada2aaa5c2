"""The mini-MIAS database: 322 digitised films of 161 women, reduced to 1024 × 1024 pixels.

    DATA/Info.txt        mdb005 F CIRC B 477 133 30
    DATA/mdb001.pgm      here or in any folder below, such as all-mias/

A line of ``Info.txt`` is an abnormality, or a film without one: film, background tissue (F fatty,
G fatty-glandular, D dense-glandular), class (CALC, CIRC, SPIC, MISC, ARCH, ASYM, NORM), severity
(B or M), and x, y, radius of a circle in pixels; y points up from the bottom left corner. Widely
spread calcifications have no circle (``*NOTE 3*``). Boxes hold for the published size only.

Films stand in pairs, one woman each; every film is mediolateral oblique. Odd numbers are left
breasts: the names of the original database say so (mdb001lm, mdb002rl, and so on for all 322),
while note 1 of mini-MIAS has it the other way round.

J. Suckling et al., The Mammographic Image Analysis Society Digital Mammogram Database, Excerpta
Medica International Congress Series 1069 (1994) 375-378; http://peipa.essex.ac.uk/info/mias.html
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from mammolens.data.sources.published import Described, PublishedSet, Row, box_inside, joined
from mammolens.errors import DataError
from mammolens.records import Laterality, View

SIDE = 1024
"""Width and height of every published image, in pixels."""

_FILM = re.compile(r"mdb\d{3}\b")
_LINE = re.compile(
    r"""(?P<film>mdb(?P<number>\d{3})) \s+ (?P<tissue>[FGD])
        \s+ (?P<abnormality>CALC|CIRC|SPIC|MISC|ARCH|ASYM|NORM)
        (?: \s+ (?P<severity>[BM])
            (?: \s+ (?P<x>\d+) \s+ (?P<y>\d+) \s+ (?P<radius>\d+) | \s+ \*.* )? )?""",
    re.VERBOSE,
)


def _films(info: Path) -> dict[str, list[Row]]:
    """Return the lines of each film; text before and after the list is passed over."""
    try:
        text = info.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{info}: cannot be read ({error.strerror}).") from error
    films: dict[str, list[Row]] = defaultdict(list)
    for number, line in enumerate(text.splitlines(), start=1):
        if not _FILM.match(line):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise DataError(
                f"{info}, line {number}: '{line.rstrip()}' is not of the form "
                "'mdb005 F CIRC B 477 133 30', 'mdb003 D NORM' or 'mdb059 F CIRC B *NOTE 3*'."
            )
        films[match["film"]].append(match.groupdict(default=""))
    if not films:
        raise DataError(f"{info}: lists no films; expected lines such as 'mdb003 D NORM'.")
    return films


def _described(root: Path) -> Iterator[Described]:
    for film, lines in _films(root / MINI_MIAS.table).items():
        number = int(lines[0]["number"])
        left = number if number % 2 else number - 1
        row = {
            "label": _label(lines),
            "patient_id": f"mdb{left:03}-{left + 1:03}",
            "image_id": film,
            "laterality": Laterality.LEFT if number % 2 else Laterality.RIGHT,
            "view": View.MLO,
            "boxes": json.dumps([box for line in lines if (box := _box(line))]),
            "tissue": lines[0]["tissue"],
            "abnormality": joined(line["abnormality"] for line in lines),
            "severity": joined(line["severity"] for line in lines),
        }
        yield [film], row


def _label(lines: list[Row]) -> str:
    """Return 1 where any abnormality is malignant, 0 where all are benign or there is none; empty where one may be."""
    if any(line["severity"] == "M" for line in lines):
        return "1"
    return "0" if all(line["severity"] or line["abnormality"] == "NORM" for line in lines) else ""


def _box(line: Row) -> list[float] | None:
    """Return the square around a circle, with y pointing down as everywhere else here."""
    if not line["radius"]:
        return None
    x, y, radius = int(line["x"]), SIDE - int(line["y"]), int(line["radius"])
    return box_inside((x - radius, y - radius, x + radius, y + radius), SIDE, SIDE)


MINI_MIAS = PublishedSet(
    table="Info.txt",
    described=_described,
    names=lambda path: [path.stem],
    expected="mdb001.pgm, mdb002.pgm and so on, in the folder or below it",
)
"""Has no splits."""
