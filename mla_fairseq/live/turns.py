"""Threads that translate for many clients, those first that have used the least of their share."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Protocol


class Clock(Protocol):
    """A client, with the time up to which it has used its share, as ``time.monotonic``."""

    clock: float


class Turns:
    """Threads that take the calls of clients in turn.

    A client uses its share as time passes: as much audio as it can speak, and as much computing as there is for each
    client. Its clock shows how far it is. One that sends faster, or needs more, is ahead of the others, and they come
    before it. So whoever speaks at a microphone does not wait for files.

    Args:
        threads: number of threads.

    Attributes:
        free: threads that do nothing.
        waiting: clock, number and turn of each call that waits, a heap.
    """

    def __init__(self, threads: int) -> None:
        self.threads = self.free = threads
        self.pool = ThreadPoolExecutor(threads, "translate")
        self.waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self.numbers = count()

    async def run(self, client: Clock, clients: int, seconds: float, function: Callable[..., Any], *given: Any) -> Any:
        """Return what a function returns in a thread, once it is the turn of its client.

        Args:
            client: whose call it is; one at a time.
            clients: number of clients that share the threads.
            seconds: length of the audio that the call translates.
            function, given: the function and its arguments.
        """
        client.clock = max(client.clock, time.monotonic())  # nobody saves up a share
        await self._wait(client.clock)
        try:
            result, spent = await asyncio.get_running_loop().run_in_executor(self.pool, _timed, function, given)
        finally:
            self._pass_on()
        client.clock += max(seconds, spent * clients / self.threads)
        return result

    def stop(self) -> None:
        """Start no call any more."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def _wait(self, clock: float) -> None:
        """Wait for a free thread."""
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self.waiting, (clock, next(self.numbers), turn))
        await turn

    def _pass_on(self) -> None:
        """Give a thread to the next client."""
        while self.waiting:
            turn = heapq.heappop(self.waiting)[-1]
            if not turn.done():  # its client may have been cancelled
                turn.set_result(None)
                return
        self.free += 1


def _timed(function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[Any, float]:
    """Return what a function returns, and the CPU time of this thread that it took in seconds."""
    began = time.thread_time()
    return function(*given), time.thread_time() - began
