"""A campaign of hostile files: `make fuzz`. Each format in a process of its own, guided by coverage where it can be.

Where atheris is not installed (it has wheels for Linux and some versions of Python), files are changed at random
from seeds instead, by the same functions, and are no more than that.

An execution that ends the process, hangs for ten seconds of processor time, or takes more than 2 GiB is recorded with
its file below --out, and the format goes on in a new process.
"""

import argparse
import importlib
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from mutations import mutated

HERE = Path(__file__).parent
FIELDS = struct.Struct("<4d")  # executions, answers, seconds of the slowest, seconds in all
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - each campaign makes a folder of its own in it
SECONDS, MEMORY = 10, 2 * 2**30
CONTAINED = ("dicom", "keras")  # over some files HDF5 and OpenJPEG never end: in use, a worker runs them, and is ended
SLOW = {"keras h5, opened": 20, "keras archive, opened": 20}  # so many times fewer executions


def main() -> int:
    """Try every format, print the table, and end with 1 if anything broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=5000, help="of each format")
    parser.add_argument(
        "--out", type=Path, default=Path("build/fuzz"), help="where files that broke something are kept"
    )
    parser.add_argument("--only", nargs="*", help="beginnings of formats' names")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _child(asked.child, asked.executions, asked.seed, asked.out)
        return 0
    sys.path[:0] = [str(HERE), str(HERE.parent / "images")]
    from targets import TARGETS  # noqa: PLC0415

    chosen = [kind for kind in TARGETS if not asked.only or kind.startswith(tuple(asked.only))]
    rows = [_tried(kind, asked.executions // SLOW.get(kind, 1), asked.seed, asked.out) for kind in chosen]
    print("\n| format | executions | answered | crashes | hangs | largest memory, MiB | slowest, s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(f"\n{sum(row[1] for row in rows):,} executions")
    return int(any(row[3] or (row[4] and not row[0].startswith(CONTAINED)) for row in rows))


def _tried(kind: str, executions: int, seed: int, out: Path) -> tuple[str, int, int, int, int, int, float]:
    done, answered, crashes, hangs, memory, slowest = 0, 0, 0, 0, 0, 0.0
    failures = out / kind.replace(" ", "-").replace(",", "")
    shutil.rmtree(failures, ignore_errors=True)
    failures.mkdir(parents=True)
    while done < executions:
        scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        (scratch / "counts").write_bytes(FIELDS.pack(0, 0, 0, 0))
        (scratch / "files").mkdir()
        ended, used = _watched(kind, executions - done, seed + done, scratch, failures)
        tried, right, slow, _ = FIELDS.unpack((scratch / "counts").read_bytes())
        done, answered, memory = done + max(int(tried), 1), answered + int(right), max(memory, used)
        slowest = max(slowest, slow)
        if not tried:
            raise SystemExit(f"{kind}: nothing was tried; see {failures / 'log'}")
        if ended != "well":
            hangs, crashes = hangs + (ended == "hang"), crashes + (ended != "hang")
            for file in (scratch / "files").iterdir():
                shutil.copy(file, failures / f"{ended}-{done}-{file.name}")
        shutil.rmtree(scratch)
        if crashes + hangs > 50:
            break
    crashes += len([file for file in failures.iterdir() if file.suffix == ".txt"])
    row = (kind, done, answered, crashes, hangs, memory // 2**20, round(slowest, 2))
    print(*row, flush=True)
    return row


def _watched(kind: str, executions: int, seed: int, scratch: Path, failures: Path) -> tuple[str, int]:
    """Let a child try, and end it where it hangs; return how it ended, and the most memory it had."""
    order = [sys.executable, __file__, "--child", kind, "--executions", str(executions), "--seed", str(seed)]
    log = (failures / "log").open("ab")
    child = subprocess.Popen(
        [*order, "--out", str(scratch)], stdout=log, stderr=log, env={**os.environ, "FAILURES": str(failures)}
    )
    last, since, status, usage = -1.0, 0.0, 0, None
    while True:
        ended, status, usage = os.wait4(child.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.2)
        tried, cpu = FIELDS.unpack((scratch / "counts").read_bytes())[0], _processor_time(child.pid)
        if tried != last or tried == 0:
            last, since = tried, cpu
        elif cpu - since > SECONDS:
            child.kill()
            _, _, usage = os.wait4(child.pid, 0)
            child.returncode = -9
            return "hang", usage.ru_maxrss * 1024
    child.returncode = os.waitstatus_to_exitcode(status)
    return ("well" if child.returncode == 0 else f"code{child.returncode}"), usage.ru_maxrss * 1024


def _processor_time(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(kind: str, executions: int, seed: int, scratch: Path) -> None:
    """Try one format, and count in a file that outlasts this process."""
    atheris = importlib.import_module("atheris") if find_spec("atheris") else None
    sys.path[:0] = [str(HERE), str(HERE.parent / "images")]
    with atheris.instrument_imports(include=["mammolens"]) if atheris else nullcontext():
        import targets  # noqa: PLC0415
    from corpus import SEEDS  # noqa: PLC0415

    base, folder = kind.partition(",")[0], scratch / "files"
    seeds, target = SEEDS[base](), targets.TARGETS[kind]
    targets.here(folder)
    for data in seeds:  # whole files are read, and whatever is imported late is
        targets.is_read(target, data, folder)
    watch = targets.Watch(folder)
    with (scratch / "counts").open("r+b") as file:
        counts = mmap.mmap(file.fileno(), FIELDS.size)
    _limit()

    def once(data: bytes) -> None:
        start, right = time.process_time(), False
        try:
            right = targets.attempt(target, data, folder, watch)
        except Exception as error:  # noqa: BLE001 - that there is one is what is looked for
            _keep(Path(os.environ["FAILURES"]), data, error)
        took = time.process_time() - start
        tried, answered, slowest, spent = FIELDS.unpack(counts[:])
        counts[:] = FIELDS.pack(tried + 1, answered + right, max(slowest, took), spent + took)

    if atheris:
        _guided(atheris, base, seeds, once, [f"-runs={executions}", f"-seed={seed % 2**31}", str(scratch / "corpus")])
    else:
        random = Random(seed)
        for _ in range(executions):
            once(mutated(random.choice(seeds), base, seeds, random))


def _guided(atheris: Any, kind: str, seeds: tuple[bytes, ...], once: Callable[[bytes], None], flags: list[str]) -> None:
    """Let libFuzzer choose what is changed: what reached new code is changed again. Never returns."""
    corpus = Path(flags[-1])
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)

    def changed(data: bytes, size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:  # of what was changed over and over, little is still of its format
            data = random.choice(seeds)
        elif random.random() < 0.3:
            return bytes(atheris.Mutate(data, size))
        return mutated(data, kind, seeds, random)[:size]

    limits = [
        "-max_len=1048576",
        "-len_control=0",
        "-mutate_depth=1",
        "-cross_over=0",
        "-timeout=600",
        "-rss_limit_mb=0",
    ]
    limits += ["-malloc_limit_mb=0", "-verbosity=0", "-detect_leaks=0"]
    atheris.Setup([sys.argv[0], *limits, *flags], once, custom_mutator=changed)
    atheris.Fuzz()


def _limit() -> None:
    import resource  # noqa: PLC0415

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _keep(failures: Path, data: bytes, error: Exception) -> None:
    """Keep one file for each place where something breaks."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "mammolens" in frame.filename] or frames
    place = f"{type(error).__name__}-{Path(ours[-1].filename).stem}-{ours[-1].lineno}"
    if not (failures / f"{place}.txt").exists():
        (failures / place).write_bytes(data)
        (failures / f"{place}.txt").write_text("".join(traceback.format_exception(error)), errors="replace")


if __name__ == "__main__":
    sys.exit(main())
