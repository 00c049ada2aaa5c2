"""Verbs about data: draw, fetch, list, examine, preview, deidentify."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mammolens.cli.options import (
    Changes,
    ClusterAddress,
    Data,
    Positive,
    Quiet,
    RecipeName,
    command_line,
    fail_if,
    folder_option,
    joined,
    place,
    print_splits,
    screen,
    tell,
    tell_left_out,
    tell_missing,
    typed,
    warn,
)
from mammolens.files import check_apart, check_new_file, check_writable

TABLES = (".csv",)
"""Endings of manifests."""


class SplitBy(StrEnum):
    """Where splits come from."""

    SHIPPED = "shipped"
    PATIENT = "patient"
    VALID = "valid"


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
    patients: Annotated[int, typer.Option(min=1, help="Four images each.")] = 100,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Height and width, pixels.")] = 640,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same images.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write synthetic mammograms in the Kaggle layout: for demos and tests, not for science."""
    from mammolens.data.sources.phantom import write_phantoms

    written = write_phantoms(out, patients, size=size, seed=seed, progress=not quiet)
    screen.print(f"{len(written)} images of {patients} synthetic patients are in {out}", markup=False)


def download(
    name: Annotated[str, typer.Argument(help="kaggle-breast.", metavar="NAME")],
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
) -> None:
    """Fetch a public data set; needs kagglehub, a network and an account there."""
    from mammolens.data.sources import download as fetch

    screen.print(f"Written to {fetch(name, out)}. Next: {typed('doctor', out)}", markup=False)


def manifest(
    data: Data,
    out: Annotated[Path, typer.Argument(help="CSV to write.", metavar="OUT.csv")],
    splits: Annotated[
        SplitBy, typer.Option(help="As shipped; new ones by patient; or as shipped, with valid split off train.")
    ] = SplitBy.SHIPPED,
    fractions: Annotated[tuple[float, float, float], typer.Option(help="Fractions in train, valid and test.")] = (
        0.7,
        0.15,
        0.15,
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    positive: Positive = None,
) -> None:
    """List a data set as a CSV, one row an image, with splits that patients do not cross.

    Exit code 1 if images were left out.
    """
    from mammolens.data.sources import read_source
    from mammolens.data.splits import split_by_patient, split_off_validation

    check_new_file(out, TABLES)
    listed = read_source(data, positive=positive)
    left_out = tell_left_out(listed) + tell_missing(listed)
    if splits is SplitBy.PATIENT:
        listed = split_by_patient(listed, fractions, seed)
    elif splits is SplitBy.VALID:
        train, valid, _ = fractions
        listed = split_off_validation(listed, valid / (train + valid), seed)
    listed.save(out)
    print_splits(listed, str(out))
    nobodys = sum(mammogram.patient_id is None for mammogram in listed)
    if nobodys and splits is not SplitBy.SHIPPED:
        warn(
            f"{nobodys} of {len(listed)} images are of no known patient, each taken for one of its "
            "own: splits may cut patients. Add a column patient_id."
        )
    fail_if(left_out)


def doctor(
    data: Data,
    out: Annotated[Path | None, folder_option("Folder for report.html, findings.json.")] = None,
    mend: Annotated[Path | None, typer.Option(help="CSV to write: the corrected manifest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings as JSON.")] = False,
    positive: Positive = None,
    cluster: ClusterAddress = None,
    quiet: Quiet = False,
) -> None:
    """Find what is wrong with a data set before anything learns from it.

    Exit code 1 on errors, and if images were left out.
    """
    from mammolens.data.sources import read_source
    from mammolens.doctor import examination
    from mammolens.doctor.facts import collect_facts
    from mammolens.doctor.findings import Severity
    from mammolens.parallel import map_in_order
    from mammolens.reports.doctor import write_report
    from mammolens.reports.terminal import findings_table

    check_writable(out)
    check_new_file(mend, TABLES)
    listed = read_source(data, positive=positive)
    left_out = tell_left_out(listed)
    with joined(cluster) as spread:
        examined = collect_facts(listed, each=spread.each if spread else map_in_order, progress=not quiet)
    diagnosis = examination.examine(examined, data=data, command=command_line())
    if out is not None:
        write_report(diagnosis, out)
        tell(f"Report written to {out / 'report.html'}")
    if mend is not None:
        examination.mend(examined, diagnosis.findings).save(mend)
        tell(f"Corrected manifest written to {mend}: {typed('train', mend)}")
    if as_json:
        screen.print(diagnosis.model_dump_json(indent=2), markup=False, highlight=False, emoji=False)
    else:
        screen.print(findings_table(diagnosis))
    if diagnosis.of(Severity.ERROR):
        raise typer.Exit(1)
    fail_if(left_out)


def preview(
    data: Data,
    out: Annotated[Path, typer.Argument(help="PNG to write.", metavar="OUT.png")],
    recipe: RecipeName = "baseline",
    set_: Changes = None,
    images: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of images.")] = 0,
) -> None:
    """Draw a contact sheet: each image as stored, and as the network sees it."""
    from mammolens.data.sources import read_source
    from mammolens.model.recipe import read_recipe
    from mammolens.reports.figures import SUFFIXES, save_figure
    from mammolens.serving.overlay import contact_sheet

    check_new_file(out, SUFFIXES)
    settings = read_recipe(recipe, set_ or [])
    listed = read_source(data)
    left_out = tell_left_out(listed)
    sheet, failures = contact_sheet(listed.paths, settings.preprocess, images, seed)
    save_figure(sheet, out)
    for failure in failures:
        warn(failure)
    screen.print(f"Written to {out}", markup=False)
    fail_if(left_out + len(failures))


def deidentify(
    source: Annotated[Path, typer.Argument(parser=place, help="Image, DICOM, folder or ZIP archive.", metavar="IN")],
    out: Annotated[Path, typer.Argument(parser=place, help="Folder to make.", metavar="OUT")],
    key: Annotated[
        Path | None, typer.Option(help="File of a key, made if missing: the same key gives the same pseudonyms.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="CSV to write: which copy is whose. Keep it to yourself.")] = None,
    blacken: Annotated[bool, typer.Option("--blacken", help="Blacken what is beside a breast with text.")] = False,
    quiet: Quiet = False,
) -> None:
    """Copy mammograms without names, dates and identifiers, under new names, by DICOM PS3.15 Annex E.

    Text within the breast stays. Exit code 1 if files could not be copied.
    """
    from mammolens.deidentification import batch, pseudonyms
    from mammolens.deidentification.pictures import Copied
    from mammolens.parallel import tracked

    for own in (key, table):
        batch.check_outside(own, out)
    check_apart({"--key": key, "--table": table})
    check_new_file(table, TABLES)
    names = pseudonyms.forgotten() if key is None else pseudonyms.kept(key)
    count, work = batch.copies(source, out, names, blacken=blacken)
    outcomes: list[batch.Outcome] = []
    try:
        outcomes.extend(tracked(work, "Copying", count, visible=not quiet))
    finally:  # of copies that were made before it broke off, too
        if table is not None:
            batch.write_table(outcomes, table)
    copied = [one.copied for one in outcomes if isinstance(one.copied, Copied)]
    for failure in (one.copied for one in outcomes if isinstance(one.copied, str)):
        warn(failure)
    texts = [one for one in copied if one.has_text]
    for written in texts:
        done = "it is black beside the breast now; look at what touches it" if written.blackened else "look at it"
        warn(f"{written.path}: there seems to be text in it: {done}{'' if blacken else ', or see --blacken'}.")
    seen = f"; text seems to be in {len(texts)} of them" if texts else ""
    screen.print(f"{len(copied)} of {count} pictures are in {out}, with headers that name nobody{seen}", markup=False)
    if len(copied) < count:
        raise typer.Exit(1)
