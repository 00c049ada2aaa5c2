"""The line of requests: so many at most, each for so long at most, their pictures in turn. Knows no HTTP."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from mammolens.workers.crew import Crew

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE = 30.0
"""Seconds that requests have left once the service is asked to end."""

_LONGEST = 600  # seconds that anybody is told to wait


class Refused(Exception):  # noqa: N818 - reads as what it says
    """A request is not answered: there are too many, it took too long, there is no room, or the service ends.

    Attributes:
        wait: seconds after which to try again.
    """

    def __init__(self, why: str, wait: int) -> None:
        super().__init__(why)
        self.wait = wait


class Full(Refused):
    """There are as many as may be."""


class Line:
    """Requests that are answered, or wait for it.

    Pictures are looked at by as many threads as `places`, each with a process that decodes. A request has no more than
    that many among those that are looked at or are next, so that one with many lets one with few pass.
    """

    def __init__(self, places: int, most: int, seconds: float) -> None:
        self.places, self.most, self.seconds = places, most, seconds
        self.under_way = 0
        self._pictures, self._took = 0, 0.5  # not looked at yet; seconds that one takes
        self._limits: set[asyncio.Timeout] = set()
        self._ending = False
        self._crew = Crew(places)
        self._threads = ThreadPoolExecutor(places, initializer=self._crew.work_for_this_thread)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Have a place in line while it lasts.

        Raises:
            Full: there are as many as may be.
            Refused: it takes too long, or the service ends.
        """
        if self._ending:
            raise Refused("the service is ending", 1)
        if self.under_way >= self.most:
            raise Full(f"{self.most} requests are being answered or wait", self._until_free())
        self.under_way += 1
        try:
            async with asyncio.timeout(self.seconds) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError as error:
            why = "the service is ending" if self._ending else f"not answered within {self.seconds:g} seconds"
            raise Refused(why, self._until_free()) from error
        finally:
            self.under_way -= 1

    async def one(self, function: Callable[[Item], Result], item: Item) -> Result:
        """Return ``function(item)``, worked out by a thread; what it raises is raised."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, item)

    async def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return ``function(item)`` of each, worked out by the threads; when it is cancelled, no more are begun."""
        mine = asyncio.Semaphore(self.places)

        def timed(item: Item) -> Result:
            began = time.monotonic()
            result = function(item)
            self._took += 0.1 * (time.monotonic() - began - self._took)
            return result

        async def in_turn(item: Item) -> Result:
            try:
                async with mine:
                    return await self.one(timed, item)
            finally:
                self._pictures -= 1

        self._pictures += len(items)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn(item)) for item in items]
        return [task.result() for task in tasks]

    def _until_free(self) -> int:
        return min(_LONGEST, math.ceil(self._pictures * self._took / self.places) or 1)

    def close(self) -> None:
        """Let nobody in any more, and give those who are in `GRACE` to be answered."""
        self._ending = True
        latest = asyncio.get_running_loop().time() + GRACE
        for limit in self._limits:
            limit.reschedule(min(limit.when() or latest, latest))

    def end(self) -> None:
        """End threads and processes, those at work, too."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._crew.end()
        self._threads.shutdown()
