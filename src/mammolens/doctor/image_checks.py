"""What is wrong with the pictures themselves. Each check takes the facts and gives findings."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mammolens.data.manifest import Manifest
from mammolens.doctor.duplicates import duplicate_groups
from mammolens.doctor.facts import Facts
from mammolens.doctor.findings import Finding, Severity
from mammolens.images.breast import UNCERTAIN
from mammolens.records import Mammogram

_BLANK = 0.05  # 1st to 99th percentile of grey levels closer than this: nothing to see
_NO_BREAST = 0.02
_NOT_ALL_BREAST = 0.97
_NO_BACKGROUND = 0.03  # polarity margin; a mammogram has background near its edge
_FEW_LEVELS = 64
_COARSE = 45.0  # mean quantisation step, about JPEG quality 60
_CLIPPED = 0.05


@dataclass(frozen=True, eq=False)
class Examined:
    """A manifest and what was learnt of each image, or why it cannot be read."""

    manifest: Manifest
    facts: tuple[Facts | str, ...]

    def pairs(self) -> Iterator[tuple[Mammogram, Facts]]:
        """Yield the readable images."""
        for mammogram, facts in zip(self.manifest, self.facts, strict=True):
            if not isinstance(facts, str):
                yield mammogram, facts

    def paths(self, holds: Callable[[Facts], bool]) -> tuple[Path, ...]:
        """Return the readable images for which `holds`."""
        return tuple(mammogram.path for mammogram, facts in self.pairs() if holds(facts))


def check_images(examined: Examined) -> list[Finding]:
    """Run every check of this room."""
    checks = (_unreadable, _unusual, _polarity, _duplicates, _geometry)
    return [finding for check in checks for finding in check(examined)]


def _finding(
    code: str,
    severity: Severity,
    files: Sequence[Path],
    what: str,
    why: str,
    mend: str,
    groups: Sequence[Sequence[Path]] = (),
) -> list[Finding]:
    """Return a finding whose title starts with the number of files; none where there are none."""
    if not files:
        return []
    return [
        Finding(
            code=code,
            severity=severity,
            title=f"{len(files)} {'image' if len(files) == 1 else 'images'} {what}",
            files=tuple(files),
            groups=tuple(map(tuple, groups)),
            why=why,
            mend=mend,
        )
    ]


def _unreadable(examined: Examined) -> list[Finding]:
    failed = [
        (mammogram.path, facts)
        for mammogram, facts in zip(examined.manifest, examined.facts, strict=True)
        if isinstance(facts, str)
    ]
    reasons = "; ".join(said for _, said in failed[:3])
    return _finding(
        "unreadable",
        Severity.ERROR,
        [path for path, _ in failed],
        f"cannot be read, for example: {reasons}",
        "A loader that skips them silently changes the data set; one that does not stops.",
        "Copy them anew from the source, or leave them out (--mend does).",
    )


def _unusual(examined: Examined) -> list[Finding]:
    """Blank, without a breast, in colour, cut off, marked, clipped, coarse."""
    return [
        *_finding(
            "blank",
            Severity.ERROR,
            examined.paths(_is_blank),
            "blank or nearly so",
            "There is nothing to see, yet each has a label to be learnt by heart.",
            "Leave them out (--mend does).",
        ),
        *_finding(
            "no_breast",
            Severity.WARNING,
            examined.paths(lambda f: not _is_blank(f) and not _has_breast(f)),
            "without anything that looks like a breast against a background",
            "They may be crops, other body parts or other pictures.",
            "Look at them, and leave out what does not belong.",
        ),
        *_finding(
            "colour",
            Severity.WARNING,
            examined.paths(lambda f: f.colour),
            "in colour, where grey is expected",
            "Mammograms have no colour: it may be an annotation, a screenshot or another picture.",
            "Look at them. They are read as grey.",
        ),
        *_finding(
            "few_levels",
            Severity.WARNING,
            examined.paths(lambda f: not _is_blank(f) and f.levels < _FEW_LEVELS),
            f"with fewer than {_FEW_LEVELS} grey levels in use",
            "A mammogram has thousands; faint lesions are lost with them.",
            "Export them again with 12 or 16 bits.",
        ),
        *_finding(
            "heavy_compression",
            Severity.WARNING,
            examined.paths(lambda f: f.quantizer > _COARSE),
            "compressed as JPEG below quality 60 or so",
            "Block edges look like texture, and microcalcifications vanish.",
            "Export them again as PNG.",
        ),
        *_finding(
            "clipped",
            Severity.NOTE,
            examined.paths(lambda f: f.clipped > _CLIPPED),
            "with more than 5 % of the breast at the white end (implants, devices, wrong windows)",
            "No detail is left there.",
            "Nothing, where it is an implant; else export with a wider window.",
        ),
        *_finding(
            "cut_off",
            Severity.NOTE,
            examined.paths(lambda f: f.cut_off),
            "where the breast runs into the side opposite to the chest wall",
            "Part of the breast is not in the picture, and a lesion may be there.",
            "Nothing; know it when such an image is misjudged.",
        ),
        *_finding(
            "marker",
            Severity.NOTE,
            examined.paths(lambda f: f.marker),
            "with text, a marker, a border or another body part outside the breast",
            "A network can read a clinic's markers instead of the breast.",
            "Crop to the breast: the preset 'breast' blackens all else.",
        ),
    ]


def _polarity(examined: Examined) -> list[Finding]:
    seen = [(m, f) for m, f in examined.pairs() if not _is_blank(f) and _has_breast(f)]
    inverted = [(m, f) for m, f in seen if f.inverted]
    surest = min((facts.margin for _, facts in inverted), default=0.0)
    return [
        *_finding(
            "inverted",
            Severity.WARNING if len(inverted) < len(seen) else Severity.NOTE,
            [mammogram.path for mammogram, _ in inverted],
            f"of {len(seen)} have black and white exchanged{_by_origin(seen)} (the least sure has "
            f"a margin of {surest:.2f}; below {UNCERTAIN} it would be a guess)",
            "The photometric interpretation was not applied when they were exported: the same "
            "tissue is bright in one image and dark in the next, and polarity tells the machine.",
            "Train with mend_polarity (the preset 'breast' does); --mend marks each image.",
        ),
        *_finding(
            "polarity_uncertain",
            Severity.NOTE,
            [mammogram.path for mammogram, facts in seen if facts.margin < UNCERTAIN],
            "whose polarity cannot be told for sure",
            "They may be shown to the network the wrong way round.",
            "Look at them.",
        ),
    ]


def _by_origin(seen: list[tuple[Mammogram, Facts]]) -> str:
    """Say which machines, or else sites, inverted images come from; nothing where it is unknown."""
    for name, kind in (("machine_id", "machine"), ("site_id", "site")):
        if any(name in mammogram.metadata for mammogram, _ in seen):
            every = Counter(m.metadata.get(name, "unknown") for m, _ in seen)
            turned = Counter(m.metadata.get(name, "unknown") for m, f in seen if f.inverted)
            parts = (f"{count} of {every[v]} of {kind} {v}" for v, count in turned.most_common())
            return f": {', '.join(parts)}"
    return ""


def _duplicates(examined: Examined) -> list[Finding]:
    pairs = [(m, f) for m, f in examined.pairs() if not _is_blank(f)]
    if not pairs:
        return []
    descriptors = np.stack([facts.descriptor for _, facts in pairs])
    groups = [
        [pairs[index][0] for index in group]
        for group in duplicate_groups([facts.digest for _, facts in pairs], descriptors)
    ]
    contrary = [group for group in groups if len({m.label for m in group}) > 1]
    across = [group for group in groups if len({m.split for m in group}) > 1]
    within = [group for group in groups if group not in contrary and group not in across]
    why = "The same exposure counts twice."
    leave = "Keep one of each (--mend keeps the first)."
    return [
        *_group_finding(
            "duplicates_with_different_labels",
            Severity.ERROR,
            contrary,
            "are copies of one another with different labels",
            "At least one label of each group is wrong.",
            "Find out which; --mend leaves all of them out.",
        ),
        *_group_finding(
            "duplicates_across_splits",
            Severity.ERROR,
            across,
            "are copies of one another in different splits",
            "What is judged was learnt by heart.",
            leave,
        ),
        *_group_finding(
            "duplicates",
            Severity.WARNING,
            within,
            "are copies of one another within a split",
            why,
            leave,
        ),
    ]


def _group_finding(
    code: str, severity: Severity, groups: list[list[Mammogram]], what: str, why: str, mend: str
) -> list[Finding]:
    paths = [[mammogram.path for mammogram in group] for group in groups]
    files = [path for group in paths for path in group]
    kind = "group" if len(groups) == 1 else "groups"
    what = f"in {len(groups)} {kind} {what} (also re-compressed, resized or mirrored)"
    return _finding(code, severity, files, what, why, mend, paths)


def _geometry(examined: Examined) -> list[Finding]:
    sizes = Counter(facts.size for _, facts in examined.pairs())
    if not sizes:
        return []
    square = examined.paths(lambda f: f.size[0] == f.size[1])
    shallow = examined.paths(lambda f: f.bit_depth <= 8)  # noqa: PLR2004
    named = ", ".join(f"{count} of {h} x {w}" for (h, w), count in sizes.most_common(3))
    return [
        *_finding(
            "square",
            Severity.NOTE,
            square,
            f"exactly square (sizes: {named})",
            "Detectors are not square: the images were stretched or padded, by an unknown amount "
            "each, so lengths and shapes cannot be trusted.",
            "Take the originals where shapes matter.",
        ),
        *_finding(
            "eight_bits",
            Severity.NOTE,
            shallow,
            "with 8 bits or fewer a pixel",
            "Detectors give 12 to 14 bits; faint contrast is gone for good.",
            "Take the originals where they can be had.",
        ),
    ]


def _is_blank(facts: Facts) -> bool:
    return facts.spread < _BLANK


def _has_breast(facts: Facts) -> bool:
    return _NO_BREAST <= facts.breast_area <= _NOT_ALL_BREAST and facts.margin > _NO_BACKGROUND
