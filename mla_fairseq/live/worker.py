"""What translates: processes beside that of the connections, each with the streams of some clients.

Python runs one thread at a time, and small models are mostly Python: two threads that translate need more time than one
after the other. So each core has a process. It is forked after the model was loaded, whose memory all of them share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import threading
import time
import traceback
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

from mla_fairseq.live.client import Client
from mla_fairseq.live.model import Model
from mla_fairseq.live.turns import Answer, Turns

log = logging.getLogger(__name__)

LOST = "a process that translates has ended"


class Failure(Exception):
    """A call that failed in a worker, with its traceback, or a worker that has ended."""


class Worker:
    """A process that keeps the streams of some clients, and answers one call after another.

    The server has one thread, so that a process may be forked, and reads answers when they come.

    Args:
        model: the model.
        process: ``False``: a thread of this process, for models on devices that a forked process cannot use.

    Attributes:
        turns: order of the calls of its clients.
        answers: calls without an answer, in their order.
        ended: whether it has ended.
    """

    def __init__(self, model: Model, process: bool = True) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        given = (model, theirs, self.pipe if process else None)
        start: Any = multiprocessing.get_context("fork").Process if process else threading.Thread
        self.process = start(target=_work, args=given, daemon=True)
        self.process.start()
        if process:
            theirs.close()  # the process alone holds it, so its end is noticed here
        self.turns = Turns()
        self.answers: deque[Answer] = deque()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ended = False

    def call(self, name: str, *given: Any) -> Answer:
        """Call a method of the worker's ``Streams``.

        Raises:
            Failure: the worker has ended; of the answer: the call failed.
        """
        if not self.loop:
            self.loop = asyncio.get_running_loop()
            self.loop.add_reader(self.pipe.fileno(), self._receive)
        try:
            self.pipe.send((name, given))
        except OSError as error:
            raise Failure(LOST) from error
        self.answers.append(self.loop.create_future())
        return self.answers[-1]

    def stop(self) -> None:
        """End it, also within a call; nobody gets an answer any more."""
        if self.ended:
            return
        self.ended = True
        if self.loop and not self.loop.is_closed():
            self.loop.remove_reader(self.pipe.fileno())
        self.pipe.close()  # a thread ends after its call
        if isinstance(self.process, multiprocessing.process.BaseProcess):
            self.process.kill()

    def _receive(self) -> None:
        """Hand an answer to who waits for it."""
        try:
            failed, result, spent = self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            log.error("%s: its clients must start again", LOST)
            while self.answers:
                self._fail(LOST)
        else:
            if failed:
                self._fail(result)
            elif not (answer := self.answers.popleft()).done():  # who waited may have been cancelled
                answer.set_result((result, spent))

    def _fail(self, reason: str) -> None:
        if not (answer := self.answers.popleft()).done():
            answer.set_exception(Failure(reason))


class Streams:
    """The streams of a worker, by their numbers."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.clients: dict[int, Client] = {}

    def begin(self, number: int, *given: Any) -> None:
        """Begin a stream; ``given`` are arguments of a ``Client``."""
        self.clients[number] = Client(self.model, *given)

    def push(self, number: int, *given: Any) -> list[dict[str, Any]]:
        """Push samples, as a ``Client`` does."""
        return self.clients[number].push(*given)

    def change(self, number: int, *given: Any) -> None:
        """Change a setting, as a ``Client`` does."""
        self.clients[number].change(*given)

    def end(self, number: int) -> None:
        """Forget a stream; it may not exist, because it could not begin."""
        self.clients.pop(number, None)


def _work(model: Model, pipe: Connection, theirs: Connection | None) -> None:
    """Answer calls until the server ends; ``theirs`` is its end of the pipe, if this is another process."""
    if theirs:
        for number in (signal.SIGINT, signal.SIGTERM):  # both may be sent to all processes: the server ends them
            signal.signal(number, signal.SIG_IGN)
        theirs.close()
    streams = Streams(model)
    with contextlib.suppress(EOFError, OSError):
        while True:
            name, given = pipe.recv()
            pipe.send(_answer(streams, name, given))


def _answer(streams: Streams, name: str, given: tuple[Any, ...]) -> tuple[bool, Any, float]:
    """Return whether a call failed, its result or traceback, and the CPU seconds that it took."""
    began = time.thread_time()
    try:
        result, failed = getattr(streams, name)(*given), False
    except Exception:  # a fault ends one stream
        result, failed = traceback.format_exc(), True
    return failed, result, time.thread_time() - began
