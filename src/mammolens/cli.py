"""The command line: one function a verb. Each parses, makes one library call and prints.

Heavy libraries are imported by the verb that needs them, so that `--help` answers at once.
"""

import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from mammolens import __version__
from mammolens.errors import MammolensError, MissingExtra

if TYPE_CHECKING:
    from mammolens.evaluation import Report
    from mammolens.manifest import Manifest
    from mammolens.predictor import Predictor

app = typer.Typer(
    help="Detect breast tumors in mammograms, and say honestly how well. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    str, typer.Argument(help="Folder of class folders, CSV, or phantom:PATIENTS.", metavar="DATA")
]
Positive = Annotated[
    str | None, typer.Option(help="Class that means tumor, where classes are not 0 and 1.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]

_screen = Console(soft_wrap=True)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
    patients: Annotated[int, typer.Option(min=1, help="Four images each.")] = 100,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Height and width, pixels.")] = 640,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same images.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write synthetic mammograms in the Kaggle layout: for demos and tests, not for science."""
    from mammolens.sources.phantom import write_phantoms

    manifest = write_phantoms(out, patients, size=size, seed=seed, progress=not quiet)
    _screen.print(f"{len(manifest)} images of {patients} synthetic patients are in {out}")


@app.command()
def manifest(
    data: Data,
    out: Annotated[Path, typer.Argument(help="CSV to write.", metavar="OUT.csv")],
    splits: Annotated[
        str, typer.Option(help="'shipped' keeps the data set's own, 'patient' makes new ones.")
    ] = "shipped",
    fractions: Annotated[
        tuple[float, float, float], typer.Option(help="Shares of train, valid and test.")
    ] = (0.7, 0.15, 0.15),
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    positive: Positive = None,
) -> None:
    """List a data set as a CSV, one row an image, with splits that patients do not cross."""
    from mammolens.sources import read_source
    from mammolens.splits import split_by_patient

    if splits not in ("shipped", "patient"):
        raise typer.BadParameter("expected 'shipped' or 'patient'", param_hint="--splits")
    listed = read_source(data, positive=positive)
    if splits == "patient":
        listed = split_by_patient(listed, fractions, seed)
    listed.save(out)
    _print_splits(listed, str(out))


@app.command()
def train(
    data: Data,
    recipe: Annotated[str, typer.Option(help="Recipe that ships, or a TOML file.")] = "baseline",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a recipe field: key=value. Repeat for more."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/NAME-TIME]")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network and write a run folder: model, history, figures, evaluation."""
    _require_training()
    from mammolens.recipe import read_recipe
    from mammolens.runs import EVALUATION
    from mammolens.sources import read_source
    from mammolens.training import train as train_network

    settings = read_recipe(recipe, set_ or [])
    listed = read_source(data)
    _print_splits(listed, data)
    folder = out or Path("runs") / f"{settings.name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005
    run = train_network(listed, settings, folder, command=_command(), progress=not quiet)
    for path, why in run.record.left_out.items():
        _warn(f"left out: {path}: {why}" if path not in why else f"left out: {why}")
    _screen.print(f"\nRun written to {folder} (epoch {run.record.best_epoch} was kept).")
    for split in ("valid", "test"):
        report = folder / EVALUATION / split / "report.json"
        if report.exists():
            _screen.print(f"  {split}: {report}")
    _screen.print(f"Next: mammolens evaluate {folder}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    data: Annotated[str | None, typer.Option(help="Data set.  [default: the run's own]")] = None,
    split: Annotated[str, typer.Option(help="train, valid, test or all.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
    quiet: Quiet = False,
) -> None:
    """Judge a run on one split: figures with 95 % intervals by patient, and report.json."""
    from mammolens.evaluation import judge, write_predictions, write_report
    from mammolens.records import Split
    from mammolens.sources import read_source

    if split not in (*Split, "all"):
        raise typer.BadParameter("expected train, valid, test or all", param_hint="--split")
    predictor, trained_on = _open(run)
    listed = read_source(data) if data else read_source(str(trained_on))
    chosen = None if split == "all" else Split(split)
    images = (listed if chosen is None else listed.of_split(chosen)).paths
    predictions = list(predictor.predict(images, progress=not quiet))
    report = judge(predictions, listed, chosen, model=str(run), command=_command())
    folder = out or run / "evaluation" / (split if data is None else f"{split}-{Path(data).stem}")
    write_predictions(predictions, folder / "predictions.csv")
    write_report(report, predictions, listed, folder)
    _print_report(report)
    _screen.print(f"Report and figures are in {folder}")


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Images or folders.", metavar="PATHS...")],
    model: Annotated[Path, typer.Option(help="Run folder.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="CSV to write.")] = None,
    quiet: Quiet = False,
) -> None:
    """Answer for each image: probability of tumor and a decision. Exit code 1 if any failed."""
    from mammolens.evaluation import write_predictions
    from mammolens.predictor import find_images

    predictor, _ = _open(model)
    predictions = list(predictor.predict(find_images(paths), progress=not quiet))
    table = Table("image", "probability", "decision", caption="Research use only.")
    for answer in predictions:
        shown = "" if answer.probability is None else f"{answer.probability:.4f}"
        table.add_row(str(answer.path), shown, answer.decision or f"[red]{answer.error}[/]")
    _screen.print(table)
    if out is not None:
        write_predictions(predictions, out)
        _screen.print(f"Written to {out}")
    failed = sum(answer.error is not None for answer in predictions)
    if failed:
        _warn(f"{failed} of {len(predictions)} images got no answer")
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    _screen.print(__version__)


def main() -> NoReturn:
    """Run the command line: a `MammolensError` becomes one line and exit code 1."""
    try:
        app()
    except MammolensError as error:
        _warn(str(error), "error")
        sys.exit(1)
    sys.exit(0)


def _open(run: Path) -> tuple["Predictor", Path]:
    """Return what answers for a run, and the manifest it was trained on."""
    _require_training()
    from mammolens.predictor import Predictor
    from mammolens.runs import MANIFEST, open_run, scorer

    opened = open_run(run)
    score = scorer(opened.load_network())
    predictor = Predictor(opened.recipe.preprocess, opened.record.threshold, score)
    return predictor, run / MANIFEST


def _require_training() -> None:
    from importlib.util import find_spec

    needed = ("keras", os.environ["KERAS_BACKEND"])
    if missing := [name for name in needed if find_spec(name) is None]:
        raise MissingExtra(
            f"{' and '.join(missing)} not installed. Install with: pip install 'mammolens[train]'"
        )


def _print_splits(manifest: "Manifest", origin: str) -> None:
    """Show what is in each split, and warn where patients cross them."""
    from mammolens.records import Split
    from mammolens.splits import leakage

    table = Table("split", "images", "patients", "tumor", "no tumor", "unknown", title=origin)
    for split in (*Split, None):
        part = manifest.where(lambda mammogram, split=split: mammogram.split is split)  # type: ignore[misc]
        if len(part):
            tumors, healthy = int((part.labels == 1).sum()), int((part.labels == 0).sum())
            unknown = len(part) - tumors - healthy
            counts = (len(part), len(set(part.patients)), tumors, healthy, unknown)
            table.add_row(split or "none", *map(str, counts))
    _screen.print(table)
    for judged in (Split.VALID, Split.TEST):
        shared = leakage(manifest, Split.TRAIN, judged)
        if shared.patients:
            _warn(
                f"{shared.patients} of {shared.of_patients} patients ({shared.images} of "
                f"{shared.of_images} images) in '{judged}' are in 'train' too: figures will be too "
                "good. Use: mammolens manifest DATA data.csv --splits patient"
            )


def _print_report(report: "Report") -> None:
    from mammolens.evaluation import show

    counts = report.counts
    table = Table(
        "measure",
        "value (95 % interval by patient)",
        title=f"{report.split or 'all images'}: {counts.images} images of {counts.patients} "
        f"patients, {counts.tumors} with tumor; threshold {report.threshold:.3f}",
    )
    for name, figure in report.metrics.items():
        table.add_row(name.replace("_", " "), show(figure))
    table.add_row(
        "accuracy of always answering the commoner class", f"{report.majority_accuracy:.3f}"
    )
    _screen.print(table)
    (tn, fp), (fn, tp) = report.confusion
    classes = Table("", "called no tumor", "called tumor", "precision", "recall", "F1", "images")
    for row, cells in zip(report.classes, ((tn, fp), (fn, tp)), strict=True):
        shares = ("-" if x is None else f"{x:.3f}" for x in (row.precision, row.recall, row.f1))
        classes.add_row(f"is {row.name}", *map(str, cells), *shares, str(row.images))
    _screen.print(classes)
    if counts.patients_also_in_training:
        _warn(f"{counts.patients_also_in_training} of these patients were trained on")
    if counts.without_answer or counts.without_label:
        _warn(
            f"left out: {counts.without_answer} images without an answer, "
            f"{counts.without_label} without a label"
        )


def _command() -> str:
    return shlex.join(["mammolens", *sys.argv[1:]])


def _warn(text: str, kind: str = "warning") -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]{kind}:[/] {text}", highlight=False)


if __name__ == "__main__":
    main()
