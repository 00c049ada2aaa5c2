"""The command line: one function a verb. Each parses, makes one library call and prints.

Heavy libraries are imported by the verb that needs them, so that `--help` answers at once.
"""

import os
import shlex
import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from mammolens import __version__
from mammolens.errors import MammolensError, MissingExtra

if TYPE_CHECKING:
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
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a recipe field: key=value. Repeat for more."),
]
RecipeName = Annotated[str, typer.Option(help="Recipe that ships, or a TOML file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]

_screen = Console(soft_wrap=True)


class SplitBy(StrEnum):
    """Where splits come from."""

    SHIPPED = "shipped"
    PATIENT = "patient"


class Judged(StrEnum):
    """What can be judged."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"
    ALL = "all"


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

    written = write_phantoms(out, patients, size=size, seed=seed, progress=not quiet)
    _screen.print(f"{len(written)} images of {patients} synthetic patients are in {out}")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="kaggle-breast.", metavar="NAME")],
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
) -> None:
    """Fetch a public data set; needs kagglehub, a network and an account there."""
    from mammolens.sources.download import download as fetch

    _screen.print(f"Written to {fetch(name, out)}. Next: mammolens doctor {out}")


@app.command()
def manifest(
    data: Data,
    out: Annotated[Path, typer.Argument(help="CSV to write.", metavar="OUT.csv")],
    splits: Annotated[
        SplitBy, typer.Option(help="Keep the data set's own, or make new ones by patient.")
    ] = SplitBy.SHIPPED,
    fractions: Annotated[
        tuple[float, float, float], typer.Option(help="Shares of train, valid and test.")
    ] = (0.7, 0.15, 0.15),
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    positive: Positive = None,
) -> None:
    """List a data set as a CSV, one row an image, with splits that patients do not cross."""
    from mammolens.sources import read_source
    from mammolens.splits import split_by_patient

    listed = read_source(data, positive=positive)
    if splits is SplitBy.PATIENT:
        listed = split_by_patient(listed, fractions, seed)
    listed.save(out)
    _print_splits(listed, str(out))


@app.command()
def doctor(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html, findings.json.")] = None,
    mend: Annotated[Path | None, typer.Option(help="CSV to write: the mended manifest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings as JSON.")] = False,
    positive: Positive = None,
    quiet: Quiet = False,
) -> None:
    """Find what is wrong with a data set before anything learns from it. Exit code 1 on errors."""
    from mammolens.doctor.examination import examine, look
    from mammolens.doctor.examination import mend as mended
    from mammolens.doctor.findings import Severity
    from mammolens.doctor.report import write_report
    from mammolens.sources import read_source
    from mammolens.tables import findings_table

    examined = look(read_source(data, positive=positive), progress=not quiet)
    diagnosis = examine(examined, data=data, command=_command())
    if as_json:
        sys.stdout.write(diagnosis.model_dump_json(indent=2) + "\n")
    else:
        _screen.print(findings_table(diagnosis))
    if out is not None:
        write_report(diagnosis, out)
        _tell(f"Report written to {out / 'report.html'}")
    if mend is not None:
        mended(examined, diagnosis.findings).save(mend)
        _tell(f"Mended manifest written to {mend}: mammolens train {mend}")
    if diagnosis.of(Severity.ERROR):
        raise typer.Exit(1)


@app.command()
def preview(
    data: Data,
    out: Annotated[Path, typer.Argument(help="PNG to write.", metavar="OUT.png")],
    recipe: RecipeName = "baseline",
    set_: Changes = None,
    images: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of images.")] = 0,
) -> None:
    """Draw a contact sheet: each image as stored, and as the network will see it."""
    from mammolens.figures import save_figure
    from mammolens.preview import contact_sheet
    from mammolens.recipe import read_recipe
    from mammolens.sources import read_source

    settings = read_recipe(recipe, set_ or [])
    sheet, failures = contact_sheet(read_source(data).paths, settings.preprocess, images, seed)
    save_figure(sheet, out)
    for failure in failures:
        _warn(failure)
    _screen.print(f"Written to {out}")


@app.command()
def train(
    data: Data,
    recipe: RecipeName = "baseline",
    set_: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/NAME-TIME]")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network and write a run folder: model, history, figures, evaluation."""
    from mammolens.recipe import read_recipe
    from mammolens.sources import read_source

    _require_training()
    settings = read_recipe(recipe, set_ or [])
    listed = read_source(data)
    _print_splits(listed, data)

    from mammolens.training import train as train_network

    folder = out or Path("runs") / f"{settings.name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005
    run = train_network(listed, settings, folder, command=_command(), progress=not quiet)
    for why in run.record.left_out.values():
        _warn(f"left out: {why}")
    _screen.print(
        f"Run written to {folder}: {run.record.epochs} epochs in {run.record.seconds:.0f} s, "
        f"epoch {run.record.best_epoch} kept.\nNext: mammolens evaluate {folder}"
    )


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    data: Annotated[str | None, typer.Option(help="Data set.  [default: the run's own]")] = None,
    split: Annotated[Judged, typer.Option(help="What to judge.")] = Judged.TEST,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.  [default: RUN/evaluation/...]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Judge a run on one split: figures with 95 % intervals by patient, and report.json."""
    from mammolens.evaluation import judge, write_predictions, write_report
    from mammolens.records import Split
    from mammolens.sources import read_source
    from mammolens.tables import classes_table, measures_table, report_warnings

    predictor, trained_on = _open(run)
    listed = read_source(data or str(trained_on))
    chosen = None if split is Judged.ALL else Split(split)
    images = listed if chosen is None else listed.of_split(chosen)
    predictions = list(predictor.predict(images.paths, progress=not quiet))
    report = judge(predictions, listed, chosen, model=str(run), command=_command())
    folder = out or run / "evaluation" / (f"{Path(data).stem}-{split}" if data else split)
    write_predictions(predictions, folder / "predictions.csv")
    write_report(report, predictions, listed, folder)
    _screen.print(measures_table(report), classes_table(report))
    for warning in report_warnings(report):
        _warn(warning)
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
    from mammolens.tables import predictions_table

    predictor, _ = _open(model)
    predictions = list(predictor.predict(find_images(paths), progress=not quiet))
    _screen.print(predictions_table(predictions))
    if out is not None:
        write_predictions(predictions, out)
        _screen.print(f"Written to {out}")
    failed = sum(answer.error is not None for answer in predictions)
    if failed:
        _warn(f"{failed} of {len(predictions)} images got no answer")
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")] = Path("demo"),
    patients: Annotated[int, typer.Option(min=20, help="Synthetic patients.")] = 250,
) -> None:
    """Run the whole line on synthetic patients: phantom, train, evaluate, predict."""
    from mammolens.records import Split
    from mammolens.sources import read_source

    data, run = out / "phantoms", out / "run"
    _say(f"mammolens phantom {data} --patients {patients}")
    phantom(data, patients)
    _say(f"mammolens train {data} --recipe quick --out {run}")
    train(str(data), "quick", out=run)
    _say(f"mammolens evaluate {run}")
    evaluate(run)
    test = read_source(str(data)).of_split(Split.TEST)
    some = [path for label in (0, 1) for path in test.with_label(label).paths[::11][:3]]
    _say(f"mammolens predict {' '.join(map(str, some))} --model {run}")
    predict(some, run, out / "predictions.csv")
    _screen.print(
        f"\nLook at: {data} (the images), {run}/figures (how it learnt),\n"
        f"         {run}/evaluation/test (how good it is), {run}/breast.h5 (the network)\n"
        "These patients are drawn, not real: the figures show that the line works, nothing else.\n"
        "Next:    mammolens train YOUR_FOLDER    (train/0, train/1, valid/0, ... or a CSV)"
    )


def main() -> NoReturn:
    """Run the command line: a `MammolensError` becomes one line and exit code 1."""
    try:
        app()
    except MammolensError as error:
        _warn(str(error), "error")
    sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        _screen.print(__version__)
        raise typer.Exit


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


def _print_splits(listed: "Manifest", origin: str) -> None:
    from mammolens.tables import leakage_warnings, splits_table

    _screen.print(splits_table(listed, origin))
    for warning in leakage_warnings(listed):
        _warn(warning)


def _command() -> str:
    return shlex.join(["mammolens", *sys.argv[1:]])


def _tell(text: str) -> None:
    """Print on standard error what is not a result."""
    Console(stderr=True, soft_wrap=True).print(text, highlight=False)


def _say(command: str) -> None:
    _screen.print(f"\n[bold]$ {command}[/]", highlight=False)


def _warn(text: str, kind: str = "warning") -> None:
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]{kind}:[/]", text, highlight=False, markup=True)


if __name__ == "__main__":
    main()
