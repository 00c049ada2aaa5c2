"""Turns at the cores and memory for pictures, among all who use the page."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

pytest.importorskip("streamlit", reason="pip install 'mammolens[app]'")

from driving import MASS, NOTHING, answer, opened, settled, with_example
from streamlit.testing.v1 import AppTest

from mammolens.app import capacity
from mammolens.app.capacity import Memory, Turns


class Session(threading.Thread):
    """One who looks at some pictures, one after another, each for as long as it is told."""

    def __init__(self, turns: Turns, pictures: int, log: Callable[[str], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.turns, self.pictures, self.log = turns, pictures, log
        self.before: SimpleQueue[int] = SimpleQueue()
        self.looks: SimpleQueue[None] = SimpleQueue()
        self.go_on = threading.Semaphore(0)
        self.closed = False
        self.start()

    def run(self) -> None:
        for _ in range(self.pictures):
            try:
                with self.turns.turn(self.said):
                    self.log(self.name)
                    self.looks.put(None)
                    self.go_on.acquire()
            except ConnectionError:
                return

    def said(self, before: int) -> None:
        self.before.put(before)
        if self.closed:
            raise ConnectionError

    def until_before(self, count: int) -> None:
        while self.before.get(timeout=30) != count:
            pass


def test_so_many_look_at_a_time_and_the_others_are_told_how_many_are_before() -> None:
    turns, seen = Turns(2), list[str]()
    first, second = (Session(turns, 1, seen.append, name) for name in ("first", "second"))
    for one in (first, second):
        one.looks.get(timeout=30)
    third = Session(turns, 1, seen.append, "third")
    third.until_before(2)
    fourth = Session(turns, 1, seen.append, "fourth")
    fourth.until_before(3)
    assert third.looks.empty()
    second.go_on.release()
    third.looks.get(timeout=30)
    fourth.until_before(2)
    for one in (first, third, fourth):
        one.go_on.release()
        one.join(timeout=30)
    assert seen[2:] == ["third", "fourth"]


def test_who_has_many_pictures_lets_others_pass_between_them() -> None:
    turns, seen = Turns(1), list[str]()
    many = Session(turns, 300, seen.append, "many")
    many.looks.get(timeout=30)
    few = Session(turns, 1, seen.append, "few")
    few.until_before(1)
    many.go_on.release()
    few.looks.get(timeout=30)
    assert seen == ["many", "few"]


def test_who_leaves_while_waiting_is_waited_for_by_nobody() -> None:
    turns, seen = Turns(1), list[str]()
    first = Session(turns, 1, seen.append, "first")
    first.looks.get(timeout=30)
    leaves = Session(turns, 1, seen.append, "leaves")
    leaves.until_before(1)
    stays = Session(turns, 1, seen.append, "stays")
    stays.until_before(2)
    leaves.closed = True
    stays.until_before(1)
    first.go_on.release()
    stays.looks.get(timeout=30)
    assert seen == ["first", "stays"]


class Pixels:
    """What holds so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def let_go(self) -> None:
        self.size = 0


def test_who_asked_for_nothing_for_longest_lets_go_first() -> None:
    memory, held = Memory(100), [Pixels(40) for _ in range(3)]
    for one in (*held[:2], held[0], held[2]):
        with memory.used(one):
            pass
    assert [one.size for one in held] == [40, 0, 40]


def test_what_is_used_is_kept_however_much_it_is() -> None:
    memory, busy, large = Memory(100), Pixels(80), Pixels(500)
    with memory.used(busy), memory.used(large):
        with memory.used(large):
            pass
        assert (busy.size, large.size) == (80, 500)
    assert (busy.size, large.size) == (80, 0)


def test_pictures_that_were_let_go_are_looked_at_anew(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    said = answer(with_example(page, MASS))
    looked = page.session_state["looked at"]
    assert looked.size > 640 * 640 * 2
    monkeypatch.setattr(capacity.MEMORY, "_most", 0)
    other = with_example(opened(monkeypatch, "phantom"), NOTHING)
    assert (looked.size, looked.shown, looked.uploads) == (0, [], [])
    assert other.session_state["looked at"].shown, "of whom the page is used at the moment"
    assert answer(settled(page.run())) == said
