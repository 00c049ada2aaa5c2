"""Networks trained by workers: folds side by side, or one network by several, whom Ray Train starts, again if need be.

Each of several learns from its share of every batch (`learning.team`). The first writes the run folder, from whose last
checkpoint all go on. The calling process learns nothing: it looks what the folder says.
"""

# ruff: noqa: PLC0415 - whoever watches over workers needs no Keras

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process that nobody here asks
import ray
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from mammolens.cluster.connection import Cluster, Terms
from mammolens.data.manifest import Manifest
from mammolens.errors import ClusterError, MammolensError, reason
from mammolens.files import scratch
from mammolens.model.recipe import Recipe
from mammolens.parallel import Each

if TYPE_CHECKING:
    from mammolens.learning.runs import Run
    from mammolens.learning.team import Team

_RESTARTS = 5
_DAY = 86_400  # seconds that a worker waits for others, who may have images to prepare; who died is noticed at once
_GLANCE = 1.0  # seconds between two looks at the history


@dataclass(frozen=True)
class Lesson:
    """What is learnt from, how, and where it goes: what `learning.training.train` takes."""

    manifest: Manifest
    recipe: Recipe
    folder: Path
    also: Sequence[Manifest] = ()
    name: str = ""
    command: str = ""


def train(cluster: Cluster, lesson: Lesson, workers: int = 1, *, progress: bool = False) -> "Run":
    """Train as `learning.training.train` does, by so many workers; images and run folder must be there for all.

    What is interrupted, by whatever, goes on from its last epoch when this is called again, by as many workers or not.

    Raises:
        ClusterError: there is no room for so many, or they were lost again and again.
        MammolensError: as `learning.training.train` raises it.
    """
    from mammolens.learning.networks.builders import check_network
    from mammolens.learning.runs import open_run, start_run
    from mammolens.learning.training import check_trainable, with_others

    check_network(lesson.recipe)
    check_trainable(with_others(lesson.manifest.labelled(), lesson.also, lesson.recipe)[0], lesson.recipe)
    cores = cores_each(workers, on_gpus=cluster.gpus > 0)
    start_run(lesson.folder, lesson.recipe)
    if workers == 1:
        each = side_by_side(cluster, 1)
        _watched(lambda: list(each(_learn_alone, [lesson])), lesson.folder, progress=progress)
    else:
        with scratch() as folder:
            trainer = _trainer(lesson, workers, cores, on_gpus=cluster.gpus > 0, folder=folder)
            _watched(trainer.fit, lesson.folder, progress=progress)
    return open_run(lesson.folder)


class _Trainer(TorchTrainer):  # type: ignore[misc]  # Ray's types are not followed
    """Leaves Ctrl-C as it is: Ray's handler would end the process in the middle, with nothing cleared away."""

    def _register_sigint_handler(self, controller: object) -> None:
        pass


def _trainer(lesson: Lesson, workers: int, cores: int, *, on_gpus: bool, folder: Path) -> TorchTrainer:
    return _Trainer(
        _learn_together,
        train_loop_config={"lesson": lesson, "terms": Terms.of(cores)},
        torch_config=TorchConfig(timeout_s=_DAY),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=on_gpus,
            resources_per_worker={"CPU": cores, "GPU": int(on_gpus)},
        ),
        run_config=RunConfig(
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=_RESTARTS),
            callbacks=[_GivesUp()],
            logging_config=LoggingConfig("ERROR"),
        ),
    )


def side_by_side(cluster: Cluster, trainings: int) -> Each:
    """Return what spreads so many trainings, such as those of folds, each with as many cores as there are for it.

    Raises:
        ClusterError: the cluster has no core.
    """
    on_gpus = cluster.gpus > 0
    parts = min(trainings, cluster.gpus if on_gpus else max(1, cluster.cpus))
    return partial(cluster.each, cpus=cores_each(parts, on_gpus=on_gpus), gpus=int(on_gpus))


def cores_each(parts: int, *, on_gpus: bool = False) -> int:
    """Return how many cores, all of one machine, each of so many parts may take to be done side by side.

    Raises:
        ClusterError: there is not one core, or GPU, for each.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def room(cores: int) -> int:
        return sum(
            int(min(there.get("CPU", 0) // cores, there.get("GPU", 0) if on_gpus else math.inf)) for there in machines
        )

    if room(1) < parts:
        kind = "GPU" if on_gpus else "core"
        raise ClusterError(
            f"{parts} workers need a {kind} each, and the cluster has {room(1)}. Ask for at most so many."
        )
    most = max(int(there.get("CPU", 0)) for there in machines)
    return max(cores for cores in range(1, most + 1) if room(cores) >= parts)


def _learn_alone(lesson: Lesson) -> None:
    """What one worker does."""
    from mammolens.learning.team import ALONE

    _learn(lesson, ALONE)


def _learn_together(told: dict[str, Any]) -> None:
    """What each of several does."""
    told["terms"].accept()
    from mammolens.learning.team import Team

    _learn(told["lesson"], Team.joined())


def _learn(lesson: Lesson, team: "Team") -> None:
    from mammolens.learning.runs import RECORD
    from mammolens.learning.training import assist, train

    if team.told((lesson.folder / RECORD).exists):  # who died had nothing left to do
        return
    if team.leads:
        train(
            lesson.manifest,
            lesson.recipe,
            lesson.folder,
            also=lesson.also,
            name=lesson.name,
            command=lesson.command,
            team=team,
        )
    else:
        assist(lesson.manifest, lesson.recipe, team, also=lesson.also)


class _GivesUp(UserCallback):  # type: ignore[misc]  # Ray's types are not followed
    """Ends a training at what a user can mend, where workers that are lost are started again."""

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        for error in worker_exceptions.values():
            if isinstance(error, MammolensError):
                raise error


def _watched(work: Callable[[], object], folder: Path, *, progress: bool) -> None:
    """Have something train, and say meanwhile what the run folder says of it.

    It stays in this thread, which Ctrl-C reaches: Ray ends a process at once in which another thread still asks
    something of it when it is left.
    """
    from mammolens.learning.runs import HISTORY

    over, history = Event(), folder / HISTORY
    telling = Thread(target=_tell, args=(history, len(_epochs(history)), over), daemon=True)
    if progress:
        telling.start()
    try:
        work()
    except TrainingFailedError as error:
        raise what_failed(error) from error
    finally:
        over.set()
        if progress:
            telling.join()


def _tell(history: Path, said: int, over: Event) -> None:
    """Say each epoch after the first `said` as it is written down, until it is over."""
    from rich.console import Console

    from mammolens.learning.callbacks import say_epoch

    console, last = Console(stderr=True), False
    while not last:
        last = over.wait(_GLANCE)
        for number, measures in list(enumerate(_epochs(history), 1))[said:]:
            say_epoch(number, measures, console)
            said = number


def what_failed(error: TrainingFailedError) -> Exception:
    """Return what a worker said that a user can mend, or else that workers were lost."""
    causes = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", error)]
    ours = (cause for cause in causes if isinstance(cause, MammolensError))
    return next(ours, ClusterError(f"workers failed again and again ({reason(causes[0])}). Give the command again."))


def _epochs(history: Path) -> list[Any]:
    import pandas as pd

    with suppress(OSError, ValueError):
        return pd.read_csv(history, index_col="epoch").to_dict("records")
    return []
