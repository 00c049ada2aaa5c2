"""mammolens: detect breast tumors in mammograms, and say honestly how well. Research use only.

The rooms of the house are drawn in `docs/architecture.md`. Importing the package imports the
lightest of them alone, so that `mammolens --help` answers at once, and sets what other libraries
read from the environment when they are imported (`privacy`).
"""

from mammolens.privacy import tell_libraries

__version__ = "0.1.0"

tell_libraries()
