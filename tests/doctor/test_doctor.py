"""Clean images, a fault planted in known files, and the doctor finds exactly those."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from mammolens.data.manifest import Manifest
from mammolens.data.sources import read_source
from mammolens.data.sources.phantom import write_phantoms
from mammolens.doctor.examination import examine, mend
from mammolens.doctor.facts import ExaminedSet, Facts, collect_facts
from mammolens.doctor.findings import Diagnosis, Finding, Severity
from mammolens.images.breast import polarity, thumbnail
from mammolens.images.reading import read_image
from mammolens.records import Mammogram, Split

EVERYDAY = {"square", "eight_bits", "marker", "too_few_patients", "cut_off", "clipped"}
"""Notes that clean sets of this kind get, too."""


def diagnose(manifest: Manifest) -> Diagnosis:
    return examine(collect_facts(manifest), data="set", command="mammolens doctor set")


def by_code(manifest: Manifest) -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnose(manifest).findings}


@pytest.fixture(scope="module")
def clean_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("clean") / "set"
    write_phantoms(folder, 10, size=320, seed=11)
    return read_source(str(folder)).where(lambda m: m.metadata["inverted"] == "0")


@pytest.fixture(scope="module")
def clean_real(rsna_breast: Path) -> Manifest:
    """Forty real images of one machine, one a patient, of patients without a known fault."""
    chosen: dict[str, Mammogram] = {}
    for mammogram in read_source(str(rsna_breast)):
        if mammogram.metadata["machine_id"] == "49" and mammogram.patient_id not in ("822", "3313"):
            chosen.setdefault(mammogram.patient_key, mammogram)
    splits = list(Split)
    forty = list(chosen.values())[:40]
    return Manifest(tuple(replace(m, split=splits[i % 3]) for i, m in enumerate(forty)))


@pytest.fixture(params=["phantoms", "real"])
def clean(request: pytest.FixtureRequest, tmp_path: Path) -> Manifest:
    """A copy of a clean set that a test may spoil."""
    manifest: Manifest = request.getfixturevalue(f"clean_{request.param}")
    copies = []
    for mammogram in manifest:
        path = tmp_path / f"{mammogram.path.parent.name}_{mammogram.path.name}"
        shutil.copy(mammogram.path, path)
        copies.append(replace(mammogram, path=path))
    return Manifest(tuple(copies))


def test_a_clean_set_raises_no_alarm(clean: Manifest) -> None:
    findings = diagnose(clean).findings
    assert [f.title for f in findings if f.severity is not Severity.NOTE] == []
    assert {f.code for f in findings} <= EVERYDAY


def spoil(path: Path, change: Callable[[np.ndarray], np.ndarray], **options: int) -> None:
    pixels = np.asarray(Image.open(path).convert("L"))
    Image.fromarray(np.asarray(change(pixels), dtype=np.uint8)).save(path, **options)  # type: ignore[arg-type]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def make_text(path: Path) -> None:
    path.write_text("not a picture")


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def mislabel(path: Path) -> None:
    Image.open(path).save(path.with_suffix(".png"))
    path.with_suffix(".png").replace(path)


def blank(path: Path) -> None:
    spoil(path, lambda pixels: np.full_like(pixels, 3))


def invert(path: Path) -> None:
    spoil(path, lambda pixels: 255 - pixels, quality=95)


def coarsen(path: Path) -> None:
    spoil(path, lambda pixels: pixels, quality=20)


def scatter(path: Path) -> None:
    generator = np.random.default_rng(path.stat().st_size)
    clouds = ndimage.gaussian_filter(generator.normal(size=(320, 320)), 2)
    spoil(path, lambda _: 128 + 127 * np.clip(clouds / (3 * clouds.std()), -1, 1))


def paint(path: Path) -> None:
    pixels = np.asarray(Image.open(path).convert("RGB")).copy()
    pixels[:80, :80] = (200, 30, 30)
    Image.fromarray(pixels).save(path)


def posterise(path: Path) -> None:
    """Sixteen grey levels, without loss: a PNG under the name of the JPEG would be mislabelled."""
    spoil(path, lambda pixels: pixels // 16 * 16, quality=100, subsampling=0)
    levels = np.asarray(Image.open(path).convert("L")) // 16 * 16
    Image.fromarray(levels).save(path.with_suffix(".bmp"))


def test_each_fault_is_found_in_exactly_the_files_that_have_it(clean: Manifest) -> None:
    """All faults at once, each in two files of its own, so that none hides another."""
    plan: dict[str, list[Callable[[Path], None]]] = {
        "unreadable": [cut_short, make_text, make_empty, mislabel],
        "blank": [blank],
        "inverted": [invert],
        "heavy_compression": [coarsen],
        "no_breast": [scatter],
        "colour": [paint],
    }
    expected: dict[str, set[Path]] = {}
    files = iter(clean.paths)
    for code, plants in plan.items():
        for plant in plants:
            for path in (next(files), next(files)):
                plant(path)
                expected.setdefault(code, set()).add(path)
    changed = list(clean.mammograms)
    for index in (-1, -2):
        posterise(changed[index].path)
        changed[index] = replace(changed[index], path=changed[index].path.with_suffix(".bmp"))
        expected.setdefault("few_levels", set()).add(changed[index].path)
    found = diagnose(Manifest(tuple(changed))).findings
    loud = {f.code: set(f.files) for f in found if f.severity is not Severity.NOTE}
    assert loud == expected


def copied(path: Path, how: str) -> Path:
    twin = path.with_name(f"{how}_{path.name}")
    with Image.open(path) as opened:
        picture = opened.copy()
    if how == "exact":
        shutil.copy(path, twin)
    elif how == "compressed":
        picture.save(twin, quality=60)
    elif how == "resized":
        picture.resize((picture.width // 2, picture.height // 2)).save(twin, quality=95)
    else:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(twin, quality=95)
    return twin


def test_copies_are_found_within_and_across_splits_and_with_other_labels(clean: Manifest) -> None:
    expected: dict[str, set[tuple[Path, ...]]] = {}
    twins = []
    originals = iter(clean.mammograms[::2])
    for how in ("exact", "compressed", "resized", "mirrored"):
        within, across, contrary = next(originals), next(originals), next(originals)
        other_split = next(split for split in Split if split is not across.split)
        changes: dict[str, tuple[Mammogram, dict[str, object]]] = {
            "duplicates": (within, {}),
            "duplicates_across_splits": (across, {"split": other_split}),
            "duplicates_with_different_labels": (contrary, {"label": _other(contrary)}),
        }
        for code, (original, change) in changes.items():
            twin = copied(original.path, how)
            twins.append(replace(original, path=twin, patient_id=None, **change))  # type: ignore[arg-type]
            expected.setdefault(code, set()).add((original.path, twin))
    found = by_code(Manifest((*clean.mammograms, *twins)))
    assert {code: set(found[code].groups) for code in expected} == expected


def _other(mammogram: Mammogram) -> Literal[0, 1]:
    return 0 if mammogram.label else 1


def test_patients_across_splits_are_counted(clean: Manifest) -> None:
    train = [m for m in clean if m.split is Split.TRAIN][:2]
    test = [m for m in clean if m.split is Split.TEST][:2]
    moved = {
        test[0].path: replace(test[0], patient_id=train[0].patient_id, laterality=train[0].laterality),
        test[1].path: replace(test[1], patient_id=train[1].patient_id, laterality=None),
    }
    images = [moved.get(m.path, m) for m in clean if m.patient_id not in _patients(test[:2])]
    manifest = Manifest((*images, *moved.values()))
    finding = by_code(manifest)["patients_across_splits_test"]
    assert set(finding.files) == set(moved)
    assert finding.severity is Severity.ERROR
    assert finding.title.startswith("2 of ")
    assert "1 of them of the very same breast" in finding.title


def _patients(mammograms: list[Mammogram]) -> set[str | None]:
    return {mammogram.patient_id for mammogram in mammograms}


def test_contradictory_labels_of_a_breast_are_found(clean_phantoms: Manifest) -> None:
    first = clean_phantoms.mammograms[0]
    manifest = Manifest(tuple(replace(m, label=_other(m)) if m is first else m for m in clean_phantoms))
    finding = by_code(manifest)["contradictory_labels"]
    assert len(finding.groups) == 1
    assert first.path in finding.groups[0]


def test_what_honest_work_needs_is_missed(clean_phantoms: Manifest) -> None:
    manifest = Manifest(tuple(replace(m, patient_id=None, split=Split.TRAIN) for m in clean_phantoms))
    found = by_code(manifest)
    assert len(found["no_patient_ids"].files) == len(manifest)
    assert {"no_valid_split", "no_test_split"} <= found.keys()


def test_polarity_agrees_with_verdicts_by_eye(rsna_breast: Path) -> None:
    """324 images drawn at random and looked at one by one: 53 are inverted."""
    with (Path(__file__).parent / "polarity_verdicts.csv").open() as stream:
        verdicts = {row["image_id"]: row["inverted"] == "1" for row in csv.DictReader(stream)}
    assert (len(verdicts), sum(verdicts.values())) == (324, 53)
    for path in rsna_breast.rglob("*.jpg"):
        if (image_id := path.name.split("_")[1]) in verdicts:
            found = polarity(thumbnail(read_image(path).pixels))
            assert found.inverted == verdicts.pop(image_id), path.name
    assert not verdicts


def test_mending_leaves_out_marks_and_splits(clean: Manifest) -> None:
    blank(clean.paths[0])
    invert(clean.paths[1])
    twin = replace(clean.mammograms[2], path=copied(clean.paths[2], "mirrored"))
    spoilt = Manifest((*clean.mammograms, twin))
    examined = collect_facts(spoilt)
    diagnosis = examine(examined, data="set", command="")
    mended = mend(examined, diagnosis.findings)
    assert set(spoilt.paths) - set(mended.paths) == {clean.paths[0], twin.path}
    polarities = {m.path: m.metadata["polarity"] for m in mended}
    assert [path for path, p in polarities.items() if p == "inverted"] == [clean.paths[1]]
    again = diagnose(mended)
    assert again.of(Severity.ERROR) == ()
    assert {m.split for m in mended} == set(Split)
    assert clean.paths[0].exists()


def test_a_diagnosis_survives_json(clean_phantoms: Manifest) -> None:
    diagnosis = diagnose(clean_phantoms)
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis
    assert diagnosis.images == len(clean_phantoms)
    splits = {row[0]: int(row[1]) for row in diagnosis.tables[0].rows}
    assert sum(splits.values()) == len(clean_phantoms)


def test_classes_that_go_with_a_machine_are_noted(clean_phantoms: Manifest) -> None:
    by_machine = Manifest(tuple(replace(m, metadata={"machine_id": str(m.label)}) for m in clean_phantoms))
    by_chance = Manifest(tuple(replace(m, metadata={"machine_id": "49"}) for m in clean_phantoms))
    assert "from 0.0 % to 100.0 %" in by_code(by_machine)["class_balance_machine"].title
    assert "class_balance_machine" not in by_code(by_chance)


def overexpose(path: Path) -> None:
    spoil(path, lambda pixels: np.clip(pixels * 6.0, 0, 255), quality=95)


def crop_far_side(path: Path) -> None:
    """Keep the quarter of the picture at the chest wall, which is the fuller side."""

    def crop(pixels: np.ndarray) -> np.ndarray:
        quarter = pixels.shape[1] // 4
        left, right = pixels[:, :quarter], pixels[:, -quarter:]
        return left if left.mean() > right.mean() else right

    spoil(path, crop, quality=95)


def burn_in_text(path: Path) -> None:
    def burn(pixels: np.ndarray) -> np.ndarray:
        marked = pixels.copy()
        rows, columns = slice(8, 24), slice(16, 48)
        far = marked if pixels[:, :40].mean() < pixels[:, -40:].mean() else marked[:, ::-1]
        far[rows, columns] = 250
        return marked

    spoil(path, burn, quality=95)


@pytest.mark.parametrize(
    ("code", "plant"),
    [("clipped", overexpose), ("cut_off", crop_far_side), ("marker", burn_in_text)],
)
def test_what_is_only_noted_is_found_in_exactly_the_files_that_have_it(
    clean: Manifest, code: str, plant: Callable[[Path], None]
) -> None:
    before = set(by_code(clean)[code].files) if code in by_code(clean) else set()
    files = clean.paths[::10]
    for path in files:
        plant(path)
    assert set(by_code(clean)[code].files) == before | set(files)


def test_inverted_images_are_told_by_machine_or_site(clean_phantoms: Manifest) -> None:
    machines = Manifest(tuple(replace(m, metadata={"site_id": str(i % 2)}) for i, m in enumerate(clean_phantoms)))
    examined = collect_facts(machines)
    turned = replace_facts(examined, lambda index, facts: replace(facts, inverted=index % 2 == 0))
    finding = {f.code: f for f in examine(turned, data="", command="").findings}["inverted"]
    half = (len(machines) + 1) // 2
    assert f": {half} of {half} of site 0 (" in finding.title


def replace_facts(examined: ExaminedSet, change: Callable[[int, Facts], Facts]) -> ExaminedSet:
    facts = tuple(f if isinstance(f, str) else change(i, f) for i, f in enumerate(examined.facts))
    return replace(examined, facts=facts)
