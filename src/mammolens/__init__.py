"""mammolens: detect breast tumors in mammograms, and say honestly how well. Research use only.

    import mammolens

    model = mammolens.load()
    for answer in model.predict("folder"):
        print(answer.path, answer.probability, answer.decision)

`docs/api.md` shows every name below, `docs/architecture.md` the rooms of the house. Importing the
package imports nothing heavy: each name is fetched when it is first used. It sets what other
libraries read from the environment when they are imported (`privacy`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mammolens.errors import MammolensError
from mammolens.privacy import tell_libraries

if TYPE_CHECKING:
    from mammolens.library import examine, judge, load, predict, train
    from mammolens.records import Prediction
    from mammolens.reports.answers import Predictions
    from mammolens.serving.predictor import Predictor

__version__ = "0.1.0"

__all__ = ["MammolensError", "Prediction", "Predictions", "Predictor", "examine", "judge", "load", "predict", "train"]

_HOMES = {
    "Prediction": "mammolens.records",
    "Predictions": "mammolens.reports.answers",
    "Predictor": "mammolens.serving.predictor",
}

tell_libraries()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "mammolens.library")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
