"""The turns of clients at a worker: those first that have used the least of their share."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

SHARE = 0.25
"""Of a core: who needs more than that comes after the others."""

LEAST = 0.04
"""Seconds of its share that a call uses at least: one without audio costs something too."""

NEW = 1.0
"""Seconds by which a new client is ahead, so that who comes again and again does not delay the others."""

Answer = asyncio.Future[tuple[Any, float]]
"""The result of a call of a worker, and the CPU seconds that it took."""


class Clock(Protocol):
    """A client, with the time up to which it has used its share, as ``time.monotonic``."""

    clock: float


class Turns:
    """The order in which a worker takes the calls of its clients, one after another.

    A client uses its share as time passes: as much audio as it can speak, ``SHARE`` of a core, and a message each
    ``LEAST`` seconds. Its clock shows how far it is. One that sends faster, or needs more, is ahead of the others, and
    they come before it. So whoever speaks at a microphone does not wait for files.

    Attributes:
        clients: those of the worker.
        busy: whether it has a call.
        waiting: clock, number and turn of each call that waits, a heap.
    """

    def __init__(self) -> None:
        self.clients: set[Clock] = set()
        self.busy = False
        self.waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self.numbers = itertools.count()

    async def run(self, client: Clock, seconds: float, call: Callable[[], Answer]) -> Any:
        """Return what a call returns, once it is the turn of its client.

        Args:
            client: whose call it is; one at a time.
            seconds: length of the audio that the call translates.
            call: calls the worker; its answer is the result, and the CPU seconds that it took.
        """
        client.clock = max(client.clock, time.monotonic())  # nobody saves up a share
        await self._wait(client.clock)
        try:
            result, spent = await call()
        finally:
            self._pass_on()
        client.clock += max(seconds, spent / SHARE, LEAST)
        return result

    async def _wait(self, clock: float) -> None:
        """Wait until the worker has nothing to do."""
        if not self.busy:
            self.busy = True
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self.waiting, (clock, next(self.numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was this client's turn already
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Let the next client call."""
        while self.waiting:
            turn = heapq.heappop(self.waiting)[-1]
            if not turn.done():  # its client may have been cancelled
                turn.set_result(None)
                return
        self.busy = False
