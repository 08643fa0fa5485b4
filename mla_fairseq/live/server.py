"""The server: the page, what the model offers, and a WebSocket for each client.

The event loop reads and writes; a pool of threads translates. A message is translated in slices before the next one is
read from the socket, so a client that sends faster than its share allows waits, in the buffers of its own connection,
and all clients take turns.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from mla_fairseq.live.client import Client
from mla_fairseq.live.messages import LARGEST, Refusal, audio, check_size, is_end, parse, sample_rate
from mla_fairseq.live.model import Model

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
LOCAL = ("localhost", "127.0.0.1", "::1")
SLICE = 0.2  # seconds that a client's turn lasts at most
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
GONE, FULL, FAILED = 1001, 1013, 1011  # codes that close a socket


class Server:
    """A model, its clients, and the threads that translate.

    Args:
        model: what is offered.
        places: clients at once.
        idle: seconds without audio after which a client has to go.
        origins: addresses, such as ``https://example.org``, under which a reverse proxy shows the page.
        local: whether only this machine reaches the server; requests for other hosts are then refused.

    Attributes:
        sockets: all that are open.
        clients: those of them that have a place.
        pool: the threads.
    """

    def __init__(
        self, model: Model, places: int = 8, idle: float = 60.0, origins: tuple[str, ...] = (), local: bool = True
    ) -> None:
        self.model, self.places, self.idle, self.local = model, places, idle, local
        self.origins = {urlsplit(origin).netloc for origin in origins}
        self.sockets: set[Stream] = set()
        self.clients: set[Stream] = set()
        self.pool = ThreadPoolExecutor(os.cpu_count(), "translate")

    def listen(self, host: str, port: int) -> HTTPServer:
        """Listen on a port.

        Raises:
            OSError: the port or the host cannot be used.
        """
        return self.serve(bind_sockets(port, host))

    def serve(self, sockets: list[socket.socket]) -> HTTPServer:
        """Accept connections on sockets that listen already."""
        # connections without a complete request, or with a large one, cost little and end
        limits = {"max_header_size": LARGEST, "max_body_size": LARGEST, "max_buffer_size": 16 * LARGEST}
        server = HTTPServer(self._application(), idle_connection_timeout=self.idle, body_timeout=self.idle, **limits)
        server.add_sockets(sockets)
        return server

    def stop(self) -> None:
        """Tell all clients that the server ends, and close their sockets."""
        for stream in list(self.sockets):
            stream.end(GONE, "the server has stopped: start it again")
        self.pool.shutdown(wait=False, cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        """Return what a page shows."""
        places = {"places": self.places, "free": self.places - len(self.clients), "idle_seconds": self.idle}
        return self.model.describe() | places

    def forbids(self, host: str, origin: str | None) -> bool:
        """Return whether a request comes from another page than those of this server.

        Args:
            host: its header Host. That of a local server is checked, because the owner of any name can let it point
                to this machine, and its pages would then have the same origin as the server.
            origin: its header Origin; ``None``: it has none, so it does not come from a page.
        """
        pages = {host, *self.origins}
        strange = self.local and urlsplit(f"//{host}").hostname not in LOCAL and host not in self.origins
        return strange or (origin is not None and urlsplit(origin).netloc not in pages)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns in a thread of the pool; threads serve in the order of the calls."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def _application(self) -> Application:
        page = {"path": str(PAGE), "default_filename": "index.html"}
        handlers: list[Any] = [("/model", Description), ("/stream", Stream), ("/(.*)", Page, page)]
        largest = 8 * LARGEST  # larger ones are not even read; in between, the client gets a clear error
        return Application(handlers, server=self, log_function=_ignore, websocket_max_message_size=largest)


def _ignore(handler: RequestHandler) -> None:
    """Log no request."""


class Guarded(RequestHandler):
    """A handler that answers only pages of this server, and programs."""

    @property
    def server(self) -> Server:
        """Return the server."""
        return self.settings["server"]

    def set_default_headers(self) -> None:
        """Let the page load nothing from elsewhere, and no other page show it."""
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse requests of other pages."""
        if self.server.forbids(self.request.host, self.request.headers.get("Origin")):
            self.set_status(403)
            self.finish("this request comes from another page: open the address that mla-live printed\n")


class Page(Guarded, StaticFileHandler):
    """The files of the page."""


class Description(Guarded):
    """What the model offers, and how many places are free."""

    def get(self) -> None:
        """Write it as JSON."""
        self.write(self.server.describe())


class Stream(Guarded, WebSocketHandler):
    """The connection of one client."""

    client: Client | None = None
    timer: asyncio.TimerHandle | None = None
    ended = False

    def check_origin(self, origin: str) -> bool:
        """Allow what ``prepare`` has allowed."""
        return True

    def open(self) -> None:
        """Wait for the first message."""
        self.server.sockets.add(self)
        self.set_nodelay(True)
        self._wait()

    async def on_message(self, message: str | bytes) -> None:
        """Handle a message; the next one is read afterwards."""
        if self.ended:
            return
        try:
            check_size(message)
            await (self._hear(message) if isinstance(message, bytes) else self._obey(message))
        except Refusal as refusal:
            self.end(refusal.code, str(refusal))
        except WebSocketClosedError:
            self._leave()
        except Exception:
            log.exception("a client's audio could not be translated")
            self.end(FAILED, "the server failed: try again, or look at its log")

    def on_close(self) -> None:
        """Free what the client held."""
        self.ended = True
        self._leave()
        self.server.sockets.discard(self)

    def end(self, code: int, error: str) -> None:
        """Send an error and close the connection."""
        self._finish(code, {"error": error})

    async def _hear(self, message: bytes) -> None:
        if self.client is None:
            raise Refusal('audio came first: send {"sample_rate": 48000} before it')
        samples = audio(message)
        if len(samples):
            self._wait()
        size = round(SLICE * self.client.rate)
        for start in range(0, len(samples), size):
            await self._push(samples[start : start + size])

    async def _push(self, samples: np.ndarray, final: bool = False) -> None:
        """Translate samples, unless the client has gone, and send what comes."""
        if self.client:
            for message in await self.server.run(self.client.push, samples, final):
                await self.write_message(message)

    async def _obey(self, message: str) -> None:
        values = parse(message, first=self.client is None)
        if self.client is None:
            await self._begin(values)
        elif is_end(values):
            await self._push(np.zeros(0, np.int16), final=True)
            self._finish(1000)
        else:
            self.client.change(self.server.model.choose(values, self.client.setting))

    async def _begin(self, values: dict[str, Any]) -> None:
        """Give the client a place and a session."""
        model, rate = self.server.model, sample_rate(values)
        setting = model.choose(values, model.default)
        if len(self.server.clients) >= self.server.places:
            raise Refusal(f"all places are taken ({self.server.places}): try again later", FULL)
        self.server.clients.add(self)
        self.client = Client(model, rate, setting)
        await self.write_message({"ready": True})

    def _wait(self) -> None:
        """Start to count the time without audio again."""
        if self.timer:
            self.timer.cancel()
        seconds = self.server.idle
        error = f"no audio came for {seconds:g} s, so the place was given up: start again"
        self.timer = asyncio.get_running_loop().call_later(seconds, self.end, 1000, error)

    def _finish(self, code: int, message: dict[str, Any] | None = None) -> None:
        """Close the connection after a last message."""
        if self.ended:
            return
        self.ended = True
        self._leave()
        try:
            if message:
                # a client that has gone need not be reported
                self.write_message(message).add_done_callback(lambda sent: sent.exception())
        except WebSocketClosedError:
            return
        self.close(code)

    def _leave(self) -> None:
        """Free the place."""
        if self.timer:
            self.timer.cancel()
        self.client = None
        self.server.clients.discard(self)
