"""Every error that a user can mend. Each names the file, what was wrong and what to do.

    MammolensError
    ├── ImageError      one file cannot be read as a mammogram
    ├── DataError       a data set or manifest is wrong as a whole
    ├── RecipeError     a recipe has an unknown key or an impossible value
    ├── RunError        a run folder is missing, incomplete or in the way
    ├── BundleError     a bundle is missing, damaged or of another version
    ├── ClusterError    no cluster answers, or it lost work for good
    └── MissingExtra    an optional dependency is not installed

Only the command line turns one of these into a single line and exit code 1.
"""

from importlib.util import find_spec

_STEERING = {
    code: repr(chr(code))[1:-1]
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Controls (C0 but for tabs and ends of lines, C1) and marks of direction."""


def visible(text: str) -> str:
    """Return text in which characters that steer a terminal or turn a line around are written as escapes.

    Names of files may hold them, and should not clear a screen or hide what stands beside them.
    """
    return text.translate(_STEERING)


def on_one_line(text: str) -> str:
    """Return text as errors tell it: also ends of lines are written as escapes."""
    return visible(text).replace("\n", "\\n")


class MammolensError(Exception):
    """Something went wrong that the message tells the user how to mend."""

    def __str__(self) -> str:
        """Return the message on one line, with what would steer a terminal written as escapes."""
        return on_one_line(super().__str__())


class ImageError(MammolensError):
    """A file cannot be read as a mammogram."""


class DataError(MammolensError):
    """A data set or manifest cannot be used as it is."""


class RecipeError(MammolensError):
    """A recipe has an unknown key or a value out of range."""


class RunError(MammolensError):
    """A run folder is missing, incomplete or in the way."""


class BundleError(MammolensError):
    """A bundle is missing, damaged or of another version."""


class ClusterError(MammolensError):
    """No cluster answers, it is not fit for this, or it lost work for good."""


class MissingExtra(MammolensError):  # noqa: N818 - reads as what it says
    """An optional dependency is needed for this step and is not installed."""


def reason(error: Exception) -> str:
    """Return what `error` says, on one line, or else what it is: for tables in which a failure is a row."""
    return " ".join(str(error).split()) or type(error).__name__


def require(*packages: str, extra: str) -> None:
    """Refuse where an optional dependency is missing.

    Raises:
        MissingExtra: one of `packages`, which `extra` brings, is not installed.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingExtra(f"{' and '.join(missing)} not installed. Install with: pip install 'mammolens[{extra}]'")
