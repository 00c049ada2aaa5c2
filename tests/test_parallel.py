import threading
from collections.abc import Iterator

import pytest

from mammolens import parallel
from mammolens.parallel import map_in_order, tracked


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)


def square(number: int) -> int:
    return number * number


def thread(_: int) -> int:
    return threading.get_ident()


def refuse(number: int) -> int:
    if number == 60:
        raise ValueError("sixty")
    return number


@pytest.mark.parametrize("count", [0, 3, 200])
def test_results_come_in_order(count: int) -> None:
    assert list(map_in_order(square, range(count))) == [n * n for n in range(count)]


def test_many_items_are_spread_over_threads_and_few_are_not() -> None:
    assert threading.get_ident() not in set(map_in_order(thread, range(100)))
    assert set(map_in_order(thread, range(5))) == {threading.get_ident()}


def test_the_rest_of_a_few_is_spread_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_STARTING", 0)
    assert list(map_in_order(square, range(5))) == [0, 1, 4, 9, 16]
    here = [one == threading.get_ident() for one in map_in_order(thread, range(5))]
    assert here == [True, True, False, False, False]


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="sixty"):
        list(map_in_order(refuse, range(100)))


def test_only_a_few_items_are_ahead_of_what_was_taken() -> None:
    class Counted(list[int]):
        asked = 0

        def __iter__(self) -> Iterator[int]:
            for item in super().__iter__():
                self.asked += 1
                yield item

    items = Counted(range(1000))
    results = map_in_order(square, items)
    next(results)
    assert items.asked <= 20
    results.close()  # type: ignore[attr-defined]


def test_tracking_yields_what_it_is_given() -> None:
    assert list(tracked(iter("abc"), "Reading", 3, visible=False)) == ["a", "b", "c"]
