"""The place of a client: its stream in a worker, with others that take turns."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import Any

import numpy as np

from mla_fairseq.live.model import Setting
from mla_fairseq.live.turns import NEW, Answer
from mla_fairseq.live.worker import Failure, Worker

NUMBERS = itertools.count()


class Place:
    """The stream of a client, whose calls take turns with those of other clients.

    Args:
        worker: keeps the stream.
        rate: sample rate in Hz.
        setting: what the client has chosen.

    Attributes:
        clock: time up to which the client has used its share.
        heard: samples that were translated.
    """

    def __init__(self, worker: Worker, rate: int, setting: Setting) -> None:
        self.worker, self.rate, self.setting = worker, rate, setting
        self.number = next(NUMBERS)
        self.clock, self.heard = time.monotonic() + NEW, 0
        self.begun = self.left = False
        worker.turns.clients.add(self)

    @property
    def milliseconds(self) -> int:
        """Return the length of the stream so far."""
        return round(self.heard * 1000 / self.rate)

    async def begin(self) -> None:
        """Begin the stream."""
        await self._call(0, "begin", self.rate, self.setting)

    async def push(self, samples: np.ndarray, final: bool = False) -> list[dict[str, Any]]:
        """Translate samples (N,) int16, and return the messages to the client."""
        messages = await self._call(len(samples) / self.rate, "push", samples, final)
        self.heard += len(samples)
        return messages

    async def change(self, setting: Setting) -> None:
        """Change the setting from the next stretch of speech on."""
        await self._call(0, "change", setting)
        self.setting = setting

    def leave(self) -> None:
        """Free what the worker keeps. A call that waits for its turn fails."""
        self.left = True
        self.worker.turns.clients.discard(self)
        if self.begun:
            with contextlib.suppress(Failure):
                self.worker.call("end", self.number).cancel()  # it is done after the current call; nobody waits for it

    async def _call(self, seconds: float, name: str, *given: Any) -> Any:
        """Return what a method of the worker's ``Streams`` returns."""

        def call() -> Answer:
            if self.left:
                raise Failure("the client has left")
            self.begun = True
            return self.worker.call(name, self.number, *given)

        return await self.worker.turns.run(self, seconds, call)
