"""Whether two versions of mammolens answer and report the same, to the digit.

`make same BEFORE=c921d80` types the commands of `PARTS` with the version of that commit and with
this checkout, and compares all that they write, say and end with. Numbers, names and pixels must
be equal; other wording may differ, and is listed. What is not compared: `same_facts.LEFT_OUT` and
`LEFT_OUT_OF_TEXT`, the cache, `demo`, `download`, and the page that `app` serves.
"""

import argparse
import ast
import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

import same_inputs
from same_facts import Facts, equal, facts_of

CHECKOUT = Path(__file__).parents[1]

VERBS = (
    *("phantom", "download", "manifest", "doctor", "preview", "train", "crossvalidate", "evaluate"),
    *("compare", "export", "predict", "show", "app", "demo"),
)
DRAWN = "phantom/drawn"
SMALL = "--quiet --set preprocess.height=64 --set preprocess.width=64"
BOXES = f"--recipe lesions {SMALL} --set epochs=2 --set moving_average=0.9"
FOLDS = f"--recipe quick {SMALL} --set monitor=nothing --set epochs=1 --folds 2"

PARTS: dict[str, tuple[str, ...]] = {
    "phantom": (
        f"phantom {DRAWN} --patients 30 --size 160 --seed 3 --quiet",
        "phantom phantom/large --patients 6 --size 320",
    ),
    "data": (
        f"manifest {DRAWN} data/drawn.csv --splits patient --seed 1",
        "manifest phantom:6 data/drawn-6.csv",
        "manifest ../inputs/rsna_breast data/rsna-patient.csv --splits patient",
        "manifest ../inputs/cbis_ddsm_mass data/films.csv --splits valid --fractions 0.8 0.2 0",
        "manifest ../inputs/cesm_lesions/labels.csv data/cesm.csv --splits patient --seed 2",
        "manifest ../inputs/cases/left_out_in_silence/sub data/left-out.csv",
        f"doctor {DRAWN} --out data/doctor-drawn --mend data/mended-drawn.csv --quiet",
        "doctor ../inputs/rsna_breast --out data/doctor-rsna --mend data/mended-rsna.csv",
        "doctor ../inputs/cesm_lesions/labels.csv --json --quiet",
        "preview ../inputs/rsna_breast data/sheet.png --recipe accurate --images 6",
        "show ../inputs/dicom/3.dcm --out data/dicom.png",
        "show ../inputs/rasters/16-bits.tif --out data/raster.png --model phantom",
        "show ../inputs/odd/words.dcm --out data/none.png",
    ),
    "predict": (
        "predict ../inputs/rsna_breast --out predict/rsna.json --overlay predict/maps --quiet",
        "predict ../inputs/cbis_ddsm_mass --out predict/films.csv --level breast --quiet",
        "predict ../inputs/cesm_lesions --model phantom --level exam --out predict/cesm.csv -q",
        "predict ../inputs/cases --out predict/cases.csv --quiet",
        "predict ../inputs/pydicom --out predict/pydicom.csv --quiet",
        "predict ../inputs/dicom --out predict/dicom.json --point sensitivity-90",
        "predict ../inputs/dicom --out predict/sides.parquet --level breast --overlay predict/dcm",
        "predict ../inputs/rasters ../inputs/odd ../inputs/archives --out predict/odd.csv -q",
        "predict ../inputs/odd --ungated --out predict/ungated.parquet -q",
        f"predict {DRAWN}/test --model phantom --out predict/drawn.parquet --overlay predict/drawn",
    ),
    "train": (
        f"train {DRAWN} --recipe quick {SMALL} --set epochs=3 --out train/quick",
        f"train {DRAWN} --recipe quick {SMALL} --set epochs=1 --set seed=1 --out train/other",
        f"train {DRAWN} {BOXES} --set also_images=4 --also ../inputs/cbis_ddsm_mass --out train/boxes",
        "export train/quick train/both --with train/other --name both --half --quiet",
        "export ../before/train/boxes/breast.h5 train/older --quiet",
        f"export ../inputs/keras_2/sequence.h5 train/keras-2 --data {DRAWN} --quiet",
        "evaluate train/both --data train/quick/manifest.csv --robustness 12 --out train/judged -q",
        "evaluate phantom --data train/quick/manifest.csv --out train/known --quiet",
        f"predict {DRAWN}/test --model phantom --out train/scores.csv --point specificity-90",
        f"evaluate --predictions train/scores.csv --data {DRAWN} --out train/scored",
        "compare train/judged train/known --out train/compared.json",
        f"predict {DRAWN}/test --model train/both --out train/both.csv --overlay train/maps -q",
        f"predict {DRAWN}/test --model ../before/train/quick --out train/older.csv --quiet",
    ),
    "folds": (
        f"crossvalidate {DRAWN} {FOLDS} --out folds/one",
        f"crossvalidate {DRAWN} {FOLDS} --set sampling=patient --with folds/one --out folds/two",
    ),
    "words": (
        *("--help", "--version", "nonsense", "predict", "predict no-such.png"),
        *(f"{verb} --help" for verb in VERBS),
        "predict ../inputs/odd/tiny.png --model no-such",
        "predict ../inputs/dicom --out words/answers.xlsx",
        "train no-such --out words/run",
        f"train {DRAWN} --recipe no-such --out words/run",
        f"train {DRAWN} --set epoch=3 --out words/run",
        f"manifest {DRAWN} words/list.txt",
        "manifest ../inputs/odd words/list.csv",
        "evaluate words/none",
    ),
}
"""Name → commands, in this order; what they write goes into the folder of that name. The first part
is always done, since others read it. A command of which an input is missing is left out."""

RENAMED: dict[str, str] = {}
"""Keys of JSON, columns and names of files: before → after."""

DONE = ".done"
SHOWN = 5
"""Differences of a file that are printed."""


@dataclass(frozen=True)
class Version:
    """One of the two.

    Attributes:
        code: the folder that its package is in.
        here: the folder in which its commands are typed.
        stamp: what its answers depend on besides the commands; none: they are not kept.
    """

    code: Path
    here: Path
    stamp: str = ""

    def do(self, part: str) -> None:
        """Type the commands of a part, unless the same were."""
        folder, stamp = self.here / part, "\n".join([self.stamp, *PARTS[part]])
        if self.stamp and content(folder / DONE) == stamp:
            return
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "said").mkdir(parents=True)
        started, before = time.monotonic(), os.times()
        for number, command in enumerate(PARTS[part]):
            if lacking := lacked(command, self.here):
                tell(f"{command.split()[0]} is left out: no {', '.join(lacking)}")
            else:
                verb = command.split()[0].strip("-")
                self.type_in(shlex.split(command), folder / "said" / f"{number:02}-{verb}")
        (folder / DONE).write_text(stamp, encoding="utf-8")
        after, seconds = os.times(), time.monotonic() - started
        busy = sum(after[2:4]) - sum(before[2:4])
        codes = [content(path) for path in sorted((folder / "said").glob("*.code"))]
        ended = f"{len(codes)} commands, {codes.count('0')} of them without any fault"
        tell(f"{self.here.name}: {part}: {ended}, {seconds:.0f} s, {busy:.0f} s of a core")

    def check(self) -> None:
        """Make sure that it is its own package that commands load.

        Raises:
            RuntimeError: it is another.
        """
        asked = [sys.executable, "-c", "import mammolens; print(mammolens.__file__)"]
        environment = os.environ | {"PYTHONPATH": str(self.code)}
        loaded = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
        if not Path(loaded.stdout).is_relative_to(self.code):
            raise RuntimeError(f"{loaded.stdout.strip()} was loaded, not what is in {self.code}")

    def type_in(self, words: list[str], said: Path) -> None:
        """Type a command; keep what it writes on its two streams, and its exit code."""
        settings = {
            "PYTHONPATH": str(self.code),
            "MAMMOLENS_CACHE": str(self.here / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "400",
        }
        with (
            said.with_suffix(".stdout").open("wb") as out,
            said.with_suffix(".stderr").open("wb") as err,
        ):
            command = [sys.executable, "-m", "mammolens", *words]
            ended = subprocess.run(
                command,
                cwd=self.here,
                env=os.environ | settings,
                stdout=out,
                stderr=err,
                check=False,
            )
        said.with_suffix(".code").write_text(str(ended.returncode), encoding="utf-8")


def lacked(command: str, here: Path) -> list[str]:
    """Return the inputs that a command reads and that are not there."""
    words = [word for word in command.split() if word.startswith("../inputs/")]
    return [word for word in words if not (here / word).exists()]


def content(path: Path) -> str:
    """Return what is in a text file; nothing where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def prepare(folder: Path, revision: str, after: Path) -> tuple[Version, Version]:
    """Write the inputs into `folder`, unless they are there, and the code of `revision`."""
    source = ast.dump(ast.parse(content(Path(same_inputs.__file__))))  # however it is formatted
    inputs = folder / "inputs"
    if content(inputs / DONE) != source:
        shutil.rmtree(inputs, ignore_errors=True)
        inputs.mkdir(parents=True)
        same_inputs.make_inputs(inputs, CHECKOUT.parent / "shared")
        (inputs / DONE).write_text(source, encoding="utf-8")
    commit = git("rev-parse", f"{revision}^{{commit}}").decode()
    code = folder / f"code-{commit[:12]}"
    if not code.is_dir():
        with tarfile.open(fileobj=io.BytesIO(git("archive", commit.strip(), "src"))) as archive:
            archive.extractall(code, filter="data")
    before = Version(code / "src", folder / "before", commit + source)
    return before, Version(after / "src", folder / f"after-{os.getpid()}")


def git(*words: str) -> bytes:
    """Return what git says of this checkout."""
    command = ["git", "-C", str(CHECKOUT), *words]
    return subprocess.run(command, capture_output=True, check=True).stdout


@dataclass
class Row:
    """What was compared of the files of one kind in one part."""

    files: int = 0
    values: int = 0
    different: int = 0


@dataclass
class Comparison:
    """What was compared, and what was found.

    Attributes:
        rows: by part and kind of file.
        differences: lines to print.
        wording: (before, after) → how often, and where first.
    """

    rows: defaultdict[tuple[str, str], Row] = field(default_factory=lambda: defaultdict(Row))
    differences: list[str] = field(default_factory=list)
    wording: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, name: str, before: Facts | None, after: Facts | None) -> None:
        """Compare a file of both versions, or note that one lacks it."""
        row = self.rows[Path(name).parts[0], Path(name).suffix]
        row.files += 1
        if before is None or after is None:
            row.different += 1
            self.differences.append(f"{name}: only {'after' if before is None else 'before'}")
            return
        row.values += before.size
        old = {renamed(place): value for place, value in before.values.items()}
        found = list(differences(old, after.values))
        row.different += len(found)
        more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
        self.differences += [f"{name}: {line}" for line in [*found[:SHOWN], *more]]
        if before.words != after.words:
            pieces = SequenceMatcher(None, before.words, after.words, autojunk=False).get_opcodes()
            self.wording.update(
                (" ".join(before.words[a:b]), " ".join(after.words[c:d]))
                for kind, a, b, c, d in pieces
                if kind != "equal"
            )


def renamed(place: str) -> str:
    """Return how a place or file before is called after."""
    return "/".join(RENAMED.get(key, key) for key in place.split("/"))


def differences(before: dict[str, object], after: dict[str, object]) -> Iterator[str]:
    """Say where values are not equal."""
    for place in [*before, *(place for place in after if place not in before)]:
        if place not in after or place not in before:
            only, value = ("before", before) if place in before else ("after", after)
            yield f"{place}: only {only}: {brief(value[place])}"
        elif not equal(before[place], after[place]):
            yield f"{place}: {brief(before[place])} → {brief(after[place])}"


def brief(value: object) -> str:
    """Return a value as one short line."""
    if isinstance(value, np.ndarray) and value.size > 1:
        return f"{value.dtype} {value.shape}, mean {value.mean()!r}"
    return repr(value)[:100]


def compare(before: Path, after: Path, parts: list[str]) -> Comparison:
    """Compare all files of some parts."""
    compared = Comparison()
    for part in parts:
        old, new = (
            {path.relative_to(folder).as_posix(): path for path in files_below(folder / part)}
            for folder in (before, after)
        )
        old = {renamed(name): path for name, path in old.items()}
        for name in sorted({*old, *new}):
            compared.add(
                name,
                facts_of(old[name], before) if name in old else None,
                facts_of(new[name], after) if name in new else None,
            )
    return compared


def files_below(folder: Path) -> list[Path]:
    """Return what was written."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != DONE]


def show(compared: Comparison) -> None:
    """Print the table, the differences, and how wording changed."""
    tell(f"\n{'part':<10}{'kind':<10}{'files':>7}{'values':>12}   equal")
    for (part, kind), row in sorted(compared.rows.items()):
        verdict = f"no, {row.different} differ" if row.different else "yes"
        tell(f"{part:<10}{kind[1:]:<10}{row.files:>7}{row.values:>12,}   {verdict}")
    for line in compared.differences:
        tell(f"different: {line}")
    for (old, new), times in compared.wording.most_common():
        tell(f"wording, {times} times: {old!r} → {new!r}")
    files = sum(row.files for row in compared.rows.values())
    values = sum(row.values for row in compared.rows.values())
    tell(f"\n{values:,} values in {files} files: {len(compared.differences)} lines of differences")


def tell(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


def main() -> int:
    """Compare as asked on the command line; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("before", help="commit or branch to compare with")
    parser.add_argument("--after", type=Path, default=CHECKOUT, help="checkout to compare")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts")
    parser.add_argument("--kept", type=Path, help="folder where what was before is kept")
    asked = parser.parse_args()
    parts = [part for part in PARTS if part in asked.only or part == next(iter(PARTS))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.kept or Path(temporary)).resolve()
        versions = prepare(folder, asked.before, asked.after.resolve())
        for version in versions:
            version.check()
            for part in parts:
                version.do(part)
        before, after = (version.here for version in versions)
        compared = compare(before, after, parts)
        show(compared)
        if compared.differences and asked.kept:
            tell(f"Look at them in {before} and {after}")
        else:
            shutil.rmtree(after)
    return int(bool(compared.differences))


if __name__ == "__main__":
    sys.exit(main())
