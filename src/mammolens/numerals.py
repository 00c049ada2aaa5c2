"""How numbers are written for people: one way each for a figure, a share, a p-value, an interval.

What rounds to 0 or 1, but is not, is never written as if it were.
"""

import math

MINUS = "\N{MINUS SIGN}"
NOT_DEFINED, NO_INTERVAL = "not defined", "no interval"

_MOST = 4  # decimals of a percentage
_LEAST_P = 0.001
_RAREST, _COMMON = 10_000, 0.3  # of what is counted as one in so many


def figure(value: float, digits: int = 3) -> str:
    """Return a figure such as an AUC: 0.732."""
    if not math.isfinite(value):
        return NOT_DEFINED if math.isnan(value) else f"{'-' * (value < 0)}unbounded"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def probability(value: float, digits: int = 4) -> str:
    """Return a probability: 0.7321, and < 0.0001 or > 0.9999 where it only rounds to 0 or 1."""
    text = f"{value:.{digits}f}"
    if float(text) in (0, 1) and float(text) != value:
        least = 10**-digits
        return f"< {least:.{digits}f}" if value < least else f"> {1 - least:.{digits}f}"
    return text


def percent(share: float, unit: str = " %") -> str:
    """Return a share in percent: 73.2 %, and 99.97 % or 0.03 % as near 0 and 1 as it takes.

    Args:
        share: in [0, 1].
        unit: what stands behind the number.
    """
    if math.isnan(share):
        return NOT_DEFINED
    distance = 100 * min(share, 1 - share)
    if not 0 < distance < 1:
        return f"{100 * share:.1f}{unit}"
    least = 10.0**-_MOST
    if distance < least:
        edge = f"< {least:.{_MOST}f}" if share < least else f"> {100 - least:.{_MOST}f}"
        return f"{edge}{unit}"
    return f"{100 * share:.{min(_MOST, -math.floor(math.log10(distance)))}f}{unit}"


def whole_percent(share: float) -> str:
    """Return a share as it is read: 54 %, and < 1 % or > 99 % where it only rounds to 0 or 100.

    Args:
        share: in [0, 1].
    """
    rounded = round(100 * share)
    if rounded in (0, 100) and 0 < share < 1:
        return "< 1 %" if rounded == 0 else "> 99 %"
    return f"{rounded} %"


def one_in(share: float) -> str:
    """Return a share as people count: 1 in 90, 3 in 10; two digits at most, the second of large counts 0 or 5.

    Args:
        share: in [0, 1].
    """
    if share < 1 / _RAREST:
        return f"less than 1 in {_RAREST:,}"
    if share >= _COMMON:
        tenths = round(10 * share)
        return f"{tenths} in 10" if tenths < 10 else "more than 9 in 10"  # noqa: PLR2004
    count = 1 / share
    unit = 10.0 ** (math.floor(math.log10(count)) - 1)
    step = max(1.0, unit if count < 30 * unit else 5 * unit)
    return f"1 in {round(count / step) * step:,.0f}"


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign: +33, −4, 0."""
    rounded = round(100 * difference)
    return f"{'+' * (rounded > 0)}{rounded}".replace("-", MINUS)


def p_value(value: float) -> str:
    """Return a p-value: 0.021, or < 0.001."""
    return "< 0.001" if value < _LEAST_P else figure(value)


def interval(low: str, high: str) -> str:
    """Return an interval behind its figure: (0.701 to 0.760), or that there is none."""
    return f"({NO_INTERVAL})" if NOT_DEFINED in (low, high) else f"({low} to {high})"
