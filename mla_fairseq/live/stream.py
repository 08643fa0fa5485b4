"""The connection of one client, a WebSocket.

Audio is translated in slices for which all clients take turns. Little is read from the socket before its turn comes. So
a client that sends faster than its share allows waits, with its audio in the buffers of its own connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import numpy as np
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from mla_fairseq.live.messages import (
    DONE,
    FAILED,
    Refusal,
    check_size,
    is_end,
    parse_audio,
    parse_sample_rate,
    parse_text,
)
from mla_fairseq.live.place import Place
from mla_fairseq.live.service import Service

log = logging.getLogger(__name__)

SLICE = 0.1  # seconds of audio in one turn of a client
AHEAD = 0.5  # seconds of audio that are read before their turn: who is late catches up with slices, not with messages
HEADERS = {
    # the icon is in the page itself: without one, browsers ask for another file
    "Content-Security-Policy": "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Guarded(RequestHandler):
    """A handler that answers pages of this server, and programs, but no other pages."""

    @property
    def service(self) -> Service:
        """Return what all connections share."""
        return self.settings["service"]

    def set_default_headers(self) -> None:
        """Let the page load nothing from elsewhere, and let no other page show it."""
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse requests of other pages."""
        if self.service.forbids(self.request.host, self.request.headers.get("Origin")):
            self.set_status(403)
            self.finish("this request comes from another page: open the address that mla-live printed\n")

    def log_exception(self, kind: Any, value: BaseException | None, trace: Any) -> None:
        """Log faults of the server, but no mistakes of clients: anybody could fill the log."""
        if not isinstance(value, HTTPError):
            super().log_exception(kind, value, trace)


class Stream(Guarded, WebSocketHandler):
    """The connection of one client."""

    place: Place | None = None
    timer: asyncio.TimerHandle | None = None
    pending = np.zeros(0, np.int16)  # samples that wait for their turn
    translation: asyncio.Task[None] | None = None  # of these samples
    ended = False

    def check_origin(self, origin: str) -> bool:
        """Allow what ``prepare`` has allowed."""
        return True

    def open(self) -> None:
        """Wait for the first message."""
        self.service.connections.add(self)
        self.set_nodelay(True)
        self._wait()

    async def on_message(self, message: str | bytes) -> None:
        """Handle a message; the next one is read afterwards."""
        if not self.ended:
            await self._guard(self._receive(message))

    async def _guard(self, work: Awaitable[None]) -> None:
        """Do some work for the client; if it fails, the connection ends."""
        try:
            await work
        except Refusal as refusal:
            self.end(str(refusal), refusal.code)
        except (WebSocketClosedError, asyncio.CancelledError):  # the client has gone, or the server stops
            self._leave()
        except Exception:
            if self.ended:  # nobody waits for it, or the workers have ended too
                return
            log.exception("a stream could not be translated")
            self.end("the server failed: try again, or look at its log", FAILED)

    def on_close(self) -> None:
        """Free what the client held."""
        self.ended = True
        self._leave()
        self.service.connections.discard(self)

    def end(self, error: str, code: int) -> None:
        """Send an error and close the connection."""
        self._finish({"error": error}, code)

    async def _receive(self, message: str | bytes) -> None:
        check_size(message)
        await (self._receive_audio(message) if isinstance(message, bytes) else self._receive_text(message))

    async def _receive_audio(self, message: bytes) -> None:
        """Let audio be translated; wait if there is much."""
        if self.place is None:
            raise Refusal('audio came before the first message: send {"sample_rate": 48000}, or another rate')
        self.pending = np.concatenate([self.pending, parse_audio(message)])
        if self.translation is None or self.translation.done():
            self.translation = asyncio.create_task(self._guard(self._translate()))
        if len(self.pending) > AHEAD * self.place.rate:
            await self.translation

    async def _translate(self) -> None:
        """Translate the samples that wait, in slices."""
        while self.place and len(self.pending):
            size = round(SLICE * self.place.rate)
            samples, self.pending = self.pending[:size], self.pending[size:]
            await self._push(samples)

    async def _receive_text(self, message: str) -> None:
        """Handle what is not audio: start the stream, end it, or change what comes next."""
        if self.translation:
            await self.translation
            if self.place is None:  # it failed
                return
        place = self.place
        values = parse_text(message, first=place is None)
        if place is None:
            await self._begin(values)
        elif is_end(values):
            await self._push(np.zeros(0, np.int16), final=True)
            self._finish({"end": True, "heard": place.milliseconds}, DONE)
        else:
            await place.change(self.service.model.choose(values, place.setting))

    async def _begin(self, values: dict[str, Any]) -> None:
        """Give the client a place and a session."""
        model, rate = self.service.model, parse_sample_rate(values)
        self.place = self.service.enter(self, rate, model.choose(values, model.default))
        await self.place.begin()
        await self.write_message({"ready": True})

    async def _push(self, samples: np.ndarray, final: bool = False) -> None:
        """Translate samples and send what comes, unless the client has gone meanwhile."""
        if place := self.place:
            self._wait()
            for message in await place.push(samples, final):
                await self.write_message(message)  # waits for a client that reads slowly

    def _wait(self) -> None:
        """Count the seconds without audio from now on."""
        if self.timer:
            self.timer.cancel()
        seconds = self.service.idle
        error = f"no audio for {seconds:g} s, so your place is free for others: start again"
        self.timer = asyncio.get_running_loop().call_later(seconds, self.end, error, DONE)

    def _finish(self, message: dict[str, Any], code: int) -> None:
        """Send the last message and close the connection."""
        if self.ended:
            return
        self.ended = True
        self._leave()
        try:
            self.write_message(message).add_done_callback(_forget)
            self.close(code)
        except WebSocketClosedError:
            pass

    def _leave(self) -> None:
        """Free the place."""
        if self.timer:
            self.timer.cancel()
        if self.place:
            self.place.leave()
        self.place = None
        self.service.clients.discard(self)


def _forget(sent: asyncio.Future[None]) -> None:
    """Take the error of a message to a client that may have gone, so that nobody logs it."""
    if not sent.cancelled():
        sent.exception()
