import math

import keras
import numpy as np
import pytest

from mammolens.learning.callbacks import MovingAverage, OneCycle, best_epoch, is_over, rate_falls
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


def test_one_cycle_rises_and_falls_to_nothing() -> None:
    cycle = OneCycle(0.1, 0.25, 100)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    cycle.set_model(model)
    rates = []
    for step in range(100):
        model.optimizer.iterations.assign(step)
        cycle.on_train_batch_begin(step)
        rates.append(float(model.optimizer.learning_rate))
    assert max(rates) == pytest.approx(0.1)
    assert int(np.argmax(rates)) == 24
    assert (np.diff(rates[:25]) > 0).all()
    assert (np.diff(rates[25:]) < 0).all()
    assert rates[-1] < 1e-3 * rates[24]


def test_the_average_goes_on_from_where_it_was() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])

    def follow(average: MovingAverage, *values: float) -> MovingAverage:
        average.set_model(model)
        for value in values:
            model.set_weights([np.full((1, 1), value)])
            average.on_train_batch_end(0)
        return average

    whole = follow(MovingAverage(0.5), 0.0, 1.0, 1.0, 1.0)
    assert 0.1 < float(whole.average[0][0, 0]) < 1.0
    first = follow(MovingAverage(0.5), 0.0, 1.0)
    second = follow(MovingAverage(0.5, first.average, 2), 1.0, 1.0)
    np.testing.assert_array_equal(second.average, whole.average)
