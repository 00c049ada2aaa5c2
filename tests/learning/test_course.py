import math

import pytest

from mammolens.learning.course import best_epoch, is_over, rate_falls
from mammolens.model.recipe import Recipe

NAN = math.nan


def losses(*values: float) -> list[dict[str, float]]:
    return [{"val_loss": value, "val_auc": 1 - value} for value in values]


def recipe(**changes: object) -> Recipe:
    return Recipe().model_copy(update=changes)


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ((0.5,), 1),
        ((0.5, 0.4, 0.4, 0.6), 2),
        ((NAN, 0.9, 0.8, NAN), 3),
        ((NAN, NAN), 1),
        ((0.3, NAN, 0.2), 3),
    ],
)
def test_the_first_of_the_best_is_kept(values: tuple[float, ...], best: int) -> None:
    for monitor in ("loss", "auc"):
        assert best_epoch(losses(*values), recipe(monitor=monitor)) == best
    assert best_epoch(losses(*values), recipe(monitor="nothing")) == len(values)


@pytest.mark.parametrize(
    ("values", "patience", "over"),
    [
        ((), 3, False),
        ((0.5,), 0, False),
        ((0.5, 0.4), 0, False),
        ((0.5, 0.5), 0, True),
        ((0.5, 0.6), 1, True),
        ((0.5, 0.6), 2, False),
        ((0.5, 0.6, 0.7), 2, True),
        ((0.5, 0.6, 0.4), 2, False),
        ((0.5, 0.4, 0.3, 0.2, 0.1, 0.0), 1, True),
    ],
)
def test_it_stops_where_nothing_got_better_or_all_is_done(
    values: tuple[float, ...], patience: int, *, over: bool
) -> None:
    settings = recipe(epochs=6, early_stopping_patience=patience)
    assert is_over(losses(*values), settings) is over
    assert not is_over(losses(*values[:5]), settings.model_copy(update={"monitor": "nothing"}))


def test_the_rate_falls_as_with_keras() -> None:
    """Also where the gain is too small to count, and anew after each fall."""
    values = (0.5, 0.49995, 0.5, 0.6, 0.6, 0.3, 0.4, NAN, 0.4, 0.4)
    falls = [rate_falls(losses(*values[:count]), recipe(plateau_patience=2)) for count in range(1, len(values) + 1)]
    assert [index for index, fall in enumerate(falls) if fall] == [2, 4, 7, 9]
