"""mammolens: detect breast tumors in mammograms, and say honestly how well. Research use only.

The rooms of the house are drawn in `docs/architecture.md`. Importing the package imports none
of them, so that `mammolens --help` answers at once.
"""

import os

__version__ = "0.1.0"

# Keras reads this when it is first imported. Who prefers another backend sets it in the shell.
os.environ.setdefault("KERAS_BACKEND", "torch")
