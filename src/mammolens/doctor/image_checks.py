"""What is wrong with the pictures themselves. Each check takes the facts and gives findings."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from mammolens.doctor.facts import ExaminedSet, Facts, duplicate_groups
from mammolens.doctor.findings import Finding, Severity, finding
from mammolens.images.breast import UNCERTAIN
from mammolens.records import Mammogram

_BLANK = 0.05  # 1st to 99th percentile of grey levels closer than this: nothing to see
_NO_BREAST = 0.02
_NOT_ALL_BREAST = 0.97
_NO_BACKGROUND = 0.03  # polarity margin; a mammogram has background near its edge
_FEW_LEVELS = 64
_COARSE = 45.0  # mean quantisation step, about JPEG quality 60
_CLIPPED = 0.05
_FEW_BITS = 8

Pairs = list[tuple[Mammogram, Facts]]


def _is_blank(facts: Facts) -> bool:
    return facts.spread < _BLANK


def _has_breast(facts: Facts) -> bool:
    against_background = facts.margin > _NO_BACKGROUND and not _is_blank(facts)
    return against_background and _NO_BREAST <= facts.breast_area <= _NOT_ALL_BREAST


_FAULTS: dict[str, Callable[[Facts], bool]] = {
    "blank": _is_blank,
    "no_breast": lambda facts: not _is_blank(facts) and not _has_breast(facts),
    "colour": lambda facts: facts.colour,
    "few_levels": lambda facts: not _is_blank(facts) and facts.levels < _FEW_LEVELS,
    "heavy_compression": lambda facts: facts.quantizer > _COARSE,
    "clipped": lambda facts: facts.clipped > _CLIPPED,
    "cut_off": lambda facts: facts.cut_off,
    "marker": lambda facts: facts.marker,
    "inverted": lambda facts: _has_breast(facts) and facts.inverted,
    "polarity_uncertain": lambda facts: _has_breast(facts) and facts.margin < UNCERTAIN,
    "square": lambda facts: facts.size[0] == facts.size[1],
    "eight_bits": lambda facts: facts.bit_depth <= _FEW_BITS,
}
"""What may be wrong with a single picture, by the code of its finding."""


def check_images(examined: ExaminedSet) -> list[Finding]:
    """Run every check of this room."""
    pairs = list(examined.pairs())
    sizes = Counter(facts.size for _, facts in pairs).most_common(3)
    said = _inversion(pairs) | {
        "few": _FEW_LEVELS,
        "sizes": ", ".join(f"{count} of {height} x {width}" for (height, width), count in sizes),
    }
    faulty = {code: examined.paths(holds) for code, holds in _FAULTS.items()}
    findings = [finding(code, files, **said) for code, files in faulty.items() if files]
    return [*_unreadable(examined), *findings, *_duplicates(pairs)]


def _unreadable(examined: ExaminedSet) -> list[Finding]:
    reasons = {m.path: said for m, said in zip(examined.manifest, examined.facts, strict=True) if isinstance(said, str)}
    examples = "; ".join(list(reasons.values())[:3])
    return [finding("unreadable", list(reasons), reasons=examples)] if reasons else []


def _inversion(pairs: Pairs) -> dict[str, Any]:
    """Return what is said of inverted images, among those with a breast against a background."""
    seen = [(mammogram, facts) for mammogram, facts in pairs if _has_breast(facts)]
    margins = [facts.margin for _, facts in seen if facts.inverted]
    return {
        "severity": Severity.WARNING if len(margins) < len(seen) else Severity.NOTE,
        "of": len(seen),
        "origin": _origin(seen),
        "margin": min(margins, default=0.0),
        "uncertain": UNCERTAIN,
    }


def _origin(seen: Pairs) -> str:
    """Say which machines, or else sites, inverted images come from; nothing where it is unknown."""
    for name, kind in (("machine_id", "machine"), ("site_id", "site")):
        if any(name in mammogram.metadata for mammogram, _ in seen):
            every = Counter(m.metadata.get(name, "unknown") for m, _ in seen)
            inverted = Counter(m.metadata.get(name, "unknown") for m, facts in seen if facts.inverted)
            parts = (f"{count} of {every[origin]} of {kind} {origin}" for origin, count in inverted.most_common())
            return f": {', '.join(parts)}"
    return ""


def _duplicates(pairs: Pairs) -> list[Finding]:
    pairs = [(mammogram, facts) for mammogram, facts in pairs if not _is_blank(facts)]
    if not pairs:
        return []
    descriptors = np.stack([facts.descriptor for _, facts in pairs])
    indices = duplicate_groups([facts.digest for _, facts in pairs], descriptors)
    groups = [[pairs[index][0] for index in group] for group in indices]
    contrary = [group for group in groups if len({m.label for m in group}) > 1]
    across = [group for group in groups if len({m.split for m in group}) > 1]
    sorts = {
        "duplicates_with_different_labels": contrary,
        "duplicates_across_splits": across,
        "duplicates": [group for group in groups if group not in contrary and group not in across],
    }
    return [finding(code, groups=[[m.path for m in group] for group in some]) for code, some in sorts.items() if some]
