"""Verbs about models: train, judge, export, and the demonstration of all."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mammolens.cli.data import phantom
from mammolens.cli.options import (
    MODELS,
    Changes,
    ClusterAddress,
    Data,
    Point,
    Quiet,
    RecipeName,
    command_line,
    fail_if,
    folder_option,
    joined,
    listed_from,
    print_splits,
    say,
    screen,
    tell_left_out,
    to_be_continued,
    typed,
    warn,
)
from mammolens.cli.serving import introduce, predict
from mammolens.errors import BundleError
from mammolens.files import check_new_file, check_new_folder, check_writable
from mammolens.levels import Level
from mammolens.library import require_training

Also = Annotated[
    list[str] | None,
    typer.Option(help="Data set to train on as well, and never to evaluate on. Repeat for more."),
]


class Judged(StrEnum):
    """What can be judged."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"
    ALL = "all"


def train(
    data: Data,
    recipe: RecipeName = "baseline",
    set_: Changes = None,
    also: Also = None,
    out: Annotated[Path | None, folder_option("Run folder.  [default: runs/NAME-TIME]")] = None,
    cluster: ClusterAddress = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share each batch, with --cluster.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Train a network and write a run folder: model, history, figures, evaluation.

    Exit code 1 if images were left out.
    """
    from mammolens.model.recipe import read_recipe

    if workers > 1 and cluster is None:
        raise typer.BadParameter("add --cluster local, or HOST:PORT of a cluster", param_hint="--workers")
    require_training()
    settings = read_recipe(recipe, set_ or [])
    folder = out or Path("runs") / f"{settings.name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005
    check_writable(folder)
    (listed, *others), left_out = listed_from(data, *(also or []))
    print_splits(listed, data)

    name, command = ", ".join([data, *(also or [])]), command_line()
    with to_be_continued("train", folder), joined(cluster) as machines:
        if machines:
            from mammolens.cluster.training import Lesson
            from mammolens.cluster.training import train as train_together

            lesson = Lesson(listed, settings, folder, others, name, command)
            run = train_together(machines, lesson, workers, progress=not quiet)
        else:
            from mammolens.learning.fitting import gpu
            from mammolens.learning.training import train as train_network

            if device := gpu():
                screen.print(f"Learns on the GPU, {device}.", markup=False)
            run = train_network(listed, settings, folder, also=others, name=name, command=command, progress=not quiet)
    for why in run.record.left_out.values():
        warn(f"left out: {why}")
    epochs = f"{run.record.epochs} epoch{'s' if run.record.epochs > 1 else ''}"
    screen.print(
        f"Run written to {folder}: {epochs} in {run.record.seconds:.0f} s, "
        f"epoch {run.record.best_epoch} kept.\nNext: {typed('evaluate', folder)}",
        markup=False,
    )
    fail_if(left_out + len(run.record.left_out))


def reproduce(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    out: Annotated[Path | None, folder_option("Run folder to make.  [default: RUN-again]")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a run again from what its folder says, and compare: images, versions, losses, weights, answers.

    Exit code 1 if it ends otherwise; on another machine or with other versions, if a loss or a
    validation probability differs by more than 0.1.
    """
    require_training()
    folder = out or run.with_name(f"{run.name}-again")
    check_writable(folder)

    from mammolens.learning.reproduction import reproduce as train_again

    with to_be_continued("reproduce", folder):
        told = train_again(run, folder, command=command_line(), progress=not quiet)
    screen.print(f"Images: all {told.images} hold what they held.", markup=False)
    for name, (then, now) in told.environment.items():
        warn(f"{name} was {then}, is {now}", "differs")
    if told.equal:
        epochs = f"{told.epochs[0]} epoch{'s' * (told.epochs[0] > 1)}"
        screen.print(f"Equal to the last bit: losses of {epochs}, weights, validation answers.")
    else:
        screen.print(
            f"Not equal. Epochs: {told.epochs[0]}, again {told.epochs[1]}. Largest differences: {told.losses:.1g} in "
            f"a loss of an epoch, {told.weights:.1g} in a weight, {told.answers:.1g} in a validation probability."
        )
    screen.print(f"Run written to {folder}, with reproduction.json", markup=False)
    if not told.succeeded:
        raise typer.Exit(1)


def crossvalidate(
    data: Data,
    recipe: RecipeName = "accurate",
    set_: Changes = None,
    folds: Annotated[int, typer.Option(min=2, help="Of patients.")] = 5,
    also: Also = None,
    with_: Annotated[
        list[Path] | None, typer.Option("--with", help="Another cross-validation: evaluate the mean of both.")
    ] = None,
    out: Annotated[Path | None, folder_option("Folder.  [default: runs/NAME-folds]")] = None,
    cluster: ClusterAddress = None,
    quiet: Quiet = False,
) -> None:
    """Train a recipe once per fold of patients; evaluate each fold with the network that has not seen it."""
    from mammolens.model.recipe import read_recipe
    from mammolens.reports.terminal import folds_table

    require_training()
    settings = read_recipe(recipe, set_ or [])
    folder = out or Path("runs") / f"{settings.name}-folds"
    check_writable(folder)

    from mammolens.learning.crossvalidation import check_unseen, cross_validate

    check_unseen(settings)
    (listed, *others), left_out = listed_from(data, *(also or []))
    with to_be_continued("crossvalidate", folder), joined(cluster) as machines:
        each = None
        if machines:
            from mammolens.cluster.training import side_by_side

            each = side_by_side(machines, folds)
        report = cross_validate(
            listed,
            settings,
            folder,
            folds=folds,
            also=others,
            others=with_ or [],
            name=", ".join([data, *(also or [])]),
            command=command_line(),
            each=each,
            progress=not quiet,
        )
    screen.print(folds_table(report.roc_auc, report.folds, screen.width))
    screen.print(
        f"{report.images} images of {report.patients} patients, {report.tumors} with a tumor. "
        f"Report and scores are in {folder}",
        markup=False,
    )
    fail_if(left_out)


def evaluate(
    model: Annotated[str | None, typer.Argument(help=f"{MODELS} Or: --predictions.", metavar="MODEL")] = None,
    data: Annotated[str | None, typer.Option(help="Data set.  [default: the run's own]")] = None,
    split: Annotated[Judged, typer.Option(help="What to judge.")] = Judged.TEST,
    point: Point = None,
    predictions: Annotated[
        Path | None, typer.Option(help="CSV of path and probability: any other system's scores.")
    ] = None,
    robustness: Annotated[int, typer.Option(min=0, help="Number of images to try mild changes on.")] = 0,
    pictures: Annotated[bool, typer.Option(help="Show the most confident errors, or only name them.")] = True,
    out: Annotated[Path | None, folder_option("Folder for the report.  [default: RUN/evaluation/...]")] = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate a model, or any system's scores: report.html, report.json, model-card.md.

    Exit code 1 if images were left out.
    """
    if (model is None) == (predictions is None):
        raise typer.BadParameter("name a model, or --predictions", param_hint="MODEL")
    if model is not None:
        from mammolens.model.bundle import find_bundle

        find_bundle(model)
    elif data is None:
        raise typer.BadParameter("say which images were scored", param_hint="--data")
    origin = data or own_data(str(model))
    if out is None and (model is None or not (Path(model) / "run.json").is_file()):
        raise typer.BadParameter("say where the report goes", param_hint="--out")
    if predictions is not None and (robustness or point):
        raise typer.BadParameter("these need a model", param_hint="--robustness, --point")

    from mammolens.data.sources import read_source
    from mammolens.judging.judge import EvaluationSet
    from mammolens.records import Split
    from mammolens.reports.terminal import decisions_tables, measures_table, report_warnings
    from mammolens.serving.assessment import assess, assess_scores
    from mammolens.serving.predictor import Predictor

    listed = read_source(origin, files=predictions is None)
    left_out = tell_left_out(listed)
    folder = out or Path(str(model)) / "evaluation" / (f"{Path(data).stem}-{split}" if data else split)
    check_writable(folder)
    evaluated = EvaluationSet(listed, None if split is Judged.ALL else Split(split), origin, command_line())
    if predictions is None:
        predictor = Predictor.load(model, point)
        introduce(predictor)
        report = assess(predictor, evaluated, folder, robustness=robustness, pictures=pictures, progress=not quiet)
    else:
        report = assess_scores(predictions, evaluated, folder)
    screen.print(measures_table(report, screen.width), *decisions_tables(report, screen.width))
    for warning in report_warnings(report):
        warn(warning)
    screen.print(f"Report: {folder / 'report.html'}", markup=False)
    fail_if(left_out + (report.counts.without_answer if predictions is None else 0))


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a report.", metavar="REPORT_A")],
    second: Annotated[Path, typer.Argument(help="Folder of another.", metavar="REPORT_B")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Compare two reports on the same images: is one model better, or is it chance?"""
    from mammolens.files import write_text
    from mammolens.judging.comparison import compare as compare_reports
    from mammolens.reports.terminal import comparison_table

    check_new_file(out, (".json",))
    comparison = compare_reports(first, second)
    if out is not None:
        write_text(out, comparison.model_dump_json(indent=2) + "\n")
    screen.print(comparison_table(comparison, screen.width))


def export(
    model: Annotated[Path, typer.Argument(help="Run, or .h5 or .keras file.", metavar="MODEL")],
    bundle: Annotated[Path, typer.Argument(help="Folder to make.", metavar="BUNDLE")],
    with_: Annotated[
        list[Path] | None, typer.Option("--with", help="Another run, to answer with the mean of both.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set whose validation split calibrates the model.  [default: the run's own]")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe whose preprocessing a .h5 or .keras file expects.")] = None,
    set_: Changes = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights as 16-bit floats.")] = False,
    quiet: Quiet = False,
) -> None:
    """Turn a trained network into a bundle: ONNX and JSON, all that serving needs."""
    require_training()
    check_new_folder(bundle)
    from mammolens.learning.export import NO_LICENCE, Card, export_file, export_run
    from mammolens.model.recipe import read_recipe

    card = Card(name or model.stem, licence or NO_LICENCE)
    if model.is_dir() and (recipe or set_):
        raise typer.BadParameter("a run has its own recipe", param_hint="--recipe, --set")
    if with_ and not model.is_dir():
        raise typer.BadParameter("only runs answer together", param_hint="--with")
    if model.is_dir():
        others = with_ or []
        made = export_run(model, bundle, card, others=others, data=data, half=half, progress=not quiet)
    else:
        beside = model.with_name("recipe.toml")  # of the run that the file lies in
        recipe = recipe or (str(beside) if beside.is_file() else "baseline" if set_ else None)
        asked = read_recipe(recipe, set_ or []) if recipe else None
        made = export_file(model, bundle, card, asked, data=data, half=half, progress=not quiet)
        told = f"as {recipe} says" if recipe else "whole: if not so, name its --recipe"
        screen.print(f"Pictures are prepared {told}.", markup=False)
    record = made.record
    screen.print(
        f"Bundle written to {bundle}: {len(made.model) / 1e6:.1f} MB; Keras and ONNX Runtime "
        f"differ by at most {record.parity:.0e}.\n"
        f"Outputs: probability{', score map' if record.outputs.score_map else ''}. "
        f"Operating points: {', '.join(record.operating_points[Level.IMAGE])}.\n"
        f"Next: {typed('predict', 'IMAGES', '--model', bundle)}",
        markup=False,
    )
    if record.training_data is None:
        warn("not calibrated: give --data a data set with a validation split")


def demo(
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")] = Path("demo"),
    patients: Annotated[int, typer.Option(min=20, help="Synthetic patients.")] = 250,
) -> None:
    """Run everything on synthetic patients: phantom, train, evaluate, predict."""
    from mammolens.data.sources import read_source
    from mammolens.records import Split

    data, run = out / "phantoms", out / "run"
    say("phantom", data, "--patients", patients)
    phantom(data, patients)
    say("train", data, "--recipe", "quick", "--out", run)
    train(str(data), "quick", out=run)
    say("evaluate", run)
    evaluate(str(run))
    test = read_source(str(data)).of_split(Split.TEST)
    some = [str(path) for label in (0, 1) for path in test.with_label(label).paths[::11][:3]]
    say("predict", *some, "--model", run, "--out", out / "predictions.csv")
    predict(some, str(run), out=out / "predictions.csv")
    screen.print(
        f"\nLook at: {data} (the images), {run}/figures (how it learnt),\n"
        f"         {run}/evaluation/test (how good it is), {run}/breast.h5 (the network)\n"
        "These patients are drawn, not real: the figures show that everything works, nothing else.\n"
        "Next:    mammolens train YOUR_FOLDER    (train/0, train/1, valid/0, ... or a CSV)"
    )


def own_data(model: str) -> str:
    """Return the manifest that a run was learnt from."""
    manifest = Path(model) / "manifest.csv"
    if not manifest.is_file():
        raise BundleError(f"{model}: a bundle does not hold its data set. Name one: --data DATA.")
    return str(manifest)
