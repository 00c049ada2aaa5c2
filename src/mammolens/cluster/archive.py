"""Answers for an archive of any size: `begun`, `answered`, `outcome`. Ray Data deals out parts of the list.

In the folder lie ``_run.json``, what shapes the answers; ``_inputs.parquet``, the list; and a file for each part of it,
``part-00012.parquet``, by its place alone. A part that is there is whole and is never made again: so a machine that is
lost, a run that goes on, and a part that two have made at once come to the same. Who reads the folder as one table
passes over names that begin with ``_``.
"""

import json
import logging
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import ray
import ray.data
from numpy.typing import NDArray

from mammolens import errors
from mammolens.cluster import stores
from mammolens.cluster.connection import Cluster, Terms
from mammolens.cluster.inputs import GROUP, inputs_of, read_slice, write_list
from mammolens.errors import ClusterError, DataError, MammolensError, reason
from mammolens.files import check_writable, is_half_written, sweep_in, write_text, written_whole
from mammolens.locks import held_alone
from mammolens.records import Reason
from mammolens.reports.answers import write_answers
from mammolens.serving.journal import Settings, settings
from mammolens.serving.predictor import Predictor, knows_gpus

RUN, LIST, _LOCK = "_run.json", "_inputs.parquet", ".lock"

PART = GROUP
"""Pictures a part at most: there are fewer where there are few pictures, so that all cores have some."""

_MANY = 512  # parts from which on there are enough for all cores
_LEAST = 8  # pictures a part

_MOST_BLOCKS = 4096
"""Of parts that are dealt out together: the process that deals keeps a record of each."""


@dataclass(frozen=True)
class Job:
    """What every process of the cluster is told.

    Attributes:
        folder: of the answers.
        stores: the address by which a bucket was named, by the bucket.
        model: folder of the bundle.
        point: the operating point that decides.
        ungated: see `Predictor.answers`.
        with_age: likewise.
        shaped: what shapes the answers, which must be the same everywhere.
        size: pictures a part, a divisor of `PART`.
        inputs: pictures in all.
    """

    folder: Path
    stores: Mapping[str, str]
    model: Path
    point: str
    ungated: bool
    with_age: bool
    shaped: Settings
    size: int
    inputs: int

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.inputs // self.size)

    def part(self, number: int) -> Path:
        """Return where the answers of a part lie."""
        return self.folder / f"part-{number:05d}.parquet"

    def missing(self) -> list[int]:
        """Return the parts that are still to be made."""
        with os.scandir(self.folder) as entries:
            there = {entry.name for entry in entries}
        return [number for number in range(self.parts) if self.part(number).name not in there]


@contextmanager
def begun(
    archive: Sequence[str],
    out: Path,
    predictor: Predictor,
    *,
    ungated: bool = False,
    with_age: bool = False,
    size: int | None = None,
) -> Iterator[Job]:
    """List an archive into the folder of its answers, or go on with what was begun there; it is locked meanwhile.

    Args:
        archive: see `inputs.inputs_of`.
        out: the folder; all machines see it under this path.
        predictor: the model.
        ungated: see `Predictor.answers`.
        with_age: likewise.
        size: pictures a part, a divisor of `PART`; None: by how many there are.

    Raises:
        DataError: a table or list of the archive is wrong; the folder holds something else, or answers of another model
            or list; another process writes to it.
    """
    shaped = settings(predictor.bundle.record, predictor.operating_point, ungated=ungated, age=with_age)
    named = stores.by_bucket(archive)
    out = Path(os.path.abspath(out))  # noqa: PTH100 - links are for each machine to follow
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    _check_own(out)
    busy = f"{out}: is being written by another process. Wait until it has ended, or name another."
    with held_alone(out / _LOCK, DataError(busy)):
        sweep_in(out, "*")
        count, size = _listed(archive, out, shaped, size)
        point = predictor.operating_point
        job = Job(out, named, predictor.bundle.folder, point, ungated, with_age, shaped, size, count)
        try:
            yield job
        except KeyboardInterrupt as error:
            done = job.parts - len(job.missing())
            error.add_note(f"{done} of {job.parts} parts are kept: the same command goes on.")
            raise


def _check_own(out: Path) -> None:
    """Refuse somebody else's folder, before anything is locked or deleted there.

    Raises:
        DataError: it holds something else.
    """
    others = [one.name for one in out.iterdir() if one.name not in {RUN, LIST, _LOCK} and not is_half_written(one)]
    if others and not (out / RUN).is_file():  # which comes before the first part
        raise DataError(f"{out}: holds {min(others)}. Choose a new folder.")


def _listed(archive: Sequence[str], out: Path, shaped: Settings, size: int | None) -> tuple[int, int]:
    """Write list and settings, which those that are there must be like; return how many pictures in all, and a part.

    Raises:
        DataError: the folder was begun with others.
    """
    first = _read(out / RUN) if (out / RUN).is_file() else None
    with written_whole(out / LIST) as temporary:
        told = _told(archive, temporary, shaped, size)
        if first is not None and (other := [name for name in told if first.get(name) != told[name]]):
            said = "; ".join(f"{name} {first.get(name)}, now {told[name]}" for name in other)
            raise DataError(f"{out}: was begun with {said}. Give the command as it was, or choose a new folder.")
    write_text(out / RUN, json.dumps(told, indent=2) + "\n")
    return told["inputs"], told["part"]


def _told(archive: Sequence[str], path: Path, shaped: Settings, size: int | None) -> dict[str, Any]:
    """Write the list to `path`, and return what `_run.json` tells.

    Raises:
        DataError: a table or list of the archive is wrong, or nothing is in it.
    """
    count, digest = write_list(inputs_of(archive), path)
    if not count:
        raise DataError(f"{' '.join(map(stores.plain, archive))}: no picture lies there.")
    fitting = (one for one in (_LEAST << step for step in range(PART)) if one >= PART or count <= one * _MANY)
    return {**shaped, "inputs": count, "list": digest, "part": size or next(fitting)}


def _read(path: Path) -> dict[str, object]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}). Choose a new folder.") from error
    return told if isinstance(told, dict) else {}


def answered(job: Job, cluster: Cluster) -> Generator[int]:
    """Have the cluster make the parts that are missing; yield the number of each as it is done, in no order.

    Where there are GPUs and ONNX Runtime knows them, each has a process, which decodes on its share of the cores, and
    machines without one have none; elsewhere each core has a process. Few parts are under way at a time, so memory
    stays bounded.

    Raises:
        ClusterError: a machine has another version or model, or parts were lost several times.
        MammolensError: the model fails.
    """
    missing = job.missing()
    if not missing:
        return
    quiet()
    gpus = cluster.gpus if knows_gpus() else 0
    cpus = cluster.cores_a_gpu() if gpus else 1
    most = max(1, min(gpus or cluster.cpus, len(missing)))
    dealt = ray.data.from_items(missing, override_num_blocks=min(len(missing), _MOST_BLOCKS)).map_batches(
        _Answering,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
        fn_constructor_args=(job, Terms.of(cpus)),
        num_cpus=cpus,
        num_gpus=1 if gpus else None,
    )
    for row in dealt.iter_rows():
        if row["error"]:
            raise vars(errors)[row["error"]](row["said"])
        yield int(row["part"])
    if lost := job.missing():
        raise ClusterError(f"{len(lost)} of {job.parts} parts were not made. Give the same command again.")


def quiet() -> None:
    """Have Ray Data say nothing: what it tells of progress is told here in one bar."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a part of large pictures may take hours
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


class _Answering:
    """A process that answers for one part after the other."""

    def __init__(self, job: Job, terms: Terms) -> None:
        self._job, self._terms = job, terms

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
        """Make some parts; errors travel as rows, for Ray has others of its own."""
        rows = [self._made(int(number)) for number in batch["item"]]
        return {name: [row[name] for row in rows] for name in ("part", "error", "said")}

    def _made(self, number: int) -> dict[str, Any]:
        try:
            self._make(number)
        except MammolensError as error:
            return {"part": number, "error": type(error).__name__, "said": str(error)}
        return {"part": number, "error": "", "said": ""}

    def _make(self, number: int) -> None:
        job = self._job
        if job.part(number).is_file():  # whoever made it was lost before it could say so
            return
        inputs = read_slice(job.folder / LIST, number * job.size, job.size, job.stores)
        answers = self._predictor.answers(inputs, ungated=job.ungated, maps=False, with_age=job.with_age)
        write_answers(answers, job.part(number), with_age=job.with_age)

    @cached_property
    def _predictor(self) -> Predictor:
        job = self._job
        self._terms.accept()
        predictor = Predictor.load(job.model, job.point)
        shaped = settings(predictor.bundle.record, job.point, ungated=job.ungated, age=job.with_age)
        if shaped != job.shaped:
            raise ClusterError(f"{job.model}: is another model on {ray.util.get_node_ip_address()}. Copy it to all.")
        return predictor


@dataclass(frozen=True)
class Outcome:
    """What became of an archive.

    Attributes:
        pictures: that have a row.
        failed: of them, those whose row has an error.
        refused: of them, those that do not look like a mammogram.
    """

    pictures: int
    failed: int
    refused: int


def outcome(job: Job) -> Outcome:
    """Count rows, once all parts are made.

    Raises:
        DataError: a part cannot be read, or there is not one row a picture.
    """
    try:
        rows = ds.dataset([str(job.part(number)) for number in range(job.parts)])
        counts = Outcome(
            rows.count_rows(),
            rows.count_rows(filter=ds.field("error").is_valid()),
            rows.count_rows(filter=ds.field("reason") == str(Reason.NOT_A_MAMMOGRAM)),
        )
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{job.folder}: a part cannot be read ({reason(error)}). Delete it and give the command again."
        ) from error
    if counts.pictures != job.inputs:
        raise DataError(
            f"{job.folder}: has {counts.pictures} rows for {job.inputs} pictures: some part was changed. Delete parts "
            "and give the command again."
        )
    return counts
