import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest

from mammolens import parallel
from mammolens.errors import BundleError
from mammolens.parallel import Turns, map_in_order, tracked


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


@pytest.mark.parametrize(
    ("seconds", "here"),
    [([0.0, 0.0, *[1.0] * 10], 3), ([60.0, *[0.01] * 20], 21)],
    ids=["one that failed at once before ones that take long", "one that waited for what was starting"],
)
def test_whether_to_spread_the_rest_is_told_by_what_was_done_on_the_whole(
    seconds: list[float], here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(parallel, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def work(took: float) -> int:
        now[0] += took
        return threading.get_ident()

    threads = list(map_in_order(work, seconds))
    assert [one == threading.get_ident() for one in threads] == [True] * here + [False] * (len(seconds) - here)


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


def test_what_fails_beside_others_is_done_again_alone_and_so_is_what_follows() -> None:
    turns, together, within, begun = Turns(3), threading.Barrier(3), set(), []

    def work(number: int) -> int:
        begun.append(number)
        if begun.count(number) == 1 and number < 3:
            together.wait(10)
            raise BundleError("too little memory for three")
        within.add(number)
        alone = len(within) == 1
        within.remove(number)
        assert alone
        return number

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda number: turns(partial(work, number)), range(30))) == list(range(30))
    assert sorted(begun) == sorted([0, 1, 2, *range(30)])


@pytest.mark.parametrize(("count", "often"), [(1, 1), (3, 4)])  # three side by side, and one of them alone
def test_what_fails_alone_is_not_tried_again(count: int, often: int) -> None:
    turns, together, asked = Turns(3), threading.Barrier(count), []

    def fail(number: int) -> None:
        asked.append(number)
        if len(asked) <= count:
            together.wait(10)
        raise BundleError(f"broken {number}")

    with ThreadPoolExecutor(count) as threads:
        waiting = [threads.submit(turns, partial(fail, number)) for number in range(count)]
        assert [str(each.exception()) for each in waiting] == [f"broken {number}" for number in range(count)]
    assert len(asked) == often
