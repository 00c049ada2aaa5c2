"""What people's names of classes and splits mean, such as ``Malignant cases`` or ``val_set``."""

import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from mammolens.errors import DataError
from mammolens.records import Split

_WORDS = tomllib.loads(resources.files("mammolens.data").joinpath("meanings.toml").read_text("utf-8"))
UNKNOWN = frozenset(_WORDS["unknown"])
"""What stands in a table, in lower case, where a label is not known."""

_LABELS = {word: label for label, words in enumerate((_WORDS["no_tumor"], _WORDS["tumor"])) for word in words}
_SPLITS = {word: Split(split) for split, words in _WORDS["splits"].items() for word in words}
_NEGATIONS = ("no", "non", "not", "without", "noevidenceof")
_KIND_OF_TUMOR = re.compile(r"(benign|malignant)(?:tumou?r|lesion)s?")


def plain(name: str) -> str:
    """Return a name without case, signs and words that tell nothing; 1.0 is 1."""
    try:
        if "_" not in name:  # 0_1 is no number, but to Python
            return f"{float(name):g}"
    except ValueError:
        pass
    words = re.findall(r"[^\W_]+", name.casefold())
    joined = "".join(word for word in words if word not in _WORDS["fillers"])
    return _KIND_OF_TUMOR.sub(r"\1", joined)


def label_named(name: str) -> int | None:
    """Return 1 where a class name plainly means tumor, 0 where it means none, else None."""
    word = plain(name)
    rests = {word.removeprefix(no) for no in _NEGATIONS if word.startswith(no)}
    if any(rest.isalpha() and _LABELS.get(rest) == 1 for rest in rests):
        return 0
    return _LABELS.get(word)


def split_named(name: str) -> Split | None:
    """Return the split that a folder or a table calls by `name`, or None."""
    return _SPLITS.get(plain(name))


def labels_by_name(names: set[str], positive: str | None, origin: Path) -> dict[str, int]:
    """Return 0 or 1 for each class name: by `positive`, else where names say it plainly.

    Where `positive` is named, several other classes are taken together if each plainly means no
    tumor, such as benign and normal.

    Raises:
        DataError: there are other than two classes, or which one means tumor is not known.
    """
    if positive is not None:
        return _chosen(names, positive, origin)
    labels = {name: label for name in names if (label := label_named(name)) is not None}
    classes = {(plain(name), label) for name, label in labels.items()}
    if len(labels) == len(names) and len(classes) == len(set(labels.values())):
        return labels
    raise DataError(f"{origin}: {_question(names)}")


def _chosen(names: set[str], positive: str, origin: Path) -> dict[str, int]:
    tumor = names & {positive} or {name for name in names if plain(name) == plain(positive)}
    if not tumor:
        raise DataError(f"{origin}: no class is named '{positive}'; found {_listed(names) or 'none'}.")
    others = {plain(name): name for name in sorted(names - tumor)}
    unclear = [name for name in others.values() if label_named(name) != 0]
    if len(others) > 1 and unclear:
        raise DataError(
            f"{origin}: expected two classes, found {len(others) + 1}: {_listed(names)}. With "
            f"--positive {positive}, all others mean no tumor, and of '{unclear[0]}' that is not "
            "plain. Move it elsewhere, or call it 0."
        )
    return {name: int(name in tumor) for name in names}


def _question(names: set[str]) -> str:
    if len({plain(name) for name in names}) <= 2:  # noqa: PLR2004 - tumor or not
        return (
            f"which of the classes {_listed(names, ' and ')} means tumor? "
            "Say so with --positive NAME (mammolens manifest DATA OUT.csv --positive NAME)."
        )
    counted = f"expected two classes, found {len(names)}: {_listed(names)}."
    tumor = sorted(name for name in names if label_named(name) == 1)
    if len(tumor) == 1 and all(label_named(name) == 0 for name in names - set(tumor)):
        return (
            f"{counted} To take all but {tumor[0]} as no tumor: "
            f"mammolens manifest DATA OUT.csv --positive '{tumor[0]}'."
        )
    return (
        f"{counted} Tumor and no tumor are learnt: join classes, move those that are neither "
        "elsewhere, or list path and label (0, 1 or empty) in a CSV."
    )


def _listed(names: Iterable[str], between: str = ", ") -> str:
    return between.join(sorted(names))
