"""Verbs that use a model: answer, show, serve a page."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mammolens.cli.options import ClusterAddress, Model, Point, Quiet, folder_option, place, screen, warn
from mammolens.errors import DataError, require
from mammolens.files import check_apart, check_new_file, check_writable
from mammolens.levels import Identifier, ServedLevel

if TYPE_CHECKING:
    from mammolens.dicom_results.results import Results
    from mammolens.records import Prediction
    from mammolens.serving.predictor import Predictor


def _level(name: str) -> ServedLevel:
    try:
        return ServedLevel.named(name)
    except DataError as error:
        raise typer.BadParameter(str(error)) from error


def predict(
    paths: Annotated[list[str], typer.Argument(help="Images, DICOM, folders, ZIP archives.", metavar="PATHS...")],
    model: Model = None,
    point: Point = None,
    level: Annotated[
        ServedLevel,
        typer.Option(
            parser=_level,
            metavar="[image|breast|exam]",
            help="A row a picture, a breast (mean of its views), or an examination (the larger of its breasts, "
            "and their difference).",
        ),
    ] = ServedLevel.IMAGE,
    data: Annotated[
        str | None,
        typer.Option(
            help="A table of path and laterality, view, patient_id, study_id, or any DATA: goes before DICOM "
            "headers, which go before file names such as ann_L_CC.",
            metavar="DATA",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(parser=place, metavar="FILE", help="To write: .csv, .json or .parquet.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out where an interrupted run of the same command stopped.")
    ] = False,
    overlay: Annotated[Path | None, folder_option("Folder for heatmaps of where the network looked.")] = None,
    report: Annotated[
        Path | None, folder_option("New folder for a report of each examination: HTML, prints on A4.")
    ] = None,
    dicom: Annotated[
        Path | None,
        folder_option("Folder for results as DICOM, in the studies of the pictures: heat of each, and a CAD report."),
    ] = None,
    identify: Annotated[
        list[Identifier] | None,
        typer.Option(help="What reports tell of whose it is; nothing by default. Repeat for more."),
    ] = None,
    ungated: Annotated[
        bool,
        typer.Option(
            "--ungated",
            help="Give the probability of what does not look like a mammogram, too: it means "
            "nothing. There is no decision all the same.",
        ),
    ] = False,
    age: Annotated[
        bool,
        typer.Option("--age", help="A second probability, of picture and age together, where a DICOM header tells it."),
    ] = False,
    cluster: ClusterAddress = None,
    quiet: Quiet = False,
) -> None:
    """Answer for each image, breast or examination: probability of tumor and a decision. Exit code 1 if any failed.

    What does not look like a mammogram gets no decision and no probability; that is no failure. With --cluster, PATHS
    may also be tables (.csv), lists (.parquet) and s3://BUCKET/PREFIX, and --out is a folder for parts of the answers;
    the same command goes on where it was interrupted.
    """
    if cluster is not None:
        alone = level is ServedLevel.IMAGE and not (data or overlay or report or dicom or identify)
        _predict_archive(cluster, paths, model, point, out, alone=alone, ungated=ungated, age=age, quiet=quiet)
        return
    from mammolens.workers.crew import start

    start()
    from mammolens.images.archives import named_before, pictures_in
    from mammolens.reports.answers import FORMATS, written
    from mammolens.reports.answers_table import answers_table
    from mammolens.serving.journal import journal, settings
    from mammolens.serving.predictor import Predictor

    if resume and out is None:
        raise typer.BadParameter("--resume goes on with a file of answers. Name it: --out")
    check_new_file(out, FORMATS)
    check_writable(overlay)
    check_apart({"--out": out, "--overlay": overlay, "--report": report, "--dicom": dicom})
    predictor = Predictor.load(model, point)
    results = _results(dicom, predictor)
    pictures = pictures_in(paths)
    shaped = settings(predictor.bundle.record, predictor.operating_point, data, ungated=ungated, age=age)
    tally = _Tally()
    with nullcontext() if out is None else journal(out, shaped, resume=resume) as kept:
        answers = predictor.answers(
            pictures,
            level=level,
            data=data,
            ungated=ungated,
            overlay=overlay,
            maps=False,
            with_age=age,
            report=report,
            identify=identify or (),
            progress=not quiet,
            kept=kept,
            also=results.add if results else None,
        )
        introduce(predictor)
        if again := named_before(pictures):
            warn(f"{len(again)} of {len(pictures)} inputs are files that were named before, such as {again[0].name}")
        for answer in answers if out is None else written(answers, out, level=level, with_age=age):
            tally.add(answer)
    table = answers_table(tally.first, tally.rows - len(tally.first), level=level, with_age=age, width=screen.width)
    screen.print(table)
    _say_where(tally, out, overlay, report)
    _finish(results)
    if age and tally.ageless:
        warn(
            f"{tally.ageless} of {tally.pictures} inputs tell no age of 18 to 110 years in a DICOM header: no "
            "probability with age"
        )
    if tally.refused:
        left_out = "their probability means nothing" if ungated else "no probability, no heatmap"
        warn(f"{tally.refused} of {tally.pictures} inputs do not look like a mammogram: no decision, {left_out}")
    if tally.failed:
        warn(f"{tally.failed} of {tally.pictures} inputs got no answer")
        raise typer.Exit(1)


def _predict_archive(
    cluster: str,
    archive: list[str],
    model: str | None,
    point: str | None,
    out: Path | None,
    *,
    alone: bool,
    ungated: bool,
    age: bool,
    quiet: bool,
) -> None:
    if not alone:
        raise typer.BadParameter(
            "--cluster answers for each image by itself: leave out --level, --data, --overlay, --report, --dicom and "
            "--identify, or --cluster."
        )
    if out is None or out.suffix.lower() in {".csv", ".json"}:
        raise typer.BadParameter("--cluster writes parts of the answers, in Parquet, into a folder. Name it: --out")
    from mammolens.cluster.archive import answered, begun, outcome
    from mammolens.cluster.connection import check_answers, connect
    from mammolens.parallel import tracked
    from mammolens.serving.predictor import Predictor

    check_answers(cluster)  # of millions, the list takes a while
    predictor = Predictor.load(model, point)
    with begun(archive, out, predictor, ungated=ungated, with_age=age) as job:
        missing = len(job.missing())
        screen.print(f"{job.inputs} pictures in {job.parts} parts, {job.parts - missing} of them answered before")
        introduce(predictor)
        if missing:
            with connect(cluster) as spread:
                for _ in tracked(answered(job, spread), "Predicting parts", missing, visible=not quiet):
                    pass
        counts = outcome(job)
    screen.print(f"Answers written to {out}", markup=False)
    if counts.refused:
        warn(f"{counts.refused} of {counts.pictures} inputs do not look like a mammogram: no decision")
    if counts.failed:
        warn(f"{counts.failed} of {counts.pictures} inputs got no answer")
        raise typer.Exit(1)


@dataclass
class _Tally:
    """What is said of answers once all have passed, and the first of them."""

    first: "list[Prediction]" = field(default_factory=list)
    rows: int = 0
    pictures: int = 0
    failed: int = 0
    refused: int = 0
    ageless: int = 0
    drawn: int = 0

    def add(self, answer: "Prediction") -> None:
        from mammolens.reports.answers import MOST_ROWS

        self.first += [answer] if self.rows < MOST_ROWS else []
        self.rows += 1
        self.pictures += len(answer.pictures)
        self.failed += answer.error is not None
        self.refused += sum(not one.admitted for one in answer.pictures)
        self.ageless += sum(one.error is None and one.age is None for one in answer.pictures)
        self.drawn += sum(one.probability is not None for one in answer.pictures)


def _say_where(tally: _Tally, out: Path | None, overlay: Path | None, report: Path | None) -> None:
    reports = "Reports, each numbered by its row,"
    for what, where, count in (
        ("Answers", out, 1),
        ("Heatmaps, not lesion outlines,", overlay, tally.drawn),
        (reports, report, tally.rows - tally.failed),
    ):
        if where is not None and count:
            screen.print(f"{what} written to {where}", markup=False)


def _results(folder: Path | None, predictor: "Predictor") -> "Results | None":
    if folder is None:
        return None
    from mammolens.dicom_results.results import Results

    return Results.begin(folder, predictor)


def _finish(results: "Results | None") -> None:
    """Write what is told of whole examinations, and say what there is."""
    if results is None:
        return
    results.finish()
    if results.written:
        screen.print(f"{len(results.written)} DICOM results written to {results.folder}", markup=False)
    if results.foreign:
        warn(f"{results.foreign} inputs are no DICOM: no DICOM results of them")
    if results.left_out:
        warn(f"{len(results.left_out)} DICOM results could not be made. The first: {results.left_out[0]}")


def show(
    image: Annotated[Path, typer.Argument(help="Any image, or DICOM.", metavar="IMAGE")],
    out: Annotated[Path | None, typer.Option(help="PNG to write.  [default: IMAGE's name + -seen.png]")] = None,
    model: Model = None,
) -> None:
    """Print what was read of one image, and draw it as read and as the network sees it."""
    from mammolens.workers.crew import start

    start()
    from mammolens.model.bundle import find_bundle, open_bundle
    from mammolens.reports.figures import SUFFIXES, save_figure
    from mammolens.serving.overlay import before_and_after

    picture = out or Path(f"{image.stem}-seen.png")
    check_new_file(picture, SUFFIXES)
    record = open_bundle(find_bundle(model)).record
    facts, sheet = before_and_after(image, record.preprocess, record.gate)
    save_figure(sheet, picture)
    for name, fact in facts.items():
        screen.print(f"{name:<14}{fact}", highlight=False, markup=False)
    screen.print(f"Written to {picture}", markup=False)


def app(
    model: Model = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = 8501,
    address: Annotated[
        str, typer.Option(help="Where it listens. Others reach any but localhost: 0.0.0.0 is all of this machine's.")
    ] = "localhost",
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the password that the page asks for.")
    ] = None,
    proxy_header: Annotated[
        str | None,
        typer.Option(
            help="Header by which a reverse proxy says that someone is signed in, such as X-Forwarded-User; it must "
            "take it out of what comes from outside. Requests without it are turned away.",
            metavar="NAME",
        ),
    ] = None,
    no_login: Annotated[bool, typer.Option("--no-login", help="Whoever reaches the address may see the page.")] = False,
) -> None:
    """Serve a page where someone drops a mammogram and reads an answer. Ends with Ctrl-C.

    At an address that others reach, say who is let in: --password-file, --proxy-header or --no-login.
    """
    from mammolens.model.bundle import find_bundle, open_bundle

    require("streamlit", extra="app")
    open_bundle(find_bundle(model))

    from mammolens.app.admission import rule_for
    from mammolens.app.server import serve

    rule = rule_for(address, password_file, proxy_header, no_login=no_login)
    raise typer.Exit(serve(model, port, address, rule))


def serve(
    model: Model = None,
    point: Point = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the service.")] = 8600,
    address: Annotated[
        str, typer.Option(help="Where it listens. Others reach any but localhost: 0.0.0.0 is all of this machine's.")
    ] = "localhost",
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a token a line, as `openssl rand -hex 32` makes them: whoever sends one may ask."),
    ] = None,
    dicomweb: Annotated[
        list[str] | None,
        typer.Option(help="DICOMweb server whose studies may be asked for. Repeat for more.", metavar="URL"),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Requests that are answered or wait; others are told when to come back.")
    ] = 64,
    seconds: Annotated[float, typer.Option(min=1, help="That a request may take, its waiting included.")] = 300,
) -> None:
    """Serve answers over HTTP for other programs: JSON, as `predict --out answers.json` writes. Ends with Ctrl-C.

    At an address that others reach it needs tokens: --token-file. Its API: /openapi.json.
    """
    from mammolens.workers.crew import start

    start()
    require("fastapi", "uvicorn", "python_multipart", "prometheus_client", extra="serve")
    if dicomweb:
        require("dicomweb_client", extra="pacs")

    from mammolens.hosting import check_free
    from mammolens.serve.admission import rule_for
    from mammolens.serve.server import serve as serve_answers
    from mammolens.serving.predictor import Predictor

    rule = rule_for(address, token_file)
    check_free(port, address, "the service")
    predictor = Predictor.load(model, point)
    introduce(predictor)
    serve_answers(predictor, port, address, rule, dicomweb or (), most=most, seconds=seconds)


def introduce(predictor: "Predictor") -> None:
    """Say what answers, where that limits what an answer is worth, and where it does so."""
    if predictor.on_gpu:
        screen.print("Answers by the GPU: they may differ from the processor's in the last digits.")
    data = predictor.bundle.record.training_data
    if data is None:
        warn("this model is not calibrated: its probabilities are raw scores")
    elif data.synthetic:
        learnt = "was calibrated on" if data.calibration_only else "learnt from"
        warn(
            f"the model '{predictor.bundle.record.name}' {learnt} synthetic mammograms only: it "
            "shows how things work; on real images its answers mean nothing"
        )
